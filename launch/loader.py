"""Reads a YAML launch file into plain values and remembers where each of them stands.

YAML 1.2's scalars are used, so that `on`, `off`, `yes`, `no`, `012`, `1:30` and dates stay what was
written and get their type from the field they are given to. Keys are always text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

import yaml

Place = tuple[str | int, ...]  # where a value stands in the file, e.g. ("nodes", "arbiter", "type")

MAX_BYTES = 1 << 20
MAX_VALUES = 20_000  # aliases can make a short file large
MAX_DEPTH = 60


class Mark(NamedTuple):
    """A position that a person can jump to; line 0 means that it is not in a file."""

    file: str
    line: int = 0
    column: int = 0

    def __str__(self) -> str:
        return f"{shorten(self.file)}:{self.line}:{self.column}" if self.line else self.file


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong: where, what, and what to do about it."""

    mark: Mark
    message: str
    mend: str = ""

    def __str__(self) -> str:
        text = f"{self.mark}: {self.message}" + (f"; {self.mend}" if self.mend else "")
        return text.encode("utf-8", "backslashreplace").decode("utf-8")

    def to_dict(self) -> dict[str, str | int]:
        return {**self.mark._asdict(), "message": self.message, "mend": self.mend}


class LaunchFileError(Exception):
    """A launch file, an argument or a setting is wrong; `problems` lists everything found."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        unique = dict.fromkeys(problems)
        ordered = sorted(unique, key=lambda p: (p.mark.line > 0, p.mark.file, p.mark[1:]))
        self.problems: tuple[Problem, ...] = tuple(ordered)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def to_dict(self) -> dict[str, list[dict[str, str | int]]]:
        return {"problems": [problem.to_dict() for problem in self.problems]}


@dataclass
class Document:
    """Plain values with the mark of each key and of each value."""

    mark: Mark
    values: dict[str, object] = field(default_factory=dict)
    keys: dict[Place, Mark] = field(default_factory=dict)
    marks: dict[Place, Mark] = field(default_factory=dict)

    def at(self, place: Iterable[str | int], *, key: bool = False) -> Mark:
        """The mark of the value (or the key) at `place`, else of what encloses it."""
        path, marks = tuple(place), self.keys if key else self.marks
        while path and path not in marks:
            path = path[:-1]
        return marks.get(path, self.mark)


def shorten(file: str) -> str:
    """The path as a person in the working directory would write it."""
    try:
        return str(Path(file).relative_to(Path.cwd()))
    except (ValueError, OSError):
        return file


def did_you_mean(word: str, known: Iterable[str], *, what: str = "known") -> str:
    """A suggestion if one is close, else the list of what would have been right."""
    names = list(known)
    close = get_close_matches(word, names, n=1, cutoff=0.6)
    if close:
        return f"did you mean {close[0]!r}?"
    return f"{what}: {', '.join(names)}" if names else ""


def dotted(place: Place) -> str:
    """The place as people write it: nodes.arbiter.config.eps, script[0].swap."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return text.lstrip(".") or "the launch file"


def show(value: object) -> str:
    """The value as it could stand in the file, cut to a readable length."""
    text = str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


_TAG = "tag:yaml.org,2002:"
_NULL = re.compile(r"|~|null|Null|NULL")
_BOOL = re.compile(r"true|True|TRUE|false|False|FALSE")
_INT = re.compile(r"[-+]?[0-9]+")
_HEX = re.compile(r"0x[0-9a-fA-F]+|0o[0-7]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)")


def scalar(text: str) -> object:
    """The value of a plain scalar by the YAML 1.2 core schema."""
    if _NULL.fullmatch(text):
        return None
    if _BOOL.fullmatch(text):
        return text.lower() == "true"
    if len(text) <= 400 and _INT.fullmatch(text):
        return int(text)
    if len(text) <= 400 and _HEX.fullmatch(text):
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _SPECIAL.fullmatch(text):
        return float(text.replace(".", ""))
    return text


def read(path: Path) -> Document:
    """Read one launch file.

    Raises:
        LaunchFileError: it cannot be read or is not a YAML mapping with unique keys.
    """
    mark = Mark(str(path), 1, 1)
    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise LaunchFileError([Problem(mark, f"cannot be read: {reason}")]) from None
    if len(data) > MAX_BYTES:
        raise LaunchFileError([Problem(mark, f"is larger than {MAX_BYTES} bytes")])
    try:
        return parse(data.decode("utf-8-sig"), str(path))
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        problem = Problem(Mark(str(path), line, 1), "is not UTF-8 text", "save it as UTF-8")
        raise LaunchFileError([problem]) from None


def parse(text: str, file: str) -> Document:
    """Parse the text of one launch file; `file` is what marks will name.

    Raises:
        LaunchFileError: see `read`.
    """
    reader = _Reader(file)
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        at = error.problem_mark or error.context_mark
        mark = Mark(file, at.line + 1, at.column + 1) if at else Mark(file, 1, 1)
        parts = [part for part in (error.context, error.problem) if part]
        braces = "'{'" in str(error.problem) and "${" in text
        mend = 'between { and } write it in quotes: "${name}"' if braces else ""
        raise LaunchFileError([Problem(mark, f"not YAML: {', '.join(parts)}", mend)]) from None
    except yaml.YAMLError as error:
        line = text.count("\n", 0, getattr(error, "position", 0)) + 1
        reason = getattr(error, "reason", "") or "unreadable"
        raise LaunchFileError([Problem(Mark(file, line, 1), f"not YAML: {reason}")]) from None
    except RecursionError:
        raise LaunchFileError([Problem(Mark(file, 1, 1), "is nested too deeply")]) from None
    document = Document(Mark(file, 1, 1), keys=reader.keys, marks=reader.marks)
    if root is not None:
        values = reader.build(root, ())
        if isinstance(values, dict):
            document.values = values
        else:
            reader.complain(
                root, "a launch file is a mapping of keys to values", f"got {show(values)}"
            )
    if reader.problems:
        raise LaunchFileError(reader.problems)
    return document


class _Reader:
    """Builds plain values out of YAML nodes, noting marks and problems on the way."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.keys: dict[Place, Mark] = {}
        self.marks: dict[Place, Mark] = {}
        self.problems: list[Problem] = []

    def mark(self, node: yaml.Node) -> Mark:
        return Mark(self.file, node.start_mark.line + 1, node.start_mark.column + 1)

    def complain(self, node: yaml.Node, message: str, mend: str = "") -> None:
        self.problems.append(Problem(self.mark(node), message, mend))

    def build(self, node: yaml.Node, place: Place) -> object:
        self.marks[place] = self.mark(node)
        if len(place) > MAX_DEPTH or len(self.marks) > MAX_VALUES:
            raise LaunchFileError(
                [
                    *self.problems,
                    Problem(self.mark(node), "too large or too deep for a launch file"),
                ]
            )
        if node.tag.startswith("!") or "python" in node.tag:
            tag = node.tag.replace(_TAG, "!!")
            self.complain(node, f"tag {tag!r} is not allowed", "write the plain value")
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, place)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(child, (*place, i)) for i, child in enumerate(node.value)]
        return self.scalar(node) if isinstance(node, yaml.ScalarNode) else None

    def scalar(self, node: yaml.ScalarNode) -> object:
        text: str = node.value
        if node.style in ("'", '"', "|", ">"):
            return text
        return scalar(text)

    def mapping(self, node: yaml.MappingNode, place: Place) -> dict[str, object]:
        values: dict[str, object] = {}
        for key, child in node.value:
            if not isinstance(key, yaml.ScalarNode):
                self.complain(key, "a key must be plain text", "quote it if it has braces")
                continue
            name: str = key.value
            if name == "<<" and not key.style:
                self.complain(key, "YAML merge keys are not supported", "use include:")
            elif name in values:
                first = self.keys[*place, name]
                where = f" in {dotted(place)}" if place else ""
                mend = f"it is also on line {first.line}"
                self.complain(key, f"duplicate key {show(name)}{where}", mend)
            else:
                self.keys[*place, name] = self.mark(key)
                values[name] = self.build(child, (*place, name))
        return values


def overlay(base: Document, top: Document) -> Document:
    """`top` over `base`: mappings merge key by key, everything else is replaced."""
    merged = Document(top.mark, dict(base.values), dict(base.keys), dict(base.marks))
    _overlay(merged, merged.values, top, top.values, ())
    return merged


def _overlay(
    merged: Document,
    below: dict[str, object],
    top: Document,
    above: Mapping[str, object],
    at: Place,
) -> None:
    for name, value in above.items():
        place = (*at, name)
        merged.keys[place] = top.at(place, key=True)
        merged.marks[place] = top.at(place)
        old = below.get(name)
        if isinstance(old, dict) and isinstance(value, dict):
            below[name] = old = dict(old)
            _overlay(merged, old, top, value, place)
            continue
        below[name] = value
        for marks, news in ((merged.keys, top.keys), (merged.marks, top.marks)):
            for stale in [p for p in marks if p[: len(place)] == place]:
                del marks[stale]
            marks.update({p: m for p, m in news.items() if p[: len(place)] == place})
