"""What `safetypilot bridge new` writes: a driver that works, and the device it is tested with."""
