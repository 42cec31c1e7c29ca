"""One short file per algorithm; `catalogue` knows them by name."""
