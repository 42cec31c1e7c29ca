"""What can be wrong with a data set; every message says where, what came and what to do."""


class DatasetError(ValueError):
    """A data set cannot be read, checked, collected or written."""


class NotADatasetError(DatasetError):
    """There is no data set at this path."""


class DatasetVersionError(DatasetError):
    """A data set in a format that this version does not read."""


class DamagedDatasetError(DatasetError):
    """The file is cut off, or its parts contradict one another."""


class EmptyDatasetError(DatasetError):
    """A data set without a row."""


class FieldError(DatasetError):
    """A field is missing, or nobody knows it."""


class ShapeError(DatasetError):
    """A field has another shape or number of rows than it should have."""


class BadValueError(DatasetError):
    """A value that is not finite, not a number, or not 0 or 1 where it has to be."""


class DatasetExistsError(DatasetError):
    """Something is there already that must not be overwritten."""


class DatasetWriteError(DatasetError):
    """The disk did not take the data; nothing was replaced."""


class MissingLibraryError(DatasetError):
    """A library that stores data sets is not installed."""
