"""The arguments of a launch file: what the command line gives, what `${name}` becomes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from safetypilot.launch.files import is_file_name, locate
from safetypilot.launch.loader import (
    Document,
    Mark,
    Place,
    Problem,
    did_you_mean,
    scalar,
    show,
)
from safetypilot.launch.schema import SUBSTITUTION, Argument

_ON = ("on", "yes", "true", "1")
_OFF = ("off", "no", "false", "0")
_PLACES = ("file", "run")  # types of argument that name one; `name=` names none


@dataclass(frozen=True)
class Value:
    """An argument's value, where it was written, and how a person would give another."""

    value: object
    mark: Mark
    argument: str
    is_file: bool = False
    hint: str = ""


def given(arguments: Mapping[str, object] | Iterable[str], problems: list[Problem]) -> Document:
    """`key=value` words (or a mapping) as a document whose marks name the words."""
    words: list[tuple[str, object, str]] = []
    if isinstance(arguments, Mapping):
        words = [(str(key), value, f"{key}={value}") for key, value in arguments.items()]
    else:
        for word in arguments:
            key, equals, text = word.partition("=")
            if not equals:
                problems.append(Problem(Mark(word), "an argument is given as name=value"))
            else:
                words.append((key, text, word))
    document = Document(Mark("the command line"))
    for key, value, text in words:
        if key in document.values:
            problems.append(Problem(Mark(text), f"{key!r} is given twice"))
        document.values[key] = value
        document.marks[key,] = document.keys[key,] = Mark(text)
    return document


def resolve(
    specs: Mapping[str, Argument], document: Document, command: Document, problems: list[Problem]
) -> dict[str, Value]:
    """The value of every argument; on a problem the default stands in, so that more is found."""
    for name in command.values:
        if name not in specs:
            mend = f"{did_you_mean(name, specs)}\n{usage(specs)}".lstrip() if specs else ""
            message = f"unknown argument {name!r}"
            mend = mend or "this launch file takes no arguments"
            problems.append(Problem(command.at((name,)), message, mend))
    resolver = _Resolver(specs, document, command, problems)
    return {name: resolver.value(name) for name in specs}


def usage(specs: Mapping[str, Argument]) -> str:
    """One line per argument: name=default, what it is for."""
    lines = []
    for name, spec in specs.items():
        choices = [*spec.aliases] or [str(_word(choice)) for choice in spec.choices or ()]
        facts = [spec.help, f"one of {', '.join(choices)}" if choices and not spec.help else ""]
        default = "" if spec.default is None else _word(spec.default)
        shown = f"{name}=..." if spec.required else f"{name}={default}"
        lines.append(f"  {shown:<22} {' '.join(filter(None, facts))}".rstrip())
    return "\n".join(lines)


def _word(value: object) -> object:
    return ("off", "on")[value] if isinstance(value, bool) else value


class _Resolver:
    """Resolves arguments that may refer to one another."""

    def __init__(
        self,
        specs: Mapping[str, Argument],
        document: Document,
        command: Document,
        problems: list[Problem],
    ) -> None:
        self.specs = specs
        self.document = document
        self.command = command
        self.problems = problems
        self.done: dict[str, Value] = {}
        self.under_way: list[str] = []

    def value(self, name: str) -> Value:
        if name not in self.done:
            self.under_way.append(name)
            self.done[name] = self._value(name, self.specs[name])
            self.under_way.pop()
        return self.done[name]

    def _value(self, name: str, spec: Argument) -> Value:
        default_mark = self.document.at(("arguments", name, "default"))
        if name in self.command.values:
            mark = self.command.at((name,))
            if self.command.values[name] == "" and self._kind(spec) in _PLACES:
                return Value(None, mark, name)
            found = self._typed(name, spec, self.command.values[name], mark)
            if found is not None:
                return found
        elif spec.required:
            mend = f"add {name}=..." + (f": {spec.help}" if spec.help else "")
            self._complain(default_mark, f"argument {name!r} must be given", mend)
        if spec.default is None:
            return Value(None, default_mark, name)
        raw: object = spec.default
        if isinstance(raw, str) and re.search(SUBSTITUTION, raw):
            raw = self._referring(name, raw, default_mark)
        return self._typed(name, spec, raw, default_mark) or Value(None, default_mark, name)

    def _referring(self, name: str, text: str, mark: Mark) -> object:
        """A default that refers to other arguments."""
        values: dict[str, Value] = {}
        for other in re.findall(SUBSTITUTION, text):
            if other in self.under_way:
                chain = " -> ".join([*self.under_way[self.under_way.index(other) :], other])
                self._complain(mark, f"the defaults of arguments go in a circle: {chain}")
                return None
            if other in self.specs:
                values[other] = self.value(other)
        return fill(text, values, mark, self.problems)[0]

    def _complain(self, mark: Mark, message: str, mend: str = "") -> None:
        self.problems.append(Problem(mark, message, mend))

    def _typed(self, name: str, spec: Argument, raw: object, mark: Mark) -> Value | None:
        """The value as the argument's type, or None with a problem noted."""
        if raw is None:
            return None
        alias = str(raw)
        if alias in spec.aliases:
            place = ("arguments", name, "aliases", alias)
            raw, home = spec.aliases[alias], self.document.at(place)
        else:
            home = mark
        kind = self._kind(spec)
        typed = _convert(kind, raw, home)
        message, mend = self._refusal(spec, typed, raw, mark)
        if message:
            self._complain(mark, f"argument {name!r} {message}", mend)
            return None
        hint = did_you_mean(alias, spec.aliases, what="or one of") if spec.aliases else ""
        return Value(typed, mark, name, kind == "file", "" if alias in spec.aliases else hint)

    def _kind(self, spec: Argument, depth: int = 0) -> str:
        """The argument's type; with `default: ${other}` the other's."""
        other = re.fullmatch(SUBSTITUTION, str(spec.default))
        if other and other[1] in self.specs and not (spec.type or spec.aliases or depth > 20):
            return self._kind(self.specs[other[1]], depth + 1)
        return spec.kind

    def _refusal(self, spec: Argument, typed: object, raw: object, mark: Mark) -> tuple[str, str]:
        """Why a value cannot be taken, and the mend; empty if it can."""
        got = f", got {show(scalar(str(raw)))}"
        kind = self._kind(spec)
        if typed is None:
            wanted = {"bool": "on or off", "int": "a whole number", "float": "a number"}
            return f"should be {wanted.get(kind, 'text')}{got}", ""
        if spec.choices is not None:
            if typed not in [_convert(kind, choice, mark) for choice in spec.choices]:
                words = [str(_word(choice)) for choice in spec.choices]
                return f"cannot be {show(raw)}", did_you_mean(str(raw), words, what="one of")
        if isinstance(typed, int | float):
            if spec.minimum is not None and not typed >= spec.minimum:
                return f"should be at least {spec.minimum:g}{got}", ""
            if spec.maximum is not None and not typed <= spec.maximum:
                return f"should be at most {spec.maximum:g}{got}", ""
        return "", ""


def _convert(kind: str, raw: object, mark: Mark) -> object:
    """`raw` as the type `kind`; None if it is not one."""
    text = str(_word(raw))
    if kind == "bool":
        word = text.lower()
        return True if word in _ON else False if word in _OFF else None
    if isinstance(raw, bool) and kind in ("int", "float"):
        return None
    try:
        if kind == "int":
            return int(text)
        if kind == "float":
            number = float(text)
            return number if abs(number) < float("inf") else None
    except ValueError:
        return None
    if kind in _PLACES:
        return locate(text, mark) if text else None
    return text


def fill(
    text: str, values: Mapping[str, Value], mark: Mark, problems: list[Problem]
) -> tuple[object, Value | None]:
    """`text` with its `${name}` filled in; alone, an argument keeps its type.

    Returns:
        The result, and the argument's value where the text was nothing but that argument.
    """
    whole = re.fullmatch(SUBSTITUTION, text)

    def one(match: re.Match[str]) -> str:
        name = match[1]
        if name not in values:
            mend = did_you_mean(name, values, what="arguments")
            problems.append(Problem(mark, f"unknown argument {show(match[0])}", mend))
            return ""
        value = values[name].value
        return "" if value is None else str(_word(value))

    if whole and whole[1] in values:
        return values[whole[1]].value, values[whole[1]]
    return re.sub(SUBSTITUTION, one, text), None


@dataclass(frozen=True)
class Filled:
    """A document with its arguments filled in."""

    document: Document
    arguments: dict[Place, Value]  # where a value is one argument's and nothing else
    files: list[Place]  # where a value names a file


def substitute(document: Document, values: Mapping[str, Value], problems: list[Problem]) -> Filled:
    """Fill in every `${name}` outside `arguments:`, and make names of files absolute."""
    arguments: dict[Place, Value] = {}
    files: list[Place] = []

    def walk(value: object, place: Place) -> object:
        if isinstance(value, dict):
            return {key: walk(child, (*place, key)) for key, child in value.items()}
        if isinstance(value, list):
            return [walk(child, (*place, i)) for i, child in enumerate(value)]
        if not isinstance(value, str):
            return value
        mark = document.at(place)
        filled, argument = fill(value, values, mark, problems)
        if argument is not None:
            arguments[place] = argument
            if argument.is_file and filled is not None:
                files.append(place)
        elif isinstance(filled, str) and place[0] in ("nodes", "script") and is_file_name(filled):
            files.append(place)
            return locate(filled, mark)
        return filled

    filled = Document(document.mark, keys=dict(document.keys), marks=dict(document.marks))
    for name, value in document.values.items():
        filled.values[name] = value if name == "arguments" else walk(value, (name,))
    return Filled(filled, arguments, files)
