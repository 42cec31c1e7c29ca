"""Chooses the one action that may reach the plant: task, recovery, tail of a vetted plan, failsafe.

`decide` is pure and total: whatever the inputs hold, it returns a finite command inside the limits.
Views carry Python ints and floats and float32 arrays of the declared shape; anything else is
refused, never converted. Letters: A action size, H plan length.
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
    PROPOSAL_MISSING = 30
    PROPOSAL_INVALID = 31  # wrong type, dtype or shape
    PROPOSAL_OTHER_OBSERVATION = 32  # late, or early
    PROPOSAL_FUTURE = 33
    PROPOSAL_STALE = 34
    PROPOSAL_NOT_FINITE = 35
    PROPOSAL_OUT_OF_LIMITS = 36
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
    TAIL_MISSING = 60  # no vetted plan
    TAIL_OTHER_EPISODE = 61
    TAIL_FUTURE = 62
    TAIL_STALE = 63
    TAIL_ENDED = 64  # past the plan's last row, or past tail_limit
    CHATTER = 70  # more switches in the window than allowed
    DWELL = 71  # off the task, and not for long enough
    NO_FALLBACK = 72
    RECOVERY_LIMIT = 73  # off the task for recovery_limit steps


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
    plan: FloatArray  # (H, A); row i is for observation seq + i
    risk: float  # for the record: recovery is used whatever its risk


class Inputs(NamedTuple):
    observation: Observation | None = None
    proposal: Proposal | None = None
    risk: Risk | None = None
    recovery: Recovery | None = None
    armed: bool = True  # anything but True is not armed
    estop: bool = False  # anything but False is an e-stop


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
    low32: FloatArray = field(init=False, repr=False, compare=False)
    high32: FloatArray = field(init=False, repr=False, compare=False)
    failsafe32: FloatArray = field(init=False, repr=False, compare=False)
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
        for name, least in (("tail_limit", 0), ("switch_limit", 1), ("recovery_limit", 1)):
            if getattr(self, name) is not None:
                _whole(name, getattr(self, name), least)
        _whole("switch_window", self.switch_window, 1)
        _whole("dwell_steps", self.dwell_steps, 0)
        _whole("dwell_limit", self.dwell_limit, self.dwell_steps)
        for name in ("shield", "require_fallback"):
            if type(getattr(self, name)) is not bool:
                raise ValueError(f"{name} must be True or False, got {getattr(self, name)!r}")
        step = self.max_step
        if step is not None:
            step = (step,) * len(low) if isinstance(step, float | int) else step
            step = _numbers("max_step", step, len(low))
            if min(step) <= 0.0:
                raise ValueError(f"max_step must be above 0, got {step}")
        derived = {
            "action_low": low, "action_high": high, "failsafe": failsafe, "max_step": step,
            "low32": _inward(low, np.inf), "high32": _inward(high, -np.inf), "exit_risk": exit_risk,
        }  # fmt: skip
        for name, value in derived.items():
            object.__setattr__(self, name, value)
        if not (self.low32 < self.high32).all():
            raise ValueError(f"action_low {low} must be below action_high {high} everywhere")
        reason, stop = _vet_array(np.array(failsafe, np.float32), 1, self, _PROPOSAL)
        if reason is not _OK:
            raise ValueError(f"failsafe {failsafe} leaves the limits {low} .. {high}")
        object.__setattr__(self, "failsafe32", stop)
        for array in (self.low32, self.high32, stop):
            array.flags.writeable = False


def _numbers(name: str, values: Sequence[float], size: int | None = None) -> tuple[float, ...]:
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{name} must be a list of numbers, got {values!r}") from error
    if size is not None and len(numbers) != size:
        raise ValueError(f"{name} needs {size} numbers like action_low, got {len(numbers)}")
    if not all(abs(number) <= 1e30 for number in numbers):  # leaves float32 room for arithmetic
        raise ValueError(f"{name} must be finite and within 1e30, got {numbers}")
    return numbers


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

    @staticmethod
    def initial() -> "State":
        return State()


class _Causes(NamedTuple):
    missing: Reason
    invalid: Reason
    other_observation: Reason
    future: Reason
    stale: Reason
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
    reason, plan = _vet_recovery(recovery, observation.seq, now_ns, rules)
    if state.source is not Source.TASK or reason is not _OK:
        return state
    vetted = Vetted(observation.seq, recovery.stamp_ns, observation.step, plan.tobytes())
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
    seq, stamp_ns, step = observation
    reason, task, risk = _judge_task(inputs, seq, now_ns, rules)
    recovery_reason, plan = _vet_recovery(inputs.recovery, seq, now_ns, rules)
    tail_reason = _tail_reason(state.plan, observation, now_ns, rules)
    if reason is _OK:
        fallback = recovery_reason is _OK or tail_reason is _OK
        reason = _return_reason(state.mode, risk, fallback, rules)
    mode = _next_mode(state.mode, reason is _OK or reason is _SHIELD_OFF, seq, rules)
    vetted = state.plan
    if inputs.recovery is not None and recovery_reason is _OK:
        vetted = Vetted(seq, inputs.recovery.stamp_ns, step, plan.tobytes())
    if seq < mode.blocked_until:
        reason = recovery_reason = tail_reason = Reason.CHATTER
    elif _overstayed(state.mode, rules):
        recovery_reason = recovery_reason or Reason.RECOVERY_LIMIT  # APPROVED is the false one
        tail_reason = tail_reason or Reason.RECOVERY_LIMIT

    source, alternative = _preferred(reason, recovery_reason, tail_reason)
    valid_until_ns = stamp_ns + rules.command_validity_ns
    if source is Source.TASK:
        action = task
    elif source is Source.RECOVERY:
        action = plan[0]
    elif source is Source.TAIL and state.plan is not None:
        action = _tail_row(state.plan, seq, rules)
    else:
        action, valid_until_ns = rules.failsafe32, now_ns + rules.command_validity_ns
    action, limited = _slew(state, source, action, rules)
    action = np.minimum(np.maximum(action, rules.low32), rules.high32)  # the clamp comes last
    new_state = State(seq, now_ns, False, vetted, mode, source, action.tobytes(), limited)
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
    )
    # Without a clock the command expires at once, and the plant takes its own failsafe.
    valid_until_ns = now_ns + rules.command_validity_ns if timed else 0
    return new_state, Decision(
        seq, rules.failsafe32.copy(), Source.FAILSAFE, reason, Source.FAILSAFE, math.nan,
        valid_until_ns, reason, reason, False,
    )  # fmt: skip


def _link_reason(
    view: Proposal | Risk | Recovery | None,
    kind: type,
    seq: int,
    now_ns: int,
    validity_ns: int,
    causes: _Causes,
) -> Reason:
    """Whether a view answers this very observation, and is fresh."""
    if view is None:
        return causes.missing
    if type(view) is not kind or type(view.seq) is not int or type(view.stamp_ns) is not int:
        return causes.invalid
    if view.seq != seq:
        return causes.other_observation
    age_ns = now_ns - view.stamp_ns
    if age_ns < 0:
        return causes.future
    return causes.stale if age_ns > validity_ns else _OK


def _vet_array(
    array: FloatArray, dimensions: int, rules: Rules, causes: _Causes
) -> tuple[Reason, FloatArray]:
    """Return a copy inside the limits, rounding clipped; anything more is a fault."""
    if type(array) is not np.ndarray or array.dtype != _FLOAT32:
        return causes.invalid, _NOTHING
    if array.ndim != dimensions or array.shape[-1:] != rules.low32.shape or not array.size:
        return causes.invalid, _NOTHING
    clipped = np.minimum(np.maximum(array, rules.low32), rules.high32)
    if (clipped == array).all():
        return _OK, clipped
    if not np.isfinite(array).all():
        return causes.not_finite, _NOTHING
    slack = np.float32(rules.limit_tolerance) * (rules.high32 - rules.low32)
    outside = (abs(array - clipped) > slack).any()
    return (causes.out_of_limits, _NOTHING) if outside else (_OK, clipped)


def _judge_task(
    inputs: Inputs, seq: int, now_ns: int, rules: Rules
) -> tuple[Reason, FloatArray, float]:
    """Recovery RL's rule: the proposal flies if its own risk is known and at most eps."""
    proposal = inputs.proposal
    reason = _link_reason(proposal, Proposal, seq, now_ns, rules.proposal_validity_ns, _PROPOSAL)
    if proposal is None or reason is not _OK:
        return reason, _NOTHING, math.nan
    if type(proposal.proposal_id) is not int:
        return Reason.PROPOSAL_INVALID, _NOTHING, math.nan
    reason, task = _vet_array(proposal.action, 1, rules, _PROPOSAL)
    if reason is not _OK:
        return reason, _NOTHING, math.nan
    reason, risk = _vet_risk(inputs.risk, proposal, now_ns, rules)
    if not rules.shield:
        return _SHIELD_OFF, task, risk
    if reason is _OK and risk > rules.eps:
        reason = Reason.RISK_TOO_HIGH
    return reason, task, risk


def _vet_risk(
    risk: Risk | None, proposal: Proposal, now_ns: int, rules: Rules
) -> tuple[Reason, float]:
    reason = _link_reason(risk, Risk, proposal.seq, now_ns, rules.risk_validity_ns, _RISK)
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


def _vet_recovery(
    recovery: Recovery | None, seq: int, now_ns: int, rules: Rules
) -> tuple[Reason, FloatArray]:
    reason = _link_reason(recovery, Recovery, seq, now_ns, rules.recovery_validity_ns, _RECOVERY)
    if recovery is None or reason is not _OK:
        return reason, _NOTHING
    return _vet_array(recovery.plan, 2, rules, _RECOVERY)


def _tail_reason(
    plan: Vetted | None, observation: Observation, now_ns: int, rules: Rules
) -> Reason:
    if plan is None:
        return Reason.TAIL_MISSING
    index = observation.seq - plan.seq
    # seq and step advance together within an episode, also where observations were missed.
    if not 0 < index == observation.step - plan.step:
        return Reason.TAIL_OTHER_EPISODE
    age_ns = now_ns - plan.stamp_ns
    if age_ns < 0:
        return Reason.TAIL_FUTURE
    if age_ns > rules.tail_validity_ns:
        return Reason.TAIL_STALE
    beyond = rules.tail_limit is not None and index > rules.tail_limit
    ended = (index + 1) * rules.low32.nbytes > len(plan.rows)
    return Reason.TAIL_ENDED if beyond or ended else _OK


def _tail_row(plan: Vetted, seq: int, rules: Rules) -> FloatArray:
    offset = (seq - plan.seq) * rules.low32.nbytes
    return np.frombuffer(plan.rows, np.float32, rules.low32.size, offset)


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
