"""The learning algorithms, one readable file each, over shared parts."""
