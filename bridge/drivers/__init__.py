"""Drivers: one file for each kind of robot."""
