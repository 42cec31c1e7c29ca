"""What a launch file says about the arbiter, and the shield's rules that follow from it."""

from __future__ import annotations

from dataclasses import dataclass, field
from math import ceil

from safetypilot.nodes.kernel.errors import KernelError, NodeError
from safetypilot.nodes.kernel.node import Context
from safetypilot.policies import shield

_ROWS = 64  # of a plan's length, its tail is never older; bounded by the plan and tail_limit too
_EXACT = 1e-6


@dataclass(frozen=True)
class ArbiterConfig:
    """The shield's rules. Defaults are Recovery RL's rule; options beyond it are off.

    Attributes:
        eps: risk above which the proposal is not executed.
        shield: False flies the task policy bare (still armed, fresh, finite and within limits).
        deadline: share of the period after which the arbiter decides with what it has.
        validity: age beyond which an input is not used, in periods of the node that sends it.
        arm: "auto" arms after `arm_steps` complete steps in a row, "manual" waits for a person.
        between: what flies between two answers of a policy that is slower than the graph: "hold"
            the approved action, or "linear": go over to it evenly until the next one is due.
        plan_rate: Hz of the rows of a recovery plan, where planner and policy differ in rate.
        guard: bounds of single observations, {name: [low, high]}: outside, the task does not fly.
        guard_margin: share of each guarded range by which it is drawn in on both sides.
        eps_exit, dwell_steps, dwell_backoff, switch_limit, switch_window, recovery_limit, max_step,
        tail_limit, require_fallback: see policies/shield.py, Rules. Steps are the graph's.
    """

    eps: float
    shield: bool = True
    deadline: float = 0.65
    validity: float = 1.0
    arm: str = "auto"
    arm_steps: int = 3
    between: str = "hold"
    plan_rate: float | None = None
    guard: dict[str, tuple[float, float]] = field(default_factory=dict)
    guard_margin: float = 0.0
    eps_exit: float | None = None
    dwell_steps: int = 0
    dwell_backoff: float = 1.0
    switch_limit: int | None = None
    switch_window: int = 100
    recovery_limit: int | None = None
    max_step: float | None = None
    tail_limit: int | None = None
    require_fallback: bool = False

    def __post_init__(self) -> None:
        """Says no before anything starts; policies/shield.py checks the rest when it is built."""
        if not 0 <= self.eps <= 1:
            raise ValueError(f"eps is {self.eps}; it is a probability, 0 to 1")
        if not 0 < self.deadline < 1:
            raise ValueError(f"deadline is {self.deadline}; it is a share of the period, 0 to 1")
        if not self.validity > 0:
            raise ValueError(f"validity is {self.validity}; it is a number of periods above 0")
        if self.arm not in ("auto", "manual"):
            raise ValueError(f"arm is {self.arm!r}; it can be auto or manual")
        if self.between not in ("hold", "linear"):
            raise ValueError(f"between is {self.between!r}; it can be hold or linear")
        if self.plan_rate is not None and not self.plan_rate > 0:
            raise ValueError(f"plan_rate is {self.plan_rate}; it is a rate in Hz, above 0")
        if not 0 <= self.guard_margin < 0.5:
            raise ValueError(f"guard_margin is {self.guard_margin}; it is a share from 0 to 0.5")
        for name, (low, high) in self.guard.items():
            if not low < high:
                raise ValueError(f"guard of {name!r} is {low} to {high}; low must be below high")


@dataclass(frozen=True)
class Spacing:
    """How far apart the answers come, in observations; 1: one for each.

    Attributes:
        policy: of proposals and risks.
        planner: of recovery plans.
        row: observations that one row of a plan is for.
    """

    policy: int = 1
    planner: int = 1
    row: int = 1

    @property
    def one_rate(self) -> bool:
        return self.policy == self.planner == self.row == 1


def spacing(config: ArbiterConfig, context: Context) -> Spacing:
    """The spacing of this graph.

    Raises:
        NodeError: how long a row of a plan is does not follow, or is no number of observations.
    """
    policy, planner = (context.rates.get(topic, 1) for topic in ("proposal", "recovery"))
    if config.plan_rate is None:
        if policy != planner and config.shield:
            raise NodeError(
                f"{context.name}: proposals come for every {policy}. observation, recovery plans "
                f"for every {planner}.; say with plan_rate how many Hz the rows of a plan have"
            )
        return Spacing(policy, planner, planner)
    ratio = 1e9 / context.period_ns / config.plan_rate
    row = round(ratio)
    if row < 1 or abs(ratio - row) > _EXACT * ratio:
        raise NodeError(
            f"{context.name}: plan_rate is {config.plan_rate:g} Hz; the graph's rate of "
            f"{1e9 / context.period_ns:g} Hz is no whole multiple of it"
        )
    return Spacing(policy, planner, row)


def rules(config: ArbiterConfig, context: Context, spaced: Spacing) -> shield.Rules:
    """The shield's rules for this graph.

    Raises:
        NodeError: they cannot hold; says which.
    """
    interface, period = context.interface, context.period_ns
    proposal_ns = int(config.validity * spaced.policy * period)
    low, high = guard_bounds(config)
    try:
        return shield.Rules(
            eps=config.eps,
            action_low=interface.action_low,
            action_high=interface.action_high,
            failsafe=interface.failsafe,
            observation_validity_ns=int(config.validity * period),
            proposal_validity_ns=proposal_ns,
            risk_validity_ns=proposal_ns,
            recovery_validity_ns=int(config.validity * spaced.planner * period),
            tail_validity_ns=_ROWS * spaced.row * period,
            command_validity_ns=period,
            shield=config.shield,
            eps_exit=config.eps_exit,
            dwell_steps=config.dwell_steps,
            dwell_backoff=config.dwell_backoff,
            switch_limit=config.switch_limit,
            switch_window=config.switch_window,
            recovery_limit=config.recovery_limit,
            max_step=config.max_step,
            tail_limit=config.tail_limit,
            require_fallback=config.require_fallback,
            hold_steps=_reach(config, spaced.policy),
            plan_steps=_reach(config, spaced.planner),
            row_steps=spaced.row,
            blend_steps=spaced.policy if config.between == "linear" else 1,
            guard_low=low,
            guard_high=high,
            **{f"{topic}_budget_ns": age for topic, age in context.budgets_ns.items()},
        )
    except ValueError as error:
        raise NodeError(f"{context.name}: {error}") from None


def _reach(config: ArbiterConfig, every: int) -> int:
    """Observations after its own that an answer may serve; none where each has its own."""
    return ceil(config.validity * every) - 1 if every > 1 else 0


def guard_bounds(config: ArbiterConfig) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Lower and upper bounds of the guarded values, margin taken off, in the guard's order."""
    drawn = [
        (low + config.guard_margin * (high - low), high - config.guard_margin * (high - low))
        for low, high in config.guard.values()
    ]
    return tuple(low for low, _ in drawn), tuple(high for _, high in drawn)


def guard_indices(config: ArbiterConfig, context: Context) -> list[int]:
    """Where in an observation the guarded values are, in the guard's order.

    Raises:
        NodeError: the plant observes nothing of that name.
    """
    try:
        return [context.interface.observation_index(name) for name in config.guard]
    except KernelError as error:
        raise NodeError(f"{context.name}: guard: {error}") from None
