"""`safetypilot bench`: the stack measured beside a bare ring and other middleware."""
