"""One module per process: each translates messages for a policy, a model, an env or a driver."""
