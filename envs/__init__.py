"""Simulated worlds: physics, reward and cost. No learning, no sockets."""
