"""Where launch files and models are found, and how included files are merged."""

from __future__ import annotations

import os
import re
from importlib.util import find_spec
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from safetypilot.launch.loader import (
    Document,
    LaunchFileError,
    Mark,
    Problem,
    did_you_mean,
    overlay,
    read,
    show,
)
from safetypilot.launch.schema import Include, IncludeItem
from safetypilot.launch.validation import from_pydantic

CONFIGS = Path(__file__).parent / "configs"
_INCLUDES = TypeAdapter(list[IncludeItem])


def built_in() -> dict[str, Path]:
    """The launch files that come with the package, by name; `_...` are parts of others."""
    return {path.stem: path for path in sorted(CONFIGS.glob("[!_]*.yaml"))}


def find_launch_file(name_or_path: str | Path) -> Path:
    """A built-in launch file by name, or a file by path.

    Raises:
        LaunchFileError: there is neither.
    """
    text = str(name_or_path)
    known = built_in()
    if text in known:
        return known[text]
    path = Path(os.path.abspath(os.path.expanduser(text)))
    if path.is_file():
        return path
    if not text:
        message, mend = "no launch file is named", f"one of {', '.join(known)}, or a file"
    elif re.fullmatch(r"[\w-]+", text):
        message = f"no launch file is called {show(text)}"
        mend = did_you_mean(text, known, what="built in") + " (or give the path of a .yaml file)"
    else:
        message, mend = "there is no such launch file", did_you_mean(path.name, _siblings(path))
        mend = mend if mend.startswith("did") else ""
    raise LaunchFileError([Problem(Mark(text or "launch"), message, mend)])


def _siblings(path: Path) -> list[str]:
    try:
        return sorted(p.name for p in path.parent.iterdir() if p.suffix in (".yaml", ".yml"))
    except (OSError, ValueError):
        return []


def zoo() -> Path:
    """The folder of the models that come with the package."""
    spec = find_spec("safetypilot.models")
    places = (spec.submodule_search_locations or []) if spec else []
    return Path(next(iter(places), "models")) / "zoo"


def is_file_name(text: str) -> bool:
    """Whether a text in a node's config names a file: a model, its contract, a MuJoCo world ..."""
    return text.startswith("zoo/") or text.endswith((".onnx", ".pt", ".xml", ".json", ".yaml"))


def locate(text: str, mark: Mark) -> str:
    """The absolute path of a file named at `mark`.

    `zoo/...` is in the installed package; other relative paths start at the folder of the launch
    file they are written in, or at the working directory for the command line.
    """
    return resolve(text, os.path.dirname(mark.file) if mark.line else "")


def resolve(text: str, folder: str | Path) -> str:
    """The absolute path of a file named by somebody in `folder`; `zoo/...` is in the package."""
    if text.startswith("zoo/"):
        return os.path.normpath(zoo() / text.removeprefix("zoo/"))
    return os.path.abspath(os.path.join(folder, os.path.expanduser(text)))


def compose(path: Path) -> Document:
    """A launch file with its includes merged in below it, later ones over earlier ones.

    Raises:
        LaunchFileError: a file cannot be read, or includes itself.
    """
    problems: list[Problem] = []
    document = _compose(path, (), problems)
    if problems:
        raise LaunchFileError(problems)
    return document


def _compose(path: Path, above: tuple[Path, ...], problems: list[Problem]) -> Document:
    document = read(path)
    includes = _includes(document, problems)
    document.values.pop("include", None)
    chain = (*above, path.resolve())
    merged = Document(document.mark)
    for i, include in enumerate(includes):
        mark = document.at(("include", i, "file"))
        target = Path(locate(include.file, mark))
        if target.resolve() in chain:
            files = [file.name for file in (*chain[chain.index(target.resolve()) :], target)]
            problems.append(Problem(mark, f"includes go in a circle: {' -> '.join(files)}"))
        elif not target.is_file():
            mend = did_you_mean(target.name, _siblings(target), what="beside it")
            problems.append(
                Problem(mark, f"there is no file {show(include.file)} to include", mend)
            )
        else:
            try:
                below = _compose(target, chain, problems)
            except LaunchFileError as error:
                problems.extend(error.problems)
                continue
            _set_defaults(below, include, document, i, problems)
            below.values.pop("name", None)
            below.values.pop("description", None)
            merged = overlay(merged, below)
    return overlay(merged, document)


def _includes(document: Document, problems: list[Problem]) -> list[Include]:
    section = document.values.get("include")
    if section is None:
        return []
    try:
        return list(_INCLUDES.validate_python(section))
    except ValidationError as error:
        schema = _INCLUDES.json_schema()
        found = from_pydantic(error, document, schema, ("include",))
        problems.extend(problem for _, problem in found)
        return []


def _set_defaults(
    below: Document, include: Include, document: Document, i: int, problems: list[Problem]
) -> None:
    """The include's `arguments` become defaults of the included file's arguments."""
    specs = below.values.get("arguments")
    for name, value in include.arguments.items():
        place = ("include", i, "arguments", name)
        spec = specs.get(name) if isinstance(specs, dict) else None
        if not isinstance(specs, dict) or not isinstance(spec, dict):
            known = specs if isinstance(specs, dict) else ()
            message = f"{include.file} takes no argument {show(name)}"
            mend = did_you_mean(name, known, what="it takes")
            problems.append(Problem(document.at(place, key=True), message, mend))
            continue
        spec["default"] = value
        spec.pop("required", None)
        at = ("arguments", name, "default")
        below.marks[at] = document.at(place)
        below.keys[at] = document.at(place, key=True)
