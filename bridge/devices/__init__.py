"""Simulated devices: processes of their own, as strict as the real ones."""
