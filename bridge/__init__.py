"""The boundary to a body: drivers, limits and simulated devices."""
