"""What devices say on the wire: bytes in, bytes out, no transport."""
