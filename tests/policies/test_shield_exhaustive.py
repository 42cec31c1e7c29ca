"""Every combination of what can be wrong, and every short history, against small oracles.

The oracles are written from DESIGN.md, not from the shield: they know kinds of input, not numbers.
"""

import itertools
import math
from typing import Any, NamedTuple

import numpy as np
import pytest

from safetypilot.policies.shield import (
    Inputs,
    Observation,
    Proposal,
    Recovery,
    Risk,
    Rules,
    Source,
    State,
    decide,
    reset,
)

NOW = 10_000
VALIDITY = 100
HORIZON = 3


def make_rules(**changes: Any) -> Rules:
    base: dict[str, Any] = dict.fromkeys(
        [f"{name}_validity_ns" for name in ("observation", "proposal", "risk", "recovery")],
        VALIDITY,
    )
    base |= {"tail_validity_ns": 500, "command_validity_ns": VALIDITY, "eps": 0.25}
    base |= {"action_low": (-1.0, -1.0), "action_high": (1.0, 1.0), "failsafe": (0.0, 0.0)}
    return Rules(**{**base, **changes})


RULES = make_rules()


def array(*rows: Any) -> np.ndarray:
    return np.array(rows, np.float32)


TASK, PLAN = array(0.5, 0.5), array([0.1, 0.1], [0.2, 0.2], [0.3, 0.3])
FAILSAFE = array(0.0, 0.0)


def fine(seq: int, now: int, step: int, *, risk: float | None = 0.0, plan: bool = True) -> Inputs:
    return Inputs(
        Observation(seq, now, step),
        Proposal(seq, now, seq, TASK),
        None if risk is None else Risk(seq, now, seq, risk),
        Recovery(seq, now, PLAN, 0.0) if plan else None,
    )


class History(NamedTuple):
    """A state, and what the oracle may know of it."""

    state: State
    tail: np.ndarray | None = None  # the row that comes next, if there is one
    estop: bool = False
    blocked: bool = False  # chatter
    rules: Rules = RULES


def run(*inputs: Inputs, rules: Rules = RULES, state: State | None = None, now: int = NOW) -> State:
    state = state or State()
    for one in inputs:
        state, _ = decide(state, one, now, rules)
    return state


# Each history ends with seq 9, step 9, at NOW; its successor is seq 10, step 10.
TASK_9 = fine(9, NOW, 9)
RECOVERED = run(fine(9, NOW, 9, risk=1.0))
LOST_9 = Inputs(Observation(9, NOW, 9))
CHATTERING = make_rules(switch_limit=1, switch_window=50)
HISTORIES = {
    "initial": History(State.initial()),
    "after task with a plan": History(run(TASK_9), tail=PLAN[1]),
    "after task without a plan": History(run(fine(9, NOW, 9, plan=False))),
    "after recovery": History(RECOVERED, tail=PLAN[1]),
    "in the tail": History(run(fine(8, NOW, 8, risk=1.0), LOST_9), tail=PLAN[2]),
    "tail exhausted": History(run(fine(7, NOW, 7), Inputs(Observation(8, NOW, 8)), LOST_9)),
    "tail at its limit": History(RECOVERED, rules=make_rules(tail_limit=0)),
    "plan too old": History(run(fine(9, NOW - 501, 9), now=NOW - 501)),
    "plan of another episode": History(run(fine(9, NOW, 5))),
    "after failsafe": History(run(LOST_9)),
    "after a lost observation": History(run(fine(8, NOW, 8), Inputs()), tail=PLAN[2]),
    "after disarming": History(run(TASK_9._replace(armed=False))),
    "after reversed time": History(
        run(fine(9, NOW - 10, 9), state=run(fine(8, NOW, 8)), now=NOW - 10)
    ),
    "e-stopped": History(run(TASK_9._replace(estop=True)), estop=True),
    "reset": History(reset(run(TASK_9._replace(estop=True)))),
    "chattering": History(
        run(fine(8, NOW, 8, risk=1.0), TASK_9, rules=CHATTERING), blocked=True, rules=CHATTERING
    ),
}  # fmt: skip
SEQ, STALE = 10, NOW - VALIDITY - 1


def observations(last_seq: int) -> dict[str, Any]:
    return {
        "missing": None,
        "stale": Observation(SEQ, STALE, SEQ),
        "late": Observation(last_seq - 5, NOW, last_seq - 5),
        "future": Observation(SEQ, NOW + 1, SEQ),
        "non-finite": Observation(SEQ, math.nan, SEQ),  # type: ignore[arg-type]
        "wrong shape": (SEQ, NOW, SEQ),
        "duplicate": Observation(last_seq, NOW, last_seq),
        "fine": Observation(SEQ, NOW, SEQ),
    }


PROPOSALS: dict[str, Any] = {
    "missing": None,
    "stale": Proposal(SEQ, STALE, SEQ, TASK),
    "late": Proposal(SEQ - 5, NOW, SEQ, TASK),
    "non-finite": Proposal(SEQ, NOW, SEQ, array(0.0, math.nan)),
    "wrong shape": Proposal(SEQ, NOW, SEQ, array(0.0, 0.0, 0.0)),
    "out of limits": Proposal(SEQ, NOW, SEQ, array(0.0, 1.1)),
    "duplicate": Proposal(9, NOW, 9, TASK),
    "fine": Proposal(SEQ, NOW, SEQ, TASK),
}
RISKS: dict[str, Any] = {
    "missing": None,
    "stale": Risk(SEQ, STALE, SEQ, 0.0),
    "late": Risk(SEQ - 5, NOW, SEQ, 0.0),
    "non-finite": Risk(SEQ, NOW, SEQ, math.nan),
    "wrong shape": Risk(SEQ, NOW, SEQ, array(0.0)),  # type: ignore[arg-type]
    "out of range": Risk(SEQ, NOW, SEQ, -0.5),
    "other proposal": Risk(SEQ, NOW, SEQ + 1, 0.0),
    "duplicate": Risk(9, NOW, 9, 0.0),
    "high": Risk(SEQ, NOW, SEQ, 0.5),
    "fine": Risk(SEQ, NOW, SEQ, 0.25),
}
RECOVERIES: dict[str, Any] = {
    "missing": None,
    "stale": Recovery(SEQ, STALE, PLAN, 0.0),
    "late": Recovery(SEQ - 5, NOW, PLAN, 0.0),
    "non-finite": Recovery(SEQ, NOW, array([0.1, 0.1], [math.inf, 0.0]), 0.0),
    "wrong shape": Recovery(SEQ, NOW, TASK, 0.0),
    "out of limits": Recovery(SEQ, NOW, array([0.1, 0.1], [0.0, -1.1]), 0.0),
    "duplicate": Recovery(9, NOW, PLAN, 0.0),
    "fine": Recovery(SEQ, NOW, PLAN, 0.0),
}


def expected(kinds: tuple[str, ...], armed: bool, estop: bool, history: History) -> Source:
    observation, proposal, risk, recovery = (kind == "fine" for kind in kinds)
    if estop or history.estop or not armed or not observation or history.blocked:
        return Source.FAILSAFE
    if proposal and risk:
        return Source.TASK
    if recovery:
        return Source.RECOVERY
    return Source.FAILSAFE if history.tail is None else Source.TAIL


def test_the_histories_are_what_they_claim():
    plans = {name for name, history in HISTORIES.items() if history.state.plan is not None}
    assert {name for name, history in HISTORIES.items() if history.tail is not None} <= plans
    assert {"plan too old", "plan of another episode", "tail at its limit"} <= plans
    assert HISTORIES["in the tail"].state.source is Source.TAIL
    assert HISTORIES["after recovery"].state.source is Source.RECOVERY
    assert HISTORIES["chattering"].state.mode.blocked_until == 9 + 50


@pytest.mark.parametrize("history", HISTORIES.values(), ids=HISTORIES)
def test_every_combination_of_faults(history):
    actions = (TASK, PLAN[0], history.tail, FAILSAFE)
    tables = (observations(history.state.last_seq), PROPOSALS, RISKS, RECOVERIES)
    for kinds in itertools.product(*tables):
        views = [table[kind] for table, kind in zip(tables, kinds, strict=True)]
        for armed, estop in ((True, False), (True, True), (False, False), (False, True)):
            inputs = Inputs(*views, armed=armed, estop=estop)
            state, decision = decide(history.state, inputs, NOW, history.rules)
            source = expected(kinds, armed, estop, history)
            note = (*kinds, armed, estop, decision.reason.name)
            assert decision.source is source, note
            assert decision.action.tobytes() == actions[source].tobytes(), note
            assert state.estop is (estop or history.estop), note
            if source is not Source.FAILSAFE:
                assert (decision.seq, decision.valid_until_ns) == (SEQ, NOW + VALIDITY), note
            if not (armed and kinds[0] == "fine"):
                # Nothing was judged, so one cause stands for all three.
                reasons = {decision.reason, decision.recovery_reason, decision.tail_reason}
                assert len(reasons) == 1, note


# Every history of eight steps under every option, against a few lines that count


class Plain(NamedTuple):
    """The options written down a second time, as counters over the past choices."""

    eps_exit: float = 0.25
    dwell_steps: int = 0
    dwell_backoff: float = 1.0
    dwell_limit: int = 1000
    switch_limit: int | None = None
    switch_window: int = 100
    recovery_limit: int | None = None

    def choices(self, risks: tuple[float, ...]) -> str:
        """T, R, or F for each step."""
        out, off, stay, run_length, switches, blocked = "", False, 0, 0, [], -1
        for step, risk in enumerate(risks):
            if step < blocked:
                out += "F"
                continue
            task = risk <= (self.eps_exit if off else 0.25) and not (off and run_length < stay)
            spent = off and self.recovery_limit is not None and run_length >= self.recovery_limit
            if task == off:
                switches = [*(s for s in switches if s > step - self.switch_window), step]
                if self.switch_limit is not None and len(switches) > self.switch_limit:
                    out, off, run_length, switches = out + "F", True, 0, []
                    blocked = step + self.switch_window
                    continue
                if not task:
                    quick = run_length <= stay
                    grown = math.ceil(min(stay * self.dwell_backoff, self.dwell_limit))
                    stay = max(self.dwell_steps, grown) if quick else self.dwell_steps
                off, run_length = not task, 0
            run_length += 1
            out += "T" if task else "F" if spent else "R"
        return out


OPTIONS = [
    Plain(),
    Plain(eps_exit=0.1),
    Plain(dwell_steps=3),
    Plain(dwell_steps=1, dwell_backoff=2.0, dwell_limit=3),
    Plain(dwell_steps=2, dwell_backoff=1.5, dwell_limit=5, eps_exit=0.1),
    Plain(switch_limit=2, switch_window=4),
    Plain(switch_limit=1, switch_window=2, dwell_steps=2),
    Plain(recovery_limit=2, eps_exit=0.1),
    Plain(recovery_limit=1, switch_limit=3, switch_window=6, dwell_steps=2, dwell_backoff=2.0),
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_every_short_history(options):
    rules = make_rules(**options._asdict())
    levels = (0.1, 0.2, 0.9)
    views = {(step, risk): fine(step, NOW, step, risk=risk) for step in range(8) for risk in levels}

    def walk(state: State, risks: tuple[float, ...], sources: str) -> None:
        """Visit the tree of histories depth first, so that no prefix is flown twice."""
        if len(risks) == 8:
            assert sources == options.choices(risks), risks
            return
        for risk in levels:
            after, decision = decide(state, views[len(risks), risk], NOW, rules)
            walk(after, (*risks, risk), sources + "TRLF"[decision.source])

    walk(State(), (), "")
