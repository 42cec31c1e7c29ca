"""What the command line changes in a launch file: `--set node.key=value`, `--seed` and its like."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from safetypilot.launch import files
from safetypilot.launch.arguments import Filled
from safetypilot.launch.loader import Document, Mark, Place, Problem, did_you_mean, scalar

_STOPS = ("episodes", "duration")


class Setting(NamedTuple):
    """One `--set`: where it goes, the text that was given and the mark that names it."""

    place: Place
    text: str
    mark: Mark


def override(document: Document, values: Mapping[str, object]) -> None:
    """Replaces top-level values; None leaves one. One stop condition replaces all of the file's."""
    given = {name: value for name, value in values.items() if value is not None}
    if any(name in given for name in _STOPS):
        for name in _STOPS:
            document.values.pop(name, None)
    for name, value in given.items():
        _put(document, (name,), value, Mark(f"--{name} {value}"))


def apply(filled: Filled, words: Iterable[str], problems: list[Problem]) -> list[Setting]:
    """Writes each `node.key=value` into the config of its node."""
    document = filled.document
    nodes = document.values.get("nodes")
    known = nodes if isinstance(nodes, dict) else {}
    settings: list[Setting] = []
    for word in words:
        mark = Mark(f"--set {word}")
        target, equals, text = word.partition("=")
        node, *keys = target.split(".")
        if not equals or not keys or not all((node, *keys)):
            problems.append(Problem(mark, "a setting is given as node.key=value"))
            continue
        if node not in known:
            mend = did_you_mean(node, known, what="nodes")
            problems.append(Problem(mark, f"there is no node {node!r}", mend))
            continue
        place: Place = ("nodes", node, "config", *keys)
        value = scalar(text)
        if files.is_file_name(text) or (place in filled.files and text):
            value = files.locate(text, mark)
            filled.files.append(place)
        filled.arguments.pop(place, None)
        if _put(document, place, value, mark):
            settings.append(Setting(place, text, mark))
        else:
            problems.append(Problem(mark, f"{target!r} is not a key of a node's config"))
    return settings


def _put(document: Document, place: Place, value: object, mark: Mark) -> bool:
    """Writes a value into the document; False where something else than a mapping is on the way."""
    at: dict[str, Any] = document.values
    for depth, name in enumerate(place[:-1], start=1):
        child = at.get(str(name))
        if child is None:
            child = at[str(name)] = {}
            document.marks[place[:depth]] = mark
        if not isinstance(child, dict):
            return False
        at = child
    at[str(place[-1])] = value
    document.marks[place] = document.keys[place] = mark
    return True
