"""What goes between the MuJoCo driver and its device, and what either takes of what comes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safetypilot.bridge.contract import Mode, Setpoint
from safetypilot.bridge.drivers.mujoco_link import Inlet
from safetypilot.bridge.protocols.mujoco import (
    CommandCodec,
    Head,
    Kind,
    Refused,
    State,
    StateCodec,
    body_of,
    message,
    read_head,
)

numbers = st.floats(-1e6, 1e6)
heads = st.builds(
    Head,
    st.integers(0, 255),
    st.integers(0, 3),
    st.integers(0, 3),
    st.integers(0, 2**64 - 1),
    st.integers(0, 2**64 - 1),
    st.integers(-(2**63), 2**63 - 1),
)


@settings(deadline=None)
@given(mode=st.sampled_from(list(Mode)), rows=st.lists(numbers, min_size=15, max_size=15))
def test_a_command_comes_out_as_it_went_in(mode: Mode, rows: list[float]) -> None:
    codec = CommandCodec(3)
    setpoint = Setpoint(mode, *(tuple(rows[at : at + 3]) for at in range(0, 15, 3)))
    frame = bytes(codec.pack(7, 8, 9, setpoint))
    assert len(frame) == codec.size
    head = read_head(frame)
    assert head == Head(Kind.COMMAND, list(Mode).index(mode), 0, 7, 8, 9)
    assert codec.unpack(head, frame) == setpoint


@settings(deadline=None)
@given(head=heads, rows=st.lists(numbers, min_size=8, max_size=8), tick=st.integers(0, 2**60))
def test_a_state_comes_out_as_it_went_in(head: Head, rows: list[float], tick: int) -> None:
    codec = StateCodec(2, 2)
    parts = (tuple(rows[0:2]), tuple(rows[2:4]), tuple(rows[4:6]), tuple(rows[6:8]))
    state = State(head, tick, 5, -6, *parts)
    frame = codec.pack(state)
    assert read_head(frame) == head
    assert codec.unpack(head, frame) == state


@settings(deadline=None)
@given(st.binary(max_size=300))
def test_noise_is_refused(noise: bytes) -> None:
    with pytest.raises(Refused):
        read_head(noise)


@settings(deadline=None)
@given(bit=st.integers(min_value=0), cut=st.integers(1, 40))
def test_a_frame_with_one_wrong_bit_or_without_its_end_is_refused(bit: int, cut: int) -> None:
    codec = CommandCodec(2)
    frame = bytearray(codec.pack(1, 2, 3, Setpoint(Mode.POSITION, (0.1, 0.2))))
    bit %= 8 * len(frame)
    with pytest.raises(Refused):
        read_head(bytes(frame[:-cut]))
    frame[bit // 8] ^= 1 << bit % 8
    with pytest.raises(Refused):
        read_head(bytes(frame))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1.7e308])
def test_numbers_that_are_not_finite_are_refused_at_both_ends(value: float) -> None:
    command = CommandCodec(2)
    frame = bytes(command.pack(1, 2, 3, Setpoint(Mode.EFFORT, effort=(value, value))))
    with pytest.raises(Refused, match="not finite"):
        command.unpack(read_head(frame), frame)
    codec = StateCodec(1, 0)
    state = codec.pack(
        State(Head(Kind.STATE, 0, 0, 1, 1, 1), 0, 0, 0, (value,), (value,), (0,), ())
    )
    with pytest.raises(Refused, match="not finite"):
        codec.unpack(read_head(state), state)


def test_a_frame_of_another_size_mode_or_status_is_refused() -> None:
    longer = bytes(CommandCodec(3).pack(1, 2, 3, Setpoint(Mode.POSITION)))
    with pytest.raises(Refused, match="length"):
        CommandCodec(2).unpack(read_head(longer), longer)
    with pytest.raises(Refused, match="mode"):
        CommandCodec(3).unpack(read_head(longer)._replace(code=4), longer)
    state = StateCodec(1, 0).pack(State(Head(2, 6, 0, 1, 1, 1), 0, 0, 0, (0,), (0,), (0,), ()))
    with pytest.raises(Refused, match="status"):
        StateCodec(1, 0).unpack(read_head(state), state)
    with pytest.raises(Refused, match="length"):
        StateCodec(2, 0).unpack(read_head(state), state)


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b"\xff", b"[" * 3000])
def test_a_request_that_is_no_object_is_refused(text: bytes) -> None:
    whole = message(Head(Kind.ARM, 0, 0, 1, 2, 3), {"mode": "pd"})
    assert body_of(whole) == {"mode": "pd"}
    with pytest.raises(Refused, match="body"):
        body_of(whole[:32] + text + whole[-4:])


# What the driver takes of what comes.

CODEC = StateCodec(1, 0)
MS = 1_000_000


def state_frame(seq: int, session: int = 9, stamp_ns: int = 0) -> memoryview:
    head = Head(Kind.STATE, 0, 0, session, seq, stamp_ns)
    return memoryview(CODEC.pack(State(head, seq, 0, 0, (float(seq),), (0.0,), (0.0,), ())))


def test_only_what_is_good_and_new_is_a_state() -> None:
    counters: dict[str, int] = {}
    inlet = Inlet(CODEC, 20 * MS, counters)
    hello = message(Head(Kind.ANSWER, Kind.HELLO, 0, 9, 1, 0), {"ok": True})
    inlet.take(memoryview(hello), 0)
    bad = bytearray(state_frame(2))
    bad[50] ^= 4
    strange = message(Head(Kind.ARM, 0, 0, 9, 1, 0), {})
    frames = [state_frame(1), state_frame(5), state_frame(5), state_frame(4), state_frame(6, 8)]
    for frame in (*frames, memoryview(bytes(bad)), memoryview(strange)):
        inlet.take(frame, MS)
        inlet.conclude()
    assert inlet.state is not None and inlet.state.position == (5.0,)
    assert counters == {
        "lost": 3, "duplicate": 1, "reordered": 1, "foreign": 1, "crc": 1, "kind": 1,
    }  # fmt: skip


def test_an_old_state_is_no_news_unless_a_newer_one_is_behind_it() -> None:
    counters: dict[str, int] = {}
    inlet = Inlet(CODEC, 20 * MS, counters)
    inlet.session = 9
    inlet.take(state_frame(1), 30 * MS)
    inlet.take(state_frame(2, stamp_ns=15 * MS), 30 * MS)
    inlet.conclude()
    assert inlet.state is not None and inlet.state.tick == 2 and not counters
    inlet.take(state_frame(3, stamp_ns=15 * MS), 40 * MS)
    inlet.conclude()
    assert inlet.state.tick == 2 and counters == {"late": 1}


@settings(deadline=None)
@given(st.lists(st.binary(max_size=200) | st.integers(0, 9).map(lambda n: bytes(state_frame(n)))))
def test_whatever_comes_the_driver_goes_on(frames: list[bytes]) -> None:
    counters: dict[str, int] = {}
    inlet = Inlet(CODEC, 20 * MS, counters)
    inlet.session = 9
    newest = 0
    for frame in frames:
        inlet.take(memoryview(frame), 0)
        inlet.conclude()
        tick = inlet.state.tick if inlet.state else 0
        assert tick >= newest
        newest = tick
