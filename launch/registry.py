"""The node types: what is behind a `type:` of a launch file, and how its config is checked."""

from __future__ import annotations

import dataclasses
import importlib
import re
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, NamedTuple

import pydantic
from pydantic_core import InitErrorDetails

TYPES = {
    "bridge": "safetypilot.nodes.bridge:Bridge",
    "simulator": "safetypilot.nodes.simulator:Simulator",
    "task_policy": "safetypilot.nodes.task_policy:TaskPolicy",
    "safety_critic": "safetypilot.nodes.safety_critic:SafetyCritic",
    "recovery_planner": "safetypilot.nodes.recovery_planner:RecoveryPlanner",
    "arbiter": "safetypilot.nodes.arbiter:Arbiter",
    "learner": "safetypilot.nodes.learner:Learner",
    "recorder": "safetypilot.nodes.recorder:Recorder",
}
_OWN = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
_STRICT = pydantic.ConfigDict(extra="forbid", allow_inf_nan=False)
# What importing somebody's module may raise when the module, not this program, is wrong.
_IMPORT_ERRORS = (
    ImportError, SyntaxError, AttributeError, NameError, TypeError, ValueError, OSError,
    RuntimeError, LookupError,
)  # fmt: skip


class RegistryError(Exception):
    """A node type cannot be used; `mend` says what to do."""

    def __init__(self, message: str, mend: str = "") -> None:
        super().__init__(message)
        self.mend = mend


class Input(NamedTuple):
    """A topic that a node type reads, by its own name for it."""

    topic: str
    wakes: bool
    optional: bool
    when: str  # a field of the config: while it is zero or empty there is no such input


@dataclass(frozen=True)
class NodeType:
    """What the launch layer needs to know of a node class.

    Attributes:
        module: "module:Class", what the supervisor starts.
    """

    name: str
    module: str
    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    config: type[Any]

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(field.name for field in dataclasses.fields(self.config))

    @cached_property
    def adapter(self) -> pydantic.TypeAdapter[Any]:
        """Checks a config; unknown keys and numbers that are not finite are refused."""
        return _adapter(self.config)

    def check(self, values: dict[str, Any]) -> dict[str, Any]:
        """Every field of the config as JSON-able data, defaults included.

        Raises:
            pydantic.ValidationError: a value is wrong, a key is unknown or missing.
        """
        config = self.adapter.validate_python(values)
        data: dict[str, Any] = self.adapter.dump_python(config, mode="json")
        flags = [
            InitErrorDetails(type="float_type", loc=(key,), input=given)
            for key, given in values.items()
            if isinstance(given, bool)
            and isinstance(data[key], int | float)
            and given is not data[key]
        ]  # pydantic takes true for 1
        if flags:
            raise pydantic.ValidationError.from_exception_data(self.name, flags)
        return data

    def schema(self) -> dict[str, Any]:
        """JSON schema of the config."""
        return self.adapter.json_schema()


def _adapter(config: type[Any]) -> pydantic.TypeAdapter[Any]:
    """For a strict subclass: the node's own Config stays a plain dataclass without pydantic."""
    checked = type(config.__name__, (config,), {"__module__": config.__module__})
    wrap = pydantic.dataclasses.dataclass(frozen=True, config=_STRICT)
    try:
        adapter = pydantic.TypeAdapter(wrap(checked))
        adapter.rebuild(raise_errors=True)
        return adapter
    except (pydantic.PydanticUserError, NameError, TypeError) as error:
        text = str(error).splitlines()[0]
        raise RegistryError(f"{config.__module__}.{config.__qualname__}: {text}") from None


@cache
def node_type(name: str) -> NodeType:
    """Look a node type up and import its class.

    Raises:
        RegistryError: there is none, or its class is not a node.
    """
    module = TYPES.get(name, name)
    if not _OWN.fullmatch(module):
        raise RegistryError(f"unknown node type {name!r}")
    path, _, attribute = module.partition(":")
    try:
        found = getattr(importlib.import_module(path), attribute, None)
    except _IMPORT_ERRORS as error:
        hint = "" if name in TYPES else "it must be installed or on PYTHONPATH"
        raise RegistryError(f"node type {name!r}: {_reason(error)}", hint) from None
    if found is None:
        raise RegistryError(f"node type {name!r}: module {path!r} has no {attribute!r}")
    return _inspect(name, module, found)


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".replace("\n", " ")


def _inspect(name: str, module: str, found: Any) -> NodeType:
    config = getattr(found, "Config", None)
    inputs, outputs = getattr(found, "inputs", None), getattr(found, "outputs", None)
    sound = (
        isinstance(found, type)
        and isinstance(config, type)
        and dataclasses.is_dataclass(config)
        and isinstance(outputs, tuple)
        and all(isinstance(topic, str) for topic in outputs)
        and isinstance(inputs, tuple)
        and all(isinstance(getattr(port, "topic", None), str) for port in inputs)
    )
    if not sound or inputs is None or outputs is None or config is None:
        mend = "it needs inputs, outputs and a Config dataclass; see nodes/kernel/node.py"
        raise RegistryError(f"node type {name!r} is not a node", mend)
    ports = tuple(
        Input(
            p.topic,
            bool(getattr(p, "wakes", True)),
            bool(getattr(p, "optional", False)),
            str(getattr(p, "when", "")),
        )
        for p in inputs
    )
    return NodeType(name, module, ports, outputs, config)
