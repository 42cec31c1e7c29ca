"""What every environment of ours does to an action before using it."""

import numpy as np
import numpy.typing as npt


def clipped(action: npt.ArrayLike, limit: float) -> npt.NDArray[np.float64]:
    """An action (2,) clipped to +-limit; refused if it is no pair of finite numbers.

    Refusing matters: a NaN would silently become part of the state, and of the data.
    """
    array = np.asarray(action, dtype=np.float64)
    if array.shape != (2,) or not np.isfinite(array).all():
        raise ValueError(f"the action is {action!r}; two finite numbers are needed")
    return np.clip(array, -limit, limit)
