"""Node classes of every shape for the tests of launch files; none of them ever runs."""

from __future__ import annotations

from dataclasses import dataclass, field

from safetypilot.nodes.kernel.node import Input, Node


@dataclass(frozen=True)
class Nothing:
    pass


@dataclass(frozen=True)
class Inner:
    depth: int = 1


@dataclass(frozen=True, slots=True)
class Everything:
    """One field of each kind.

    Attributes:
        gain: what it multiplies with,
            over two lines.
        low, high: its limits.
    """

    model: str = ""
    gain: float = 1.0
    low: float = 0.0
    high: float = 1.0
    count: int = 3
    shield: bool = True
    note: str = ""
    sizes: tuple[int, ...] = (1, 2)
    inner: Inner = field(default_factory=Inner)
    limit: int | None = None

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError(f"low {self.low} is above high {self.high}")


@dataclass(frozen=True)
class Timed:
    budget_ms: float = 4.0


@dataclass(frozen=True)
class Needy:
    model: str
    env: str


class Plant(Node):
    inputs = (Input("command"),)
    outputs = ("observation", "transition")
    Config = Nothing


class Pilot(Node):
    inputs = (Input("observation"), Input("model", wakes=False, optional=True))
    outputs = ("command",)
    Config = Everything


class Policy(Node):
    inputs = (Input("observation"),)
    outputs = ("proposal",)
    Config = Timed


class Judge(Node):
    inputs = (Input("observation", wakes=False), Input("proposal"))
    outputs = ("risk",)
    Config = Timed


class Chooser(Node):
    inputs = (Input("proposal"), Input("risk"))
    outputs = ("command",)
    Config = Nothing


class Student(Node):
    inputs = (Input("transition"),)
    outputs = ("model",)
    Config = Needy


class Stranger(Node):
    inputs = (Input("observatoin"),)
    outputs = ()
    Config = Nothing


class NotANode:
    pass


class BadConfig(Node):
    Config = int


@dataclass(frozen=True)
class Unresolvable:
    value: NoSuchType  # noqa: F821  # type: ignore[name-defined]


class Unknowable(Node):
    Config = Unresolvable
