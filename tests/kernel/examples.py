"""Any message, for property tests; and when two are the same."""

from __future__ import annotations

import math
from typing import Any, get_type_hints

import numpy as np
from hypothesis import strategies as st

from safetypilot.nodes.kernel import messages

DIMS = {"O": 3, "A": 2}
SIZES = {**DIMS, "H": 4, "T": 5, "J": 3, "S": 6}
INTS = st.integers(-(2**62), 2**62)
FLOATS = st.floats(allow_nan=False, allow_infinity=False)


def _array(spec: messages.Spec) -> st.SearchStrategy[Any]:
    shape = tuple(size or 0 for size in spec.sizes(SIZES))
    count = math.prod(shape)
    numbers: st.SearchStrategy[Any] = st.integers(0, 255)
    if spec.dtype != "|u1":
        numbers = st.floats(width=32, allow_nan=not spec.finite, allow_infinity=False)
    return st.lists(numbers, min_size=count, max_size=count).map(
        lambda values: np.array(values, spec.dtype).reshape(shape)
    )


def _field(hint: Any) -> st.SearchStrategy[Any]:
    for item in getattr(hint, "__metadata__", ()):
        if isinstance(item, messages.Spec):
            return _array(item)
        if isinstance(item, messages.Stamps):
            return st.binary(min_size=8 * item.number, max_size=8 * item.number)
        return st.floats() if hint.__origin__ is float else st.integers(0, 2**62)
    return {int: INTS, float: FLOATS, str: st.text(max_size=20), bool: st.booleans()}[hint]


def example_of(message: type[Any]) -> st.SearchStrategy[Any]:
    """Any message of this type that may be sent."""
    hints = get_type_hints(message, include_extras=True)
    return st.tuples(*(_field(hints[name]) for name in message._fields)).map(message._make)


def same(one: Any, other: Any) -> bool:
    """Equal field by field, NaN equal to NaN."""

    def equal(a: Any, b: Any) -> bool:
        if isinstance(a, float) or (isinstance(a, np.ndarray) and a.dtype.kind == "f"):
            return np.array_equal(a, b, equal_nan=True)
        return np.array_equal(a, b) if isinstance(a, np.ndarray) else bool(a == b)

    return all(equal(a, b) for a, b in zip(one, other, strict=True))
