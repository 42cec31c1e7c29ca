"""Every message that crosses a process boundary, with the shape and unit of each field.

O observation size, A action size, H horizon, T steps of an episode. `seq` is the number of the
observation a message derives from, `stamp_ns` that observation's stamp, `sent_ns` when the message
itself was made; both are CLOCK_MONOTONIC nanoseconds (virtual time in lockstep). `taken_ns` is when
the node took what it answers; nodes/kernel/trace.py says what a `chain` holds. Fields named in
`Spec` annotations are checked on arrival: dtype, dimensions and, unless said otherwise, finiteness.
A change to a message raises its version in `SCHEMAS`.
"""

from __future__ import annotations

from typing import Annotated, Any, NamedTuple

import numpy as np


class Spec(NamedTuple):
    """What an array field must be: little-endian dtype, shape by symbol or number, finiteness."""

    dtype: str
    shape: tuple[str, ...]
    finite: bool = True

    def sizes(self, dims: dict[str, int]) -> tuple[int | None, ...]:
        """The shape in numbers; None where any size will do."""
        return tuple(int(s) if s.isdecimal() else dims.get(s) for s in self.shape)


class Stamps(NamedTuple):
    """So many int64 stamps in one field of bytes."""

    number: int


COMMAND_STAMPS, TRANSITION_STAMPS = 9, 11

Array = np.ndarray[Any, Any]
Count = Annotated[int, "not negative"]
ObservationVector = Annotated[Array, Spec("<f4", ("O",))]
ActionVector = Annotated[Array, Spec("<f4", ("A",))]


class Observation(NamedTuple):
    """What the plant measured; it starts a step."""

    seq: Count
    stamp_ns: Count
    sent_ns: Count
    episode: Count
    step: Count  # 0 at the first observation of an episode
    values: ObservationVector  # (O,)
    epoch: Count = 0  # the set of models that answers it; nodes that hold one for it change over


class Proposal(NamedTuple):
    """What the task policy would do; not yet approved."""

    seq: Count
    stamp_ns: Count
    sent_ns: Count
    proposal_id: int
    action: ActionVector  # (A,) physical units
    model: str
    taken_ns: Count = 0  # the observation


class Risk(NamedTuple):
    """Estimated discounted probability of a violation if proposal `proposal_id` is executed."""

    seq: Count
    stamp_ns: Count
    sent_ns: Count
    proposal_id: int
    risk: float  # [0, 1]
    model: str
    taken_ns: Count = 0  # the proposal
    proposal_taken_ns: Count = 0  # the proposal's own stamps
    proposal_sent_ns: Count = 0


class Recovery(NamedTuple):
    """A whole recovery plan; plan[i] is meant for observation seq + i."""

    seq: Count
    stamp_ns: Count
    sent_ns: Count
    plan: Annotated[Array, Spec("<f4", ("H", "A"))]  # (H, A) physical units
    risks: Annotated[Array, Spec("<f4", ("H",))]  # (H,) predicted risk at each step
    iterations: Count
    model: str
    taken_ns: Count = 0  # the observation


class Command(NamedTuple):
    """What the arbiter tells the plant to do for observation `seq`, until `valid_until_ns`."""

    seq: Count
    stamp_ns: Count
    sent_ns: Count
    action: ActionVector  # (A,) physical units
    source: int  # policies.shield.Source
    reason: int  # policies.shield.Reason
    proposal_id: int  # -1: none
    proposed: Annotated[Array, Spec("<f4", ("A",), finite=False)]  # NaN where none came
    risk: Annotated[float, "may be NaN: unknown"]
    valid_until_ns: int
    estop: bool
    model: str  # of the proposal; empty where none came
    chain: Annotated[bytes, Stamps(COMMAND_STAMPS)] = bytes(8 * COMMAND_STAMPS)


class Decision(NamedTuple):
    """Why a command was chosen: what the arbiter saw, with ages, and what else it could have done.

    Ages are now - stamp of the observation that the input derives from; -1 where it never came.
    """

    seq: Count
    stamp_ns: Count
    sent_ns: Count
    source: int
    reason: int
    recovery_reason: int
    alternative: int
    risk: Annotated[float, "may be NaN: unknown"]
    eps: float
    observation_age_ns: int
    proposal_age_ns: int
    risk_age_ns: int
    recovery_age_ns: int
    models: str  # "task_policy=..., safety_critic=..., recovery=..."


class Transition(NamedTuple):
    """One executed step, as learners want it: proposed and executed action apart."""

    seq: Count
    stamp_ns: Count
    sent_ns: Count
    episode: Count
    step: Count
    observation: ObservationVector  # (O,)
    proposed: Annotated[Array, Spec("<f4", ("A",), finite=False)]  # NaN where none came
    executed: ActionVector  # (A,)
    source: int
    reward: float
    cost: float
    success: bool
    next_observation: ObservationVector  # (O,)
    terminated: bool
    truncated: bool
    chain: Annotated[bytes, Stamps(TRANSITION_STAMPS)] = bytes(8 * TRANSITION_STAMPS)


class EpisodeReport(NamedTuple):
    """One finished episode, with arrays per step for the summary and the pictures."""

    seq: Count
    stamp_ns: Count
    sent_ns: Count
    episode: Count
    steps: Count
    success: bool
    violation: bool
    total_reward: float
    missed: Count  # control periods without a command in time
    models: str  # versions of the task policy that acted, joined with a comma
    observations: Annotated[Array, Spec("<f4", ("T", "O"))]  # (T, O)
    sources: Annotated[Array, Spec("|u1", ("T",))]  # (T,) policies.shield.Source
    latency_us: Annotated[Array, Spec("<f4", ("T",), finite=False)]  # NaN where it was missed
    dropped: int  # commands refused by the plant, for whatever reason


class Actuation(NamedTuple):
    """What the bridge measured at observation `seq` and then told the robot; joints as the driver.

    J joints, S numbers of all sensors, one after the other. SI units.
    """

    seq: Count
    stamp_ns: Count
    sent_ns: Count
    state: str  # of the driver's life cycle
    cut: int  # a sum of bridge.limits.Cut: why what was sent is not what was asked for
    device_seq: int
    device_ns: int  # the device's own time; -1: it has none
    measured: Annotated[Array, Spec("<f4", ("3", "J"))]  # (3, J) position, velocity, effort
    sent: Annotated[
        Array, Spec("<f4", ("5", "J"), finite=False)
    ]  # (5, J) position, velocity, effort, kp, kd; NaN where the mode has none, or nothing was sent
    sensors: Annotated[Array, Spec("<f4", ("S",), finite=False)]  # (S,)


class ModelAnnouncement(NamedTuple):
    """The learner has written a model that may be staged."""

    seq: Count
    stamp_ns: Count
    sent_ns: Count
    kind: str
    path: str
    sha256: str
    version: str


Message = (
    Observation
    | Proposal
    | Risk
    | Recovery
    | Command
    | Decision
    | Transition
    | EpisodeReport
    | ModelAnnouncement
    | Actuation
)
# message -> (schema id, version) on the wire; ids are never reused.
SCHEMAS: dict[type[Any], tuple[int, int]] = {
    Observation: (1, 2),
    Proposal: (2, 2),
    Risk: (3, 2),
    Recovery: (4, 2),
    Command: (5, 2),
    Decision: (6, 1),
    Transition: (7, 2),
    EpisodeReport: (8, 1),
    ModelAnnouncement: (9, 1),
    Actuation: (10, 1),
}
