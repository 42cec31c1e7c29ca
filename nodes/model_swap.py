"""What a node says about changing its models while it flies: the rules, and the parts of a swap."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter_ns, thread_time_ns
from typing import Any, NamedTuple

from numpy.typing import ArrayLike

from safetypilot.models.runtime import Model, ModelError
from safetypilot.nodes.kernel.errors import RequestRefused
from safetypilot.nodes.kernel.node import Context
from safetypilot.policies.trial import Limits, Shadow

_GUESS_NS = 1_000_000  # of a call that nobody has measured
_COLD_NS = 100_000
_MARGIN_NS = 50_000  # the shadow is to be over so long before the next observation
FINAL = ("none", "promoted", "refused", "rolled_back")  # states in which nothing is under way


@dataclass(frozen=True, kw_only=True)
class SwapConfig:
    """How a node changes its models while it flies.

    Attributes:
        follow: take what the learner announces.
        watch: a model file, or a directory: its newest .onnx file of the right kind is taken when
            it appears or changes.
        contract: what a file from another tool does not say of itself; a mapping, or the path of a
            JSON or YAML file with one (see models/foreign.py). Where a node holds several models:
            one for each kind.
        shadow_s, shadow_steps: a new model first answers beside the live one, unheard, for so long.
        rollback_s: for so long after a promotion the model before comes back by itself if the new
            one does worse than it did; 0: never by itself.
        rollback_interventions: worse: the share of steps that the shield decided rises by more.
        rollback_risk: worse: the mean risk rises by more.
        rollback_latency: worse: the median call takes more than so many times as long.
    """

    follow: bool = True
    watch: str = ""
    contract: dict[str, Any] | str = field(default_factory=dict)
    shadow_s: float = 0.0
    shadow_steps: int = 0
    rollback_s: float = 0.0
    rollback_interventions: float = 0.1
    rollback_risk: float = 0.1
    rollback_latency: float = 3.0

    def __post_init__(self) -> None:
        """Says no before anything starts."""
        for name in ("shadow_s", "shadow_steps", "rollback_s", "rollback_interventions"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it cannot be below 0")
        if not self.rollback_risk >= 0:
            raise ValueError(f"rollback_risk is {self.rollback_risk}; it cannot be below 0")
        if not self.rollback_latency > 1:
            raise ValueError(
                f"rollback_latency is {self.rollback_latency}; it is how many times as long a call "
                "may take as before, above 1"
            )

    @property
    def limits(self) -> Limits:
        return Limits(self.rollback_interventions, self.rollback_risk, self.rollback_latency)


class Role(NamedTuple):
    """What a node does with models of one kind.

    Attributes:
        kind: "task_policy", "safety_critic", "dynamics", "recovery_policy", "encoder" or
            "latent_critic".
        setting: the field of the node's config that names the file.
        prepare: builds what flies from a model, for example with buffers bound; off the control
            path.
        install: (what flies, whether its recurrent state is up to date) -> what became of that
            state, or nothing; puts it to work between two steps.
        answer: (what flies, first of an episode, *inputs) -> its answer; for the shadow.
        low: smallest answer, (A,) or a number; -inf where there is no limit.
        high: largest answer.
        budget_s: what a call may take at the 99th percentile; None: not judged.
    """

    kind: str
    setting: str
    prepare: Callable[[Model], Any]
    install: Callable[[Any, bool], str]
    answer: Callable[..., ArrayLike]
    low: ArrayLike
    high: ArrayLike
    budget_s: float | None = None


class Flyer(NamedTuple):
    """A model that can fly: with its engine, and with the contract that it was given."""

    model: Model
    engine: Any
    contract: dict[str, Any] | str


class Trial(NamedTuple):
    """What a model has to go through before it flies.

    Attributes:
        epoch: the set of models it belongs to; None: it flies as soon as it may.
        steps: at least so many in the shadow.
        duration_ns: and at least so long.
    """

    epoch: int | None
    steps: int
    duration_ns: int

    @property
    def shadow(self) -> bool:
        return bool(self.steps or self.duration_ns)

    @classmethod
    def of(cls, config: SwapConfig, options: Mapping[str, Any]) -> Trial:
        """By the config, unless the request's `epoch`, `shadow_s` and `shadow_steps` say otherwise.

        Raises:
            RequestRefused: they make no sense.
        """
        epoch, steps, seconds = options.get("epoch"), config.shadow_steps, config.shadow_s
        if options.get("shadow_steps") is not None or options.get("shadow_s") is not None:
            steps = int(options.get("shadow_steps") or 0)
            seconds = float(options.get("shadow_s") or 0.0)
        if steps < 0 or not 0 <= seconds < 1e9:
            raise RequestRefused(f"a shadow of {steps} steps and {seconds} s; neither is below 0")
        if epoch is not None and type(epoch) is not int:
            raise RequestRefused(f"epoch is {epoch!r}; it is a number that the plant handed out")
        return cls(epoch, steps, int(seconds * 1e9))


@dataclass
class Candidate:
    """A model on its way to fly.

    Attributes:
        ready: staged, checked and through with its shadow.
    """

    flyer: Flyer
    trial: Trial
    shadow: Shadow
    began_ns: int | None = None
    longest_ns: int = 0
    late: int = 0
    ready: bool = False

    @property
    def call_ns(self) -> int:
        """What a call of it may take: with cold caches some times what staging has measured."""
        measured = self.flyer.model.call_s
        staged = _GUESS_NS if measured is None else int(2e9 * measured)
        return max(staged, _COLD_NS, self.longest_ns)

    def idle_from(self, stamp_ns: int, period_ns: int) -> int:
        """When it may answer too: at the end of the step, but in time for the next."""
        needed = min(self.call_ns + 3 * _MARGIN_NS, period_ns // 2)
        return stamp_ns + period_ns - max(period_ns // 10, needed)

    def compare(self, role: Role, last: Last, live: Any, context: Context) -> str:
        """Answers the step that the live engine has answered; why it may never fly, or nothing."""
        now_ns = context.clock.now_ns()
        until_ns = last.stamp_ns + context.period_ns - _MARGIN_NS
        if context.realtime and now_ns + self.call_ns > until_ns:
            self.shadow.skipped += 1
            self.longest_ns = self.longest_ns * 9 // 10  # it may have been an exception
            if self.shadow.skipped > 100 + 10 * self.shadow.steps:
                return (
                    f"there is no time for a shadow: a call takes {self.call_ns / 1e6:.3g} ms of a "
                    f"period of {context.period_ns / 1e6:.3g} ms; swap without one"
                )
            return ""
        if self.began_ns is None:
            self.began_ns = now_ns
        began, worked = perf_counter_ns(), thread_time_ns()
        answer = role.answer(self.flyer.engine, last.first, *last.inputs)
        took, worked = perf_counter_ns() - began, thread_time_ns() - worked
        # What other processes took of the time is not the model's fault.
        self.late += context.realtime and now_ns + worked > until_ns + _MARGIN_NS
        self.longest_ns = max(self.longest_ns * 9 // 10, worked)
        if self.late > 2 + self.shadow.steps // 50:
            return (
                f"its calls run into the next step: {worked / 1e6:.3g} ms at step "
                f"{self.shadow.steps} of the shadow, in staging {self.call_ns / 1e6:.3g} ms"
            )
        theirs, their_ns = last.answer, last.call_ns
        if theirs is None:
            began = perf_counter_ns()
            theirs = role.answer(live, last.first, *last.inputs)
            their_ns = perf_counter_ns() - began
        return self.shadow.add(theirs, answer, their_ns, took)

    def may_fly(self, epoch: int) -> bool:
        """Whether it flies from an observation of such an epoch on."""
        return self.ready and self.trial.epoch in (None, epoch)

    def done(self, now_ns: int) -> bool:
        """Whether its time in the shadow is over."""
        if not self.trial.shadow:
            return True
        if self.began_ns is None or self.shadow.steps < max(self.trial.steps, 1):
            return False
        return now_ns - self.began_ns >= self.trial.duration_ns


class Last(NamedTuple):
    """The step that was answered last, for the shadow to answer as well.

    Attributes:
        answer: of the live model; None: it is to be asked in the idle time too.
        inputs: what it answered to.
        first: whether it was the first of an episode.
        call_ns: how long the answer took.
        stamp_ns: of the observation.
    """

    answer: ArrayLike | None
    inputs: tuple[Any, ...]
    first: bool
    call_ns: int
    stamp_ns: int = 0


def contract_for(contract: dict[str, Any] | str, kind: str) -> dict[str, Any] | str:
    """The entries for one kind, of a config's `contract`."""
    if isinstance(contract, dict) and isinstance(contract.get(kind), dict | str):
        found: dict[str, Any] | str = contract[kind]
        return found
    return contract


def supplement(contract: Mapping[str, Any] | str) -> dict[str, Any]:
    """The entries of a `contract:`; reads the file where it is the path of one.

    Raises:
        ModelError: there is no such file, or no mapping in it.
    """
    if not isinstance(contract, str):
        return dict(contract)
    if not contract:
        return {}
    path = Path(contract)
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise ModelError(f"contract {path} cannot be read ({error}); correct its path") from None
    try:
        if path.suffix == ".json":
            data = json.loads(text)
        else:
            import yaml

            data = yaml.safe_load(text)
    except (ValueError, yaml_error()) as error:
        line = str(error).splitlines()[0]
        raise ModelError(f"contract {path} is neither JSON nor YAML: {line}") from None
    if not isinstance(data, dict):
        raise ModelError(f"contract {path} holds a {type(data).__name__}, not a mapping")
    return data


def yaml_error() -> type[Exception]:
    """What PyYAML raises; it is only imported where a contract is read."""
    import yaml

    return yaml.YAMLError
