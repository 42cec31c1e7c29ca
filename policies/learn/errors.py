"""The exception of this package; it says what came, what was wanted and what to do."""


class LearnError(ValueError):
    """Training was asked for something it cannot do, or has gone wrong."""
