"""What a check comes to."""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, NamedTuple

from safetypilot.bridge.contract import DriverError


class Verdict(StrEnum):
    """What became of a check."""

    PASSED = "passed"
    FAILED = "failed"
    SKIPPED = "skipped"


class Failed(Exception):
    """The driver or its device does what it must not; says what was seen."""


class Skipped(Exception):
    """The check could not be made; says what it lacks."""


class Outcome(NamedTuple):
    """A check that was made.

    Attributes:
        check: its name.
        title: what it asks for, in a sentence.
        seen: what was seen, or why nothing was.
        earlier: what was seen in tries that failed while others had the CPU.
    """

    check: str
    title: str
    verdict: Verdict
    seen: str
    seconds: float
    earlier: tuple[str, ...] = ()


def refused(what: str, call: Callable[[], Any]) -> DriverError:
    """The error with which a driver refuses.

    Raises:
        Failed: it did not refuse.
    """
    try:
        call()
    except DriverError as error:
        return error
    raise Failed(f"{what} was accepted; it has to be refused with a DriverError")
