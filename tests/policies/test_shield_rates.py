"""The shield where policy, planner and plant have rates of their own, its guard and its budgets.

The mutation run of policies/shield.py (`make mutation`) runs these too; its score rests on
them for all that test_shield.py does not know.
"""

import math
from typing import Any

import numpy as np
import pytest

from safetypilot.policies.shield import (
    Blend,
    Decision,
    Inputs,
    Observation,
    Proposal,
    Reason,
    Recovery,
    Risk,
    Rules,
    Source,
    State,
    Vetted,
    decide,
    keep_plan,
    reset,
)

NOW = 10_000
TASK, FAILSAFE = (0.5, -0.5), (0.0, 0.25)
PLAN = ((0.1, 0.2), (0.3, 0.4), (0.5, 0.6))


def make_rules(**changes: Any) -> Rules:
    base: dict[str, Any] = {
        "eps": 0.25,
        "action_low": (-1.0, -2.0),
        "action_high": (1.0, 2.0),
        "failsafe": FAILSAFE,
        "observation_validity_ns": 100,
        "proposal_validity_ns": 1000,
        "risk_validity_ns": 1000,
        "recovery_validity_ns": 1000,
        "tail_validity_ns": 10_000,
        "command_validity_ns": 200,
    }
    return Rules(**{**base, **changes})


def array(values: Any) -> np.ndarray:
    return np.array(values, np.float32)


def observation(seq: int, step: int | None = None, stamp: int | None = None) -> Observation:
    stamp = NOW + seq if stamp is None else stamp
    return Observation(seq, stamp, seq if step is None else step)


def proposal(seq: int, action: Any = TASK, stamp: int | None = None) -> Proposal:
    return Proposal(seq, NOW + seq if stamp is None else stamp, 40 + seq, array(action))


def risk(seq: int, value: float = 0.1, stamp: int | None = None) -> Risk:
    return Risk(seq, NOW + seq if stamp is None else stamp, 40 + seq, value)


def recovery(seq: int, plan: Any = PLAN, stamp: int | None = None) -> Recovery:
    return Recovery(seq, NOW + seq if stamp is None else stamp, array(plan), 0.0)


def answered(seq: int, by: int, value: float = 0.1, **views: Any) -> Inputs:
    """Observation `seq`, with the proposal and the risk of observation `by`."""
    whole = Inputs(observation(seq), proposal(by), risk(by, value))
    return whole._replace(**views)


def choose(inputs: Inputs, state: State | None = None, **rules: Any) -> Decision:
    seq = inputs.observation.seq if inputs.observation else 0
    return decide(state or State(), inputs, NOW + seq, make_rules(**rules))[1]


def fly(steps: list[Inputs], **rules: Any) -> list[Decision]:
    state, decisions = State(), []
    for inputs in steps:
        now = NOW + (inputs.observation.seq if inputs.observation else 0)
        state, decision = decide(state, inputs, now, make_rules(**rules))
        decisions.append(decision)
    return decisions


def values(decision: Decision) -> list[float]:
    return [round(value, 5) for value in decision.action.tolist()]


# What an approved proposal may serve


@pytest.mark.parametrize("hold", [0, 1, 3])
def test_an_approved_proposal_serves_as_many_observations_as_declared(hold: int) -> None:
    for behind in range(6):
        decision = choose(answered(20, 20 - behind), hold_steps=hold)
        held = behind <= hold
        assert decision.source is (Source.TASK if held else Source.FAILSAFE)
        wanted = Reason.APPROVED if held else Reason.PROPOSAL_OTHER_OBSERVATION
        assert decision.reason is wanted
        assert (values(decision), decision.seq) == (list(TASK if held else FAILSAFE), 20)
        assert decision.valid_until_ns == NOW + 20 + 200  # of this observation, not of the held one


def test_a_proposal_never_serves_an_observation_before_its_own_or_of_another_episode() -> None:
    assert choose(answered(7, 8), hold_steps=3).reason is Reason.PROPOSAL_OTHER_OBSERVATION
    for step, source in ((2, Source.FAILSAFE), (3, Source.TASK), (4, Source.TASK)):
        inputs = answered(9, 6, observation=observation(9, step))
        assert choose(inputs, hold_steps=5).source is source, step


def test_what_is_held_grows_old() -> None:
    for age, reason in ((30, Reason.APPROVED), (31, Reason.PROPOSAL_STALE)):
        inputs = answered(50, 50 - age)
        assert choose(inputs, hold_steps=99, proposal_validity_ns=30).reason is reason
        risk_reason = Reason.RISK_STALE if age > 30 else Reason.APPROVED
        assert choose(inputs, hold_steps=99, risk_validity_ns=30).reason is risk_reason


def test_the_risk_must_be_of_the_held_proposal_itself() -> None:
    for other in (risk(8), risk(7)._replace(seq=9), risk(7)._replace(proposal_id=1)):
        decision = choose(answered(9, 7, risk=other), hold_steps=5)
        assert decision.source is Source.FAILSAFE and math.isnan(decision.risk)
    assert choose(answered(9, 7, 0.9), hold_steps=5).reason is Reason.RISK_TOO_HIGH
    assert choose(answered(9, 7, risk=None), hold_steps=5).reason is Reason.RISK_MISSING


@pytest.mark.parametrize(
    "newer",
    [
        answered(5, 4, 0.9),
        answered(5, 4, risk=None),
        answered(5, 4, proposal=proposal(4, (math.nan, 0.0))),
        answered(5, 4, proposal=proposal(4)._replace(proposal_id="x")),
        answered(5, 4, guarded=array([9.0])),
        answered(5, 4),
    ],
)
def test_once_a_newer_proposal_was_judged_no_older_one_flies(newer: Inputs) -> None:
    rules = make_rules(hold_steps=9, guard_low=(0.0,), guard_high=(1.0,))
    fine = array([0.5])
    state, first = decide(State(), answered(3, 3, guarded=fine), NOW + 3, rules)
    assert first.source is Source.TASK and state.judged == 3
    state, _ = decide(state, newer, NOW + 5, rules)
    assert state.judged == 4
    state, last = decide(state, answered(6, 3, guarded=fine), NOW + 6, rules)
    assert last.reason is Reason.PROPOSAL_OTHER_OBSERVATION and state.judged == 4
    assert decide(state, answered(7, 4, guarded=fine), NOW + 7, rules)[1].source is Source.TASK


def test_a_proposal_that_cannot_be_used_ends_nothing() -> None:
    """One from the future, from another episode or too old says nothing of the one that is held."""
    rules = make_rules(hold_steps=9, proposal_validity_ns=50)
    for stray in (
        None,
        proposal(6),
        proposal(4, stamp=NOW + 9),
        proposal(4, stamp=NOW - 99),
        "no proposal",
    ):
        state, _ = decide(State(), answered(3, 3), NOW + 3, rules)
        state, _ = decide(state, answered(5, 4, proposal=stray), NOW + 5, rules)
        assert state.judged == 3
        assert decide(state, answered(6, 3), NOW + 6, rules)[1].source is Source.TASK


def test_a_failsafe_keeps_what_was_judged_and_a_reset_forgets_it() -> None:
    rules = make_rules(hold_steps=9)
    state, _ = decide(State(), answered(3, 3), NOW + 3, rules)
    stopped, _ = decide(state, answered(4, 3, estop=True), NOW + 4, rules)
    assert (stopped.judged, stopped.blend) == (3, None)
    assert reset(stopped).judged == -1


# From one proposal to the next


def test_hold_takes_a_new_proposal_at_once() -> None:
    steps = [answered(10, 10), answered(11, 10), answered(12, 12, proposal=proposal(12, (1, 1)))]
    assert [values(d) for d in fly(steps, hold_steps=9)] == [[0.5, -0.5], [0.5, -0.5], [1.0, 1.0]]


def blending(**changes: Any) -> list[list[float]]:
    """Four observations per proposal: 0.5 at 10, 0.9 at 14; the command's first number at each."""
    late = changes.pop("late", 0)
    steps = []
    for seq in range(10, 22):
        by = 14 if seq >= 14 + late else 10
        action = (0.9, 0.0) if by == 14 else (0.5, 0.0)
        steps.append(answered(seq, by, proposal=proposal(by, action)))
    decisions = fly(steps, hold_steps=99, blend_steps=4, **changes)
    assert all(decision.source is Source.TASK for decision in decisions)
    return [values(decision)[0] for decision in decisions]


def test_a_blend_goes_over_evenly_and_arrives_when_the_next_proposal_is_due() -> None:
    whole = [0.5] * 4 + [0.6, 0.7, 0.8, 0.9] + [0.9] * 4
    assert blending() == whole


def test_a_blend_that_begins_late_still_arrives_in_time() -> None:
    assert blending(late=2) == [0.5] * 6 + [0.7, 0.9] + [0.9] * 4
    assert blending(late=3) == [0.5] * 7 + [0.9] * 5
    assert blending(late=6) == [0.5] * 10 + [0.9] * 2


def test_a_blend_counts_from_where_it_began() -> None:
    steps = [answered(1, 1, proposal=proposal(1, (0.1, 0.0)))]
    steps += [answered(seq, 2, proposal=proposal(2, (0.9, 0.0))) for seq in range(2, 6)]
    flown = [values(decision)[0] for decision in fly(steps, hold_steps=9, blend_steps=4)]
    assert flown == [0.1, 0.3, 0.5, 0.7, 0.9]


def test_a_blend_arrives_at_the_proposal_itself_and_not_at_a_sum() -> None:
    exact = (1e-9, -1e-9)  # lost in a sum with what it comes from
    steps = [answered(10, 10, proposal=proposal(10, (0.1, 0.1)))]
    steps += [answered(seq, 11, proposal=proposal(11, exact)) for seq in (11, 12, 13)]
    decisions = fly(steps, hold_steps=9, blend_steps=2)
    for decision in decisions[2:]:
        assert decision.action.tobytes() == array(exact).tobytes()


def test_a_blend_begins_from_a_task_command_only() -> None:
    steps = [
        answered(10, 10, proposal=proposal(10, (0.1, 0.0))),
        answered(11, 10, 0.9, recovery=recovery(11, [(1.0, 1.0)])),
        answered(12, 12, proposal=proposal(12, (0.5, 0.0))),
        answered(13, 12, proposal=proposal(12, (0.5, 0.0))),
        answered(14, 14, proposal=proposal(14, (0.9, 0.0))),
    ]
    decisions = fly(steps, hold_steps=9, blend_steps=2)
    assert "".join("TRLF"[d.source] for d in decisions) == "TRTTT"
    assert [values(d)[0] for d in decisions] == [0.1, 1.0, 0.5, 0.5, 0.7]


def test_a_blend_is_forgotten_with_the_episode_and_with_a_failsafe() -> None:
    rules = make_rules(hold_steps=9, blend_steps=2)
    state, _ = decide(State(), answered(10, 10), NOW + 10, rules)
    assert state.blend == Blend(10, 10, array(TASK).tobytes())
    anew = answered(11, 11, observation=observation(11, 0), proposal=proposal(11, (0.9, 0.0)))
    assert values(decide(state, anew, NOW + 11, rules)[1]) == [0.9, 0.0]
    stopped, _ = decide(state, Inputs(observation(11), armed=False), NOW + 11, rules)
    assert stopped.blend is None
    later = answered(12, 12, proposal=proposal(12, (0.9, 0.0)))
    assert values(decide(stopped, later, NOW + 12, rules)[1]) == [0.9, 0.0]


def test_without_a_blend_nothing_of_it_is_kept() -> None:
    assert decide(State(), answered(3, 3), NOW + 3, make_rules(hold_steps=9))[0].blend is None


# Plans, in the planner's own steps


def late_plan(seq: int, by: int, **views: Any) -> Inputs:
    return Inputs(observation(seq), recovery=recovery(by))._replace(**views)


@pytest.mark.parametrize("row_steps", [1, 2, 5])
@pytest.mark.parametrize("fresh", [0, 4])
def test_each_row_of_a_plan_is_for_so_many_observations(row_steps: int, fresh: int) -> None:
    steps = [late_plan(seq, 20) for seq in range(20, 40)]
    decisions = fly(steps, plan_steps=fresh, row_steps=row_steps)
    for behind, decision in enumerate(decisions):
        row = behind // row_steps
        if row >= len(PLAN):
            assert decision.source is Source.FAILSAFE and decision.tail_reason is Reason.TAIL_ENDED
            wanted = Reason.RECOVERY_ENDED if behind <= fresh else None
            assert wanted is None or decision.recovery_reason is wanted
            continue
        assert decision.source is (Source.RECOVERY if behind <= fresh else Source.TAIL)
        assert values(decision) == [round(v, 5) for v in array(PLAN[row]).tolist()]


def test_a_plan_that_comes_late_is_used_from_the_row_that_is_due() -> None:
    state, decision = decide(
        State(), late_plan(27, 22), NOW + 27, make_rules(plan_steps=5, row_steps=3)
    )
    assert decision.source is Source.RECOVERY and values(decision) == [0.3, 0.4]
    assert state.plan == Vetted(22, NOW + 22, 22, array(PLAN).tobytes())
    assert choose(late_plan(28, 22), plan_steps=5, row_steps=3).source is Source.FAILSAFE
    far = late_plan(27, 22, observation=observation(27, 4))
    assert choose(far, plan_steps=5, row_steps=3).source is Source.FAILSAFE
    near = late_plan(27, 22, observation=observation(27, 5))
    assert choose(near, plan_steps=5, row_steps=3).source is Source.RECOVERY


def test_an_older_plan_never_replaces_a_newer_one() -> None:
    rules = make_rules(plan_steps=9, row_steps=9)
    state, _ = decide(State(), late_plan(20, 18), NOW + 20, rules)
    state, decision = decide(
        state, late_plan(21, 17, recovery=recovery(17, [(9e-1, 0)])), NOW + 21, rules
    )
    assert decision.recovery_reason is Reason.RECOVERY_OTHER_OBSERVATION
    assert decision.source is Source.TAIL and state.plan is not None and state.plan.seq == 18
    again, decision = decide(state, late_plan(22, 18), NOW + 22, rules)
    assert decision.source is Source.RECOVERY and again.plan == state.plan


def test_a_late_plan_can_be_kept_between_two_decisions() -> None:
    rules = make_rules(plan_steps=5, row_steps=3)
    state, _ = decide(State(), answered(27, 27), NOW + 27, rules)
    kept = keep_plan(state, observation(27), recovery(24), NOW + 27, rules)
    assert kept.plan == Vetted(24, NOW + 24, 24, array(PLAN).tobytes())
    assert keep_plan(state, observation(27), recovery(21), NOW + 27, rules) == state


def test_a_recovery_grows_old_too() -> None:
    for age, source in ((30, Source.RECOVERY), (31, Source.FAILSAFE)):
        inputs = late_plan(90, 90 - age)
        settings: dict[str, Any] = {"plan_steps": 99, "row_steps": 99}
        assert choose(inputs, recovery_validity_ns=30, **settings).source is source


# The guard


GUARD: dict[str, Any] = {"guard_low": (-1.0, 0.1), "guard_high": (1.0, 0.7)}


def guarded(*numbers: float, **views: Any) -> Inputs:
    return answered(9, 9, recovery=recovery(9), guarded=array(numbers))._replace(**views)


@pytest.mark.parametrize(
    ("numbers", "inside"),
    [
        ((0.0, 0.5), True),
        ((-1.0, 0.5), True),
        ((1.0, 0.5), True),
        ((np.nextafter(np.float32(1.0), np.float32(2.0)), 0.5), False),
        ((np.nextafter(np.float32(-1.0), np.float32(-2.0)), 0.5), False),
        ((0.0, 0.05), False),
        ((0.0, 0.75), False),
        ((math.nan, 0.5), False),
        ((0.0, math.nan), False),
        ((math.inf, 0.5), False),
        ((0.0, -math.inf), False),
    ],
)
def test_beyond_the_guard_the_task_does_not_fly(numbers: Any, inside: bool) -> None:
    decision = choose(guarded(*numbers), **GUARD)
    assert decision.source is (Source.TASK if inside else Source.RECOVERY)
    assert decision.reason is (Reason.APPROVED if inside else Reason.GUARD_BREACHED)
    assert decision.risk == 0.1
    alone = choose(guarded(*numbers, recovery=None), **GUARD)
    assert alone.source is (Source.TASK if inside else Source.FAILSAFE)


@pytest.mark.parametrize(
    "bad",
    [
        None,
        (0.0, 0.5),
        np.array([0.0, 0.5]),
        np.array([0.0, 0.5], np.float16),
        array([0.0]),
        array([0.0, 0.5, 0.5]),
        array([[0.0, 0.5]]),
        array([]),
    ],
)
def test_guarded_values_that_did_not_come_are_not_safe(bad: Any) -> None:
    decision = choose(guarded()._replace(guarded=bad), **GUARD)
    assert (decision.source, decision.reason) == (Source.RECOVERY, Reason.GUARD_INVALID)


def test_without_a_guard_the_values_are_not_looked_at() -> None:
    for bad in (None, "x", array([math.nan])):
        assert choose(guarded()._replace(guarded=bad)).source is Source.TASK


def test_the_guard_is_part_of_the_shield_and_says_nothing_of_what_is_unsafe_anyway() -> None:
    assert choose(guarded(9.0, 9.0), shield=False, **GUARD).reason is Reason.SHIELD_OFF
    assert choose(guarded(9.0, 9.0, risk=None), **GUARD).reason is Reason.RISK_MISSING
    assert choose(guarded(9.0, 9.0, risk=risk(9, 0.9)), **GUARD).reason is Reason.RISK_TOO_HIGH


def test_a_held_proposal_is_guarded_at_every_observation() -> None:
    steps = [answered(seq, 10, guarded=array([x])) for seq, x in ((10, 0), (11, 2), (12, 0))]
    decisions = fly(steps, hold_steps=9, guard_low=(-1.0,), guard_high=(1.0,))
    assert [decision.source for decision in decisions] == [0, 3, 0]


def test_guard_bounds_are_rounded_inward() -> None:
    rules = make_rules(**GUARD)
    assert rules.guard_low32.astype(float)[1] >= 0.1 and rules.guard_high32.astype(float)[1] <= 0.7
    below = make_rules(guard_low=(-0.9, -0.9), guard_high=(-0.7, -0.1))
    assert (below.guard_high32.astype(float) <= below.guard_high).all()
    for bounds in (rules.guard_low32, rules.guard_high32):
        with pytest.raises(ValueError, match="read-only"):
            bounds[0] = 0


# Latency budgets


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("observation", Reason.OBSERVATION_OVER_BUDGET),
        ("proposal", Reason.PROPOSAL_OVER_BUDGET),
        ("risk", Reason.RISK_OVER_BUDGET),
        ("recovery", Reason.RECOVERY_OVER_BUDGET),
    ],
)
def test_what_is_over_its_budget_is_stale_with_a_reason_of_its_own(
    name: str, reason: Reason
) -> None:
    stamp = {"stamp": NOW + 9 - 40}
    late: dict[str, Any] = {
        "observation": observation(9, **stamp),
        "proposal": proposal(9, **stamp),
        "risk": risk(9, 0.1, **stamp),
        "recovery": recovery(9, **stamp),
    }
    inputs = answered(9, 9, recovery=recovery(9))._replace(**{name: late[name]})
    for budget, over in ((39, True), (40, False), (41, False), (10**9, False), (None, False)):
        decision = choose(inputs, **{f"{name}_budget_ns": budget})
        found = decision.recovery_reason if name == "recovery" else decision.reason
        assert found is (reason if over else Reason.APPROVED)
    beyond = choose(inputs, **{f"{name}_budget_ns": 39, f"{name}_validity_ns": 38})
    found = beyond.recovery_reason if name == "recovery" else beyond.reason
    assert found.name == f"{name.upper()}_STALE"
    only = choose(inputs, **{f"{name}_budget_ns": 39})
    source = {"observation": Source.FAILSAFE, "recovery": Source.TASK}.get(name, Source.RECOVERY)
    assert only.source is source


# Rules that cannot hold


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        *(({name: -1}, f"{name} must be a whole number of at least 0") for name in
          ("hold_steps", "plan_steps")),
        *(({name: 0}, f"{name} must be a whole number of at least 1") for name in
          ("row_steps", "blend_steps")),
        *(({f"{name}_budget_ns": 0}, f"{name}_budget_ns must be a whole number of at least 1")
          for name in ("observation", "proposal", "risk", "recovery")),
        ({"hold_steps": 1.0}, "hold_steps must be a whole number"),
        ({"guard_low": (0.0,)}, "guard_high needs 1 numbers like guard_low, got 0"),
        ({"guard_low": (0.0,), "guard_high": (0.0,)}, r"guard_low \(0.0,\) must be below guard_h"),
        ({"guard_low": (1.0,), "guard_high": (0.0,)}, "must be below guard_high"),
        ({"guard_low": (math.nan,), "guard_high": (1.0,)}, "guard_low must be finite"),
        ({"guard_low": ("x",), "guard_high": (1.0,)}, "guard_low must be a list of numbers"),
    ],
)  # fmt: skip
def test_rules_that_cannot_hold_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make_rules(**changes)


def test_the_defaults_are_one_rate_and_no_guard() -> None:
    rules = make_rules()
    assert (rules.hold_steps, rules.plan_steps, rules.row_steps, rules.blend_steps) == (0, 0, 1, 1)
    assert rules.guard_low == rules.guard_high == ()
    assert State().judged == -1 and State().blend is None
    smallest = make_rules(
        hold_steps=0, plan_steps=0, row_steps=1, blend_steps=1, observation_budget_ns=1,
        proposal_budget_ns=1, risk_budget_ns=1, recovery_budget_ns=1,
    )  # fmt: skip
    assert smallest.row_steps == 1


def test_large_numbers_are_compared_by_value() -> None:
    def fresh(number: int) -> int:
        return int(str(10**12 + number))  # an object of its own, as off the wire

    rules = make_rules(hold_steps=9, blend_steps=4, plan_steps=9, row_steps=9)

    def inputs(seq: int) -> Inputs:
        return Inputs(
            Observation(fresh(seq), fresh(0), fresh(seq)),
            Proposal(fresh(1), fresh(0), fresh(2), array(TASK)),
            Risk(fresh(1), fresh(0), fresh(2), 0.1),
            Recovery(fresh(1), fresh(0), array(PLAN), 0.0),
        )

    state, _ = decide(State(), inputs(1), fresh(0), rules)
    state, decision = decide(state, inputs(2), fresh(0), rules)
    assert (decision.source, decision.alternative) == (Source.TASK, Source.RECOVERY)
    assert state.blend is not None and state.blend.first == fresh(1)


def test_a_plan_that_has_been_vetted_is_not_taken_for_another_of_the_same_number() -> None:
    """It is known again by its bits; whatever else comes under its number is vetted anew."""
    state, _ = decide(State(), answered(0, 0, recovery=recovery(0)), NOW, make_rules(plan_steps=5))
    for plan, reason in (
        (PLAN, Reason.APPROVED),
        (((0.1, 0.2), (0.7, 0.4), (0.5, 0.6)), Reason.APPROVED),
        (((0.1, 0.2), (0.55, 0.4), (0.5, 0.6)), Reason.APPROVED),  # the bytes are greater
        (((0.1, 0.2), (math.nan, 0.4), (0.5, 0.6)), Reason.RECOVERY_NOT_FINITE),
        (((0.1, 0.2), (3.0, 0.4), (0.5, 0.6)), Reason.RECOVERY_OUT_OF_LIMITS),
        ((0.1, 0.2, 0.3, 0.4, 0.5, 0.6), Reason.RECOVERY_INVALID),
        (((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)), Reason.RECOVERY_INVALID),
    ):
        came = answered(1, 1, 0.9, recovery=recovery(0, plan))
        _, decision = decide(state, came, NOW + 1, make_rules(plan_steps=5))
        assert decision.recovery_reason is reason
        if reason is Reason.APPROVED:
            assert tuple(decision.action) == pytest.approx(plan[1])
        else:
            assert decision.source is Source.TAIL and tuple(decision.action) == pytest.approx(
                PLAN[1]
            )
    doubled = recovery(0)._replace(plan=np.array(PLAN, np.float64))
    _, decision = decide(
        state, answered(1, 1, 0.9, recovery=doubled), NOW + 1, make_rules(plan_steps=5)
    )
    assert decision.recovery_reason is Reason.RECOVERY_INVALID
