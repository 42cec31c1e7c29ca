"""The difference of two clocks is never further from the estimate than the bound says."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import example, given
from hypothesis import strategies as st

from safetypilot.nodes.kernel.link_clock import DRIFT, ClockEstimate

MS = 1_000_000
OFFSETS = st.integers(-(10**17), 10**17)  # ns; three years of uptime
DELAYS = st.integers(0, 60 * MS)


class Trip(NamedTuple):
    """A question: how long after the one before, ways there and back, and time to answer, in ns."""

    after: int
    there: int
    answer: int
    back: int


TRIPS = st.builds(Trip, st.integers(0, 10_000 * MS), DELAYS, st.integers(0, 5 * MS), DELAYS)


class World:
    """Two clocks that run `drift` apart; true time is ours."""

    def __init__(self, offset_ns: int, drift: float, start_ns: int = 10**15) -> None:
        self.offset_ns, self.drift, self.start_ns = offset_ns, drift, start_ns
        self.now_ns = start_ns
        self.estimate = ClockEstimate()

    def theirs(self, at_ns: int) -> int:
        """What the other clock shows."""
        return at_ns - self.offset_ns + round(self.drift * (at_ns - self.start_ns))

    def ask(self, trip: Trip) -> None:
        asked = self.now_ns + trip.after
        heard, answered = asked + trip.there, asked + trip.there + trip.answer
        self.now_ns = answered + trip.back
        self.estimate.add(asked, self.theirs(heard), self.theirs(answered), self.now_ns)

    def check(self, now_ns: int) -> None:
        true = now_ns - self.theirs(now_ns)
        assert abs(true - self.estimate.offset_ns) <= self.estimate.bound_ns(now_ns) + 2  # rounding


@given(
    OFFSETS, st.floats(-DRIFT * 0.99, DRIFT * 0.99), st.lists(TRIPS, min_size=1, max_size=40),
    st.integers(0, 3600_000 * MS),
)  # fmt: skip
def test_the_bound_holds_whatever_the_delays(
    offset_ns: int, drift: float, trips: list[Trip], wait_ns: int
) -> None:
    world = World(offset_ns, drift)
    for trip in trips:
        world.ask(trip)
        world.check(world.now_ns)
    world.check(world.now_ns + wait_ns)
    assert world.estimate.jumps == 0


@given(OFFSETS, st.floats(-DRIFT * 0.99, DRIFT * 0.99), st.lists(TRIPS, min_size=1, max_size=20))
@example(0, 0.000235, [Trip(0, 0, 2129, 0)])  # no way at all, and the quicker clock over there
def test_the_bound_is_no_wider_than_half_the_last_round_trip(
    offset_ns: int, drift: float, trips: list[Trip]
) -> None:
    world = World(offset_ns, drift)
    for trip in trips:
        world.ask(trip)
        whole = trip.there + trip.answer + trip.back
        half = (whole - trip.answer) / 2 + 2 * DRIFT * whole + 4
        assert world.estimate.bound_ns(world.now_ns) <= half


def test_one_quick_way_in_each_direction_is_enough_on_different_questions() -> None:
    world = World(-5_000_000_000, 0.0)
    world.ask(Trip(0, 100, 0, 40 * MS))
    world.ask(Trip(MS, 40 * MS, 0, 100))
    grown = DRIFT * 81 * MS
    assert world.estimate.bound_ns(world.now_ns) < 100 + grown + 10
    assert abs(world.estimate.offset_ns + 5_000_000_000) < 100 + grown + 10
    assert world.estimate.round_trip_ns > 40 * MS - 100  # the shortest of whole trips


def test_equal_ways_give_the_offset_itself_and_drift_is_followed() -> None:
    world = World(10**15, 100e-6)  # 100 us/s
    for _ in range(600):
        world.ask(Trip(100 * MS, 2 * MS, 10_000, 2 * MS))
    true = world.now_ns - world.theirs(world.now_ns)
    assert abs(true - 10**15) > 5 * MS, "the clocks have parted"
    assert abs(world.estimate.offset_ns - true) < MS // 10


def test_a_clock_that_was_set_is_noticed_and_believed_again() -> None:
    world = World(0, 0.0)
    for _ in range(5):
        world.ask(Trip(100 * MS, MS, 0, MS))
    world.offset_ns = 3_000 * MS
    for _ in range(3):
        world.ask(Trip(100 * MS, MS, 0, MS))
        world.check(world.now_ns)
    assert world.estimate.jumps == 1


def test_a_question_that_came_back_before_it_was_asked_tells_nothing() -> None:
    estimate = ClockEstimate()
    for trip in ((10, 5, 6, 9), (10, 6, 5, 12), (10, 0, 5, 12)):
        estimate.add(*trip)
    assert not estimate.known and estimate.jumps == 3
    assert estimate.summary(0)["offset_ms"] is None
