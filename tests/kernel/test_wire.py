"""The wire: what goes in comes out; whatever else comes in is refused by name, never raised."""

from __future__ import annotations

import math
from typing import Any

import msgpack
import numpy as np
import pytest
from examples import DIMS, example_of, same
from hypothesis import given, settings
from hypothesis import strategies as st

from safetypilot.nodes.kernel import messages
from safetypilot.nodes.kernel.wire import MAX_FRAME_BYTES, Codec, WireError, codecs


@pytest.mark.parametrize("message", messages.SCHEMAS, ids=lambda m: m.__name__)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_every_message_comes_back_as_it_went(message: type[Any], data: st.DataObject) -> None:
    codec = Codec(message, DIMS)
    sent = data.draw(example_of(message))
    assert same(sent, codec.decode(codec.encode(sent)))


@pytest.mark.parametrize("message", messages.SCHEMAS, ids=lambda m: m.__name__)
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_mutated_frame_decodes_to_a_checked_message_or_is_refused(
    message: type[Any], data: st.DataObject
) -> None:
    codec = Codec(message, DIMS)
    frame = bytearray(codec.encode(data.draw(example_of(message))))
    for _ in range(data.draw(st.integers(1, 4))):
        frame[data.draw(st.integers(0, len(frame) - 1))] = data.draw(st.integers(0, 255))
    frame = frame[: data.draw(st.integers(0, len(frame)))] if data.draw(st.booleans()) else frame
    try:
        decoded = codec.decode(bytes(frame))
    except WireError as error:
        assert error.cause
    else:
        assert same(decoded, codec.decode(codec.encode(decoded)))


@given(frame=st.binary(max_size=200))
def test_random_bytes_are_refused_by_every_codec(frame: bytes) -> None:
    for codec in codecs(DIMS).values():
        with pytest.raises(WireError):
            codec.decode(frame)


def _proposal(**changes: Any) -> list[Any]:
    fields = {
        "seq": 1, "stamp_ns": 2, "sent_ns": 3, "proposal_id": 4,
        "action": [[2], np.zeros(2, "<f4").tobytes()], "model": "m", "taken_ns": 5,
    } | changes  # fmt: skip
    return [*messages.SCHEMAS[messages.Proposal], *fields.values()]


@pytest.mark.parametrize(
    ("frame", "cause"),
    [
        (b"\xc1", "not msgpack"),
        (msgpack.packb({"a": 1}), "not a message"),
        (msgpack.packb([]), "not a message"),
        (msgpack.packb([messages.SCHEMAS[messages.Risk][0], *_proposal()[1:]]), "unknown schema"),
        (msgpack.packb([True, *_proposal()[1:]]), "unknown schema"),
        (msgpack.packb([2, 99, *_proposal()[2:]]), "wrong version"),
        (msgpack.packb(_proposal()[:-1]), "wrong length"),
        (msgpack.packb([*_proposal(), 0]), "wrong length"),
        (msgpack.packb(_proposal()) + b"\0", "not msgpack"),
        (msgpack.packb(_proposal(seq=1.5)), "wrong type"),
        (msgpack.packb(_proposal(seq=True)), "wrong type"),
        (msgpack.packb(_proposal(seq=-1)), "negative"),
        (msgpack.packb(_proposal(seq=2**64 - 1)), "wrong type"),
        (msgpack.packb(_proposal(model=7)), "wrong type"),
        (msgpack.packb(_proposal(model="x" * 5000)), "wrong type"),
        (msgpack.packb(_proposal(action=[1.0, 2.0])), "wrong shape"),
        (msgpack.packb(_proposal(action=[[3], bytes(12)])), "wrong shape"),
        (msgpack.packb(_proposal(action=[[2], bytes(12)])), "wrong shape"),
        (msgpack.packb(_proposal(action=[[2, 1], bytes(8)])), "wrong shape"),
        (msgpack.packb(_proposal(action="junk")), "wrong type"),
        (msgpack.packb(_proposal(action=[[2], np.array([1, np.nan], "<f4").tobytes()])),
         "not finite"),
        (msgpack.packb(_proposal(action=[[2], np.array([1, np.inf], "<f4").tobytes()])),
         "not finite"),
        (bytes(MAX_FRAME_BYTES + 1), "too large"),
    ],
)  # fmt: skip
def test_each_fault_has_its_name(frame: bytes, cause: str) -> None:
    with pytest.raises(WireError) as caught:
        Codec(messages.Proposal, DIMS).decode(frame)
    assert caught.value.cause == cause


@pytest.mark.parametrize("risk", [math.nan, math.inf])
def test_a_risk_that_is_no_number_does_not_enter(risk: float) -> None:
    codec = Codec(messages.Risk, DIMS)
    frame = codec.encode(messages.Risk(1, 2, 3, 4, risk, "m"))
    with pytest.raises(WireError, match="not finite"):
        codec.decode(frame)


def test_an_open_shape_still_has_to_fit_its_bytes() -> None:
    codec = Codec(messages.Recovery, DIMS)
    plan = [[-1, 2], bytes(8)]
    for shape in ([-1, 2], [3, 2], [1, 3], ["x", 2]):
        plan = [shape, bytes(8)]
        frame = msgpack.packb([4, 2, 1, 2, 3, plan, [[1], bytes(4)], 1, "m", 0])
        with pytest.raises(WireError, match="wrong shape"):
            codec.decode(frame)


def test_large_arrays_are_checked_for_finite_numbers_too() -> None:
    codec = Codec(messages.Recovery, DIMS)
    plan = np.zeros((40, 2), "<f4")
    plan[39, 1] = np.nan
    frame = codec.encode(messages.Recovery(1, 2, 3, plan, np.zeros(40, "<f4"), 1, "m"))
    with pytest.raises(WireError, match="not finite"):
        codec.decode(frame)


def test_arrays_of_another_dtype_are_converted_when_sent_and_read_only_when_received() -> None:
    codec = Codec(messages.Proposal, DIMS)
    received = codec.decode(codec.encode(messages.Proposal(1, 2, 3, 4, np.array([0.5, 1.0]), "m")))
    assert received.action.dtype == np.float32
    assert not received.action.flags.writeable


def test_schema_ids_are_unique() -> None:
    assert len({schema for schema, _ in messages.SCHEMAS.values()}) == len(messages.SCHEMAS)
