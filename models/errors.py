"""The one exception of this package; it says what came, what was wanted and what to do."""


class ModelError(ValueError):
    """A model file, or the contract it carries, cannot be used as asked."""
