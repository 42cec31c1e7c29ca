"""What several verbs of the command line share."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from difflib import get_close_matches
from typing import Annotated, Any

import typer

Json = Annotated[bool, typer.Option("--json", help="Print JSON on standard output.")]
RunName = Annotated[
    str | None,
    typer.Option("--run", metavar="RUN", help="Which run, if several are under way: id or name."),
]


class InputError(Exception):
    """What the person typed is wrong; says what would be right."""


def choose(what: str, word: str, known: Iterable[str]) -> str:
    """The word itself if it is known.

    Raises:
        InputError: it is not; names the closest, else all.
    """
    names = list(known)
    if word in names:
        return word
    close = get_close_matches(word, names, n=1)
    hint = f"did you mean {close[0]!r}?" if close else f"there are: {', '.join(names) or 'none'}"
    raise InputError(f"there is no {what} {word!r}; {hint}")


def print_json(data: Any, line: bool = False) -> None:
    """JSON on standard output, flushed; `line`: as one line."""
    sys.stdout.write(json.dumps(data, indent=None if line else 2, default=str) + "\n")
    sys.stdout.flush()


def console() -> Any:
    """Standard output for tables: as wide as the terminal; without one nothing is squeezed."""
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)


def print_line(text: str) -> None:
    """A line on standard output, flushed, so that a pipe sees it at once."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
