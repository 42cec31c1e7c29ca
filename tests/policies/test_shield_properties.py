"""What must hold for any inputs whatsoever (DESIGN.md section 6, invariants 1 to 3)."""

import copy
import math
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from safetypilot.policies.shield import (
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
    decide,
    keep_plan,
    reset,
)

PERIOD = 100
LOW, HIGH = (-1.0, 0.1), (1.0, 0.7)  # float32 holds neither 0.1 nor 0.7
BASE: dict[str, Any] = {
    "eps": 0.25,
    "action_low": LOW,
    "action_high": HIGH,
    "failsafe": (0.0, 0.25),
    "observation_validity_ns": PERIOD,
    "proposal_validity_ns": PERIOD,
    "risk_validity_ns": PERIOD,
    "recovery_validity_ns": PERIOD,
    "tail_validity_ns": 4 * PERIOD,
    "command_validity_ns": PERIOD,
}
PLAIN = Rules(**BASE)
GUARD_LOW, GUARD_HIGH = (-0.7, 0.1), (0.5, 0.9)
ACTION_SLACK = 2e-5  # rounding that the shield clips
quick = settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow], database=None
)

# Anything at all

oddities = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.integers(-(10**400), 10**400),
    st.floats(),
    st.text(max_size=3),
    st.complex_numbers(),
    st.lists(st.floats(), max_size=3),
    st.builds(object),
    st.sampled_from([np.int64(3), np.float32(0.1), np.bool_(True), np.nan, Inputs, ()]),
)
shapes = st.sampled_from([(2,), (), (0,), (1,), (3,), (1, 2), (3, 2), (2, 3), (0, 2), (2, 2, 2)])
dtypes = st.sampled_from(["f4", "f4", "f4", "f8", "f2", ">f4", "i4", "c8", "O", "U2", "?", "M8[s]"])


@st.composite
def any_array(draw: st.DrawFn) -> Any:
    shape, dtype = draw(shapes), np.dtype(draw(dtypes))
    if dtype.kind != "f":
        return np.zeros(shape, dtype)
    size = math.prod(shape)
    width = dtype.itemsize * 8
    numbers = st.one_of(st.floats(-1.0, 1.0), st.floats()).map(lambda x: np.array(x).astype(dtype))
    if width == 32 and draw(st.booleans()):  # raw bits: signalling NaN, denormals
        numbers = st.integers(0, 2**32 - 1).map(lambda b: np.uint32(b).view(np.float32))
    with np.errstate(all="ignore"):
        values = [draw(numbers) for _ in range(size)]
        return np.array(values, dtype).reshape(shape)


def small(strategy: Any) -> Any:
    return st.one_of(strategy, oddities)


seqs, stamps = st.integers(-1, 6), st.integers(-50, 500)
observations = st.builds(Observation, small(seqs), small(stamps), small(st.integers(-1, 6)))
proposals = st.builds(
    Proposal, small(seqs), small(stamps), small(seqs), st.one_of(any_array(), oddities)
)
risks = st.builds(
    Risk, small(seqs), small(stamps), small(seqs), st.one_of(st.floats(0, 1), st.floats(), oddities)
)
recoveries = st.builds(
    Recovery, small(seqs), small(stamps), st.one_of(any_array(), oddities), oddities
)


@st.composite
def any_inputs(draw: st.DrawFn) -> Any:
    if draw(st.integers(0, 9)) == 0:
        return draw(oddities)
    return Inputs(
        draw(st.one_of(observations, oddities, risks)),
        draw(st.one_of(proposals, oddities, risks)),
        draw(st.one_of(risks, oddities, proposals)),
        draw(st.one_of(recoveries, oddities, risks)),
        draw(st.one_of(st.just(True), oddities)),
        draw(st.one_of(st.just(False), st.just(False), oddities)),
        draw(st.one_of(any_array(), oddities)),
    )


budgets = st.none() | st.sampled_from([1, PERIOD // 2, PERIOD, 2 * PERIOD])


@st.composite
def any_rules(draw: st.DrawFn) -> Rules:
    options = {
        "eps": draw(st.floats(0, 1)),
        "shield": draw(st.booleans()),
        "dwell_steps": draw(st.integers(0, 4)),
        "dwell_backoff": draw(st.floats(1, 3)),
        "dwell_limit": draw(st.integers(4, 8)),
        "switch_limit": draw(st.none() | st.integers(1, 4)),
        "switch_window": draw(st.integers(1, 8)),
        "recovery_limit": draw(st.none() | st.integers(1, 4)),
        "tail_limit": draw(st.none() | st.integers(0, 4)),
        "max_step": draw(st.none() | st.floats(1e-3, 3)),
        "require_fallback": draw(st.booleans()),
        "hold_steps": draw(st.sampled_from([0, 0, 0, 1, 3, 9])),
        "plan_steps": draw(st.sampled_from([0, 0, 0, 1, 3, 9])),
        "row_steps": draw(st.sampled_from([1, 1, 1, 2, 3])),
        "blend_steps": draw(st.sampled_from([1, 1, 1, 2, 5])),
        "observation_budget_ns": draw(budgets),
        "proposal_budget_ns": draw(budgets),
        "risk_budget_ns": draw(budgets),
        "recovery_budget_ns": draw(budgets),
    }
    if draw(st.integers(0, 3)) == 0:
        options |= {"guard_low": GUARD_LOW, "guard_high": GUARD_HIGH}
    options["eps_exit"] = draw(st.none() | st.floats(0, options["eps"]))
    return Rules(**{**BASE, **options})


# A run that is plausible, with faults of every kind

KINDS = ("fine",) * 6 + ("missing", "late", "old", "future", "bad", "odd")


@st.composite
def plausible_inputs(draw: st.DrawFn, seq: int, now: int, step: int, faults: bool = True) -> Inputs:
    kinds = st.sampled_from(KINDS if faults else ("fine",))
    number = st.integers(-100, 100).map(lambda percent: percent / 100)

    def link(kind: str) -> tuple[Any, int]:
        late = seq - draw(st.integers(1, 3)) if kind == "late" else seq
        return late, {"old": now - PERIOD - 1, "future": now + 1}.get(kind, now)

    def action() -> list[float]:
        return [draw(number), 0.4 + 0.3 * draw(number)]

    kind = draw(kinds)
    observation: Any = Observation(*link(kind), step)
    if kind in ("missing", "bad", "odd"):
        observation = None if kind == "missing" else draw(observations)
    kind = draw(kinds)
    task = np.array(action(), np.float32)
    if kind == "bad":
        task[draw(st.integers(0, 1))] = draw(st.sampled_from([math.nan, math.inf, -2.0, 1.001]))
    proposal: Any = Proposal(*link(kind), seq, task)
    if kind in ("missing", "odd"):
        proposal = None if kind == "missing" else draw(proposals)
    kind = draw(kinds)
    value = draw(st.sampled_from([0.0, 0.1, 0.2, 0.25, 0.2500001, 0.4, 1.0]))
    if kind == "bad":
        value = draw(st.sampled_from([math.nan, math.inf, -0.1, 1.1]))
    other = draw(st.sampled_from([0, 0, 0, 0, 1])) if faults else 0
    risk: Any = Risk(*link(kind), seq + other, value)
    if kind in ("missing", "odd"):
        risk = None if kind == "missing" else draw(risks)
    kind = draw(kinds)
    plan = np.array([action() for _ in range(draw(st.integers(1, 4)))], np.float32)
    if kind == "bad":
        plan[-1, 0] = draw(st.sampled_from([math.nan, -math.inf, 5.0]))
    recovery: Any = Recovery(*link(kind), plan, 0.0)
    if kind in ("missing", "odd"):
        recovery = None if kind == "missing" else draw(recoveries)
    armed = draw(st.sampled_from([True] * 9 + [False, 1])) if faults else True
    guarded = np.array([draw(number), draw(number)], np.float32)
    return Inputs(observation, proposal, risk, recovery, armed, False, guarded)


@st.composite
def plausible_runs(draw: st.DrawFn, faults: bool = True) -> list[tuple[Inputs, int]]:
    steps, seq, now, step = [], 0, 0, 0
    for _ in range(draw(st.integers(1, 16))):
        jump, dt = 1, PERIOD
        if faults:
            jump = draw(st.sampled_from([1] * 12 + [2, 3, 0, -2]))
            dt = draw(st.sampled_from([PERIOD] * 12 + [0, 1, 5 * PERIOD, -1, -3 * PERIOD]))
        seq, now, step = max(0, seq + jump), max(0, now + dt), max(0, step + jump)
        if draw(st.integers(0, 15)) == 0:
            step = 0
        steps.append((draw(plausible_inputs(seq, now, step, faults)), now))
    return steps


# The invariants, from the inputs alone


class Bounds(NamedTuple):
    """For how many observations after its own an answer may serve, and how old it may be."""

    reach: int
    validity: int
    budget: int | None


def bounds(rules: Rules, name: str) -> Bounds:
    reach = {"proposal": rules.hold_steps, "recovery": rules.plan_steps}.get(name, 0)
    budget = getattr(rules, f"{name}_budget_ns")
    return Bounds(reach, getattr(rules, f"{name}_validity_ns"), budget)


def answers(view: Any, inputs: Inputs, now: int, within: Bounds) -> bool:
    """Whether a view is about the observation of these inputs or near enough before, and fresh."""
    behind = inputs.observation.seq - view.seq
    age = now - view.stamp_ns
    near = 0 <= behind <= min(within.reach, inputs.observation.step)
    return bool(near and 0 <= age <= within.validity and age <= (within.budget or age))


def guard_holds(guarded: Any, rules: Rules) -> bool:
    exact = guarded.astype(float) if rules.guard_low else np.zeros(0)
    return bool(((exact >= rules.guard_low) & (exact <= rules.guard_high)).all())


def planned_rows(seen: list[Inputs], now: int, rules: Rules) -> list[Any]:
    """Rows that earlier plans have for the last observation."""
    observation, rows = seen[-1].observation, []
    for earlier in seen[:-1]:
        if type(earlier) is not Inputs or type(earlier.recovery) is not Recovery:
            continue
        plan, then = earlier.recovery, earlier.observation
        if type(then) is not Observation or {*map(type, (*then, *plan[:2]))} != {int}:
            continue
        if not 0 <= then.seq - plan.seq <= rules.plan_steps:
            continue
        steps = observation.seq - plan.seq
        same_episode = observation.seq - then.seq == observation.step - then.step
        limit = 99 if rules.tail_limit is None else rules.tail_limit
        fresh = 0 <= now - plan.stamp_ns <= rules.tail_validity_ns
        row = steps // rules.row_steps
        if same_episode and fresh and 0 < steps <= limit and row < len(plan.plan):
            rows.append(plan.plan[row])
    return rows


def check_command(decision: Decision, now: Any, rules: Rules) -> None:
    action = decision.action
    assert type(action) is np.ndarray and action.dtype == np.float32 and action.shape == (2,)
    assert action.flags.writeable
    exact = action.astype(float)
    assert (exact >= rules.action_low).all() and (exact <= rules.action_high).all()
    assert decision.source is Source(decision.source) and decision.reason.name
    assert decision.alternative > decision.source or decision.alternative is Source.FAILSAFE
    assert math.isnan(decision.risk) or 0 <= decision.risk <= 1
    flown = (Reason.APPROVED, Reason.SHIELD_OFF)
    assert (decision.source is Source.TASK) == (decision.reason in flown)
    if decision.source is Source.RECOVERY:
        assert decision.recovery_reason is Reason.APPROVED
    if decision.source in (Source.TAIL, Source.FAILSAFE):
        assert decision.recovery_reason is not Reason.APPROVED
    assert (decision.source is Source.FAILSAFE) <= (decision.tail_reason is not Reason.APPROVED)
    if type(now) is int:
        assert now <= decision.valid_until_ns <= now + rules.command_validity_ns
    if decision.source is Source.FAILSAFE:
        assert action.tobytes() == rules.failsafe32.tobytes() and not decision.limited


def check_choice(seen: list[Inputs], decision: Decision, now: int, rules: Rules) -> None:
    """Invariant 1: approved for that very observation and proposal, or recovery, or failsafe."""
    inputs = seen[-1]
    if decision.source is Source.FAILSAFE:
        return
    assert inputs.armed is True and inputs.estop is False
    observation = inputs.observation
    assert decision.seq == observation.seq
    assert answers(observation, inputs, now, bounds(rules, "observation"))
    assert decision.valid_until_ns == observation.stamp_ns + rules.command_validity_ns
    if decision.source is Source.TASK:
        proposal, risk = inputs.proposal, inputs.risk
        assert answers(proposal, inputs, now, bounds(rules, "proposal"))
        wanted = [proposal.action]
        if rules.shield:
            of_proposal = inputs._replace(observation=observation._replace(seq=proposal.seq))
            assert answers(risk, of_proposal, now, bounds(rules, "risk"))
            assert risk.proposal_id == proposal.proposal_id
            assert 0 <= risk.risk <= rules.eps
            assert decision.risk == risk.risk
            assert guard_holds(inputs.guarded, rules)
        if rules.require_fallback and rules.shield:
            assert decision.alternative is not Source.FAILSAFE or Reason.RECOVERY_LIMIT in decision
    elif decision.source is Source.RECOVERY:
        assert answers(inputs.recovery, inputs, now, bounds(rules, "recovery"))
        behind = observation.seq - inputs.recovery.seq
        wanted = [inputs.recovery.plan[behind // rules.row_steps]]
    else:
        wanted = planned_rows(seen, now, rules)
    blending = decision.source is Source.TASK and rules.blend_steps > 1
    if not decision.limited and not blending:
        distances = [abs(decision.action - action).max() for action in wanted]
        assert min(distances) <= ACTION_SLACK


# Totality and purity


@quick
@given(st.lists(st.tuples(any_inputs(), small(stamps)), min_size=1, max_size=5), any_rules())
def test_any_inputs_at_all_give_a_command_inside_the_limits(steps, rules):
    state = State()
    for inputs, now in steps:
        state, decision = decide(state, inputs, now, rules)
        check_command(decision, now, rules)
        view, recovery = (
            (inputs.observation, inputs.recovery) if type(inputs) is Inputs else (inputs, inputs)
        )
        state = keep_plan(state, view, recovery, now, rules)
        assert type(hash(state)) is int  # immutable through and through


@quick
@given(any_inputs(), any_inputs(), st.integers(0, 100), any_rules())
def test_floating_point_traps_change_nothing(first, inputs, now, rules):
    state, _ = decide(State(), first, now, rules)
    expected = decide(state, inputs, now, rules)
    with np.errstate(over="raise", divide="raise", invalid="raise"):
        trapped = decide(state, inputs, now, rules)
    assert trapped[0] == expected[0] and repr(trapped[1]) == repr(expected[1])


def frozen(inputs: Any) -> str:
    """All of the inputs as text, arrays by their bytes."""
    if isinstance(inputs, tuple):
        return "".join(map(frozen, inputs))
    return inputs.tobytes().hex() if isinstance(inputs, np.ndarray) else repr(inputs)


@quick
@given(plausible_runs(), any_rules())
def test_decide_is_pure_and_shares_no_memory(run, rules):
    state = State()
    for inputs, now in run:
        before, kept = frozen(inputs), copy.deepcopy(state)
        again_state, again = decide(state, inputs, now, rules)
        new_state, decision = decide(state, inputs, now, rules)
        assert state == kept and frozen(inputs) == before
        assert again_state == new_state and repr(again) == repr(decision)
        for view, name in ((inputs.proposal, "action"), (inputs.recovery, "plan")):
            given_array = getattr(view, name, None)
            if type(given_array) is np.ndarray:
                assert not np.shares_memory(decision.action, given_array)
        others = (again.action, rules.failsafe32, rules.low32, rules.high32)
        assert not any(np.shares_memory(decision.action, other) for other in others)
        again.action[:] = math.nan  # whoever gets the command cannot reach into the state
        state = new_state
        assert decide(kept, inputs, now, rules)[0] == state


# Invariants over runs


@quick
@given(plausible_runs(), any_rules())
def test_every_command_is_approved_or_recovery_or_failsafe(run, rules):
    state, seen, decided = State(), [], -1
    for inputs, now in run:
        seen.append(inputs)
        state, decision = decide(state, inputs, now, rules)
        check_command(decision, now, rules)
        check_choice(seen, decision, now, rules)
        if decision.source is not Source.FAILSAFE:
            assert decision.seq > decided  # one command per observation, and never backwards
            decided = decision.seq


@quick
@given(plausible_runs())
def test_order_of_preference(run):
    """By default a source is passed over only for a cause of its own."""
    state = State()
    for inputs, now in run:
        state, decision = decide(state, inputs, now, PLAIN)
        usable = [
            source
            for source, reason in (
                (Source.TASK, decision.reason),
                (Source.RECOVERY, decision.recovery_reason),
                (Source.TAIL, decision.tail_reason),
            )
            if reason is Reason.APPROVED
        ]
        assert [decision.source, decision.alternative] == [*usable, Source.FAILSAFE, 3][:2]


@quick
@given(plausible_runs(), any_rules(), st.data())
def test_unknown_risk_never_approves(run, rules, data):
    assume(rules.shield)
    state = State()
    for inputs, now in run:
        proposal = inputs.proposal
        seq, own = getattr(proposal, "seq", 0), getattr(proposal, "proposal_id", 0)
        unknown = data.draw(
            st.sampled_from(
                [
                    None,
                    Risk(seq, now, own, math.nan),
                    Risk(seq, now, own, -0.1),
                    Risk(seq, now, own, 1.0000001),
                    Risk(seq, now, (own, 0), 0.0),
                    Risk((seq, 0), now, own, 0.0),
                    Risk(seq, now + 1, own, 0.0),
                    Risk(seq, now - PERIOD - 1, own, 0.0),
                    (seq, now, own, 0.0),
                ]
            )
        )
        state, decision = decide(state, inputs._replace(risk=unknown), now, rules)
        assert decision.source is not Source.TASK
        assert math.isnan(decision.risk)


@quick
@given(plausible_runs(faults=False), st.floats(0, 1))
def test_by_default_it_is_recovery_rl(run, eps):
    """The rule as published: arXiv 2010.15920, section III."""
    rules, state = Rules(**{**BASE, "eps": eps}), State()
    for inputs, now in run:
        state, decision = decide(state, inputs, now, rules)
        executed, source = inputs.proposal.action, Source.TASK
        if inputs.risk.risk > eps:
            executed, source = inputs.recovery.plan[0], Source.RECOVERY
        assert decision.source is source
        assert np.allclose(decision.action, executed, rtol=0, atol=ACTION_SLACK)
        assert decision.risk == inputs.risk.risk


# Several rates in one graph


@st.composite
def runs_at_several_rates(draw: st.DrawFn) -> tuple[list[tuple[Inputs, int]], dict[str, Any]]:
    """A plant, a policy every k-th and a planner every m-th observation, both late by chance."""
    every, planner_every = draw(st.integers(1, 5)), draw(st.integers(1, 7))
    number = st.integers(-100, 100).map(lambda percent: percent / 100)
    guarded = st.sampled_from([(0.0, 0.5)] * 6 + [(0.6, 0.5), (0.0, math.nan)])
    pending: list[tuple[int, Any]] = []
    held: dict[type, Any] = {Proposal: None, Risk: None, Recovery: None}
    steps, step, now = [], 0, 0
    for seq in range(draw(st.integers(1, 24))):
        now += PERIOD // 5
        step = 0 if draw(st.integers(0, 19)) == 0 else step + (seq > 0)
        late = st.integers(0, 3).map(lambda periods: seq + periods)  # noqa: B023  drawn at once
        if step % every == 0:
            task = np.array([draw(number), 0.4 + 0.3 * draw(number)], np.float32)
            value, when = draw(st.sampled_from([0.0, 0.1, 0.25, 0.4, 1.0])), draw(late)
            pending.append((when, Proposal(seq, now, seq, task)))
            pending.append((when + draw(st.integers(0, 1)), Risk(seq, now, seq, value)))
        if step % planner_every == 0:
            rows = [[draw(number), 0.4] for _ in range(draw(st.integers(1, 4)))]
            pending.append((draw(late), Recovery(seq, now, np.array(rows, np.float32), 0.0)))
        for when, view in pending:
            if when == seq:
                held[type(view)] = view
        values = np.array(draw(guarded), np.float32)
        views = (held[Proposal], held[Risk], held[Recovery])
        steps.append((Inputs(Observation(seq, now, step), *views, True, False, values), now))
    rates = {"hold_steps": every + draw(st.integers(-1, 2)), "row_steps": every}
    rates |= {"plan_steps": planner_every - 1, "blend_steps": draw(st.sampled_from([1, every]))}
    return steps, rates


@quick
@given(runs_at_several_rates(), st.booleans())
def test_at_several_rates_every_command_is_approved_or_recovery_or_failsafe(flown, guarding):
    run, rates = flown
    guard = {"guard_low": GUARD_LOW, "guard_high": GUARD_HIGH} if guarding else {}
    rules, state, seen = Rules(**{**BASE, **rates, **guard}), State(), []
    newest, approved = -1, []
    for inputs, now in run:
        seen.append(inputs)
        if inputs.observation.step == 0:
            approved.clear()
        state, decision = decide(state, inputs, now, rules)
        check_command(decision, now, rules)
        check_choice(seen, decision, now, rules)
        if decision.source is Source.TASK:
            assert inputs.proposal.seq >= newest  # an older one never comes back
            newest = inputs.proposal.seq
            approved.append(inputs.proposal.action)
            low, high = np.min(approved, axis=0), np.max(approved, axis=0)
            assert (decision.action >= low - 1e-6).all()  # between approved actions
            assert (decision.action <= high + 1e-6).all()
            if inputs.observation.seq - newest >= rules.blend_steps - 1:
                assert abs(decision.action - inputs.proposal.action).max() <= ACTION_SLACK


@quick
@given(runs_at_several_rates())
def test_an_approval_is_for_the_declared_number_of_observations_and_no_more(flown):
    run, rates = flown
    rules, state = Rules(**{**BASE, **rates}), State()
    for inputs, now in run:
        state, decision = decide(state, inputs, now, rules)
        if inputs.proposal is not None:
            behind = inputs.observation.seq - inputs.proposal.seq
            if behind > rules.hold_steps or behind > inputs.observation.step:
                assert decision.source is not Source.TASK


@quick
@given(plausible_runs(), any_rules(), st.integers(1, 9), st.integers(2, 9))
def test_with_an_answer_for_every_observation_the_rates_change_nothing(run, rules, reach, rows):
    """Held or not, what answers the very observation decides; only what is missing differs."""
    one_rate = replace(rules, hold_steps=0, plan_steps=0, row_steps=1, blend_steps=1)
    rates = replace(one_rate, hold_steps=reach, plan_steps=reach, row_steps=rows)
    for inputs, now in run:
        views = (inputs.proposal, inputs.recovery)
        if any(getattr(v, "seq", None) != getattr(inputs.observation, "seq", 0) for v in views):
            continue
        one, several = (decide(State(), inputs, now, r) for r in (one_rate, rates))
        assert one[0] == several[0] and repr(one[1]) == repr(several[1])


# Options


@quick
@given(plausible_runs(faults=False), any_rules())
def test_dwell_switches_and_stay_are_bounded(run, rules):
    assume(rules.shield)
    state, switches, away, stay, on_task = State(), [], 0, 0, True
    for inputs, now in run:
        step, seq = inputs.observation.step, inputs.observation.seq
        if step == 0:
            switches, away, stay, on_task = [], 0, 0, True
        state, decision = decide(state, inputs, now, rules)
        if (decision.source is Source.TASK) != on_task:
            on_task = not on_task
            switches.append(seq)
            if on_task:  # a return
                assert away >= rules.dwell_steps
                assert inputs.risk.risk <= rules.exit_risk
            away = 0
        away = 0 if on_task else away + 1
        stay = 0 if on_task or decision.reason is Reason.CHATTER else stay + 1
        if rules.recovery_limit is not None and stay > rules.recovery_limit:
            assert decision.source is Source.FAILSAFE
        if rules.switch_limit is not None:
            recent = [earlier for earlier in switches if earlier > seq - rules.switch_window]
            # The one that is too many goes to failsafe, and stays there for the window.
            assert len(recent) <= rules.switch_limit + 1
            if len(recent) == rules.switch_limit + 1 and recent[-1] == seq:
                assert decision.source is Source.FAILSAFE


@quick
@given(plausible_runs(), any_rules(), st.floats(1e-3, 0.5))
def test_a_switch_moves_the_command_by_at_most_max_step(run, rules, max_step):
    rules = Rules(**{**BASE, "max_step": max_step, "switch_limit": rules.switch_limit})
    state, last = State(), None
    for inputs, now in run:
        before = state
        state, decision = decide(state, inputs, now, rules)
        fresh = getattr(inputs.observation, "step", None) == 0 and decision.seq == state.last_seq
        if last is not None and decision.source is not Source.FAILSAFE and not fresh:
            switched = decision.source is not last.source
            moved = abs(decision.action - last.action).max()
            if switched or decision.limited:
                assert moved <= max_step + 1e-6
            if decision.limited:
                assert switched or before.ramping
        last = decision


class Operator(RuleBasedStateMachine):
    """A person at the e-stop while the run goes on (invariant 3)."""

    @initialize(rules=any_rules())
    def begin(self, rules: Rules) -> None:
        self.rules, self.state, self.stopped = rules, State(), False
        self.seen: list[Inputs] = []
        self.seq = self.now = self.step = 0
        self.last: Decision | None = None

    def decide(self, inputs: Any, now: Any) -> None:
        self.state, self.last = decide(self.state, inputs, now, self.rules)
        check_command(self.last, now, self.rules)

    @rule(data=st.data(), dt=st.sampled_from([PERIOD, PERIOD, 0, -PERIOD]), episode=st.booleans())
    def observe(self, data: st.DataObject, dt: int, episode: bool) -> None:
        self.seq, self.now, self.step = self.seq + 1, max(0, self.now + dt), self.step + 1
        if episode and data.draw(st.integers(0, 3)) == 0:
            self.step = 0
        inputs = data.draw(plausible_inputs(self.seq, self.now, self.step))
        self.seen.append(inputs)
        self.decide(inputs, self.now)
        check_choice(self.seen, self.last, self.now, self.rules)

    @rule(inputs=any_inputs(), now=small(stamps))
    def receive_nonsense(self, inputs: Any, now: Any) -> None:
        """Nonsense may stop the run, but never fly; it cannot hold an e-stop that a person set."""
        self.stopped |= type(inputs) is Inputs and inputs.estop is not False
        latched = self.state.estop
        before = self.state
        _, decision = decide(before, inputs, now, self.rules)
        check_command(decision, now, self.rules)
        self.state, self.last = decide(before, inputs, now, self.rules)
        assert self.state.estop or not latched
        self.seq = max(self.seq, self.state.last_seq)
        self.now = max(self.now, self.state.last_now_ns or 0)
        self.seen.append(inputs)

    @rule(value=st.sampled_from([True, None, 1, np.True_]))
    def press(self, value: Any) -> None:
        self.seq, self.now, self.step = self.seq + 1, self.now + 1, self.step + 1
        self.stopped = True
        self.decide(Inputs(Observation(self.seq, self.now, self.step), estop=value), self.now)

    @precondition(lambda self: self.stopped)
    @rule()
    def release(self) -> None:
        self.state, self.stopped, self.last = reset(self.state), False, None

    @invariant()
    def after_an_estop_only_failsafe(self) -> None:
        if getattr(self, "last", None) is not None:
            assert self.state.estop == self.stopped
            if self.stopped:
                assert (self.last.source, self.last.reason) == (Source.FAILSAFE, Reason.ESTOP)


TestOperator = Operator.TestCase
TestOperator.settings = settings(
    deadline=None,
    max_examples=40,
    stateful_step_count=20,
    suppress_health_check=[HealthCheck.too_slow],
    database=None,
)
