"""The same four-hop graph on other middleware, a file for each; none is needed to run the stack."""
