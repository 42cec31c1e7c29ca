"""From a launch file to a graph: read, filled in, validated whole before anything starts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

import pydantic

from safetypilot.envs import registry as envs
from safetypilot.launch import arguments as args
from safetypilot.launch import (
    budgets,
    checks,
    companions,
    files,
    hosts,
    processes,
    rates,
    registry,
    settings,
)
from safetypilot.launch.loader import (
    Document,
    LaunchFileError,
    Mark,
    Place,
    Problem,
    did_you_mean,
    shorten,
    show,
)
from safetypilot.launch.resolved import Graph, NodeSpec, Port, Restart, Step, TopicSpec
from safetypilot.launch.schema import Argument, Arguments, LaunchFile, Node
from safetypilot.launch.validation import from_pydantic, validate

__all__ = ["Graph", "LaunchFileError", "NodeSpec", "Port", "Restart", "Step", "TopicSpec", "load"]

_ARGUMENTS: pydantic.TypeAdapter[dict[str, Argument]] = pydantic.TypeAdapter(Arguments)


def load(
    name_or_path: str | Path,
    arguments: Mapping[str, object] | Iterable[str] = (),
    sets: Iterable[str] = (),
    *,
    clock: str | None = None,
    seed: int | None = None,
    episodes: int | None = None,
    duration: float | None = None,
    check_files: bool = True,
    measured: budgets.Measured | Literal["find"] | None = None,
    host: str | None = None,
) -> Graph:
    """A launch file as a graph that can be started.

    Args:
        name_or_path: a built-in launch file such as `maze`, or a YAML file.
        arguments: `name=value` words of the command line, or a mapping.
        sets: `node.key=value` words: single fields of a node's config.
        clock, seed, episodes, duration: in place of the launch file's own; of the last two, one
            given replaces both.
        check_files: whether the models must exist.
        measured: worst ages of an earlier run, which the latency budgets must allow; "find": those
            of the newest run of this launch file below ./runs.
        host: which of its hosts this machine is to be; only its models and keys must exist.

    Raises:
        LaunchFileError: with everything that is wrong.
    """
    loading = _Loading(files.compose(files.find_launch_file(name_or_path)), check_files, host)
    own = {"clock": clock, "seed": seed, "episodes": episodes, "duration": duration}
    return loading.graph(arguments, list(sets), own, measured)


class _Loading:
    """One launch file on its way; problems pile up until going on makes no sense."""

    def __init__(self, document: Document, check_files: bool, host: str | None) -> None:
        self.document = document
        self.check_files = check_files
        self.host = host
        self.problems: list[Problem] = []
        self.warnings: list[str] = []
        self.sets: list[settings.Setting] = []
        self.missing: dict[str, None] = {}  # arguments that have no value, and a node needs one

    def complain(self, mark: Mark, message: str, mend: str = "") -> None:
        self.problems.append(Problem(mark, message, mend))

    def stop_on_problems(self) -> None:
        if self.problems:
            raise LaunchFileError(self.problems)

    def graph(
        self,
        arguments: Mapping[str, object] | Iterable[str],
        sets: list[str],
        own: Mapping[str, object],
        measured: budgets.Measured | Literal["find"] | None,
    ) -> Graph:
        specs = self.argument_specs()
        command = args.given(arguments, self.problems)
        given = companions.supplement(specs, command, self.problems)
        values = args.resolve(specs, self.document, given.command, self.problems)
        filled = args.substitute(self.document, values, self.problems)
        self.document, self.filled = filled.document, filled
        settings.override(self.document, own)
        self.sets = settings.apply(filled, sets, self.problems)
        file = validate(LaunchFile, self.document, self.problems, skip=("arguments",))
        if file is None:
            raise LaunchFileError(self.problems)
        self.env = self.environment(file)
        if given.env and envs.resolve(given.env) != self.env:
            message = f"was trained in {given.env}, this launch file flies {self.env}"
            mend = "give its files one by one if that is meant, or fly it with `launch any`"
            self.complain(given.run, message, mend)
        present = {name: node for name, node in file.nodes.items() if node.when}
        absent = tuple(name for name, node in file.nodes.items() if not node.when)
        check = checks.Check(file, self.document, (), absent, self.problems, self.warnings)
        built = [self.node(name, node, check) for name, node in present.items()]
        self.complain_of_missing(specs)
        self.check_references(file, present, absent)
        self.check_existence(present)
        self.stop_on_problems()
        check.nodes = rates.settle(check, (node for node in built if node is not None))
        topics = checks.connect(check)
        self.stop_on_problems()
        checks.latency(check, topics)
        if measured == "find":
            found = budgets.find_measured(file.name, file.rate) if file.budgets else None
        else:
            found = measured
        check.nodes = budgets.settle(check, topics, found)
        checks.guard(check, self.env)
        checks.models(check, self.env)
        checks.robot(check)
        checks.machine(check)
        processes.check(check)
        split = hosts.settle(check, topics, self.host)
        script = self.script(file)
        self.stop_on_problems()
        return Graph(
            name=file.name,
            description=file.description,
            source=self.document.mark.file,
            env=self.env,
            seed=file.seed,
            rate=file.rate,
            clock=file.clock,
            episodes=file.episodes,
            duration=file.duration,
            arguments={name: value.value for name, value in values.items()},
            nodes=check.nodes,
            topics=topics,
            script=script,
            hosts=split,
            warnings=tuple(self.warnings),
        )

    def argument_specs(self) -> dict[str, Argument]:
        try:
            return _ARGUMENTS.validate_python(self.document.values.get("arguments", {}))
        except pydantic.ValidationError as error:
            found = from_pydantic(error, self.document, _ARGUMENTS.json_schema(), ("arguments",))
            raise LaunchFileError([problem for _, problem in found]) from None

    def environment(self, file: LaunchFile) -> str:
        try:
            return envs.resolve(file.env)
        except ValueError as error:
            self.complain(self.document.at(("env",)), str(error))
            return file.env

    def node(self, name: str, node: Node, check: checks.Check) -> NodeSpec | None:
        """The node with its class looked up and its config checked; None if something is wrong."""
        mark = self.document.at(("nodes", name, "type"))
        try:
            kind = registry.node_type(node.type)
            config = self.config(name, node, kind)
        except registry.RegistryError as error:
            mend = error.mend
            if not mend and node.type not in registry.TYPES:
                mend = did_you_mean(node.type, registry.TYPES, what="types")
            self.complain(mark, str(error), mend)
            return None
        own = dict.fromkeys([port.topic for port in kind.inputs] + list(kind.outputs))
        names = checks.remapped(check, name, own)
        if config is None:
            return None
        inputs = (
            Port(p.topic, names[p.topic], p.wakes, p.optional)
            for p in kind.inputs
            if not p.when or config.get(p.when)
        )
        outputs = (Port(topic, names[topic]) for topic in kind.outputs)
        restart = Restart(**node.restart.model_dump())
        return NodeSpec(
            name, node.type, kind.module, config, tuple(inputs), tuple(outputs), restart,
            tuple(node.cpus), node.nice, check.file.realtime_of(node), node.process or "",
            host=node.host or "",
        )  # fmt: skip

    def config(self, name: str, node: Node, kind: registry.NodeType) -> dict[str, Any] | None:
        """Every field of the node's config, JSON-able; None with problems noted."""
        under: Place = ("nodes", name, "config")
        values = dict(node.config)
        if "env" in kind.fields:  # the plant is named once, for all who need it
            values.setdefault("env", self.env)
        texts = {s.place: s.text for s in self.sets}
        for attempt in range(2):
            try:
                return kind.check(values)
            except pydantic.ValidationError as error:
                wanted = [e["loc"] for e in error.errors() if e["type"] == "string_type"]
                as_text = [str(loc[0]) for loc in wanted if (*under, *loc) in texts]
                if attempt or not as_text:
                    found = from_pydantic(error, self.document, kind.schema(), under)
                    self.problems.extend(p for place, p in found if not self.is_missing(place))
                    break
                # --set model=5 for a text: on the command line nothing says that it is one
                values.update({key: texts[*under, key] for key in as_text})
        return None

    def is_missing(self, place: Place) -> bool:
        """Whether a value is wrong because an argument has none; notes the argument."""
        argument = self.filled.arguments.get(place)
        if argument is None or argument.value is not None:
            return False
        self.missing[argument.argument] = None
        return True

    def complain_of_missing(self, specs: Mapping[str, Argument]) -> None:
        """One problem for all arguments that must be given, and where their values come from."""
        if not self.missing:
            return
        message = f"{', '.join(self.missing)} must be given: {self.env} has no default here"
        lines = [f"  {name}=...  {specs[name].help}" for name in self.missing]
        for run in (name for name, spec in specs.items() if spec.kind == "run"):
            short = next((name for name, full in envs.IDS.items() if full == self.env), self.env)
            train = f"safetypilot train recovery-rl --env {short} --out DIR"
            lines.insert(0, f"all at once with {run}=DIR, after `{train}`, or each")
        self.complain(self.document.mark, message, "\n".join(lines))

    def check_references(
        self, file: LaunchFile, present: Mapping[str, Node], absent: tuple[str, ...]
    ) -> None:
        """Every node that is named somewhere else exists."""
        for setting in self.sets:
            if setting.place[1] in absent:
                name = setting.place[1]
                self.complain(
                    setting.mark, f"node {name!r} is not in this graph: its `when` is off"
                )
        for name in file.remap:
            if name not in file.nodes:
                mark = self.document.at(("remap", name), key=True)
                mend = did_you_mean(name, file.nodes, what="nodes")
                self.complain(mark, f"there is no node {name!r}", mend)
        for i, step in enumerate(file.script):
            action = "swap" if step.swap else "request"
            name = step.swap.node if step.swap else step.request.node if step.request else ""
            if name not in present:
                mark = self.document.at(("script", i, action, "node"))
                off = "its `when` is off" if name in absent else ""
                mend = off or did_you_mean(name, present, what="nodes")
                self.complain(mark, f"there is no node {show(name)} to {action}", mend)

    def check_existence(self, present: Mapping[str, Node]) -> None:
        """Every model file that will be read exists."""
        for place in self.filled.files if self.check_files else ():
            if place[0] == "nodes" and not self.is_here(present.get(str(place[1]))):
                continue
            value: Any = self.document.values
            for part in place:
                value = None if isinstance(value, str | None) else value[part]  # --set replaced it
            if not isinstance(value, str) or os.path.isfile(value):
                continue
            mark, argument = self.document.at(place), self.filled.arguments.get(place)
            message = f"there is no file {shorten(value)}"
            if argument is not None:
                message += f" (argument {argument.argument!r})"
                mark = mark if argument.mark.line else argument.mark
            self.complain(mark, message, argument.hint if argument else "")

    def is_here(self, node: Node | None) -> bool:
        """Whether a node will run on this machine."""
        return node is not None and (self.host is None or node.host == self.host)

    def script(self, file: LaunchFile) -> tuple[Step, ...]:
        steps = []
        for i, step in enumerate(file.script):
            if step.swap is not None:
                node, request, content = step.swap.node, "swap", {"path": step.swap.model}
            elif step.request is not None:
                node, request = step.request.node, step.request.request
                content = step.request.arguments
            else:
                continue
            steps.append(Step(node, request, content, step.after_episodes, step.after_s))
            late = step.after_episodes is not None and step.after_episodes >= (
                file.episodes or 1e18
            )
            if late or (step.after_s or 0.0) >= (file.duration or 1e18):
                mark = self.document.at(("script", i))
                self.warnings.append(f"{mark}: script[{i}] never happens: the run ends before it")
        return tuple(steps)
