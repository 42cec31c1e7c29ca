"""Which states count: by the robot's clock, by ours, by who sends them."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("cyclonedds")

from safetypilot.bridge.contract import DriverError
from safetypilot.bridge.protocols import unitree_link
from safetypilot.bridge.protocols.dds import Sample
from safetypilot.bridge.protocols.unitree import GO, State, States
from safetypilot.bridge.protocols.unitree_link import Link
from safetypilot.bridge.protocols.unitree_robots import GO2

MS = 1_000_000
ROBOT, STRANGER = 7, 8
ZEROS = (0.0,) * 12
CODEC = States(GO, 12)


def sample(tick_ms: int, sender: int = ROBOT) -> Sample:
    imu = ((1.0, 0.0, 0.0, 0.0), *((0.0,) * 3,) * 3)
    state = State(tick_ms, (1,) * 12, ZEROS, ZEROS, ZEROS, (), *imu, (0.0,) * 4, bytes(40), 0)
    return Sample(CODEC.pack(state), sender)


class Rig:
    """A link whose network and clock are lists and numbers."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, time_factor: float = 1.0) -> None:
        self.now_ms = 1000.0
        self.waiting: list[Sample] = []
        monkeypatch.setattr(unitree_link, "monotonic_ns", lambda: round(self.now_ms * MS))
        self.link = Link(GO2, rate_hz=500.0, time_factor=time_factor)
        self.link._bus = self  # type: ignore[assignment]
        self.link._reader = self  # type: ignore[assignment]

    def wait(self, deadline_ns: int) -> list[Sample]:
        taken, self.waiting = self.waiting, []
        return taken

    def gets(self, *samples: Sample, after_ms: float = 2.0) -> bool:
        self.now_ms += after_ms
        self.waiting = list(samples)
        return self.link.receive(0)

    @property
    def counts(self) -> dict[str, int]:
        return {kind: count for kind, count in self.link.counters.items() if count}


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(monkeypatch)


def test_states_that_come_in_order_are_new(rig: Rig) -> None:
    for step in range(5):
        assert rig.gets(sample(100 + 2 * step))
        assert (rig.link.seq, rig.link.device_ms) == (step + 1, 100 + 2 * step)
        assert rig.link.received_ns == round(rig.now_ms * MS)
    assert rig.counts == {}


def test_nothing_came(rig: Rig) -> None:
    assert not rig.gets()
    with pytest.raises(DriverError, match="has not sent a state"):
        _ = rig.link.newest


def test_the_same_state_twice_is_one(rig: Rig) -> None:
    assert rig.gets(sample(100))
    assert not rig.gets(sample(100))
    assert not rig.gets(sample(100), sample(100))
    assert rig.counts == {"duplicate": 2}
    assert rig.link.seq == 1


def test_of_several_the_newest_counts(rig: Rig) -> None:
    assert rig.gets(sample(100))
    assert rig.gets(sample(102), sample(104), sample(106), after_ms=6.0)
    assert rig.link.device_ms == 106
    assert rig.link.seq == 4
    assert rig.counts == {}


def test_an_older_state_is_none(rig: Rig) -> None:
    assert rig.gets(sample(100))
    assert rig.gets(sample(104), after_ms=4.0)
    assert not rig.gets(sample(102))
    assert rig.link.device_ms == 104
    assert rig.counts["late"] == 1


def test_states_that_never_came_are_counted(rig: Rig) -> None:
    assert rig.gets(sample(100))
    assert rig.gets(sample(108), after_ms=8.0)
    assert rig.counts == {"gaps": 1}
    assert rig.link.seq == 5
    assert rig.gets(sample(110))
    assert rig.link.seq == 6
    assert rig.counts == {"gaps": 1}


def test_in_slow_motion_states_come_more_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(monkeypatch, time_factor=0.2)
    for step in range(20):
        assert rig.gets(sample(100 + 2 * step), after_ms=10.0)
        assert rig.link.received_ns == round(rig.now_ms * MS)
    assert rig.counts == {}
    assert rig.gets(sample(144), after_ms=30.0)
    assert rig.counts == {"gaps": 1}


@given(gaps=st.lists(st.integers(1, 20), min_size=1, max_size=30))
@settings(deadline=None)
def test_gaps_of_any_kind(gaps: list[int]) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        rig = Rig(monkeypatch)
        rig.gets(sample(0))
        tick = 0
        for gap in gaps:
            tick += 2 * gap
            assert rig.gets(sample(tick), after_ms=2.0 * gap)
        assert rig.link.counters["gaps"] == sum(gap > 1 for gap in gaps)
        assert rig.link.seq == 1 + sum(gaps)


def test_somebody_else_s_states_are_none(rig: Rig) -> None:
    assert rig.gets(sample(100))
    assert not rig.gets(sample(102, STRANGER))
    assert rig.gets(sample(104), sample(1000, STRANGER), after_ms=4.0)
    assert rig.link.device_ms == 104
    assert rig.counts["foreign"] == 2


def test_broken_states_are_none(rig: Rig) -> None:
    assert rig.gets(sample(100))
    data = sample(102).data
    broken = bytearray(data)
    broken[100] ^= 1
    assert not rig.gets(Sample(bytes(broken), ROBOT))
    assert not rig.gets(Sample(data[:-4], ROBOT))
    assert not rig.gets(Sample(b"\0\7" + data[2:], ROBOT))
    assert rig.counts == {"crc": 1, "length": 1, "encoding": 1}
    assert rig.gets(sample(104), Sample(bytes(broken), ROBOT))  # what is whole counts


def test_the_robot_s_clock_wraps(rig: Rig) -> None:
    assert rig.gets(sample(2**32 - 2))
    assert rig.gets(sample(0))
    assert rig.gets(sample(2))
    assert rig.link.device_ms == 2**32 + 2
    assert rig.counts == {}


def test_a_robot_that_starts_anew(rig: Rig) -> None:
    assert rig.gets(sample(60_000))
    assert rig.gets(sample(10))
    assert rig.link.device_ms == 60_000  # ours never goes back
    assert rig.gets(sample(12))
    assert rig.link.device_ms == 60_002
    assert rig.link.seq == 3
    assert rig.counts == {"restarts": 1}


# How old a state is.


def test_what_waited_while_we_slept_is_not_new(rig: Rig) -> None:
    assert rig.gets(sample(100))
    assert rig.gets(sample(102))
    assert not rig.gets(sample(104), sample(106), after_ms=500.0)
    assert rig.counts["late"] == 1
    assert rig.gets(sample(604), after_ms=2.0)


def test_a_state_knows_how_long_it_waited(rig: Rig) -> None:
    assert rig.gets(sample(100))
    assert rig.gets(sample(102), after_ms=12.0)
    assert rig.link.received_ns == pytest.approx((rig.now_ms - 10.0) * MS, abs=0.1 * MS)


def test_a_slower_clock_is_not_held_against_the_robot(rig: Rig) -> None:
    tick = 0.0
    for _ in range(20_000):  # 40 s, 100 ppm slow
        tick += 2.0 * (1 - 100e-6)
        rig.gets(sample(int(tick)))
    assert "late" not in rig.counts


def test_a_clock_that_jumped_is_followed(rig: Rig) -> None:
    """As a simulator's does that stood still: every state is late then, and all are new."""
    assert rig.gets(sample(100))
    tick, first = 100, None
    rig.now_ms += 2000.0
    for step in range(300):
        tick += 2
        if rig.gets(sample(tick)) and first is None:
            first = step
    assert first is not None
    assert 140 < first < 160  # after 0.3 s
    assert rig.link.device_ms == tick


def test_configuring_counts_from_zero(rig: Rig) -> None:
    assert rig.gets(sample(100))
    assert rig.gets(sample(140), after_ms=40.0)
    assert rig.counts
    rig.link.begin()
    assert rig.counts == {}
    assert rig.gets(sample(142))
    assert rig.counts == {}


def test_who_was_restarted_is_known_again(rig: Rig) -> None:
    assert rig.gets(sample(100))
    assert not rig.gets(sample(2, STRANGER))
    rig.link.begin(anew=True)
    assert rig.gets(sample(4, STRANGER))
    assert not rig.gets(sample(104))
