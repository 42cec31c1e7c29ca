"""Decisions on arrays: act, score, plan, shield. No sockets, no messages."""
