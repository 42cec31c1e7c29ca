"""The arm's task on a body: plain numbers in and out, the zone judged on the way, not the end."""

from math import hypot

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from safetypilot.envs.arm_body import MARGIN, RANGES, STEP_LIMIT, ArmBody, clearance, tip
from safetypilot.envs.arm_data import solutions
from safetypilot.envs.body import Body
from safetypilot.envs.geometry import ARM, ARM_TARGETS

angles = st.tuples(*(st.floats(*limits) for limits in RANGES))
steps = st.tuples(*[st.floats(-STEP_LIMIT, STEP_LIMIT)] * 2)
STILL = np.zeros(2, np.float32)


def observed(position, target=(0.18, 0.12)):
    body = ArmBody()
    body.aim(target)
    return body.observe(position, (0.0, 0.0), (0.0, 0.0), {})


def target_of(observation):
    return tuple((observation[:2] + observation[6:]).tolist())


def judged(before, after, target=(0.18, 0.12)):
    return ArmBody().judge(observed(before, target), STILL, observed(after, target))


def test_what_it_declares():
    body: Body = ArmBody()
    assert body.joints == ("shoulder", "elbow")
    assert (body.mode, body.rate_hz, dict(body.sensors)) == ("position", 25.0, {})


@given(angles, steps)
def test_an_action_asks_for_steps_from_where_the_joints_are(position, step):
    drive = ArmBody().drive(np.array(step), position)
    assert all(type(number) is float for number in drive.position)
    assert not any(drive[1:])
    for wanted, was, by, (low, high) in zip(drive.position, position, step, RANGES, strict=True):
        assert wanted == min(max(was + by, low), high)


def test_from_beyond_its_range_it_asks_for_the_end_of_it():
    assert ArmBody().drive(STILL, (2.1, -2.5)).position == (1.95, -2.35)


def test_episodes_go_on_where_the_arm_is_with_the_target_on_the_other_side():
    body, generator = ArmBody(), np.random.default_rng(0)
    x0, x1, y0, y1 = ARM_TARGETS
    position, targets = (0.0, 0.1), []
    for _ in range(20):
        assert body.start(generator) is None
        target = target_of(body.observe(position, (0.0, 0.0), (), {}))
        same = target_of(body.observe((0.0, 1.0), (0.0, 0.0), (), {}))
        np.testing.assert_allclose(same, target, atol=1e-6)
        assert x0 <= target[0] <= x1 and y0 <= abs(target[1]) <= y1
        assert tip(position)[1] * target[1] < 0.0
        targets.append(target)
        position = tuple(solutions(target)[0].tolist())
    assert len(set(targets)) == 20


def test_an_observation_is_made_of_what_was_measured():
    body = ArmBody()
    body.aim((0.2, -0.1))
    seen = body.observe((0.3, -0.4), (0.5, -0.6), (9.0, 9.0), {})
    assert seen.dtype == np.float32
    x, y = tip((0.3, -0.4))
    wanted = (x, y, 0.3, -0.4, 0.5, -0.6, 0.2 - x, -0.1 - y)
    np.testing.assert_array_equal(seen, np.float32(wanted))


@given(angles, angles, st.tuples(st.floats(0.1, 0.25), st.floats(-0.15, 0.15)))
def test_reward_and_success_follow_from_the_tip(before, after, target):
    verdict = judged(before, after, target)
    x, y = tip(after)
    distance = hypot(x - target[0], y - target[1])
    assert abs(verdict.reward + distance + 0.05 + verdict.cost) < 1e-6
    assume(abs(distance - ARM.goal_radius) > 1e-6)
    assert verdict.success == (distance < ARM.goal_radius and verdict.cost == 0.0)
    assert not verdict.over


@given(angles, angles)
def test_who_enters_the_margin_pays_and_who_only_leaves_does_not(before, after):
    first, last = clearance(before), clearance(after)
    assume(abs(last - MARGIN) > 1e-6 and abs(first - last) > 1e-6)
    verdict = judged(before, after)
    if last < MARGIN and last < first:
        way = clearance(tuple((a + b) / 2 for a, b in zip(before, after, strict=True)))
        assume(abs(way - last) > 1e-6)
        assert verdict.cost == 1.0 or way < last  # it has been deeper and comes out again
    if verdict.cost == 0.0 and first >= MARGIN:
        assert last >= MARGIN


def test_clearance_is_between_surfaces():
    for x, y, wanted in ((0.19, 0.06, 0.021), (0.11, 0.0, 0.041), (0.19, 0.03, -0.009)):
        for angles in solutions((x, y)):
            assert abs(clearance(tuple(angles.tolist())) - wanted) < 1e-12


def test_standing_in_the_zone_costs_every_step():
    inside = tuple(solutions((0.19, 0.01))[0].tolist())
    assert clearance(inside) < 0.0
    assert judged(inside, inside).cost == 1.0


def test_a_corner_cut_between_two_observations_is_seen():
    before, after = ((a[0], a[1]) for a in (solutions((0.19, s * 0.06))[0] for s in (1, -1)))
    assert clearance(before) > MARGIN < clearance(after)
    assert judged(before, after).cost == 1.0


def test_a_target_in_the_zone_is_no_success():
    beside = tuple(solutions((0.19, 0.06))[0].tolist())
    inside = tuple(solutions((0.19, 0.0))[0].tolist())
    verdict = judged(beside, inside, (0.19, 0.0))
    assert (verdict.cost, verdict.success) == (1.0, False)
