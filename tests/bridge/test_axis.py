"""One joint's limits at their edges, in binary fractions: what is equal there is exactly equal."""

from __future__ import annotations

from dataclasses import replace
from math import inf
from typing import Any

import pytest

from safetypilot.bridge.axis import (
    ACCELERATION,
    EFFORT,
    GAIN,
    JERK,
    LEAD,
    POSITION,
    VELOCITY,
    Axis,
    Cut,
)
from safetypilot.bridge.contract import Joint

DT = 0.25  # s; so a turn changes the velocity by 2, and with the jerk by 1
JOINT = Joint("knee", -8.0, 8.0, velocity=4.0, effort=8.0, acceleration=8.0, margin=1.0, kp=4, kd=2)
LOW, HIGH = -7.0, 7.0
JERK_16 = {"jerk": 16.0}


def make(velocity: float = 0.0, rising: float = 0.0, start: float = 0.0, **changes: Any) -> Axis:
    """One that is already on its way."""
    axis = Axis(replace(JOINT, **changes))
    axis.start(start)
    axis.velocity, axis.rising = velocity, rising
    return axis


def above(value: float) -> float:
    return value * (1 + 2**-40)


def test_it_begins_at_rest_and_uncut() -> None:
    axis = Axis(JOINT)
    assert (axis.position, axis.velocity, axis.rising, axis.cut) == (0.0, 0.0, 0.0, 0)


def test_the_numbers_of_the_causes_stay_since_recordings_hold_them() -> None:
    assert {cut.name: int(cut) for cut in Cut} == {
        "NOT_FINITE": 1, "WRONG_LENGTH": 2, "WRONG_MODE": 4, "NO_TIME": 8, "TIME_REVERSED": 16,
        "UNKNOWN_STATE": 32, "POSITION": 64, "VELOCITY": 128, "ACCELERATION": 256, "JERK": 512,
        "EFFORT": 1024, "GAIN": 2048, "LEAD": 4096, "OUTSIDE": 8192,
    }  # fmt: skip
    assert Cut.NONE == 0
    assert [cut.name for cut in Cut if cut.refused] == [cut.name for cut in list(Cut)[:6]]


# What may pass as it is: at the edge of each limit it may, one bit beyond it may not.


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(
    ("before", "rising", "edge", "position", "changes"),
    [
        pytest.param(3.0, 0.0, 4.0, 0.0, {}, id="velocity"),
        pytest.param(0.0, 0.0, 2.0, 0.0, {}, id="acceleration"),
        pytest.param(-1.0, 0.0, 1.0, 0.0, {}, id="acceleration, through zero"),
        pytest.param(0.0, 0.0, 1.0, 0.0, JERK_16, id="jerk"),
        pytest.param(1.0, 4.0, 3.0, 0.0, JERK_16, id="jerk, rising already"),
        pytest.param(1.0, -4.0, 1.0, 0.0, JERK_16, id="jerk, falling before"),
        pytest.param(2.0, 0.0, 2.0, 6.25, {}, id="room: 2 (1/4 + 2/16) = 3/4"),
        pytest.param(4.0, 0.0, 4.0, 5.0, {}, id="room: 4 (1/4 + 4/16) = 2"),
        pytest.param(1.0, 0.0, 1.0, 6.6875, {}, id="room: 1 (1/4 + 1/16) = 5/16"),
        pytest.param(0.5, 0.0, 0.5, 6.859375, {}, id="room: 1/2 (1/4 + 1/32) = 9/64"),
    ],
)
def test_up_to_a_limit_and_no_further(
    before: float, rising: float, edge: float, position: float, changes: Any, sign: float
) -> None:
    axis = make(before * sign, rising * sign, **changes)
    assert axis.allows(edge * sign, position * sign, DT)
    assert not axis.allows(above(edge) * sign, position * sign, DT)
    assert axis.turn(edge * sign, position * sign, DT) == edge * sign
    assert axis.cut == 0 and axis.rising == (edge - before) * sign / DT


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_also_slower_only_as_fast_as_it_may_change(sign: float) -> None:
    assert make(4.0 * sign).allows(2.0 * sign, 0.0, DT)
    assert not make(4.0 * sign).allows(1.75 * sign, 0.0, DT)
    assert make(1.0 * sign, 4.0 * sign, **JERK_16).allows(1.0 * sign, 0.0, DT)
    assert not make(1.0 * sign, 4.0 * sign, **JERK_16).allows(0.875 * sign, 0.0, DT)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_way_back_is_open_where_the_way_on_is_not(sign: float) -> None:
    for position in (7.0, 7.5, 9.0):
        assert make().allows(-2.0 * sign, position * sign, DT)
        assert not make().allows(0.001 * sign, position * sign, DT)
    assert make().allows(0.0, 7.5, DT)


# What is cut, and to what.


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(
    ("before", "rising", "wanted", "position", "changes", "sent", "cut"),
    [
        pytest.param(3.0, 0.0, 4.5, 0.0, {}, 4.0, VELOCITY, id="velocity"),
        pytest.param(0.0, 0.0, 2.5, 0.0, {}, 2.0, ACCELERATION, id="faster"),
        pytest.param(4.0, 0.0, 1.0, 0.0, {}, 2.0, ACCELERATION, id="slower"),
        pytest.param(0.0, 0.0, 9.0, 0.0, {}, 2.0, VELOCITY | ACCELERATION, id="both"),
        pytest.param(0.0, 0.0, 1.5, 0.0, JERK_16, 1.0, JERK, id="jerk"),
        pytest.param(1.0, 4.0, 0.5, 0.0, JERK_16, 1.0, JERK, id="jerk, rising already"),
        pytest.param(-1.0, -4.0, 0.5, 0.0, JERK_16, -1.0, JERK, id="jerk, falling before"),
        pytest.param(0.0, 4.0, 9.0, 0.0, {"jerk": 8.0}, 1.5, VELOCITY | ACCELERATION | JERK,
                     id="all three"),
        pytest.param(4.0, 0.0, 4.0, 6.25, {}, 2.0, VELOCITY, id="room for half"),
        pytest.param(4.0, 0.0, 4.0, 6.6875, {}, 1.0, VELOCITY,
                     id="room ranks before acceleration"),
        pytest.param(4.0, 0.0, 4.0, 7.0, {}, 0.0, VELOCITY, id="no room"),
        pytest.param(4.0, 0.0, 4.0, 7.5, {}, 0.0, VELOCITY, id="less than none"),
        pytest.param(4.0, 0.0, -4.0, 7.5, {}, 0.0, ACCELERATION, id="back, as fast as it may"),
        pytest.param(2.0, 0.0, 2.0, 6.25, {"jerk": 2.0}, 2.0, 0, id="nothing to cut"),
        pytest.param(2.0, 8.0, 0.0, 0.0, {"jerk": 8.0}, 3.5, JERK,
                     id="a jerk that goes on rising"),
        pytest.param(4.0, 8.0, 0.0, 0.0, {"jerk": 8.0}, 4.0, ACCELERATION | JERK,
                     id="velocity ranks before jerk"),
    ],
)  # fmt: skip
def test_what_is_cut_goes_to_the_nearest_that_may_be(
    before: float, rising: float, wanted: float, position: float, changes: Any, sent: float,
    cut: int, sign: float,
) -> None:  # fmt: skip
    axis = make(before * sign, rising * sign, **changes)
    axis.cut = LEAD  # of the turn before
    assert axis.turn(wanted * sign, position * sign, DT) == sent * sign
    assert axis.cut == cut
    assert (axis.velocity, axis.rising) == (sent * sign, (sent - before) * sign / DT)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_without_limits_there_is_still_a_largest_number(sign: float) -> None:
    axis = Axis(Joint("wheel"))
    axis.velocity = sign * 1e9
    assert axis.turn(sign * 1e9, 1e6, DT) == sign * 1e9 and axis.cut == 0
    assert axis.turn(sign * above(1e9), 0.0, DT) == sign * 1e9 and axis.cut == VELOCITY
    assert axis.push(sign * above(1e9), 0.0, 0.0) == sign * 1e9 and axis.cut == EFFORT


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_it_slows_down_to_rest_and_not_beyond(sign: float) -> None:
    axis = make(3.0 * sign, 5.0)
    assert [axis.slow_down(DT) for _ in range(3)] == [1.0 * sign, 0.0, 0.0]
    assert axis.velocity == 0.0 and axis.rising == 0.0


def test_it_begins_again_from_rest() -> None:
    axis = make(3.0, 5.0)
    axis.cut = JERK
    axis.start(1.0)
    assert (axis.position, axis.velocity, axis.rising, axis.cut) == (1.0, 0.0, 0.0, 0)


def test_outside_is_beyond_the_limit_not_beyond_the_margin() -> None:
    axis = make()
    assert not axis.is_outside(8.0) and not axis.is_outside(-8.0) and not axis.is_outside(7.5)
    assert axis.is_outside(above(8.0)) and axis.is_outside(-above(8.0))


# Positions.


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(
    ("start", "velocity", "wanted", "sent", "cut"),
    [
        pytest.param(6.0, 0.0, 7.0, 6.5, VELOCITY | ACCELERATION, id="to the margin"),
        pytest.param(6.0, 0.0, above(7.0), 6.5, POSITION | VELOCITY | ACCELERATION, id="past it"),
        pytest.param(0.0, 0.0, 0.5, 0.5, 0, id="as it is"),
        pytest.param(0.0, 0.0, 1.0, 0.5, ACCELERATION, id="2 faster, for 1/4 s"),
        pytest.param(6.25, 2.0, 7.5, 6.75, POSITION | VELOCITY, id="braked"),
        pytest.param(9.0, 0.0, 0.0, 8.5, VELOCITY | ACCELERATION, id="back step by step"),
        pytest.param(9.0, 0.0, 9.5, 8.5, POSITION | VELOCITY | ACCELERATION, id="never outwards"),
        pytest.param(9.0, 2.0, 8.5, 9.0, POSITION | VELOCITY | ACCELERATION, id="whatever it did"),
    ],
)
def test_a_position_on_its_way(
    start: float, velocity: float, wanted: float, sent: float, cut: int, sign: float
) -> None:
    axis = make(velocity * sign, start=start * sign)
    axis.cut = JERK
    assert axis.move(wanted * sign, start * sign, DT) == sent * sign == axis.position
    assert axis.cut == cut


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(
    ("lead", "measured", "sent", "cut"),
    [
        pytest.param(1.0, 0.0, 0.5, 0, id="not so far"),
        pytest.param(0.5, 0.0, 0.5, 0, id="just as far"),
        pytest.param(0.5, 1.0, 0.5, 0, id="or as far behind"),
        pytest.param(0.25, 0.0, 0.25, LEAD, id="cut to the lead"),
        pytest.param(0.25, 1.0, 0.5, LEAD, id="a robot ahead draws no faster than from rest"),
        pytest.param(0.25, -9.0, -0.5, LEAD, id="nor one that is behind"),
        pytest.param(inf, 9.0, 0.5, 0, id="no lead"),
        pytest.param(1e9, 3e9, 0.5, 0, id="so much is none"),
    ],
)
def test_a_position_stays_near_the_robot(
    lead: float, measured: float, sent: float, cut: int, sign: float
) -> None:
    axis = make(lead=lead)
    assert axis.move(0.5 * sign, measured * sign, DT) == sent * sign == axis.position
    assert axis.cut == cut


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(
    ("velocity", "measured", "sent"),
    [
        pytest.param(2.0, 0.125, 0.375, id="stopped on the way"),
        pytest.param(2.0, 0.0, 0.25, id="at once, whatever its speed"),
        pytest.param(2.0, -0.25, 0.0, id="to rest"),
        pytest.param(2.0, -9.0, 0.0, id="and not back in the same step"),
        pytest.param(-1.0, -9.0, -0.75, id="back 2 faster than it went"),
        pytest.param(-3.0, -9.0, -1.0, id="but no faster than 4"),
        pytest.param(3.0, 9.0, 1.0, id="nor on"),
        pytest.param(-3.0, 9.0, 0.0, id="and only to rest against its way"),
    ],
)
def test_a_robot_that_does_not_follow_stops_the_command(
    velocity: float, measured: float, sent: float, sign: float
) -> None:
    axis = make(velocity * sign, 3.0, lead=0.25)
    assert axis.move(velocity * DT * sign, measured * sign, DT) == sent * sign
    assert axis.cut == LEAD
    assert (axis.velocity, axis.rising) == (sent * sign / DT, 0.0)


def test_the_range_ranks_before_the_lead() -> None:
    axis = make(start=6.875, lead=0.25)
    assert axis.move(6.875, 9.0, DT) == HIGH


# Efforts.


@pytest.mark.parametrize("sign", [1.0, -1.0])
@pytest.mark.parametrize(
    ("wanted", "position", "speed", "sent"),
    [
        pytest.param(8.0, 0.0, 0.0, 8.0, id="up to the limit"),
        pytest.param(8.5, 0.0, 0.0, 8.0, id="no further"),
        pytest.param(8.0, 6.99, 3.99, 8.0, id="nearly at the end"),
        pytest.param(1.0, 7.0, 0.0, 0.0, id="none outwards at it"),
        pytest.param(1.0, 9.0, 0.0, 0.0, id="none beyond"),
        pytest.param(-8.0, 9.0, 0.0, -8.0, id="but back"),
        pytest.param(1.0, 0.0, 4.0, 0.0, id="none when it is as fast as it may"),
        pytest.param(1.0, 0.0, 5.0, 0.0, id="none above"),
        pytest.param(-8.0, 0.0, 5.0, -8.0, id="but to brake"),
        pytest.param(0.0, 9.0, 5.0, 0.0, id="nothing"),
    ],
)
def test_an_effort(wanted: float, position: float, speed: float, sent: float, sign: float) -> None:
    axis = make()
    axis.cut = JERK
    assert axis.push(wanted * sign, position * sign, speed * sign) == sent * sign
    assert axis.cut == (EFFORT if sent != wanted else 0)


@pytest.mark.parametrize(
    ("asked", "state", "sent", "cut"),
    [  # velocity, effort, kp, kd; position, speed
        # what it makes: effort + kp (1 - position) + kd (velocity - speed)
        ((4.0, 0.5, 4.0, 1.0), (0.0, 4.0), (4.0, 0.0, 0.0, 0.0), EFFORT),  # at full speed none
        ((3.0, 1.0, 4.0, 1.0), (0.0, 0.0), (3.0, 1.0, 4.0, 1.0), 0),  # 1 + 4 1 + 1 3 = 8
        ((3.0, 4.5, 4.0, 1.0), (0.0, 0.0), (3.0, 1.0, 4.0, 1.0), EFFORT),  # and not 11.5
        ((0.0, 4.5, 4.0, 0.0), (-3.0, 0.0), (0.0, 0.0, 2.0, 0.0), EFFORT),  # nor 20.5
        ((0.0, 0.0, 4.0, 0.0), (-7.0, 0.0), (0.0, 0.0, 1.0, 0.0), EFFORT),  # nor 32
        ((4.0, -8.0, 4.0, 2.0), (-3.5, -3.0), (4.0, -8.0, 2.0, 1.0), EFFORT),  # against 18 + 14
        ((0.0, 9.0, 4.0, 0.0), (3.0, 0.0), (0.0, 8.0, 4.0, 0.0), EFFORT),  # its own limit
        ((0.0, -9.0, 4.0, 0.0), (-1.0, 0.0), (0.0, -8.0, 4.0, 0.0), EFFORT),  # both ways
        ((-4.0, -4.0, 0.0, 1.0), (0.0, 0.0), (-4.0, -4.0, 0.0, 1.0), 0),  # -8
        ((-4.0, -6.0, 0.0, 1.0), (0.0, 0.0), (-4.0, -4.0, 0.0, 1.0), EFFORT),  # not -10
        ((4.0, 0.0, 0.0, 2.0), (0.0, 0.0), (4.0, 0.0, 0.0, 2.0), 0),  # most gain
        ((0.0, 0.0, 5.0, 3.0), (1.0, 0.0), (0.0, 0.0, 4.0, 2.0), GAIN),  # too much
        ((0.0, 0.0, 5.0, 2.0), (1.0, 0.0), (0.0, 0.0, 4.0, 2.0), GAIN),  # of one
        ((0.0, 0.0, 4.0, 2.5), (1.0, 0.0), (0.0, 0.0, 4.0, 2.0), GAIN),  # of the other
        ((0.0, 0.0, -0.5, 0.0), (0.0, 0.0), (0.0, 0.0, 0.0, 0.0), GAIN),  # below 0
        ((0.0, 0.0, 0.0, -0.5), (0.0, 0.0), (0.0, 0.0, 0.0, 0.0), GAIN),  # either
        ((4.5, 0.0, 0.0, 1.0), (0.0, 0.0), (4.0, 0.0, 0.0, 1.0), VELOCITY),  # fast
        ((-4.5, 0.0, 0.0, 1.0), (0.0, 0.0), (-4.0, 0.0, 0.0, 1.0), VELOCITY),  # back
        ((0.0, 2.0, 1.0, 0.0), (7.0, 0.0), (0.0, 2.0, 1.0, 0.0), 0),  # inwards
        ((0.0, 6.5, 1.0, 0.0), (7.0, 0.0), (0.0, 6.0, 1.0, 0.0), EFFORT),  # no more
        ((0.0, 0.0, 4.0, 0.0), (7.0, 0.0), (0.0, 0.0, 4.0 / 3.0, 0.0), EFFORT),  # at most 8
        ((1.0, 2.0, 0.0, 2.0), (7.0, 0.0), (1.0, 0.0, 0.0, 0.0), EFFORT),  # none outwards
        ((0.0, 2.0, 0.0, 2.0), (7.0, 0.0), (0.0, 0.0, 0.0, 2.0), EFFORT),  # gains that make none
        ((0.0, -2.0, 4.0, 0.0), (3.0, 0.0), (0.0, 0.0, 4.0, 0.0), EFFORT),  # nothing beside -8
        ((0.0, 8.0, 0.0, 0.0), (0.0, 0.0), (0.0, 8.0, 0.0, 0.0), 0),
    ],
)  # fmt: skip
def test_gains_and_targets_by_the_effort_that_they_make(
    asked: tuple[float, ...], state: tuple[float, float], sent: tuple[float, ...], cut: int
) -> None:
    axis = make(start=1.0)
    axis.cut = JERK  # of the position
    assert axis.drive(*asked, *state) == (1.0, *sent)
    assert axis.cut == cut | JERK
