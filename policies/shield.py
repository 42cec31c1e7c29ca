"""Chooses the one action that may reach the plant: task, recovery, tail of a vetted plan, failsafe.

`decide` is pure and total: whatever the inputs hold, it returns a finite command inside the limits.
Views carry Python ints and floats and float32 arrays of the declared shape; anything else is
refused, never converted. Letters: A action size, H plan length, G guarded values.

Several rates in one graph: `decide` is called for every observation of the fast plant. By default
an answer serves the observation it was made for and no other; with `hold_steps` and `plan_steps`
an approved proposal and a vetted plan also serve so many observations after their own, within
their validity. The guard judges every observation, also those that no policy sees.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


class Source(IntEnum):
    """Where a command came from, in order of preference."""

    TASK = 0
    RECOVERY = 1
    TAIL = 2
    FAILSAFE = 3


class Reason(IntEnum):
    """Why a source was not used, or APPROVED. The numbers are on the wire and never reused."""

    APPROVED = 0
    SHIELD_OFF = 1  # the task action flies whatever its risk
    ESTOP = 10
    NOT_ARMED = 11
    INPUTS_INVALID = 12
    TIME_INVALID = 13
    TIME_REVERSED = 14
    OBSERVATION_MISSING = 20
    OBSERVATION_INVALID = 21
    OBSERVATION_FUTURE = 22
    OBSERVATION_STALE = 23
    DUPLICATE = 24  # this seq has been decided already
    SEQ_REVERSED = 25
    OBSERVATION_OVER_BUDGET = 26  # within its validity, but older than its latency budget
    PROPOSAL_MISSING = 30
    PROPOSAL_INVALID = 31  # wrong type, dtype or shape
    PROPOSAL_OTHER_OBSERVATION = 32  # late, or early
    PROPOSAL_FUTURE = 33
    PROPOSAL_STALE = 34
    PROPOSAL_NOT_FINITE = 35
    PROPOSAL_OUT_OF_LIMITS = 36
    PROPOSAL_OVER_BUDGET = 37
    RISK_MISSING = 40
    RISK_INVALID = 41  # not a number
    RISK_OTHER_OBSERVATION = 42
    RISK_FUTURE = 43
    RISK_STALE = 44
    RISK_NOT_FINITE = 45
    RISK_OUT_OF_LIMITS = 46  # not in [0, 1]
    RISK_OTHER_PROPOSAL = 47
    RISK_TOO_HIGH = 48  # above eps
    RISK_ABOVE_EXIT = 49  # off the task, and not yet down to eps_exit
    RECOVERY_MISSING = 50
    RECOVERY_INVALID = 51
    RECOVERY_OTHER_OBSERVATION = 52
    RECOVERY_FUTURE = 53
    RECOVERY_STALE = 54
    RECOVERY_NOT_FINITE = 55
    RECOVERY_OUT_OF_LIMITS = 56
    RECOVERY_OVER_BUDGET = 57
    RECOVERY_ENDED = 58  # fresh, but past its last row
    TAIL_MISSING = 60  # no vetted plan
    TAIL_OTHER_EPISODE = 61
    TAIL_FUTURE = 62
    TAIL_STALE = 63
    TAIL_ENDED = 64  # past the plan's last row, or past tail_limit
    CHATTER = 70  # more switches in the window than allowed
    DWELL = 71  # off the task, and not for long enough
    NO_FALLBACK = 72
    RECOVERY_LIMIT = 73  # off the task for recovery_limit steps
    GUARD_BREACHED = 80  # the observation has left the declared bounds
    GUARD_INVALID = 81  # its guarded values did not come, or not as float32
    RISK_OVER_BUDGET = 90


class Observation(NamedTuple):
    seq: int
    stamp_ns: int
    step: int  # 0 at the first observation of an episode


class Proposal(NamedTuple):
    seq: int
    stamp_ns: int
    proposal_id: int
    action: FloatArray  # (A,)


class Risk(NamedTuple):
    seq: int
    stamp_ns: int
    proposal_id: int
    risk: float


class Recovery(NamedTuple):
    seq: int
    stamp_ns: int
    plan: FloatArray  # (H, A); row i is for the row_steps observations from seq + i * row_steps
    risk: float  # for the record: recovery is used whatever its risk


class Inputs(NamedTuple):
    observation: Observation | None = None
    proposal: Proposal | None = None
    risk: Risk | None = None
    recovery: Recovery | None = None
    armed: bool = True  # anything but True is not armed
    estop: bool = False  # anything but False is an e-stop
    guarded: FloatArray | None = None  # (G,) of the observation; needed where there is a guard


class Decision(NamedTuple):
    seq: int  # -1: no observation to speak of
    action: FloatArray  # (A,), a fresh array
    source: Source
    reason: Reason  # why not TASK; APPROVED or SHIELD_OFF if it is TASK
    alternative: Source  # the next usable one
    risk: float  # of the proposal; nan if unknown
    valid_until_ns: int
    recovery_reason: Reason  # why not RECOVERY, or APPROVED if it was usable
    tail_reason: Reason  # why not TAIL, or APPROVED if it was usable
    limited: bool  # max_step held the command back from the source's action


_COUNTS = (  # whole numbers of Rules, and the least each can be
    ("switch_window", 1), ("dwell_steps", 0), ("hold_steps", 0), ("plan_steps", 0),
    ("row_steps", 1), ("blend_steps", 1),
)  # fmt: skip
_OPTIONAL = (  # None, or a whole number
    ("tail_limit", 0), ("switch_limit", 1), ("recovery_limit", 1), ("observation_budget_ns", 1),
    ("proposal_budget_ns", 1), ("risk_budget_ns", 1), ("recovery_budget_ns", 1),
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Rules:
    """What the shield enforces. The defaults are Recovery RL's rule: the task if risk <= eps."""

    eps: float
    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    failsafe: tuple[float, ...]
    observation_validity_ns: int
    proposal_validity_ns: int
    risk_validity_ns: int
    recovery_validity_ns: int
    tail_validity_ns: int
    command_validity_ns: int  # counted from the observation's stamp
    limit_tolerance: float = 1e-5  # of the range: overshoot that is rounding, and is clipped
    tail_limit: int | None = None  # steps; None: to the end of the plan
    shield: bool = True
    eps_exit: float | None = None  # risk at which the task may return; None: eps
    dwell_steps: int = 0  # least stay off the task
    dwell_backoff: float = 1.0  # multiplies the dwell if the task lasted no longer than it
    dwell_limit: int = 1000
    switch_limit: int | None = None  # more in the window: failsafe for switch_window steps
    switch_window: int = 100
    recovery_limit: int | None = None  # steps off the task, then failsafe until it is approved
    max_step: float | tuple[float, ...] | None = None  # change of command per step after a switch
    require_fallback: bool = False  # approve the task only with RECOVERY or TAIL at hand
    hold_steps: int = 0  # observations after its own that an approved proposal may serve
    plan_steps: int = 0  # observations after its own that a plan counts as fresh
    row_steps: int = 1  # observations that one row of a plan is for
    blend_steps: int = 1  # observations over which the command goes over to a new proposal, evenly
    guard_low: tuple[float, ...] = ()  # bounds of the guarded values, inclusive
    guard_high: tuple[float, ...] = ()
    observation_budget_ns: int | None = None  # a latency budget within the validity
    proposal_budget_ns: int | None = None
    risk_budget_ns: int | None = None
    recovery_budget_ns: int | None = None
    low32: FloatArray = field(init=False, repr=False, compare=False)
    high32: FloatArray = field(init=False, repr=False, compare=False)
    failsafe32: FloatArray = field(init=False, repr=False, compare=False)
    guard_low32: FloatArray = field(init=False, repr=False, compare=False)
    guard_high32: FloatArray = field(init=False, repr=False, compare=False)
    exit_risk: float = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        low = _numbers("action_low", self.action_low)
        if not low:
            raise ValueError("action_low needs at least one number")
        high = _numbers("action_high", self.action_high, len(low))
        failsafe = _numbers("failsafe", self.failsafe, len(low))
        _bounded("limit_tolerance", self.limit_tolerance, 0.0, 0.01)
        _bounded("eps", self.eps, 0.0, 1.0)
        exit_risk = self.eps if self.eps_exit is None else self.eps_exit
        _bounded("eps_exit", exit_risk, 0.0, self.eps)
        _bounded("dwell_backoff", self.dwell_backoff, 1.0, 1e6)
        for name in ("observation", "proposal", "risk", "recovery", "tail", "command"):
            _whole(f"{name}_validity_ns", getattr(self, f"{name}_validity_ns"), 1)
        for name, least in _OPTIONAL:
            if getattr(self, name) is not None:
                _whole(name, getattr(self, name), least)
        for name, least in _COUNTS:
            _whole(name, getattr(self, name), least)
        _whole("dwell_limit", self.dwell_limit, self.dwell_steps)
        for name in ("shield", "require_fallback"):
            if type(getattr(self, name)) is not bool:
                raise ValueError(f"{name} must be True or False, got {getattr(self, name)!r}")
        step = _steps(self.max_step, len(low))
        floor = _numbers("guard_low", self.guard_low)
        ceiling = _numbers("guard_high", self.guard_high, len(floor), "guard_low")
        derived = {
            "action_low": low, "action_high": high, "failsafe": failsafe, "max_step": step,
            "low32": _inward(low, np.inf), "high32": _inward(high, -np.inf), "exit_risk": exit_risk,
            "guard_low": floor, "guard_low32": _inward(floor, np.inf),
            "guard_high": ceiling, "guard_high32": _inward(ceiling, -np.inf),
        }  # fmt: skip
        for name, value in derived.items():
            object.__setattr__(self, name, value)
        if not (self.low32 < self.high32).all():
            raise ValueError(f"action_low {low} must be below action_high {high} everywhere")
        if not (self.guard_low32 < self.guard_high32).all():
            raise ValueError(f"guard_low {floor} must be below guard_high {ceiling} everywhere")
        reason, stop = _vet_array(np.array(failsafe, np.float32), 1, self, _PROPOSAL)
        if reason is not _OK:
            raise ValueError(f"failsafe {failsafe} leaves the limits {low} .. {high}")
        object.__setattr__(self, "failsafe32", stop)
        for array in (self.low32, self.high32, stop, self.guard_low32, self.guard_high32):
            array.flags.writeable = False


def _numbers(
    name: str, values: Sequence[float], size: int | None = None, like: str = "action_low"
) -> tuple[float, ...]:
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a list of numbers, got {values!r}") from error
    if size is not None and len(numbers) != size:
        raise ValueError(f"{name} needs {size} numbers like {like}, got {len(numbers)}")
    if not all(abs(number) <= 1e30 for number in numbers):  # leaves float32 room for arithmetic
        raise ValueError(f"{name} must be finite and within 1e30, got {numbers}")
    return numbers


def _steps(step: float | tuple[float, ...] | None, size: int) -> tuple[float, ...] | None:
    """The largest change of command per step, one number for each action."""
    if step is None:
        return None
    steps = (step,) * size if isinstance(step, float | int) else step
    steps = _numbers("max_step", steps, size)
    if min(steps) <= 0.0:
        raise ValueError(f"max_step must be above 0, got {steps}")
    return steps


def _bounded(name: str, value: float, low: float, high: float) -> None:
    if type(value) not in (float, int) or not low <= value <= high:
        raise ValueError(f"{name} must be a number in [{low}, {high}], got {value!r}")


def _whole(name: str, value: int, least: int) -> None:
    if type(value) is not int or value < least:
        raise ValueError(f"{name} must be a whole number of at least {least}, got {value!r}")


def _inward(bounds: tuple[float, ...], inside: float) -> FloatArray:
    """Round limits to float32 without widening the box."""
    nearest = np.array(bounds, np.float32)
    widened = (nearest < bounds) if inside > 0 else (nearest > bounds)
    return np.where(widened, np.nextafter(nearest, np.float32(inside)), nearest)


class Vetted(NamedTuple):
    """A recovery plan that was accepted for its own observation."""

    seq: int
    stamp_ns: int
    step: int
    rows: bytes  # (H, A) float32: immutable, so that states compare and never alias


class Mode(NamedTuple):
    """What the options remember: on or off the task, for how long, and recent switches."""

    recovering: bool = False
    held: int = 0  # steps in this mode
    dwell: int = 0  # steps to stay off the task this time
    switches: tuple[int, ...] = ()  # their seqs, within the window
    blocked_until: int = 0  # seq; failsafe before it, after chatter


class Blend(NamedTuple):
    """The way from one approved proposal to the next."""

    proposal: int  # seq of the new one
    first: int  # seq of the observation at which it took over
    start: bytes  # (A,) float32: the command before it


@dataclass(frozen=True, slots=True)
class State:
    """What `decide` remembers."""

    last_seq: int = -1
    last_now_ns: int | None = None
    estop: bool = False  # latched until `reset`
    plan: Vetted | None = None
    mode: Mode = field(default_factory=Mode)
    source: Source | None = None  # of this episode's last command
    action: bytes = b""  # this episode's last command, float32
    ramping: bool = False  # max_step still holds the command back
    judged: int = -1  # seq of the newest proposal that was judged: none before it ever flies
    blend: Blend | None = None

    @staticmethod
    def initial() -> "State":
        return State()


class _Causes(NamedTuple):
    missing: Reason
    invalid: Reason
    other_observation: Reason
    future: Reason
    stale: Reason
    over_budget: Reason
    not_finite: Reason
    out_of_limits: Reason


def _causes(name: str) -> _Causes:
    return _Causes(*(Reason[f"{name}_{cause.upper()}"] for cause in _Causes._fields))


_PROPOSAL, _RISK, _RECOVERY = _causes("PROPOSAL"), _causes("RISK"), _causes("RECOVERY")
_OK, _SHIELD_OFF = Reason.APPROVED, Reason.SHIELD_OFF
_FLOAT32 = np.dtype(np.float32)
_FLOATS = (float, np.float32, np.float64)
_NOTHING = np.zeros(0, np.float32)


def reset(state: State) -> State:
    """Release the e-stop and forget all but seq and time. Only a person's request may call this."""
    return State(state.last_seq, state.last_now_ns)


def keep_plan(
    state: State, observation: Observation, recovery: Recovery, now_ns: int, rules: Rules
) -> State:
    """Keep the tail of a plan that came in time, but after its observation's task action went out.

    A plan that comes after the deadline forced another choice is late, and late is never used.
    """
    if type(now_ns) is not int or state.last_now_ns is None or now_ns < state.last_now_ns:
        return state
    if not _is_observation(observation) or observation.seq != state.last_seq:
        return state
    reason, vetted = _vet_recovery(state, observation, recovery, now_ns, rules)
    if state.source is not Source.TASK or reason is not _OK:
        return state
    return replace(state, plan=vetted)


def decide(state: State, inputs: Inputs, now_ns: int, rules: Rules) -> tuple[State, Decision]:
    """Choose the command for the inputs' observation; call it once per observation."""
    observation = inputs.observation if type(inputs) is Inputs else None
    stop = _stop_reason(state, inputs, now_ns)
    fault = _observation_reason(state, observation, now_ns, rules)
    if observation is not None and fault is _OK and observation.step == 0:
        # The plant was put elsewhere: a plan, a dwell or a ramp means nothing any more.
        state = State(state.last_seq, state.last_now_ns, state.estop)
    if observation is None or stop is not _OK or fault is not _OK:
        return _failsafe(state, observation, now_ns, rules, (stop, fault))
    seq, stamp_ns, _ = observation
    reason, task, risk, judged = _judge_task(state, inputs, observation, now_ns, rules)
    recovery_reason, plan = _vet_recovery(state, observation, inputs.recovery, now_ns, rules)
    tail_reason = _tail_reason(state.plan, observation, now_ns, rules)
    if reason is _OK:
        fallback = recovery_reason is _OK or tail_reason is _OK
        reason = _return_reason(state.mode, risk, fallback, rules)
    mode = _next_mode(state.mode, reason is _OK or reason is _SHIELD_OFF, seq, rules)
    if seq < mode.blocked_until:
        reason = recovery_reason = tail_reason = Reason.CHATTER
    elif _overstayed(state.mode, rules):
        recovery_reason = recovery_reason or Reason.RECOVERY_LIMIT  # APPROVED is the false one
        tail_reason = tail_reason or Reason.RECOVERY_LIMIT

    source, alternative = _preferred(reason, recovery_reason, tail_reason)
    valid_until_ns, blend = stamp_ns + rules.command_validity_ns, None
    if source is Source.TASK:
        action, blend = _blended(state.blend, state.action, (judged, seq), task, rules)
    elif source is not Source.FAILSAFE and plan is not None:
        action = _row(plan, seq, rules)
    else:
        action, valid_until_ns = rules.failsafe32, now_ns + rules.command_validity_ns
    action, limited = _slew(state, source, action, rules)
    action = np.minimum(np.maximum(action, rules.low32), rules.high32)  # the clamp comes last
    new_state = State(
        seq, now_ns, False, plan, mode, source, action.tobytes(), limited, judged, blend
    )
    return new_state, Decision(
        seq, action, source, reason, alternative, risk, valid_until_ns,
        recovery_reason, tail_reason, limited,
    )  # fmt: skip


def _stop_reason(state: State, inputs: Inputs, now_ns: int) -> Reason:
    """Why nothing but failsafe may go out, whatever the observation."""
    if state.estop:
        return Reason.ESTOP
    if type(inputs) is not Inputs:
        return Reason.INPUTS_INVALID
    if inputs.estop is not False:
        return Reason.ESTOP
    if type(now_ns) is not int:
        return Reason.TIME_INVALID
    if state.last_now_ns is not None and now_ns < state.last_now_ns:
        return Reason.TIME_REVERSED
    return _OK if inputs.armed is True else Reason.NOT_ARMED


def _is_observation(view: object) -> bool:
    if type(view) is not Observation:
        return False
    seq, stamp_ns, step = view  # unrolled: a loop here costs a tenth of the whole decision
    whole = type(seq) is int and type(stamp_ns) is int and type(step) is int
    return whole and seq >= 0 and stamp_ns >= 0 and step >= 0


def _observation_reason(
    state: State, observation: Observation | None, now_ns: int, rules: Rules
) -> Reason:
    if observation is None:
        return Reason.OBSERVATION_MISSING
    if type(now_ns) is not int:
        return Reason.TIME_INVALID
    if not _is_observation(observation):
        return Reason.OBSERVATION_INVALID
    age_ns = now_ns - observation.stamp_ns
    if age_ns < 0:
        return Reason.OBSERVATION_FUTURE
    if age_ns > rules.observation_validity_ns or age_ns > rules.command_validity_ns:
        return Reason.OBSERVATION_STALE
    if rules.observation_budget_ns is not None and age_ns > rules.observation_budget_ns:
        return Reason.OBSERVATION_OVER_BUDGET
    if observation.seq > state.last_seq:
        return _OK
    return Reason.DUPLICATE if observation.seq == state.last_seq else Reason.SEQ_REVERSED


def _failsafe(
    state: State,
    observation: Observation | None,
    now_ns: int,
    rules: Rules,
    stop_and_fault: tuple[Reason, Reason],
) -> tuple[State, Decision]:
    """Failsafe, and what of the memory outlives it."""
    stop, fault = stop_and_fault
    reason = stop or fault
    timed = type(now_ns) is int
    seq = observation.seq if observation is not None and _is_observation(observation) else -1
    new_state = replace(
        state,
        last_seq=seq if fault is _OK else state.last_seq,
        last_now_ns=now_ns if timed else state.last_now_ns,
        estop=reason is Reason.ESTOP,
        plan=state.plan if stop is _OK else None,  # a tail bridges a lost input, never a stop
        source=Source.FAILSAFE,
        action=rules.failsafe32.tobytes(),
        blend=None,
    )
    # Without a clock the command expires at once, and the plant takes its own failsafe.
    valid_until_ns = now_ns + rules.command_validity_ns if timed else 0
    return new_state, Decision(
        seq, rules.failsafe32.copy(), Source.FAILSAFE, reason, Source.FAILSAFE, math.nan,
        valid_until_ns, reason, reason, False,
    )  # fmt: skip


# What ties an answer to an observation: the seq of the newest one that it may answer, how many
# before that it may answer instead, the time, validity and latency budget. A plain tuple: cheap.
_Link = tuple[int, int, int, int, int | None]


def _link_reason(
    view: Proposal | Risk | Recovery | None, kind: type, link: _Link, causes: _Causes
) -> Reason:
    """Whether a view answers this very observation, or one that is near enough, and is fresh."""
    if view is None:
        return causes.missing
    if type(view) is not kind or type(view.seq) is not int or type(view.stamp_ns) is not int:
        return causes.invalid
    seq, reach, now_ns, validity_ns, budget_ns = link
    if not 0 <= seq - view.seq <= reach:
        return causes.other_observation
    age_ns = now_ns - view.stamp_ns
    if age_ns < 0:
        return causes.future
    if age_ns > validity_ns:
        return causes.stale
    return _OK if budget_ns is None or age_ns <= budget_ns else causes.over_budget


def _vet_array(
    array: FloatArray, dimensions: int, rules: Rules, causes: _Causes
) -> tuple[Reason, FloatArray]:
    """Return a copy inside the limits, rounding clipped; anything more is a fault."""
    if not _is_array(array, dimensions, rules):
        return causes.invalid, _NOTHING
    if dimensions == 1 and _is_inside(array, rules):
        return _OK, array.copy()
    clipped = np.minimum(np.maximum(array, rules.low32), rules.high32)
    if (clipped == array).all():
        return _OK, clipped
    if not np.isfinite(array).all():
        return causes.not_finite, _NOTHING
    slack = np.float32(rules.limit_tolerance) * (rules.high32 - rules.low32)
    outside = (abs(array - clipped) > slack).any()
    return (causes.out_of_limits, _NOTHING) if outside else (_OK, clipped)


def _is_array(array: FloatArray, dimensions: int, rules: Rules) -> bool:
    """Whether it is float32, an action wide, and not empty."""
    if type(array) is not np.ndarray or array.dtype != _FLOAT32:
        return False
    return array.ndim == dimensions and array.shape[-1:] == rules.low32.shape and array.size > 0


def _is_inside(row: FloatArray, rules: Rules) -> bool:
    """Whether one action is within the limits; NaN is not. NumPy takes three times as long here."""
    for number, low, high in zip(row.tolist(), rules.action_low, rules.action_high, strict=True):
        if not low <= number <= high:
            return False
    return True


def _judge_task(
    state: State, inputs: Inputs, observation: Observation, now_ns: int, rules: Rules
) -> tuple[Reason, FloatArray, float, int]:
    """Recovery RL's rule: the proposal flies if its own risk is known and at most eps.

    Returns the reason, the action, its risk, and the seq of the newest proposal judged so far.
    """
    proposal, judged = inputs.proposal, state.judged
    reach = rules.hold_steps and min(rules.hold_steps, observation.step)  # within the episode
    validity = rules.proposal_validity_ns
    link = (observation.seq, reach, now_ns, validity, rules.proposal_budget_ns)
    reason = _link_reason(proposal, Proposal, link, _PROPOSAL)
    if proposal is None or reason is not _OK:
        return reason, _NOTHING, math.nan, judged
    if proposal.seq < judged:
        return Reason.PROPOSAL_OTHER_OBSERVATION, _NOTHING, math.nan, judged
    judged = proposal.seq
    if type(proposal.proposal_id) is not int:
        return Reason.PROPOSAL_INVALID, _NOTHING, math.nan, judged
    reason, task = _vet_array(proposal.action, 1, rules, _PROPOSAL)
    if reason is not _OK:
        return reason, _NOTHING, math.nan, judged
    reason, risk = _vet_risk(inputs.risk, proposal, now_ns, rules)
    if not rules.shield:
        return _SHIELD_OFF, task, risk, judged
    if reason is _OK:
        reason = Reason.RISK_TOO_HIGH if risk > rules.eps else _guard_reason(inputs.guarded, rules)
    return reason, task, risk, judged


def _vet_risk(
    risk: Risk | None, proposal: Proposal, now_ns: int, rules: Rules
) -> tuple[Reason, float]:
    link = (proposal.seq, 0, now_ns, rules.risk_validity_ns, rules.risk_budget_ns)
    reason = _link_reason(risk, Risk, link, _RISK)
    if risk is None or reason is not _OK:
        return reason, math.nan
    if type(risk.proposal_id) is not int or type(risk.risk) not in _FLOATS:
        return Reason.RISK_INVALID, math.nan
    if risk.proposal_id != proposal.proposal_id:
        return Reason.RISK_OTHER_PROPOSAL, math.nan
    value = float(risk.risk)
    if not math.isfinite(value):
        return Reason.RISK_NOT_FINITE, math.nan
    return (_OK, value) if 0.0 <= value <= 1.0 else (Reason.RISK_OUT_OF_LIMITS, math.nan)


def _guard_reason(guarded: FloatArray | None, rules: Rules) -> Reason:
    """Whether the observation at hand is within its declared bounds; unknown is not."""
    if not rules.guard_low:
        return _OK
    if type(guarded) is not np.ndarray or guarded.dtype != _FLOAT32:
        return Reason.GUARD_INVALID
    if guarded.shape != rules.guard_low32.shape:
        return Reason.GUARD_INVALID
    inside = (guarded >= rules.guard_low32) & (guarded <= rules.guard_high32)  # False for NaN
    return _OK if inside.all() else Reason.GUARD_BREACHED


def _vet_recovery(
    state: State, observation: Observation, recovery: Recovery | None, now_ns: int, rules: Rules
) -> tuple[Reason, Vetted | None]:
    """Whether a plan may be used, and the last vetted plan: this one if so."""
    seq, _, step = observation
    kept = state.plan
    reach = rules.plan_steps and min(rules.plan_steps, step)
    link = (seq, reach, now_ns, rules.recovery_validity_ns, rules.recovery_budget_ns)
    reason = _link_reason(recovery, Recovery, link, _RECOVERY)
    if recovery is None or reason is not _OK:
        return reason, kept
    if kept is not None and recovery.seq < kept.seq:
        return Reason.RECOVERY_OTHER_OBSERVATION, kept
    behind = seq - recovery.seq
    rows = _rows_again(recovery, kept, rules)
    if not rows:
        reason, plan = _vet_array(recovery.plan, 2, rules, _RECOVERY)
        rows = plan.tobytes()
    if reason is _OK and behind // rules.row_steps >= len(rows) // rules.low32.nbytes:
        reason = Reason.RECOVERY_ENDED
    if reason is not _OK:
        return reason, kept
    return _OK, Vetted(recovery.seq, recovery.stamp_ns, step - behind, rows)


def _rows_again(recovery: Recovery, kept: Vetted | None, rules: Rules) -> bytes:
    """The rows of a plan that has been vetted, to the bit, for an earlier observation; or none."""
    if kept is None or recovery.seq != kept.seq or not _is_array(recovery.plan, 2, rules):
        return b""
    return kept.rows if recovery.plan.tobytes() == kept.rows else b""


def _tail_reason(
    plan: Vetted | None, observation: Observation, now_ns: int, rules: Rules
) -> Reason:
    if plan is None:
        return Reason.TAIL_MISSING
    steps = observation.seq - plan.seq
    # seq and step advance together within an episode, also where observations were missed.
    if not 0 < steps == observation.step - plan.step:
        return Reason.TAIL_OTHER_EPISODE
    age_ns = now_ns - plan.stamp_ns
    if age_ns < 0:
        return Reason.TAIL_FUTURE
    if age_ns > rules.tail_validity_ns:
        return Reason.TAIL_STALE
    beyond = rules.tail_limit is not None and steps > rules.tail_limit
    ended = (steps // rules.row_steps + 1) * rules.low32.nbytes > len(plan.rows)
    return Reason.TAIL_ENDED if beyond or ended else _OK


def _row(plan: Vetted, seq: int, rules: Rules) -> FloatArray:
    """The row of a plan that is for this observation."""
    offset = (seq - plan.seq) // rules.row_steps * rules.low32.nbytes
    return np.frombuffer(plan.rows, np.float32, rules.low32.size, offset)


def _blended(
    blend: Blend | None, last: bytes, seqs: tuple[int, int], task: FloatArray, rules: Rules
) -> tuple[FloatArray, Blend | None]:
    """Go over evenly from the last task command to a new proposal, if the rules say so.

    Args:
        blend: the way under way; None unless the last command was the task's.
        last: the last command.
        seqs: of the proposal, and of the observation.
    """
    proposal, seq = seqs
    if rules.blend_steps == 1:
        return task, None
    if blend is None:
        return task, Blend(proposal, seq, task.tobytes())
    if blend.proposal != proposal:
        blend = Blend(proposal, seq, last)
    done, whole = seq - blend.first + 1, proposal + rules.blend_steps - blend.first
    if done >= whole:
        return task, blend
    start = np.frombuffer(blend.start, np.float32)
    return start + (task - start) * np.float32(done / whole), blend


def _return_reason(mode: Mode, risk: float, fallback: bool, rules: Rules) -> Reason:
    """What the options still hold against an approved proposal."""
    if mode.recovering and risk > rules.exit_risk:
        return Reason.RISK_ABOVE_EXIT
    if mode.recovering and mode.held < mode.dwell:
        return Reason.DWELL
    return Reason.NO_FALLBACK if rules.require_fallback and not fallback else _OK


def _overstayed(mode: Mode, rules: Rules) -> bool:
    return (
        rules.recovery_limit is not None and mode.recovering and mode.held >= rules.recovery_limit
    )


def _next_mode(mode: Mode, on_task: bool, seq: int, rules: Rules) -> Mode:
    if seq < mode.blocked_until:
        return mode
    if on_task is not mode.recovering:  # no switch
        return Mode(mode.recovering, mode.held + 1, mode.dwell, mode.switches)
    switches: tuple[int, ...] = ()
    if rules.shield and rules.switch_limit is not None:
        recent = (earlier for earlier in mode.switches if earlier > seq - rules.switch_window)
        switches = (*recent, seq)
        if len(switches) > rules.switch_limit:
            return Mode(True, 0, mode.dwell, (), seq + rules.switch_window)
    return Mode(not on_task, 1, mode.dwell if on_task else _dwell(mode, rules), switches)


def _dwell(mode: Mode, rules: Rules) -> int:
    """Steps to stay off the task from now on: longer if it is left soon after a return."""
    if mode.held > mode.dwell:
        return rules.dwell_steps
    longer = math.ceil(min(mode.dwell * rules.dwell_backoff, rules.dwell_limit))
    return max(rules.dwell_steps, longer)


def _preferred(reason: Reason, recovery: Reason, tail: Reason) -> tuple[Source, Source]:
    """Return the best usable source and the runner-up."""
    usable = []
    if reason is _OK or reason is _SHIELD_OFF:
        usable.append(Source.TASK)
    if recovery is _OK:
        usable.append(Source.RECOVERY)
    if tail is _OK:
        usable.append(Source.TAIL)
    first, second, *_ = (*usable, Source.FAILSAFE, Source.FAILSAFE)
    return first, second


def _slew(
    state: State, source: Source, action: FloatArray, rules: Rules
) -> tuple[FloatArray, bool]:
    """Ramp from the last command after a change of source; failsafe goes out as it is."""
    if rules.max_step is None or source is Source.FAILSAFE or state.source is None:
        return action, False
    if source is state.source and not state.ramping:
        return action, False
    last = np.frombuffer(state.action, np.float32)
    step = np.array(rules.max_step, np.float32)
    ramped = np.minimum(np.maximum(action, last - step), last + step)
    return ramped, bool((ramped != action).any())
