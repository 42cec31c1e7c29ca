"""The quick way through a codec gives what the careful way gives, for every frame there is."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np
import pytest
from examples import DIMS, example_of, same
from hypothesis import given, settings
from hypothesis import strategies as st

from safetypilot.nodes.kernel import messages
from safetypilot.nodes.kernel.wire import Codec, WireError

ODD = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.text(max_size=5),
    st.binary(max_size=16), st.lists(st.integers(0, 3), max_size=3),
    st.tuples(st.lists(st.sampled_from([1, 2, 2.0, True]), max_size=2), st.binary(max_size=16)),
    st.just([[2], np.array([np.nan, 1], "<f4").tobytes()]),
    st.just([[2], np.array([np.inf, -np.inf], "<f4").tobytes()]),
    st.just([[2], np.full(2, np.finfo("<f4").max).astype("<f4").tobytes()]),
)  # fmt: skip


def outcome(work: Any) -> Any:
    try:
        return work()
    except WireError as error:
        return error.cause


@pytest.mark.parametrize("message", messages.SCHEMAS, ids=lambda m: m.__name__)
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_it_takes_and_refuses_what_the_careful_way_does(
    message: type[Any], data: st.DataObject
) -> None:
    codec = Codec(message, DIMS)
    values = msgpack.unpackb(codec.encode(data.draw(example_of(message))))
    for _ in range(data.draw(st.integers(0, 2))):
        values[data.draw(st.integers(0, len(values) - 1))] = data.draw(ODD)
    if data.draw(st.booleans()):
        values = values[: data.draw(st.integers(0, len(values)))]
    frame = msgpack.packb(values)
    quick = outcome(lambda: codec.decode(frame))
    careful = outcome(lambda: codec._explain(msgpack.unpackb(frame, strict_map_key=False)))
    assert type(quick) is type(careful)
    assert quick == careful if isinstance(quick, str) else same(quick, careful)


@pytest.mark.parametrize("message", messages.SCHEMAS, ids=lambda m: m.__name__)
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_a_message_in_memory_is_what_its_frame_would_have_been(
    message: type[Any], data: st.DataObject
) -> None:
    codec = Codec(message, DIMS)
    sent = data.draw(example_of(message))
    admitted = codec.admit(sent)
    assert same(admitted, codec.decode(codec.encode(sent)))
    arrays = [field for field in admitted if isinstance(field, np.ndarray)]
    assert not any(array.flags.writeable for array in arrays)


def test_a_bad_array_is_refused_in_memory_too() -> None:
    codec = Codec(messages.Proposal, {"O": 2, "A": 2})
    for action, cause in (
        (np.array([0.0, np.nan], "<f4"), "not finite"),
        (np.zeros(3, "<f4"), "wrong shape"),
    ):
        with pytest.raises(WireError) as caught:
            codec.admit(messages.Proposal(1, 2, 3, 4, action, "m"))
        assert caught.value.cause == cause


def test_arrays_of_another_type_are_converted() -> None:
    codec = Codec(messages.Proposal, {"O": 2, "A": 2})
    sent = messages.Proposal(1, 2, 3, 4, np.array([1, 2], np.float64), "m")
    assert codec.decode(codec.encode(sent)).action.tolist() == [1.0, 2.0]
