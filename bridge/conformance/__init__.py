"""What every driver has to pass."""
