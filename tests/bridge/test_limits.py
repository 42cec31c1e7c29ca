"""The limiter: whatever is asked for, and whenever, the joints keep their limits."""

from __future__ import annotations

import itertools
import math
import sys
import threading
import tracemalloc
from dataclasses import replace
from decimal import Decimal
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetypilot.bridge.contract import Joint, Mode, Setpoint
from safetypilot.bridge.limits import Cut, Escalation, Limiter

PERIOD = 0.01
NS = 10_000_000
JOINT = Joint(
    "knee", -1.0, 2.0, velocity=2.0, effort=5.0, acceleration=20.0, margin=0.1, kp=50.0, kd=2.0
)
LOW, HIGH = -0.9, 1.9  # with the margin
NOTHING, ONE = (0.0,), (1.0,)
ODD = (math.nan, math.inf, -math.inf, 1e308, -1e308)

numbers = st.floats(-3, 3, allow_subnormal=False) | st.sampled_from(ODD)
gaps = st.integers(-2 * NS, 4 * NS) | st.sampled_from((0, 1, -1, 10**12))
inside = st.floats(LOW, HIGH)


def make(mode: Mode = Mode.POSITION, start: float = 0.0, **changes: Any) -> Limiter:
    limiter = Limiter([replace(JOINT, **changes)], mode, PERIOD, Escalation(10**6, 10**6))
    limiter.start((start,), 0)
    return limiter


def whole(mode: Mode, value: float, **named: float) -> Setpoint:
    """All numbers of one joint: the value where the mode looks, unless named."""
    fields = dict.fromkeys(("position", "velocity", "effort", "kp", "kd"), 0.0)
    fields |= {"position" if mode is Mode.PD else str(mode): value} | named
    return Setpoint(mode, *((number,) for number in fields.values()))


def position(value: Any) -> Setpoint:
    return Setpoint(Mode.POSITION, (value,))


@given(
    start=inside,
    asked=st.lists(st.tuples(numbers, numbers, gaps), max_size=40),
    lead=st.sampled_from((0.05, math.inf)),
)
def test_a_position_never_leaves_the_limits_and_never_moves_faster_than_the_clock(
    start: float, asked: list[tuple[float, float, int]], lead: float
) -> None:
    limiter, now, latest = make(start=start, lead=lead), 0, 0
    before, moved = start, 0.0
    for wanted, measured, gap in asked:
        now = max(0, now + gap)
        latest = max(latest, now)
        limiter.limit(position(wanted), (measured,), NOTHING, now)
        (sent,) = limiter.sent.position
        assert LOW <= sent <= HIGH
        moved, before = moved + abs(sent - before), sent
    assert moved <= 2.0 * latest / 1e9 * (1 + 1e-9) + 1e-12


@given(start=inside, asked=st.lists(st.tuples(numbers, st.integers(1, 2 * NS)), max_size=60))
def test_a_position_is_reached_and_left_within_the_acceleration_also_at_the_limits(
    start: float, asked: list[tuple[float, int]]
) -> None:
    limiter, now, speed = make(start=start), 0, 0.0
    for wanted, gap in asked:
        before = limiter.sent.position[0]
        now += gap
        if limiter.limit(position(wanted), NOTHING, NOTHING, now).refused:
            speed = 0.0  # it stands where it was
            continue
        velocity = (limiter.sent.position[0] - before) / (gap / 1e9)
        assert abs(velocity - speed) <= 20.0 * gap / 1e9 + 1e-5
        speed = velocity


@given(
    st.lists(st.tuples(st.floats(-3, 3), st.floats(-0.3, 0.3), st.integers(1, 2 * NS)), max_size=60)
)
def test_a_robot_that_goes_its_own_way_draws_the_command_no_faster(
    asked: list[tuple[float, float, int]],
) -> None:
    limiter, now, speed = make(lead=0.05), 0, 0.0
    for wanted, off, gap in asked:
        before = limiter.sent.position[0]
        now += gap
        limiter.limit(position(wanted), (before + off,), NOTHING, now)
        velocity, step = (limiter.sent.position[0] - before) / (gap / 1e9), 20.0 * gap / 1e9
        assert min(0.0, speed - step) - 1e-5 <= velocity <= max(0.0, speed + step) + 1e-5
        speed = velocity


@given(st.lists(st.floats(-0.5, 0.5), min_size=1, max_size=40))
def test_jerk_is_kept_far_from_the_limits(asked: list[float]) -> None:
    limiter = make(jerk=500.0, low=-1e3, high=1e3, velocity=50.0)
    speeds, accelerations = [0.0], [0.0]
    for number, wanted in enumerate(asked, 1):
        before = limiter.sent.position[0]
        limiter.limit(position(wanted), NOTHING, NOTHING, number * NS)
        speeds.append((limiter.sent.position[0] - before) / PERIOD)
        accelerations.append((speeds[-1] - speeds[-2]) / PERIOD)
    assert all(abs(b - a) <= 500.0 * PERIOD + 1e-6 for a, b in pairwise(accelerations))


@given(st.lists(st.tuples(numbers, st.floats(-1.5, 2.5), gaps), max_size=40))
def test_a_velocity_follows_its_limits_and_only_leads_back_inside(
    asked: list[tuple[float, float, int]],
) -> None:
    limiter, now, latest = make(Mode.VELOCITY), 0, 0
    for wanted, measured, gap in asked:
        now = max(0, now + gap)
        before = limiter.sent.velocity[0]
        cut = limiter.limit(whole(Mode.VELOCITY, wanted), (measured,), NOTHING, now)
        (sent,) = limiter.sent.velocity
        assert abs(sent) <= 2.0
        if cut.refused:
            assert abs(sent) <= abs(before) and sent * before >= 0
        else:
            assert sent >= 0 or measured > LOW
            assert sent <= 0 or measured < HIGH
        latest = max(latest, now)


@given(numbers, st.floats(-1.5, 2.5), st.floats(-3, 3))
def test_an_effort_is_within_its_limit_and_pushes_neither_outwards_nor_past_full_speed(
    wanted: float, measured: float, speed: float
) -> None:
    limiter = make(Mode.EFFORT)
    cut = limiter.limit(whole(Mode.EFFORT, wanted), (measured,), (speed,), NS)
    (sent,) = limiter.sent.effort
    assert abs(sent) <= 5.0
    assert sent <= 0 or (measured < HIGH and speed < 2.0)
    assert sent >= 0 or (measured > LOW and speed > -2.0)
    assert not cut.refused or sent == 0.0
    assert bool(cut & Cut.OUTSIDE) == (not cut.refused and not -1.0 <= measured <= 2.0)


@given(
    st.tuples(*[numbers] * 5),
    st.floats(-1.5, 2.5) | st.sampled_from(ODD),
    st.floats(-3, 3) | st.sampled_from(ODD),
)
def test_what_a_device_makes_of_gains_and_targets_is_within_the_effort(
    values: tuple[float, ...], measured: float, speed: float
) -> None:
    wanted, velocity, effort, kp, kd = values
    limiter = make(Mode.PD)
    setpoint = whole(Mode.PD, wanted, velocity=velocity, effort=effort, kp=kp * 30, kd=kd)
    limiter.limit(setpoint, (measured,), (speed,), NS)
    sent = Setpoint(Mode.PD, *(numbers[0] for numbers in limiter.sent[1:]))  # type: ignore[arg-type]
    assert 0.0 <= sent.kp <= 50.0 and 0.0 <= sent.kd <= 2.0 and abs(sent.velocity) <= 2.0  # type: ignore[operator, arg-type]
    assert abs(sent.effort) <= 5.0  # type: ignore[arg-type]
    if not abs(measured) < 1e9 or not abs(speed) < 1e9:
        assert limiter.cut & Cut.UNKNOWN_STATE
        return
    made = sent.effort + sent.kp * (sent.position - measured) + sent.kd * (sent.velocity - speed)  # type: ignore[operator]
    assert abs(made) <= 5.0 + 1e-9
    assert made <= 1e-9 or (measured < HIGH and speed < 2.0)
    assert made >= -1e-9 or (measured > LOW and speed > -2.0)


# The seven holes of ros2_control's limiter (specs/peers-and-bridge.md, 4.1), one by one.


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("mode", list(Mode))
def test_hole_1_what_is_not_finite_never_reaches_the_hardware(mode: Mode, odd: float) -> None:
    limiter = make(mode, start=0.5)
    limiter.limit(whole(mode, 0.5), (0.5,), NOTHING, NS)
    before = limiter.sent
    cut = limiter.limit(whole(mode, odd), (0.5,), NOTHING, 2 * NS)
    if abs(odd) < math.inf:  # a number, however large
        assert not cut.refused and cut
    else:
        assert cut == Cut.NOT_FINITE and limiter.joints == (int(Cut.NOT_FINITE),)
        assert limiter.sent.position == before.position
    assert all(math.isfinite(n) for numbers in limiter.sent[1:] for n in numbers)


@pytest.mark.parametrize(("now", "cause"), [(NS, Cut.NO_TIME), (NS - 1, Cut.TIME_REVERSED)])
@pytest.mark.parametrize("mode", list(Mode))
def test_hole_2_without_time_nothing_moves(mode: Mode, now: int, cause: Cut) -> None:
    limiter = make(mode)
    limiter.limit(whole(mode, 0.5), NOTHING, NOTHING, NS)
    before = limiter.sent
    again = int(str(now))  # the same number, but not the same object
    assert limiter.limit(whole(mode, 1.5), NOTHING, NOTHING, again) == cause
    assert limiter.sent.position == before.position and limiter.sent.effort == NOTHING
    slower = max(0.0, before.velocity[0] - 20.0 * PERIOD) if mode is Mode.VELOCITY else 0.0
    assert limiter.sent.velocity == (pytest.approx(slower),)


def test_holes_3_and_5_it_is_not_left_out_while_another_is_at_it() -> None:
    """There is no lock that could be missed: whoever calls, what is to be sent has been cut."""
    limiter, seen, now = make(), list[Setpoint](), itertools.count(NS, NS // 100)

    def fly() -> None:
        for _ in range(500):
            limiter.limit(position(9.0), NOTHING, NOTHING, next(now))
            seen.append(limiter.sent)

    threads = [threading.Thread(target=fly) for _ in range(4)]
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert len(seen) == 2000 and all(LOW <= sent.position[0] <= HIGH for sent in seen)
    assert all(sent.position != (9.0,) for sent in seen)


@pytest.mark.parametrize("measured", [-1.5, 2.5, -1e9])
@pytest.mark.parametrize("mode", list(Mode))
def test_hole_4_outside_the_limits_nothing_is_raised_and_only_the_way_back_is_open(
    mode: Mode, measured: float
) -> None:
    for wanted in (-3.0, 3.0):
        limiter = make(mode, start=measured)
        cut = limiter.limit(whole(mode, wanted, kp=1.0), (measured,), NOTHING, NS)
        assert cut & Cut.OUTSIDE and limiter.joints[0] & Cut.OUTSIDE
        inwards = 1.0 if measured < 0 else -1.0
        sent = limiter.sent
        assert (sent.position[0] - measured) * inwards >= 0
        assert sent.velocity[0] * inwards >= 0 or mode is Mode.PD
        assert sent.effort[0] * inwards >= 0


def test_hole_6_cuts_are_told_counted_and_escalated() -> None:
    limiter = Limiter([JOINT], Mode.POSITION, PERIOD, Escalation(most=3, window=10))
    limiter.start(NOTHING, 0)
    levels = []
    for number in range(1, 13):
        wanted = 9.0 if number % 4 == 1 or number > 8 else limiter.sent.position[0]
        limiter.limit(position(wanted), NOTHING, NOTHING, number * NS)
        levels.append(limiter.level)
    assert levels == [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 2]
    assert limiter.counts["position"] == 6 and limiter.counts["acceleration"] >= 6
    assert "not_finite" not in limiter.counts


@pytest.mark.parametrize(
    ("asked", "sent", "cut"),
    [  # numbers that are exact, from rest, 1/4 s later
        (Setpoint(Mode.POSITION, (0.25,)), {"position": 0.25}, Cut.NONE),
        (Setpoint(Mode.POSITION, (1.0,)), {"position": 0.5}, Cut.ACCELERATION),
        (Setpoint(Mode.VELOCITY, (), (1.0,)), {"velocity": 1.0}, Cut.NONE),
        (Setpoint(Mode.VELOCITY, (), (3.0,)), {"velocity": 2.0}, Cut.ACCELERATION),
        (Setpoint(Mode.EFFORT, (), (), (4.0,)), {"effort": 4.0}, Cut.NONE),
        (Setpoint(Mode.EFFORT, (), (), (9.0,)), {"effort": 8.0}, Cut.EFFORT),
        (whole(Mode.PD, 0.25, velocity=1.0, effort=1.0, kp=4.0, kd=2.0),
         {"position": 0.25, "velocity": 1.0, "effort": 1.0, "kp": 4.0, "kd": 2.0}, Cut.NONE),
        (whole(Mode.PD, 1.0, velocity=1.0, effort=9.0, kp=4.0, kd=2.0),
         {"position": 0.5, "velocity": 1.0, "effort": 4.0, "kp": 4.0, "kd": 2.0},
         Cut.ACCELERATION | Cut.EFFORT),
    ],
)  # fmt: skip
def test_each_mode_sends_what_it_names_and_rests_otherwise(
    asked: Setpoint, sent: dict[str, float], cut: Cut
) -> None:
    joint = Joint("knee", velocity=4.0, effort=8.0, acceleration=8.0, kp=4.0, kd=2.0)
    limiter = Limiter([joint], asked.mode, 0.25)
    limiter.start(NOTHING, 0)
    assert limiter.joints == (0,) and limiter.cut == Cut.NONE and limiter.level == 0
    assert limiter.limit(asked, NOTHING, NOTHING, 250_000_000) == cut == limiter.cut
    numbers = dict.fromkeys(("position", "velocity", "effort", "kp", "kd"), NOTHING)
    assert limiter.sent == Setpoint(asked.mode, **numbers | {k: (v,) for k, v in sent.items()})
    assert limiter.joints == (int(cut),)


def fly(limiter: Limiter, cuts: list[bool]) -> list[int]:
    """The level after each setpoint, each to be cut or not."""
    levels = []
    for number, cut in enumerate(cuts, 1):
        wanted = 9.0 if cut else limiter.sent.position[0]
        assert bool(limiter.limit(position(wanted), NOTHING, NOTHING, number * NS)) == cut
        levels.append(limiter.level)
    return levels


@pytest.mark.parametrize(
    ("most", "window", "cuts", "levels"),
    [
        pytest.param(1, 1, "x.x", "112", id="each"),
        pytest.param(2, 3, "x.x..", "00111", id="the first still counts"),
        pytest.param(2, 3, "x..x..x.", "00000000", id="or no longer"),
        pytest.param(2, 3, "x.....x...", "0000000000", id="long gone"),
        pytest.param(3, 4, "xx..xx..xx.x", "000000000001", id="the ring comes round"),
        pytest.param(2, 4, "xxxxx", "01122", id="from 0 again"),
        pytest.param(2, 2, ".xx.x.xx", "00111112", id="side by side"),
    ],
)
def test_a_level_more_for_so_many_within_so_many(
    most: int, window: int, cuts: str, levels: str
) -> None:
    limiter = Limiter([replace(JOINT, acceleration=math.inf)], Mode.POSITION, PERIOD,
                      Escalation(most, window))  # fmt: skip
    limiter.start(NOTHING, 0)
    assert fly(limiter, [cut == "x" for cut in cuts]) == [int(level) for level in levels]


def test_unless_told_half_of_a_hundred_are_too_many() -> None:
    assert Escalation() == Escalation(most=50, window=100)
    with pytest.raises(AttributeError):
        Escalation().most = 1  # type: ignore[misc]
    limiter = Limiter([replace(JOINT, acceleration=math.inf)], Mode.POSITION, PERIOD)
    limiter.start(NOTHING, 0)
    assert fly(limiter, [True] * 50) == [0] * 49 + [1]


def test_every_joint_is_told_of_its_own() -> None:
    joints = [JOINT, replace(JOINT, name="hip", low=-9.0), replace(JOINT, name="toe", velocity=0.1)]
    limiter = Limiter(joints, Mode.POSITION, PERIOD)
    limiter.start((0.0, 0.0, 0.0), 0)
    whole = Setpoint(Mode.POSITION, (0.001, -5.0, 0.01))
    cut = limiter.limit(whole, (0.0, 0.0, 2.5), (0.0,) * 3, NS)
    assert limiter.joints == (
        0, Cut.VELOCITY | Cut.ACCELERATION, Cut.VELOCITY | Cut.OUTSIDE
    )  # fmt: skip
    assert cut == limiter.cut == Cut.VELOCITY | Cut.ACCELERATION | Cut.OUTSIDE
    assert limiter.counts == {"velocity": 1, "acceleration": 1, "outside": 1}
    assert limiter.limit(whole, (0.0,) * 2, (0.0,) * 3, 2 * NS) == Cut.UNKNOWN_STATE
    assert limiter.joints == (int(Cut.UNKNOWN_STATE),) * 3


def test_hole_7_what_is_within_all_limits_goes_out_as_it_is() -> None:
    """Nobody should have a reason to switch it off."""
    limiter = make()
    for number in range(1, 500):
        wanted = 0.5 - 0.5 * math.cos(2 * math.pi * number / 200)  # at most 1.6 rad/s
        assert limiter.limit(position(wanted), (wanted,), NOTHING, number * NS) == Cut.NONE
        assert limiter.sent.position == (wanted,)
    assert not limiter.counts and limiter.level == 0


def test_a_flood_moves_no_faster_than_a_few() -> None:
    few, flood = make(), make()
    for number in range(1, 11):
        few.limit(position(1.9), NOTHING, NOTHING, number * NS)
    for number in range(1, 10_001):
        flood.limit(position(1.9), NOTHING, NOTHING, number * NS // 1000)
    assert flood.sent.position[0] <= few.sent.position[0] * 1.1
    limiter = make()
    for _ in range(1000):
        limiter.limit(position(1.9), NOTHING, NOTHING, NS)
    assert limiter.sent.position[0] <= 20.0 * PERIOD * PERIOD + 1e-12


def test_a_long_silence_is_not_made_up_for() -> None:
    limiter = make(acceleration=math.inf)
    limiter.limit(position(1.9), NOTHING, NOTHING, 10**12)
    assert limiter.sent.position[0] == pytest.approx(2.0 * 2 * PERIOD)


def test_a_velocity_that_nobody_gives_any_more_ends_within_the_acceleration() -> None:
    limiter = make(Mode.VELOCITY)
    for number in range(1, 6):
        limiter.limit(whole(Mode.VELOCITY, 1.0), NOTHING, NOTHING, number * NS)
    assert limiter.sent.velocity[0] == pytest.approx(1.0)
    seen = []
    for number in range(6, 13):
        limiter.limit(whole(Mode.VELOCITY, math.nan), NOTHING, NOTHING, number * NS)
        seen.append(limiter.sent.velocity[0])
    assert seen == pytest.approx([0.8, 0.6, 0.4, 0.2, 0.0, 0.0, 0.0])


def test_a_command_does_not_run_away_from_a_robot_that_does_not_follow() -> None:
    limiter = make(lead=0.05)
    for number in range(1, 100):
        cut = limiter.limit(position(1.5), (0.01,), NOTHING, number * NS)
        assert abs(limiter.sent.position[0] - 0.01) <= 0.05 + 1e-12
    assert cut & Cut.LEAD


@pytest.mark.parametrize(
    "state",
    [(math.nan,), (), (0.0, 0.0), [0.0], ("a",), None, (10**400,), (1e12,), (Decimal("sNaN"),)],
)
@pytest.mark.parametrize("mode", list(Mode))
def test_an_unknown_state_is_a_reason_to_stand(mode: Mode, state: Any) -> None:
    for measured in ((state, NOTHING), (NOTHING, state)):
        limiter = make(mode)
        assert limiter.limit(whole(mode, 0.1), *measured, NS) == Cut.UNKNOWN_STATE
        assert limiter.sent[1:4] == (NOTHING, NOTHING, NOTHING)


@pytest.mark.parametrize(
    ("setpoint", "cause"),
    [
        (Setpoint(Mode.VELOCITY, ONE, ONE), Cut.WRONG_MODE),
        ((Mode.POSITION, ONE), Cut.WRONG_MODE),
        (None, Cut.WRONG_MODE),
        (Setpoint(Mode.EFFORT, ONE, ONE, ONE), Cut.WRONG_MODE),
        (Setpoint(Mode.POSITION), Cut.WRONG_LENGTH),
        (Setpoint(Mode.POSITION, (1.0, 1.0)), Cut.WRONG_LENGTH),
        (Setpoint(Mode.POSITION, [1.0]), Cut.WRONG_LENGTH),  # type: ignore[arg-type]
        (Setpoint(Mode.POSITION, ("1",)), Cut.NOT_FINITE),  # type: ignore[arg-type]
    ],
)
def test_what_is_no_setpoint_of_this_activation_is_refused(setpoint: Any, cause: Cut) -> None:
    limiter = make()
    assert limiter.limit(setpoint, NOTHING, NOTHING, NS) == cause
    assert limiter.sent.position == NOTHING and cause.refused


ANY = (
    st.none() | st.booleans() | st.text(max_size=2) | st.floats() | st.decimals() | st.fractions()
    | st.complex_numbers() | st.sampled_from((10**400, -(10**400), 1e308, np.float32(0.1)))
)  # fmt: skip


@given(
    st.sampled_from(list(Mode)),
    st.lists(st.tuples(*[st.tuples(ANY, ANY)] * 5), max_size=3),
    st.tuples(ANY, ANY) | st.just((0.0, 0.0)),
)
def test_whatever_the_numbers_are_it_raises_nothing_and_sends_what_may_be(
    mode: Mode, asked: list[Any], measured: Any
) -> None:
    limiter = Limiter([JOINT, replace(JOINT, name="hip")], mode, PERIOD)
    limiter.start((0.0, 0.0), 0)
    for number, fields in enumerate(asked, 1):
        limiter.limit(Setpoint(mode, *fields), measured, (0.0, 0.0), number * NS)
        sent = limiter.sent
        ends = (LOW, HIGH), (-2.0, 2.0), (-5.0, 5.0), (0.0, 50.0), (0.0, 2.0)
        for numbers, (low, high) in zip(sent[1:], ends, strict=True):
            assert all(low <= each <= high for each in numbers)


def test_numbers_that_only_look_like_some_change_nothing() -> None:
    joints = [JOINT, replace(JOINT, name="hip")]
    limiter = Limiter(joints, Mode.POSITION, PERIOD)
    limiter.start((0.5, 0.5), 0)
    setpoint = Setpoint(Mode.POSITION, (0.501, Decimal("0.5")))  # type: ignore[arg-type]
    assert limiter.limit(setpoint, (0.5, 0.5), (0.0, 0.0), NS) == Cut.NOT_FINITE
    assert limiter.sent.position == (0.5, 0.5)
    still = Setpoint(Mode.POSITION, (0.5, 0.5))
    assert limiter.limit(still, (0.5, 0.5), (0.0, 0.0), 2 * NS) == Cut.NONE


def test_before_it_knows_where_the_robot_is_it_passes_nothing() -> None:
    limiter = Limiter([JOINT], Mode.POSITION, PERIOD)
    assert limiter.limit(position(0.1), NOTHING, NOTHING, NS) == Cut.NO_TIME
    assert limiter.sent == Setpoint(Mode.POSITION)
    for unknown in ((math.nan,), (), (0.0, 0.0)):
        with pytest.raises(ValueError, match="cannot start"):
            limiter.start(unknown, 0)


@pytest.mark.parametrize("period", [0.0, -1.0, math.nan, float("inf")])
def test_a_period_that_is_none(period: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Limiter([JOINT], Mode.POSITION, period)


@pytest.mark.parametrize(("most", "window"), [(0, 10), (11, 10)])
def test_an_escalation_that_never_comes(most: int, window: int) -> None:
    with pytest.raises(ValueError, match="from 1 to the window"):
        Escalation(most, window)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"low": 2.0}, "not below"), ({"low": math.nan}, "not below"),
        ({"velocity": 0.0}, "velocity is 0.0"), ({"jerk": math.nan}, "jerk is nan"),
        ({"effort": -1.0}, "effort is -1"), ({"margin": 1.5}, "leaves no room"),
        ({"margin": math.inf}, "leaves no room"), ({"unit": "deg"}, "rad or m"),
    ],
)  # fmt: skip
def test_a_joint_that_cannot_be(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        replace(JOINT, **changes)


def test_joints_without_limits_are_left_alone() -> None:
    limiter = Limiter([Joint("wheel")], Mode.VELOCITY, PERIOD)
    limiter.start(NOTHING, 0)
    assert limiter.limit(Setpoint(Mode.VELOCITY, (), (500.0,)), (1e6,), NOTHING, NS) == Cut.NONE
    assert limiter.sent.velocity == (500.0,)


def test_a_steady_state_needs_no_memory() -> None:
    limiter = Limiter([JOINT] * 12, Mode.PD, PERIOD)
    limiter.start((0.0,) * 12, 0)
    setpoint = Setpoint(Mode.PD, *((0.3,) * 12 for _ in range(5)))
    state = (0.0,) * 12

    def fly(begin: int, steps: int) -> None:
        for number in range(begin, begin + steps):
            limiter.limit(setpoint, state, state, number * NS)

    fly(1, 500)
    tracemalloc.start()
    fly(501, 500)
    first, _ = tracemalloc.get_traced_memory()
    fly(1001, 2000)
    second, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert second <= first + 512
