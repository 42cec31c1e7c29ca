"""What may stand in a launch file, as pydantic models."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)

NAME = r"^[A-Za-z][A-Za-z0-9_]*$"
_COMPARED = StringConstraints(pattern=r"==|!=|\$\{")
SUBSTITUTION = r"\$\{([^{}]*)\}"


def _no_bool(value: object) -> object:
    if isinstance(value, bool):
        raise ValueError("should be a number")
    return value


def _text(value: object) -> object:
    """The text of a bare scalar: `description: 2` is a fine description."""
    return str(value) if isinstance(value, int | float) and not isinstance(value, bool) else value


def _restart(value: object) -> object:
    return {"policy": value} if isinstance(value, str) else value


def _include(value: object) -> object:
    return {"file": value} if isinstance(value, str) else value


def _comparison(value: object) -> object:
    """`${plant} == bridge`, with the argument's value in its place."""
    for sign, wanted in (("==", True), ("!=", False)):
        if isinstance(value, str) and sign in value:
            left, _, right = value.partition(sign)
            return (left.strip() == right.strip()) is wanted
    return value


Name = Annotated[str, StringConstraints(pattern=NAME, max_length=64)]
Float = Annotated[float, BeforeValidator(_no_bool)]
Int = Annotated[int, BeforeValidator(_no_bool)]
Text = Annotated[str, BeforeValidator(_text)]
When = Annotated[
    bool, BeforeValidator(_comparison, json_schema_input_type=bool | Annotated[str, _COMPARED])
]
Scalar = bool | int | float | str | None


class Entry(BaseModel):
    """Base of all sections: unknown keys are refused, numbers are finite, nothing is changed."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Argument(Entry):
    """One argument of the launch file: `safetypilot launch maze NAME=VALUE`."""

    default: Scalar = Field(default=None, description="used when the command line does not give it")
    required: bool = Field(default=False, description="the command line must give it")
    type: Literal["str", "int", "float", "bool", "file", "run"] | None = Field(
        default=None,
        description="left out: the default's, or file where there are aliases; run: the directory "
        "of a training run, which gives other arguments their values (launch/companions.py)",
    )
    help: Text = ""
    choices: list[Scalar] | None = Field(default=None, min_length=1)
    minimum: Float | None = None
    maximum: Float | None = None
    aliases: dict[str, Text] = Field(default={}, description="short names for longer values")

    @property
    def kind(self) -> str:
        """The type, inferred from aliases, choices and default where it is not given."""
        if self.type:
            return self.type
        if self.aliases:
            return "file"
        samples = [v for v in (self.default, *(self.choices or ())) if v is not None]
        if samples and all(isinstance(v, bool) or v in ("on", "off", "yes", "no") for v in samples):
            return "bool"
        if samples and all(isinstance(v, int | float) for v in samples):
            return "float" if any(isinstance(v, float) for v in samples) else "int"
        return "str"


class Include(Entry):
    """Another launch file below this one; `arguments` are new defaults for its arguments."""

    file: Text = Field(description="relative to this file")
    arguments: dict[Name, Scalar] = {}


IncludeItem = Annotated[Include, BeforeValidator(_include)]


class Restart(Entry):
    """What happens when a node's process ends by itself."""

    policy: Literal["never", "on-failure", "always"] = "on-failure"
    backoff: Float = Field(
        default=0.2, ge=0, le=3600, description="seconds before the first restart"
    )
    backoff_max: Float = Field(
        default=5.0, ge=0, le=3600, description="doubles up to this many seconds"
    )
    max: Int = Field(default=100, ge=0, description="restarts in one run; then the run fails")

    @model_validator(mode="after")
    def _ordered(self) -> Restart:
        if self.backoff_max < self.backoff:
            raise ValueError(f"backoff_max {self.backoff_max} is below backoff {self.backoff}")
        return self


class Realtime(Entry):
    """What nodes ask of the machine in real time; a node's own section overrides field by field."""

    when: bool = Field(default=True, description="off: as if this section were not there")
    policy: Literal["fifo", "other"] | None = Field(
        default=None, description="fifo: SCHED_FIFO, before all ordinary work on the CPU"
    )
    priority: Int | None = Field(
        default=None, ge=1, le=98, description="of SCHED_FIFO; the higher one preempts"
    )
    cpus: list[Annotated[Int, Field(ge=0)]] | None = Field(
        default=None, description="CPU set, in place of the node's cpus"
    )
    lock_memory: bool | None = Field(default=None, description="no page of it is ever swapped out")
    gc: Literal["off", "frozen", "on"] | None = Field(
        default=None, description="garbage collection; off: in quiet moments only"
    )
    timer_slack_us: Int | None = Field(
        default=None, ge=0, le=1_000_000, description="how late a wake-up may be made on purpose"
    )
    rehearse_us: Int | None = Field(
        default=None,
        ge=0,
        le=1_000_000,
        description="so long before each observation a step is rehearsed, for warm caches; 0: not",
    )
    fixed_addresses: bool | None = Field(
        default=None,
        description="no address randomisation, so that processes on one CPU share what its branch "
        "predictor learns",
    )

    def over(self, below: Realtime | None) -> dict[str, Any]:
        """What is asked for: this section's fields, and those of the one below where it has none.

        Returns:
            A section that is off asks for nothing, whatever stands below.
        """
        if not self.when:
            return {}
        fields = self.model_dump(exclude={"when"}, exclude_none=True)
        return {**(below.over(None) if below else {}), **fields}


class Node(Entry):
    """One node: a process in real time."""

    type: Text = Field(description="a built-in type, or module:Class of your own")
    when: When = Field(
        default=True, description="the node exists only where this is true; on, off or A == B"
    )
    config: dict[str, Any] = Field(default={}, description="fields of the node type's Config")
    restart: Annotated[Restart, BeforeValidator(_restart)] = Restart()
    cpus: list[Annotated[Int, Field(ge=0)]] = Field(default=[], description="CPU set; empty: any")
    nice: Int = Field(default=0, ge=-20, le=19, description="negative is favoured")
    realtime: Realtime | None = Field(default=None, description="over the launch file's own")
    host: Name | None = Field(default=None, description="where there are `hosts`: which one has it")
    process: Name | None = Field(
        default=None,
        description="nodes of the same process name run in one process and pass messages in memory",
    )
    rate: Float | None = Field(
        default=None,
        gt=0,
        le=10_000,
        description="Hz, the graph's divided by a whole number: the node acts on every so many-th "
        "observation; left out: the graph's, for critic and learner the policy's",
    )


class Host(Entry):
    """One of two computers that share the nodes; each flies its own with `launch --host NAME`."""

    address: Text | None = Field(
        default=None,
        description="ADDRESS:PORT at which it listens for the other one; one of the two has it",
    )
    key: Text = Field(description="its public key: a file, or the 64 digits that are in it")
    secret: Text = Field(description="the file with its secret key; it alone needs to have it")
    cpus: list[Annotated[Int, Field(ge=0)]] = Field(default=[], description="of its link's process")
    nice: Int = Field(default=0, ge=-20, le=19, description="of its link's process")
    realtime: Realtime | None = Field(default=None, description="of its link's process")


class TopicOptions(Entry):
    """What the launch file says about one topic."""

    rate: Float | None = Field(default=None, gt=0, le=10_000, description="Hz")
    transport: Literal["ipc"] = "ipc"
    budget_ms: Float | None = Field(
        default=None,
        gt=0,
        description="oldest that the observation behind a message may be when it is sent",
    )


class Swap(Entry):
    """Hot-swaps the model of a node."""

    node: Name
    model: Text


class Request(Entry):
    """Sends a node a request, as `safetypilot param` and its like do."""

    node: Name
    request: Text
    arguments: dict[str, Any] = {}


class Step(Entry):
    """Something that happens during the run: one trigger and one action."""

    after_episodes: Int | None = Field(default=None, ge=0)
    after_s: Float | None = Field(default=None, ge=0)
    swap: Swap | None = None
    request: Request | None = None

    @model_validator(mode="after")
    def _one_each(self) -> Step:
        if (self.after_episodes is None) == (self.after_s is None):
            raise ValueError("needs one trigger, after_episodes or after_s")
        if (self.swap is None) == (self.request is None):
            raise ValueError("needs one action, swap or request")
        return self


Arguments = dict[Name, Argument]


class LaunchFile(Entry):
    """A launch file with its includes merged in and its arguments filled in."""

    name: Annotated[Text, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]*$", max_length=64)]
    description: Text = ""
    arguments: Arguments = {}
    include: list[IncludeItem] = []
    env: Text = Field(description="the plant: a Gymnasium id, or a short name such as maze")
    seed: Int = Field(default=0, ge=0, lt=1 << 31)
    rate: Float = Field(gt=0, le=10_000, description="control rate, Hz")
    clock: Literal["realtime", "lockstep"] = "realtime"
    episodes: Int | None = Field(
        default=None, ge=1, description="the run stops after so many episodes"
    )
    duration: Float | None = Field(
        default=None, gt=0, le=1e9, description="or after so many seconds"
    )
    realtime: Realtime | None = Field(
        default=None, description="what all nodes ask of the machine in real time"
    )
    hosts: dict[Name, Host] = Field(
        default={}, description="two computers that share the nodes; left out: one has them all"
    )
    nodes: dict[Name, Node] = Field(min_length=1, max_length=200)
    topics: dict[Name, TopicOptions] = {}
    budgets: dict[Text, Annotated[Float, Field(gt=0, le=1e6)]] = Field(
        default={},
        description="latency budgets in ms by path, such as `observation -> risk -> command`: how "
        "old the observation behind a message may be at the path's end (launch/budgets.py)",
    )
    remap: dict[Name, dict[Name, Name]] = Field(
        default={}, description="node: {the node's own topic name: the graph's}"
    )
    script: list[Step] = []

    def realtime_of(self, node: Node | Host) -> dict[str, Any]:
        """What a node asks of the machine; the launch file's section, if off, is for all nodes."""
        if self.realtime is not None and not self.realtime.when:
            return {}
        own = node.realtime or Realtime()
        return own.over(self.realtime)
