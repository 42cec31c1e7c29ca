"""Every rule of the shield, one at a time; the mutation score of policies/shield.py rests on these.

`python -m tests.mutation_run shield` (make mutation) runs cosmic-ray with this file and
test_shield_exhaustive.py; tests/mutation_shield.md has the last score and the survivors.
"""

import math
import pickle
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from safetypilot.policies.shield import (
    Decision,
    Inputs,
    Mode,
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

NOW = 1_000_000
TASK = (0.5, -0.5)
PLAN = ((0.1, 0.2), (0.3, 0.4), (0.5, 0.6))
FAILSAFE = (0.0, 0.25)


def make_rules(**changes: Any) -> Rules:
    base: dict[str, Any] = {
        "eps": 0.25,
        "action_low": (-1.0, -2.0),
        "action_high": (1.0, 2.0),
        "failsafe": FAILSAFE,
        "observation_validity_ns": 100,
        "proposal_validity_ns": 100,
        "risk_validity_ns": 100,
        "recovery_validity_ns": 100,
        "tail_validity_ns": 1000,
        "command_validity_ns": 200,
    }
    return Rules(**{**base, **changes})


RULES = make_rules()


def array(values: Any) -> np.ndarray:
    return np.array(values, np.float32)


def make_inputs(
    seq: int = 7,
    risk: float | None = 0.1,
    *,
    step: int | None = None,
    stamp: int = NOW,
    task: Any = TASK,
    plan: Any = PLAN,
) -> Inputs:
    return Inputs(
        Observation(seq, stamp, seq if step is None else step),
        None if task is None else Proposal(seq, stamp, 40 + seq, array(task)),
        None if risk is None else Risk(seq, stamp, 40 + seq, risk),
        None if plan is None else Recovery(seq, stamp, array(plan), 0.0),
    )


FINE = make_inputs()


def choose(inputs: Inputs, state: State | None = None, now: int = NOW, **rules: Any) -> Decision:
    return decide(state or State(), inputs, now, make_rules(**rules))[1]


def fly(risks: Any, state: State | None = None, start: int = 1, **options: Any) -> list[Decision]:
    """One decision per risk (None: unknown), a plan at each step unless options say otherwise."""
    plan = options.pop("plan", PLAN)
    rules, state, decisions = make_rules(**options), state or State(), []
    for seq, risk in enumerate(risks, start):
        state, decision = decide(state, make_inputs(seq, risk, plan=plan), NOW + seq, rules)
        decisions.append(decision)
    return decisions


def letters(decisions: list[Decision]) -> str:
    """T task, R recovery, L tail, F failsafe."""
    return "".join("TRLF"[decision.source] for decision in decisions)


def values(decision: Decision) -> list[float]:
    return [round(value, 6) for value in decision.action.tolist()]


# Order of preference


WITH_TAIL = decide(State(), make_inputs(6), NOW, RULES)[0]


@pytest.mark.parametrize(
    ("risk", "plan", "state", "source", "alternative", "action"),
    [
        (0.1, PLAN, WITH_TAIL, Source.TASK, Source.RECOVERY, TASK),
        (0.1, None, WITH_TAIL, Source.TASK, Source.TAIL, TASK),
        (0.1, PLAN, State(), Source.TASK, Source.RECOVERY, TASK),
        (0.1, None, State(), Source.TASK, Source.FAILSAFE, TASK),
        (0.9, PLAN, WITH_TAIL, Source.RECOVERY, Source.TAIL, PLAN[0]),
        (0.9, PLAN, State(), Source.RECOVERY, Source.FAILSAFE, PLAN[0]),
        (0.9, None, WITH_TAIL, Source.TAIL, Source.FAILSAFE, PLAN[1]),
        (0.9, None, State(), Source.FAILSAFE, Source.FAILSAFE, FAILSAFE),
    ],
)
def test_the_first_usable_source_is_chosen(risk, plan, state, source, alternative, action):
    decision = choose(make_inputs(7, risk, plan=plan), state)
    assert (decision.source, decision.alternative) == (source, alternative)
    assert values(decision) == list(action)
    assert decision.seq == 7
    assert decision.risk == risk
    assert decision.limited is False
    assert decision.reason is (Reason.APPROVED if risk < 0.25 else Reason.RISK_TOO_HIGH)
    assert decision.recovery_reason is (Reason.APPROVED if plan else Reason.RECOVERY_MISSING)
    has_tail = state is WITH_TAIL
    assert decision.tail_reason is (Reason.APPROVED if has_tail else Reason.TAIL_MISSING)


@pytest.mark.parametrize(
    ("risk", "eps", "approved"),
    [
        (0.25, 0.25, True),
        (math.nextafter(0.25, 1), 0.25, False),
        (0.0, 0.0, True),
        (1.0, 1.0, True),
        (5e-324, 0.0, False),
        (np.float32(0.25), 0.25, True),
        (np.float64(0.25), 0.25, True),
        (-0.0, 0.0, True),
    ],
)
def test_risk_at_eps_is_approved_and_above_is_not(risk, eps, approved):
    decision = choose(make_inputs(7, risk), eps=eps)
    assert decision.source is (Source.TASK if approved else Source.RECOVERY)
    assert decision.risk == float(risk)
    assert type(decision.risk) is float


# Why the task action was refused


def proposal(**changes: Any) -> Inputs:
    return FINE._replace(proposal=FINE.proposal._replace(**changes))


def risk(**changes: Any) -> Inputs:
    return FINE._replace(risk=FINE.risk._replace(**changes))


def recovery(**changes: Any) -> Inputs:
    return FINE._replace(recovery=FINE.recovery._replace(**changes))


def observation(**changes: Any) -> Inputs:
    return FINE._replace(observation=FINE.observation._replace(**changes))


BAD_NUMBERS = (None, True, 7.0, "7", np.int64(7), math.nan)
BAD_RISKS = (None, True, 0, "0.1", np.array(0.1), np.float16(0.1), 0.1 + 0j)
BAD_ACTIONS = (
    None,
    TASK,
    list(TASK),
    "ab",
    np.array(TASK),
    np.array(TASK, ">f4"),
    np.array([0, 0]),
    np.array([None, None]),
    np.ma.array(TASK, np.float32),
    array(0.5),
    array([]),
    array([0.5]),
    array([0.5, 0.5, 0.5]),
    array([TASK]),
)
BAD_PLANS = (
    *BAD_ACTIONS[:-1],
    array(TASK),
    np.array(PLAN),
    array([PLAN]),
    np.zeros((0, 2), np.float32),
    np.zeros((3, 0), np.float32),
    np.zeros((2, 3), np.float32),
    np.zeros((2, 1), np.float32),
)

REFUSED = [
    (FINE._replace(proposal=None), Reason.PROPOSAL_MISSING),
    (FINE._replace(proposal=tuple(FINE.proposal)), Reason.PROPOSAL_INVALID),
    (FINE._replace(proposal=FINE.risk), Reason.PROPOSAL_INVALID),
    *((proposal(seq=bad), Reason.PROPOSAL_INVALID) for bad in BAD_NUMBERS),
    *((proposal(stamp_ns=bad), Reason.PROPOSAL_INVALID) for bad in BAD_NUMBERS),
    *((proposal(proposal_id=bad), Reason.PROPOSAL_INVALID) for bad in BAD_NUMBERS),
    *((proposal(action=bad), Reason.PROPOSAL_INVALID) for bad in BAD_ACTIONS),
    (proposal(seq=6), Reason.PROPOSAL_OTHER_OBSERVATION),
    (proposal(seq=8), Reason.PROPOSAL_OTHER_OBSERVATION),
    (proposal(stamp_ns=NOW + 1), Reason.PROPOSAL_FUTURE),
    (proposal(stamp_ns=NOW - 101), Reason.PROPOSAL_STALE),
    (proposal(action=array([math.nan, 0])), Reason.PROPOSAL_NOT_FINITE),
    (proposal(action=array([0, math.inf])), Reason.PROPOSAL_NOT_FINITE),
    (proposal(action=array([-math.inf, 0])), Reason.PROPOSAL_NOT_FINITE),
    (proposal(action=array([math.nan, 9])), Reason.PROPOSAL_NOT_FINITE),
    (proposal(action=array([1.001, 0])), Reason.PROPOSAL_OUT_OF_LIMITS),
    (proposal(action=array([0, -2.001])), Reason.PROPOSAL_OUT_OF_LIMITS),
    (proposal(action=array([3.4e38, 0])), Reason.PROPOSAL_OUT_OF_LIMITS),
    (proposal(action=array([5, 5])), Reason.PROPOSAL_OUT_OF_LIMITS),
    (proposal(action=array([-5, -5])), Reason.PROPOSAL_OUT_OF_LIMITS),
    (FINE._replace(risk=None), Reason.RISK_MISSING),
    (FINE._replace(risk=tuple(FINE.risk)), Reason.RISK_INVALID),
    *((risk(seq=bad), Reason.RISK_INVALID) for bad in BAD_NUMBERS),
    *((risk(stamp_ns=bad), Reason.RISK_INVALID) for bad in BAD_NUMBERS),
    *((risk(proposal_id=bad), Reason.RISK_INVALID) for bad in BAD_NUMBERS),
    *((risk(risk=bad), Reason.RISK_INVALID) for bad in BAD_RISKS),
    (risk(seq=6), Reason.RISK_OTHER_OBSERVATION),
    (risk(seq=8), Reason.RISK_OTHER_OBSERVATION),
    (risk(stamp_ns=NOW + 1), Reason.RISK_FUTURE),
    (risk(stamp_ns=NOW - 101), Reason.RISK_STALE),
    (risk(proposal_id=46), Reason.RISK_OTHER_PROPOSAL),
    (risk(proposal_id=48), Reason.RISK_OTHER_PROPOSAL),
    (risk(risk=math.nan), Reason.RISK_NOT_FINITE),
    (risk(risk=math.inf), Reason.RISK_NOT_FINITE),
    (risk(risk=-math.inf), Reason.RISK_NOT_FINITE),
    (risk(risk=np.float32("nan")), Reason.RISK_NOT_FINITE),
    (risk(risk=-1e-9), Reason.RISK_OUT_OF_LIMITS),
    (risk(risk=1.0 + 1e-9), Reason.RISK_OUT_OF_LIMITS),
]


@pytest.mark.parametrize(("inputs", "reason"), REFUSED)
def test_a_task_action_that_is_not_known_to_be_safe_is_refused(inputs, reason):
    decision = choose(inputs, eps=1.0)
    assert decision.source is Source.RECOVERY
    assert decision.reason is reason
    assert math.isnan(decision.risk)


@pytest.mark.parametrize(("inputs", "reason"), REFUSED)
def test_without_the_shield_only_the_risk_is_ignored(inputs, reason):
    decision = choose(inputs, eps=0.0, shield=False)
    if reason.name.startswith("PROPOSAL"):
        assert (decision.source, decision.reason) == (Source.RECOVERY, reason)
    else:
        assert (decision.source, decision.reason) == (Source.TASK, Reason.SHIELD_OFF)
        assert values(decision) == list(TASK)


def test_without_the_shield_a_high_risk_is_still_reported():
    decision = choose(make_inputs(7, 0.9), shield=False)
    assert (decision.source, decision.reason, decision.risk) == (
        Source.TASK, Reason.SHIELD_OFF, 0.9,
    )  # fmt: skip


def test_without_the_shield_no_option_holds_the_task_back():
    risks = [0.1, 0.9] * 10
    options = {"eps_exit": 0.0, "dwell_steps": 9, "switch_limit": 1, "require_fallback": True}
    assert letters(fly(risks, shield=False, plan=None, **options)) == "T" * 20
    state = State()
    for seq in range(3):  # the task flown bare is the task, not a stay off it
        task, rules = (TASK if seq < 2 else None), make_rules(shield=False, recovery_limit=1)
        state, decision = decide(state, make_inputs(seq, 0.9, task=task), NOW, rules)
    assert decision.source is Source.RECOVERY
    rules, state, sources = make_rules(shield=False, **options), State(), []
    for seq in range(20):  # also when proposals come and go
        task = TASK if seq % 2 else None
        state, decision = decide(state, make_inputs(seq, 0.9, task=task), NOW, rules)
        sources.append(decision)
    assert letters(sources) == "RT" * 10


# Recovery


@pytest.mark.parametrize(
    ("inputs", "reason"),
    [
        (FINE._replace(recovery=None), Reason.RECOVERY_MISSING),
        (FINE._replace(recovery=tuple(FINE.recovery)), Reason.RECOVERY_INVALID),
        (FINE._replace(recovery=FINE.risk), Reason.RECOVERY_INVALID),
        *((recovery(seq=bad), Reason.RECOVERY_INVALID) for bad in BAD_NUMBERS),
        *((recovery(stamp_ns=bad), Reason.RECOVERY_INVALID) for bad in BAD_NUMBERS),
        *((recovery(plan=bad), Reason.RECOVERY_INVALID) for bad in BAD_PLANS),
        (recovery(seq=6), Reason.RECOVERY_OTHER_OBSERVATION),
        (recovery(seq=8), Reason.RECOVERY_OTHER_OBSERVATION),
        (recovery(stamp_ns=NOW + 1), Reason.RECOVERY_FUTURE),
        (recovery(stamp_ns=NOW - 101), Reason.RECOVERY_STALE),
        (recovery(plan=array([PLAN[0], (0, math.nan)])), Reason.RECOVERY_NOT_FINITE),
        (recovery(plan=array([(math.inf, 0), PLAN[0]])), Reason.RECOVERY_NOT_FINITE),
        (recovery(plan=array([PLAN[0], (0, 2.001)])), Reason.RECOVERY_OUT_OF_LIMITS),
        (recovery(plan=array([(-1.001, 0), PLAN[0]])), Reason.RECOVERY_OUT_OF_LIMITS),
    ],
)
def test_a_recovery_that_cannot_be_trusted_is_not_used_and_not_kept(inputs, reason):
    state, decision = decide(State(), inputs._replace(risk=None), NOW, RULES)
    assert decision.source is Source.FAILSAFE
    assert decision.reason is Reason.RISK_MISSING
    assert decision.recovery_reason is reason
    assert decision.tail_reason is Reason.TAIL_MISSING
    assert state.plan is None
    # An older plan survives a bad one, and its tail is used.
    state, decision = decide(WITH_TAIL, inputs._replace(risk=None), NOW, RULES)
    assert (decision.source, decision.recovery_reason) == (Source.TAIL, reason)
    assert state.plan == WITH_TAIL.plan


def test_a_plan_of_one_row_is_enough():
    assert letters(fly([0.9, 0.9], plan=PLAN[:1])) == "RR"


def test_a_vetted_plan_is_kept_also_when_the_task_action_flies():
    state, decision = decide(WITH_TAIL, FINE, NOW, RULES)
    assert decision.source is Source.TASK
    assert state.plan == Vetted(7, NOW, 7, array(PLAN).tobytes())


# Tail of the last vetted plan


def tail_of(plan_seq: int, seq: int, state: State | None = None, **rules: Any) -> Decision:
    state = state or decide(State(), make_inputs(plan_seq), NOW, RULES)[0]
    return choose(make_inputs(seq, None, plan=None), state, **rules)


@pytest.mark.parametrize(("seq", "row"), [(7, 1), (8, 2)])
def test_the_tail_plays_the_row_of_its_step(seq, row):
    decision = tail_of(6, seq)
    assert (decision.source, decision.alternative) == (Source.TAIL, Source.FAILSAFE)
    assert decision.tail_reason is Reason.APPROVED
    assert decision.recovery_reason is Reason.RECOVERY_MISSING
    assert values(decision) == list(PLAN[row])
    assert decision.valid_until_ns == NOW + 200


def test_the_tail_counts_from_its_plan():
    assert values(tail_of(1, 3)) == list(PLAN[2])
    assert values(tail_of(1, 2)) == list(PLAN[1])
    assert values(tail_of(0, 2)) == list(PLAN[2])


def test_the_tail_ends_with_its_plan():
    assert tail_of(6, 9).tail_reason is Reason.TAIL_ENDED
    assert tail_of(6, 10**30).tail_reason is Reason.TAIL_ENDED
    assert tail_of(6, 9).source is Source.FAILSAFE


@pytest.mark.parametrize(
    ("limit", "seq", "source"),
    [
        (0, 7, Source.FAILSAFE),
        (1, 7, Source.TAIL),
        (1, 8, Source.FAILSAFE),
        (2, 7, Source.TAIL),
        (2, 8, Source.TAIL),
        (9, 9, Source.FAILSAFE),
    ],
)
def test_tail_limit_bounds_the_steps(limit, seq, source):
    decision = tail_of(6, seq, tail_limit=limit)
    assert decision.source is source
    assert decision.tail_reason is (Reason.APPROVED if source is Source.TAIL else Reason.TAIL_ENDED)


def test_the_tail_ages():
    for age, reason in ((1000, Reason.APPROVED), (1001, Reason.TAIL_STALE)):
        inputs = make_inputs(7, None, plan=None, stamp=NOW + age)
        assert choose(inputs, WITH_TAIL, NOW + age).tail_reason is reason
    inputs = make_inputs(7, None, plan=None, stamp=NOW - 1)
    early = replace(WITH_TAIL, last_now_ns=None)
    assert choose(inputs, early, NOW - 1).tail_reason is Reason.TAIL_FUTURE


@pytest.mark.parametrize("step", [0, 1, 6, 8, 9])
def test_the_tail_belongs_to_its_episode(step):
    """Step 7 would follow; 0 starts an episode, anything else means that one was missed."""
    decision = choose(make_inputs(7, None, plan=None, step=step), WITH_TAIL)
    assert decision.source is Source.FAILSAFE
    assert decision.tail_reason is (Reason.TAIL_OTHER_EPISODE if step else Reason.TAIL_MISSING)


def test_a_plan_from_the_future_of_the_sequence_is_not_used():
    for seq in (7, 8):  # only a state made by hand can hold one
        state = State(plan=Vetted(seq, NOW, seq, array(PLAN).tobytes()))
        assert tail_of(0, 7, state).tail_reason is Reason.TAIL_OTHER_EPISODE


def test_the_tail_survives_a_lost_observation_but_not_a_stop():
    for lost in (FINE._replace(observation=None), observation(stamp_ns=NOW - 101)):
        state, decision = decide(WITH_TAIL, lost, NOW, RULES)
        assert decision.source is Source.FAILSAFE
        assert tail_of(0, 8, state).source is Source.TAIL
    for stop in (FINE._replace(armed=False), "nonsense"):
        state, decision = decide(WITH_TAIL, stop, NOW, RULES)
        assert decision.source is Source.FAILSAFE
        assert state.plan is None


def test_the_tail_is_clamped_if_the_rules_became_narrower():
    decision = tail_of(6, 8, action_low=(-0.25, -0.5), action_high=(0.25, 0.5))
    assert decision.source is Source.TAIL
    assert values(decision) == [0.25, 0.5]


# Plans that come after the task action went out


def test_keep_plan_stores_the_plan_of_the_step_that_flew_the_task():
    state = decide(State(), make_inputs(7, plan=None), NOW, RULES)[0]
    kept = keep_plan(state, FINE.observation, FINE.recovery, NOW, RULES)
    assert kept == replace(state, plan=Vetted(7, NOW, 7, array(PLAN).tobytes()))
    assert values(choose(make_inputs(8, None, plan=None), kept)) == list(PLAN[1])


def test_keep_plan_refuses_what_is_late_bad_or_for_another_step():
    flew = decide(State(), make_inputs(7, plan=None), NOW, RULES)[0]
    failed = decide(State(), make_inputs(7, None, plan=None), NOW, RULES)[0]
    seen, good = FINE.observation, FINE.recovery
    for case in (
        (failed, seen, good, NOW),  # came after the deadline forced failsafe
        (State(), seen, good, NOW),
        (reset(flew), seen, good, NOW),
        (flew, seen._replace(seq=6), good._replace(seq=6), NOW),
        (flew, seen._replace(seq=8), good._replace(seq=8), NOW),
        (flew, seen._replace(step=None), good, NOW),
        (flew, None, good, NOW),
        (flew, tuple(seen), good, NOW),
        (flew, seen, None, NOW),
        (flew, seen, good._replace(seq=6), NOW),
        (flew, seen, good._replace(plan=array([[9, 9]])), NOW),
        (flew, seen, good, NOW + 101),
        (flew, seen, good._replace(stamp_ns=NOW - 50), NOW - 1),
        (flew, seen, good, None),
        (flew, seen, good, float(NOW)),
    ):
        state, arrived, plan, now = case
        assert keep_plan(state, arrived, plan, now, RULES) is state
    assert keep_plan(flew, seen, good, NOW + 100, RULES).plan is not None


# Freshness


@pytest.mark.parametrize("name", ["observation", "proposal", "risk", "recovery"])
@pytest.mark.parametrize(("age", "fresh"), [(0, True), (50, True), (51, False), (-1, False)])
def test_each_input_has_its_own_age_limit(name, age, fresh):
    view = getattr(FINE, name)._replace(stamp_ns=NOW - age)
    inputs = FINE._replace(**{name: view})
    decision = choose(inputs, **{f"{name}_validity_ns": 50})
    ending = "APPROVED" if fresh else f"{name.upper()}_{'FUTURE' if age < 0 else 'STALE'}"
    field = decision.recovery_reason if name == "recovery" else decision.reason
    assert field is Reason[ending]


def test_a_command_expires_with_its_observation():
    inputs = make_inputs(7, stamp=NOW - 60)
    assert choose(inputs).valid_until_ns == NOW + 140
    for risk_value, plan in ((0.1, PLAN), (0.9, PLAN)):
        late = make_inputs(7, risk_value, stamp=NOW - 60, plan=plan)
        fresh = choose(late, command_validity_ns=60)
        assert (fresh.source < Source.FAILSAFE, fresh.valid_until_ns) == (True, NOW)
        expired = choose(late, command_validity_ns=59)
        assert (expired.source, expired.reason) == (Source.FAILSAFE, Reason.OBSERVATION_STALE)
        assert expired.valid_until_ns == NOW + 59


def test_failsafe_has_its_validity_from_now():
    inputs = make_inputs(7, None, plan=None, stamp=NOW - 60)
    assert choose(inputs).valid_until_ns == NOW + 200
    assert choose(FINE._replace(observation=None)).valid_until_ns == NOW + 200


# Stops


def test_the_estop_holds_until_reset():
    state, decision = decide(WITH_TAIL, FINE._replace(estop=True), NOW, RULES)
    assert (decision.source, decision.reason) == (Source.FAILSAFE, Reason.ESTOP)
    assert decision.recovery_reason is decision.tail_reason is Reason.ESTOP
    assert (decision.alternative, decision.seq) == (Source.FAILSAFE, 7)
    assert state.estop is True
    for seq, step in ((8, 8), (9, 0), (10, 1)):  # a new episode does not release it
        state, decision = decide(state, make_inputs(seq, step=step), NOW, RULES)
        assert (decision.source, decision.reason) == (Source.FAILSAFE, Reason.ESTOP)
    for odd in (None, FINE._replace(observation=None), FINE._replace(armed=False)):
        assert decide(state, odd, NOW, RULES)[1].reason is Reason.ESTOP
        assert decide(state, odd, None, RULES)[0].estop is True
    released = reset(state)
    assert released == State(10, NOW)
    assert choose(make_inputs(10), released).reason is Reason.DUPLICATE
    assert choose(make_inputs(11), released).source is Source.TASK


@pytest.mark.parametrize("value", [1, 0, None, "", math.nan, np.True_, np.False_, [], object()])
def test_only_a_clean_false_is_no_estop_and_only_a_clean_true_is_armed(value):
    state, decision = decide(State(), FINE._replace(estop=value), NOW, RULES)
    assert (decision.reason, state.estop) == (Reason.ESTOP, True)
    state, decision = decide(State(), FINE._replace(armed=value), NOW, RULES)
    assert (decision.reason, state.estop) == (Reason.NOT_ARMED, False)
    assert decision.source is Source.FAILSAFE


def test_a_disarmed_step_is_decided_all_the_same():
    state, _ = decide(State(), FINE._replace(armed=False), NOW, RULES)
    assert choose(FINE, state).reason is Reason.DUPLICATE
    assert choose(make_inputs(8), state).source is Source.TASK


@pytest.mark.parametrize("inputs", [None, (), 3, tuple(FINE), object(), Inputs])
def test_inputs_that_are_no_inputs_give_failsafe(inputs):
    state, decision = decide(WITH_TAIL, inputs, NOW + 1, RULES)
    assert (decision.source, decision.reason) == (Source.FAILSAFE, Reason.INPUTS_INVALID)
    assert (decision.seq, state.last_seq, state.estop) == (-1, 6, False)
    assert state.last_now_ns == NOW + 1
    assert values(decision) == list(FAILSAFE)


@pytest.mark.parametrize("now", [None, float(NOW), math.nan, math.inf, "now", True, np.int64(NOW)])
def test_without_a_clock_failsafe_expires_at_once(now):
    state, decision = decide(WITH_TAIL, FINE, now, RULES)
    assert (decision.source, decision.reason) == (Source.FAILSAFE, Reason.TIME_INVALID)
    assert decision.valid_until_ns == 0
    assert (state.last_seq, state.last_now_ns, state.plan) == (6, NOW, None)
    missing = decide(WITH_TAIL, FINE._replace(observation=None), now, RULES)[1]
    assert missing.reason is Reason.TIME_INVALID
    assert choose(FINE, state).source is Source.TASK


def test_reversed_time_gives_failsafe_once_and_drops_the_plan():
    state, decision = decide(WITH_TAIL, make_inputs(7, stamp=NOW - 2), NOW - 1, RULES)
    assert (decision.source, decision.reason) == (Source.FAILSAFE, Reason.TIME_REVERSED)
    assert (state.last_now_ns, state.plan) == (NOW - 1, None)
    assert choose(make_inputs(8, stamp=NOW - 2), state, NOW - 1).source is Source.TASK


def test_a_clock_that_stands_still_is_no_fault():
    assert choose(FINE, WITH_TAIL, NOW).source is Source.TASK
    assert choose(make_inputs(7, stamp=0), now=0).source is Source.TASK


# The observation


@pytest.mark.parametrize(
    ("inputs", "reason", "seq"),
    [
        (FINE._replace(observation=None), Reason.OBSERVATION_MISSING, -1),
        (FINE._replace(observation=(7, NOW, 7)), Reason.OBSERVATION_INVALID, -1),
        (FINE._replace(observation=FINE.risk), Reason.OBSERVATION_INVALID, -1),
        *((observation(seq=bad), Reason.OBSERVATION_INVALID, -1) for bad in (-1, *BAD_NUMBERS)),
        *((observation(step=bad), Reason.OBSERVATION_INVALID, -1) for bad in (-1, *BAD_NUMBERS)),
        *(
            (observation(stamp_ns=bad), Reason.OBSERVATION_INVALID, -1)
            for bad in (-1, *BAD_NUMBERS)
        ),
        (observation(stamp_ns=NOW + 1), Reason.OBSERVATION_FUTURE, 7),
        (observation(stamp_ns=NOW - 101), Reason.OBSERVATION_STALE, 7),
        (make_inputs(6), Reason.DUPLICATE, 6),
        (make_inputs(6, step=0), Reason.DUPLICATE, 6),
        (make_inputs(5), Reason.SEQ_REVERSED, 5),
        (make_inputs(0, step=0), Reason.SEQ_REVERSED, 0),
    ],
)
def test_without_a_new_fresh_observation_only_failsafe(inputs, reason, seq):
    state, decision = decide(WITH_TAIL, inputs, NOW, RULES)
    assert (decision.source, decision.reason, decision.seq) == (Source.FAILSAFE, reason, seq)
    assert decision.recovery_reason is decision.tail_reason is reason
    assert values(decision) == list(FAILSAFE)
    assert math.isnan(decision.risk)
    assert decision.limited is False
    assert (state.last_seq, state.plan) == (6, WITH_TAIL.plan)
    assert (state.mode, state.source) == (WITH_TAIL.mode, Source.FAILSAFE)


def test_the_first_observation_may_have_any_number():
    for seq in (0, 1, 10**40):
        assert choose(make_inputs(seq)).source is Source.TASK
        assert choose(make_inputs(seq, step=0)).source is Source.TASK


def test_an_observation_is_decided_once_also_when_the_first_answer_was_failsafe():
    state, decision = decide(State(), make_inputs(7, None, plan=None), NOW, RULES)
    assert decision.source is Source.FAILSAFE
    state, decision = decide(state, FINE, NOW, RULES)  # late answers are never used
    assert (decision.source, decision.reason) == (Source.FAILSAFE, Reason.DUPLICATE)


def test_large_numbers_are_compared_by_value():
    def large(offset: int, risk_value: float | None, plan: Any) -> Inputs:
        def fresh(base: int) -> int:
            return int(str(base + offset))  # an object of its own, as off the wire

        base = 10**12
        return Inputs(
            Observation(fresh(base), fresh(base), fresh(base)),
            Proposal(fresh(base), fresh(base), fresh(2 * base), array(TASK)),
            None if risk_value is None else Risk(fresh(base), fresh(base), fresh(2 * base), 0.1),
            None if plan is None else Recovery(fresh(base), fresh(base), array(plan), 0.0),
        )

    state, decision = decide(State(), large(7, 0.1, PLAN), int("1000000000007"), RULES)
    assert (decision.source, decision.alternative) == (Source.TASK, Source.RECOVERY)
    assert choose(large(7, 0.1, PLAN), state, 10**12 + 7).reason is Reason.DUPLICATE
    kept = keep_plan(
        replace(state, plan=None), large(7, 0.1, PLAN).observation, large(7, 0.1, PLAN).recovery,
        10**12 + 7, RULES,
    )  # fmt: skip
    assert kept == state
    long_plan = np.zeros((400, 2), np.float32)
    state, _ = decide(State(), large(7, 0.1, long_plan), 10**12 + 7, RULES)
    decision = choose(large(7 + 300, None, None), state, 10**12 + 307)
    assert decision.source is Source.TAIL


# Limits


def test_rounding_beyond_the_limits_is_clipped_and_more_is_refused():
    low, high = RULES.action_low, RULES.action_high
    for dimension, width in ((0, 2.0), (1, 4.0)):
        for bound, sign in ((low[dimension], -1), (high[dimension], 1)):
            action = [0.0, 0.0]
            action[dimension] = bound + sign * 0.9e-5 * width
            decision = choose(make_inputs(7, task=action))
            assert decision.source is Source.TASK
            assert decision.action[dimension] == bound
            kept = choose(make_inputs(7, 0.9, plan=[action]))
            assert kept.action[dimension] == bound
            action[dimension] = bound + sign * 1.2e-5 * width
            decision = choose(make_inputs(7, task=action))
            assert decision.reason is Reason.PROPOSAL_OUT_OF_LIMITS
            exact = [0.0, 0.0]
            exact[dimension] = bound
            decision = choose(make_inputs(7, task=exact), limit_tolerance=0.0)
            assert decision.source is Source.TASK
            action[dimension] = float(np.nextafter(np.float32(bound), np.float32(9 * sign)))
            decision = choose(make_inputs(7, task=action), limit_tolerance=0.0)
            assert decision.reason is Reason.PROPOSAL_OUT_OF_LIMITS


def test_overshoot_of_exactly_the_tolerance_is_still_rounding():
    for action in ([1 + 2**-9, 0], [0, 2 + 2**-8], [-1 - 2**-9, 0]):
        decision = choose(make_inputs(7, task=action), limit_tolerance=2**-10)
        assert decision.source is Source.TASK
        beyond = np.nextafter(array(action), np.float32(9) * np.sign(array(action)))
        decision = choose(make_inputs(7, task=beyond), limit_tolerance=2**-10)
        assert decision.reason is Reason.PROPOSAL_OUT_OF_LIMITS


def test_limits_stay_at_the_nearest_float32_inside():
    low, high = (-0.9, 0.1, -0.3, 0.1), (-0.7, 0.7, -0.1, 0.2)
    rules = make_rules(action_low=low, action_high=high, failsafe=low)
    for held, exact, outward in ((rules.low32, low, -9), (rules.high32, high, 9)):
        inside = held.astype(float) >= exact if outward < 0 else held.astype(float) <= exact
        assert inside.all()
        next_out = np.nextafter(held, np.float32(outward)).astype(float)
        still_inside = next_out >= exact if outward < 0 else next_out <= exact
        assert not still_inside.any()


def test_many_dimensions():
    many = make_rules(action_low=[-1] * 300, action_high=[1] * 300, failsafe=[0] * 300)
    assert many.failsafe32.shape == (300,)
    inputs = make_inputs(7, task=[0.5] * 300, plan=[[0.5] * 300])
    assert decide(State(), inputs, NOW, many)[1].source is Source.TASK


def test_limits_that_float32_cannot_hold_are_rounded_inward():
    rules = make_rules(action_low=(0.1, -0.3), action_high=(0.7, 0.2), failsafe=(0.1, 0.2))
    outermost = [array(rules.action_low), array(rules.action_high)]
    for action in outermost:  # each leaves the exact limits in one dimension, by rounding
        decision = decide(State(), make_inputs(7, task=action), NOW, rules)[1]
        assert decision.source is Source.TASK
        exact = decision.action.astype(float)
        assert ((exact >= rules.action_low) & (exact <= rules.action_high)).all()
        assert np.allclose(exact, action, rtol=0, atol=1e-6)
    stop = decide(State(), None, NOW, rules)[1].action.astype(float)
    assert ((stop >= rules.action_low) & (stop <= rules.action_high)).all()
    assert np.array_equal(RULES.low32, [-1, -2]) and np.array_equal(RULES.high32, [1, 2])


def test_the_command_shares_no_memory_with_anything():
    for risk_value, plan, state in (
        (0.1, PLAN, State()),
        (0.9, PLAN, State()),
        (0.9, None, WITH_TAIL),
        (0.9, None, State()),
    ):
        inputs = make_inputs(7, risk_value, plan=plan)
        new_state, decision = decide(state, inputs, NOW, RULES)
        before = decision.action.copy()
        again = decide(state, inputs, NOW, RULES)[1]
        again.action[:] = 99
        inputs.proposal.action[:] = 99
        if inputs.recovery is not None:
            inputs.recovery.plan[:] = 99
        assert np.array_equal(decision.action, before)
        assert decision.action.dtype == np.float32
        if plan is not None:
            assert new_state.plan.rows == array(PLAN).tobytes()
    assert RULES.failsafe32.tolist() == list(FAILSAFE)
    stopped = decide(State(), None, NOW, RULES)[1]
    stopped.action[:] = 99
    assert RULES.failsafe32.tolist() == list(FAILSAFE)


def test_arrays_that_are_read_only_or_strided_are_fine():
    wide = np.zeros((3, 4), np.float32)
    wide[:, ::2] = PLAN
    named = np.dtype(np.float32, metadata={"unit": "N"})  # equal, and another object
    task = np.frombuffer(array(TASK).tobytes(), named)
    assert task.dtype is not array(TASK).dtype
    inputs = make_inputs(7)
    inputs = inputs._replace(
        proposal=inputs.proposal._replace(action=task),
        recovery=inputs.recovery._replace(plan=wide[:, ::2]),
    )
    assert values(choose(inputs)) == list(TASK)
    state, decision = decide(State(), inputs._replace(risk=None), NOW, RULES)
    assert values(decision) == list(PLAN[0])
    assert values(choose(make_inputs(8, None, plan=None), state)) == list(PLAN[1])


# Options


def test_hysteresis_returns_to_the_task_only_below_eps_exit():
    risks = [0.25, 0.2, 0.26, 0.25, 0.11, 0.1, 0.25, 0.26]
    decisions = fly(risks, eps_exit=0.1)
    assert letters(decisions) == "TTRRRTTR"
    assert decisions[3].reason is Reason.RISK_ABOVE_EXIT
    assert decisions[2].reason is Reason.RISK_TOO_HIGH
    assert letters(fly(risks)) == "TTRTTTTR"
    assert make_rules(eps_exit=0.1).exit_risk == 0.1
    assert make_rules().exit_risk == 0.25
    assert make_rules(eps_exit=0.0).exit_risk == 0.0


def test_dwell_is_the_least_stay_off_the_task():
    for dwell, expected in ((0, "TRTTT"), (1, "TRTTT"), (2, "TRRTT"), (3, "TRRRT")):
        decisions = fly([0.1, 0.9, 0.1, 0.1, 0.1], dwell_steps=dwell)
        assert letters(decisions) == expected
    assert decisions[2].reason is Reason.DWELL
    assert letters(fly([0.9, 0.1, 0.1], dwell_steps=2)) == "RRT"  # from the first step on


def test_back_off_lengthens_the_dwell_of_a_quick_return():
    options = {"dwell_steps": 2, "dwell_backoff": 2.0, "dwell_limit": 5}
    risks = [0.9, 0.1, 0.1] + [0.9, 0.1, 0.1, 0.1, 0.1] + [0.9] + [0.1] * 6
    #           dwell 2           dwell 4                    min(8, 5)
    assert letters(fly(risks, **options)) == "RRT" + "RRRRT" + "RRRRRTT"
    # The task held out longer than the last dwell: a new matter.
    risks = [0.9, 0.1, 0.1, 0.1, 0.1, 0.9, 0.1, 0.1]
    assert letters(fly(risks, **options)) == "RRTTTRRT"
    risks = [0.9, 0.1, 0.1, 0.1, 0.9, 0.1, 0.1, 0.1, 0.1]
    assert letters(fly(risks, **options)) == "RRTTRRRRT"
    # A fraction counts up, and the dwell never falls below dwell_steps.
    options["dwell_backoff"] = 1.2
    assert letters(fly([0.9, 0.1, 0.1] + [0.9] + [0.1] * 3, **options)) == "RRTRRRT"


def test_a_new_episode_forgets_the_options():
    rules = make_rules(dwell_steps=50, recovery_limit=1, eps_exit=0.0, switch_limit=1)
    state = decide(State(), make_inputs(1, 0.9), NOW, rules)[0]
    state, decision = decide(state, make_inputs(2, 0.2), NOW, rules)
    assert decision.source is Source.FAILSAFE
    for armed in (True, False):
        again, decision = decide(state, make_inputs(3, 0.2, step=0)._replace(armed=armed),
                                 NOW, rules)  # fmt: skip
        assert decision.source is (Source.TASK if armed else Source.FAILSAFE)
        assert choose(make_inputs(4, 0.2, step=1), again, eps_exit=0.0).source is Source.TASK


def test_too_many_switches_are_a_fault_of_their_own():
    options = {"switch_limit": 2, "switch_window": 5}
    decisions = fly([0.1, 0.9, 0.1, 0.9] + [0.1] * 7, **options)
    assert letters(decisions) == "TRT" + "FFFFF" + "TTT"
    chatter = decisions[3]
    assert chatter.reason is chatter.recovery_reason is chatter.tail_reason is Reason.CHATTER
    assert (chatter.alternative, chatter.valid_until_ns) == (Source.FAILSAFE, NOW + 4 + 200)
    assert [decision.reason for decision in decisions[3:8]] == [Reason.CHATTER] * 5
    # It also locks on the way back, when three switches include the return to the task.
    assert letters(fly([0.9, 0.1, 0.9, 0.9, 0.9], **options)) == "RTFFF"
    assert letters(fly([0.9, 0.1, 0.1, 0.1, 0.1, 0.9], **options)) == "RTTTTR"
    assert letters(fly([0.9, 0.1, 0.1, 0.1, 0.9], **options)) == "RTTTF"
    assert letters(fly([0.9, 0.1], switch_limit=1)) == "RF"
    assert letters(fly([0.9, 0.1] * 20)) == "RT" * 20


def test_after_chatter_the_switches_count_from_zero_and_the_plans_are_current():
    options = {"switch_limit": 2, "switch_window": 3, "eps_exit": 0.2}
    decisions = fly([0.9, 0.1, 0.9, 0.9, 0.9, 0.25, 0.1, 0.9, 0.1], **options)
    assert letters(decisions) == "RTFFFRTRF"
    assert decisions[5].reason is Reason.RISK_ABOVE_EXIT
    assert decisions[5].tail_reason is Reason.APPROVED  # vetted while blocked


def test_chatter_keeps_the_dwell_and_counts_it_afresh():
    options = {"switch_limit": 2, "switch_window": 2, "dwell_steps": 2}
    decisions = fly([0.9, 0.1, 0.1, 0.9, 0.1, 0.1, 0.1, 0.1, 0.1], **options)
    assert letters(decisions) == "RRTRRTTTT"  # the first switch has left the window
    options["switch_window"] = 4
    decisions = fly([0.9, 0.1, 0.1, 0.9, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1], **options)
    assert letters(decisions) == "RRTFFFFRRT"
    state = State(3, mode=Mode(True, 4, 2, (1, 2), 0))
    _, decision = decide(state, make_inputs(4), NOW, make_rules(**options))
    assert decision.reason is Reason.CHATTER


def test_chatter_is_gone_with_the_episode():
    options = make_rules(switch_limit=1, switch_window=1000)
    state = State()
    for seq, risk_value in ((1, 0.9), (2, 0.1)):
        state, decision = decide(state, make_inputs(seq, risk_value), NOW, options)
    assert decision.reason is Reason.CHATTER
    assert decide(state, make_inputs(3), NOW, options)[1].reason is Reason.CHATTER
    assert decide(state, make_inputs(3, step=0), NOW, options)[1].source is Source.TASK


def test_recovery_has_an_end():
    decisions = fly([0.1, 0.9, 0.9, 0.9, 0.9, 0.1, 0.9], recovery_limit=2)
    assert letters(decisions) == "TRRFFTR"
    over = decisions[3]
    assert over.reason is Reason.RISK_TOO_HIGH
    assert over.recovery_reason is over.tail_reason is Reason.RECOVERY_LIMIT
    assert over.alternative is Source.FAILSAFE
    returned = decisions[5]  # nothing but failsafe stood behind this task action
    assert (returned.alternative, returned.reason) == (Source.FAILSAFE, Reason.APPROVED)
    assert letters(fly([0.1] * 5 + [0.9, 0.9], recovery_limit=1)) == "TTTTTRF"
    # The tail counts too; a cause that was there before keeps its own name.
    state, _ = decide(State(), make_inputs(1, 0.9), NOW, RULES)
    decisions = fly([0.9] * 3, state, start=2, plan=None, recovery_limit=2)
    assert letters(decisions) == "LFF"
    assert decisions[1].recovery_reason is Reason.RECOVERY_MISSING
    assert decisions[1].tail_reason is Reason.RECOVERY_LIMIT
    assert decisions[2].tail_reason is Reason.TAIL_ENDED


def test_require_fallback_wants_a_way_out_before_the_task_flies():
    decision = choose(make_inputs(7, plan=None), require_fallback=True)
    assert (decision.source, decision.reason) == (Source.FAILSAFE, Reason.NO_FALLBACK)
    assert choose(make_inputs(7), require_fallback=True).source is Source.TASK
    tail = choose(make_inputs(7, plan=None), WITH_TAIL, require_fallback=True)
    assert (tail.source, tail.alternative) == (Source.TASK, Source.TAIL)
    high = choose(make_inputs(7, 0.9, plan=None), require_fallback=True)
    assert high.reason is Reason.RISK_TOO_HIGH


def ramp(steps: list[tuple[float, float]], **options: Any) -> tuple[list[list[float]], list[bool]]:
    """Fly (risk, task action in both dimensions) steps; recovery is at 0.5, failsafe at 0."""
    options = {"max_step": 0.25, "failsafe": (0.0, 0.0), **options}
    rules, state, actions, limited = make_rules(**options), State(), [], []
    for seq, (risk_value, action) in enumerate(steps):
        inputs = make_inputs(seq, risk_value, task=(action, -action), plan=[[0.5, 0.5]])
        state, decision = decide(state, inputs, NOW, rules)
        actions.append(decision.action.tolist())
        limited.append(decision.limited)
        assert type(decision.limited) is bool
    return actions, limited


def test_max_step_ramps_after_a_switch_and_not_otherwise():
    task, high = (0.1, -1.0), (0.9, -1.0)
    actions, limited = ramp([task, (0.1, 1.0), task, high, high, high, high, high, high, high])
    #   The task may jump as it likes, the switch may not; when caught up, the ramp is over.
    assert actions == [
        [-1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-0.75, 0.75], [-0.5, 0.5], [-0.25, 0.5],
        [0.0, 0.5], [0.25, 0.5], [0.5, 0.5], [0.5, 0.5],
    ]  # fmt: skip
    assert limited == [False] * 3 + [True] * 5 + [False] * 2
    assert ramp([task, high], max_step=(0.5, 0.125))[0][1] == [-0.5, 0.875]
    assert ramp([task, high], max_step=2)[0][1] == [0.5, 0.5]
    assert ramp([task, high], max_step=None) == ([[-1.0, 1.0], [0.5, 0.5]], [False, False])
    for risk_value, action in ((0.9, 1.0), (0.9, -1.0)):  # both dimensions up, both down
        rules = make_rules(max_step=0.25)
        state, _ = decide(State(), make_inputs(1, task=(action, action)), NOW, rules)
        _, decision = decide(state, make_inputs(2, risk_value), NOW, rules)
        assert values(decision) == [0.75 * action, 0.75 * action]
        assert decision.limited is True
    # A ramp that has ended stays ended, until the next switch.
    actions, limited = ramp([high, (0.1, 0.5), (0.1, 1.0), (0.1, -1.0)], max_step=2.0)
    assert limited == [False] * 4


def test_max_step_never_delays_failsafe_and_leaves_it_by_a_ramp():
    rules, state = make_rules(max_step=0.25, failsafe=(0.0, 0.0)), State()
    state, decision = decide(state, make_inputs(1, task=(1, 1), plan=None), NOW, rules)
    state, decision = decide(state, make_inputs(2, None, plan=None), NOW, rules)
    assert (decision.action.tolist(), decision.limited) == ([0.0, 0.0], False)
    state, decision = decide(state, make_inputs(3, task=(1, 1)), NOW, rules)
    assert (decision.action.tolist(), decision.limited) == ([0.25, 0.25], True)
    state, decision = decide(state, FINE._replace(observation=None), NOW, rules)  # failsafe again
    state, decision = decide(state, make_inputs(4, task=(1, 1)), NOW, rules)
    assert decision.action.tolist() == [0.25, 0.25]
    state, decision = decide(state, make_inputs(5, step=0, task=(1, 1)), NOW, rules)
    assert (decision.action.tolist(), decision.limited) == ([1.0, 1.0], False)  # a new episode
    released = reset(state)
    assert decide(released, make_inputs(6, 0.9), NOW, rules)[1].limited is False


# Rules


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"action_low": ()}, "action_low needs at least one number"),
        ({"action_low": None}, "action_low must be a list of numbers, got None"),
        ({"action_low": ("a", "b")}, "action_low must be a list of numbers"),
        ({"action_low": (-1.0, math.nan)}, "action_low must be finite and within 1e30"),
        ({"action_high": (1.0, math.inf)}, "action_high must be finite"),
        ({"action_high": (1.0, 1.1e30)}, "action_high must be finite"),
        ({"action_low": (-1.1e30, -1.0)}, "action_low must be finite"),
        ({"action_high": (1.0,)}, "action_high needs 2 numbers like action_low, got 1"),
        ({"action_high": (1.0, -2.0)}, "must be below action_high"),
        ({"action_low": (1.0, 2.0)}, "must be below action_high"),
        ({"action_low": (0.1, -1.0), "action_high": (0.1, 1.0)}, "must be below"),
        ({"failsafe": (0.0,)}, "failsafe needs 2 numbers like action_low, got 1"),
        ({"failsafe": (0.0, math.nan)}, "failsafe must be finite"),
        ({"failsafe": (1.1, 0.0)}, "failsafe .* leaves the limits"),
        ({"failsafe": (0.0, -2.1)}, "failsafe .* leaves the limits"),
        ({"eps": -0.001}, r"eps must be a number in \[0.0, 1.0\], got -0.001"),
        ({"eps": 1.001}, "eps must be a number"),
        ({"eps": math.nan}, "eps must be a number"),
        ({"eps": None}, "eps must be a number"),
        ({"eps": "0.3"}, "eps must be a number"),
        ({"eps": True}, "eps must be a number"),
        ({"eps_exit": 0.26}, r"eps_exit must be a number in \[0.0, 0.25\], got 0.26"),
        ({"eps_exit": -0.01}, "eps_exit must be a number"),
        ({"limit_tolerance": -1e-9}, r"limit_tolerance must be a number in \[0.0, 0.01\]"),
        ({"limit_tolerance": 0.011}, "limit_tolerance must be a number"),
        ({"dwell_backoff": 0.99}, r"dwell_backoff must be a number in \[1.0, 1000000.0\]"),
        ({"dwell_backoff": 1000001.0}, "dwell_backoff must be a number"),
        ({"dwell_backoff": math.inf}, "dwell_backoff must be a number"),
        ({"dwell_steps": -1}, "dwell_steps must be a whole number of at least 0, got -1"),
        ({"dwell_steps": 1.0}, "dwell_steps must be a whole number"),
        ({"dwell_steps": True}, "dwell_steps must be a whole number"),
        ({"dwell_steps": 5, "dwell_limit": 4}, "dwell_limit must be .* at least 5, got 4"),
        ({"switch_limit": 0}, "switch_limit must be a whole number of at least 1, got 0"),
        ({"switch_window": 0}, "switch_window must be a whole number of at least 1, got 0"),
        ({"recovery_limit": 0}, "recovery_limit must be a whole number of at least 1, got 0"),
        ({"tail_limit": -1}, "tail_limit must be a whole number of at least 0, got -1"),
        ({"max_step": 0.0}, "max_step must be above 0"),
        ({"max_step": (1.0, -1.0)}, "max_step must be above 0"),
        ({"max_step": (1.0,)}, "max_step needs 2 numbers like action_low, got 1"),
        ({"max_step": math.nan}, "max_step must be finite"),
        ({"max_step": object()}, "max_step must be a list of numbers"),
        ({"shield": "False"}, "shield must be True or False, got 'False'"),
        ({"require_fallback": 1}, "require_fallback must be True or False, got 1"),
        *(
            ({f"{name}_validity_ns": bad}, f"{name}_validity_ns must be .* at least 1, got {bad}")
            for name in ("observation", "proposal", "risk", "recovery", "tail", "command")
            for bad in (0, 1.5)
        ),
    ],
)
def test_rules_refuse_what_makes_no_sense(changes, message):
    with pytest.raises(ValueError, match=message):
        make_rules(**changes)


def test_rules_at_the_edge_of_sense_are_taken():
    edge = make_rules(
        eps=1, eps_exit=1, limit_tolerance=0.01, dwell_backoff=1e6, dwell_steps=3, dwell_limit=3,
        switch_limit=1, switch_window=1, recovery_limit=1, tail_limit=0, max_step=1e-6,
        command_validity_ns=1, observation_validity_ns=1, proposal_validity_ns=1,
        risk_validity_ns=1, recovery_validity_ns=1, tail_validity_ns=1,
        action_low=(-1e30, -2.0), action_high=(1e30, 2.0),
    )  # fmt: skip
    assert edge.exit_risk == 1
    assert choose(make_inputs(1, 1.0)).source is Source.RECOVERY
    assert decide(State(), make_inputs(1, 1.0), NOW, edge)[1].source is Source.TASK
    assert make_rules(eps=0.0).exit_risk == 0.0
    assert make_rules(failsafe=(1.0, -2.0)).failsafe32.tolist() == [1.0, -2.0]


def test_the_defaults_are_the_plain_rule():
    rules = make_rules()
    assert rules.shield is True and rules.require_fallback is False
    assert (rules.eps_exit, rules.tail_limit, rules.switch_limit) == (None, None, None)
    assert (rules.recovery_limit, rules.max_step) == (None, None)
    assert (rules.dwell_steps, rules.dwell_backoff, rules.dwell_limit) == (0, 1.0, 1000)
    assert (rules.switch_window, rules.limit_tolerance) == (100, 1e-5)
    assert Inputs() == Inputs(None, None, None, None, True, False)
    assert (
        State.initial()
        == State().initial()
        == State()
        == State(-1, None, False, None, Mode(), None, b"", False)
    )
    assert Mode() == Mode(False, 0, 0, (), 0)


def test_rules_are_values():
    rules = make_rules(action_low=np.array([-1, -2]), action_high=[1, 2], max_step=0.5)
    assert rules.action_low == (-1.0, -2.0) and rules.action_high == (1.0, 2.0)
    assert rules.max_step == (0.5, 0.5)
    assert rules == make_rules(max_step=(0.5, 0.5)) != RULES
    assert hash(rules) == hash(make_rules(max_step=0.5))
    assert "32" not in repr(rules) and "exit_risk" not in repr(rules)
    assert replace(rules, eps=0.125).exit_risk == 0.125
    copy = pickle.loads(pickle.dumps(rules))  # noqa: S301  what a spawned process is given
    assert copy == rules and decide(State(), FINE, NOW, copy)[1].source is Source.TASK
    for name in ("low32", "high32", "failsafe32"):
        with pytest.raises(ValueError, match="read-only"):
            getattr(rules, name)[0] = 5
    with pytest.raises(AttributeError):
        rules.eps = 1.0
    with pytest.raises(AttributeError):
        State().estop = True
    with pytest.raises(TypeError):
        Rules(0.25, (-1.0,), (1.0,), (0.0,), 1, 1, 1, 1, 1, 1)


def test_the_numbers_on_the_wire_stay():
    assert [(source.name, source.value) for source in Source] == [
        ("TASK", 0), ("RECOVERY", 1), ("TAIL", 2), ("FAILSAFE", 3),
    ]  # fmt: skip
    expected = """
        0 APPROVED SHIELD_OFF
        10 ESTOP NOT_ARMED INPUTS_INVALID TIME_INVALID TIME_REVERSED
        20 OBSERVATION_MISSING OBSERVATION_INVALID OBSERVATION_FUTURE OBSERVATION_STALE DUPLICATE
        25 SEQ_REVERSED OBSERVATION_OVER_BUDGET
        30 PROPOSAL_MISSING PROPOSAL_INVALID PROPOSAL_OTHER_OBSERVATION PROPOSAL_FUTURE
        34 PROPOSAL_STALE PROPOSAL_NOT_FINITE PROPOSAL_OUT_OF_LIMITS PROPOSAL_OVER_BUDGET
        40 RISK_MISSING RISK_INVALID RISK_OTHER_OBSERVATION RISK_FUTURE RISK_STALE RISK_NOT_FINITE
        46 RISK_OUT_OF_LIMITS RISK_OTHER_PROPOSAL RISK_TOO_HIGH RISK_ABOVE_EXIT
        50 RECOVERY_MISSING RECOVERY_INVALID RECOVERY_OTHER_OBSERVATION RECOVERY_FUTURE
        54 RECOVERY_STALE RECOVERY_NOT_FINITE RECOVERY_OUT_OF_LIMITS RECOVERY_OVER_BUDGET
        58 RECOVERY_ENDED
        60 TAIL_MISSING TAIL_OTHER_EPISODE TAIL_FUTURE TAIL_STALE TAIL_ENDED
        70 CHATTER DWELL NO_FALLBACK RECOVERY_LIMIT
        80 GUARD_BREACHED GUARD_INVALID
        90 RISK_OVER_BUDGET
    """
    named = {}
    for line in expected.split("\n"):
        first, *names = line.split() or ["0"]
        named.update({name: int(first) + offset for offset, name in enumerate(names)})
    assert {reason.name: reason.value for reason in Reason} == named


def test_speed(benchmark):
    state = decide(State(), make_inputs(6), NOW, RULES)[0]
    decision = benchmark(decide, state, FINE, NOW, RULES)[1]
    assert decision.source is Source.TASK
