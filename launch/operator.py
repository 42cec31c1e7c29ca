"""The operator's terminal: a heartbeat, and a key that stops the robot."""

from __future__ import annotations

import select
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any

from safetypilot.bridge.estop import BEAT, SOCKET, STOP, send
from safetypilot.launch.attach import asker
from safetypilot.launch.errands import Errands

BEAT_S = 0.05
_LOOK_S = 0.5  # between two looks at the state
_KEYS = {"a": "arm", "d": "disarm"}


class Console:
    """Beats until it is left, or the bridge is gone.

    Args:
        folder: the run's private directory.
        bridge: the name of its bridge.
    """

    def __init__(self, folder: Path, bridge: str) -> None:
        self._line, self._bridge = folder / SOCKET, bridge
        self._ask = asker(folder, 2.0)
        self._errands = Errands("operator")  # a request must not hold up the heartbeat
        self._asking = False
        self._shown = ""

    def run(self) -> int:
        """The exit code: 0 left by a key, 1 the bridge is gone."""
        looked = 0.0
        with _raw_keys() as keys:
            self._say("space: STOP   a: arm   d: take down   q: leave")
            while True:
                try:
                    send(self._line, BEAT)
                except OSError:
                    self._say("the bridge is gone")
                    return 1
                if monotonic() - looked > _LOOK_S and not self._asking:
                    looked = monotonic()
                    self._request("status")
                self._errands.collect()
                key = next(keys)
                if key == " ":
                    send(self._line, STOP, "the operator's key")
                    self._say("STOPPED")
                elif key in ("q", "\x03", "\x04"):
                    return 0
                elif key in _KEYS:
                    self._request(_KEYS[key])

    def _request(self, name: str) -> None:
        self._asking = True
        self._errands.do(
            lambda: self._ask(self._bridge, name, {"reason": "the operator"}), self._answer
        )

    def _answer(self, outcome: Any) -> None:
        self._asking = False
        if isinstance(outcome, Exception):
            self._say(str(outcome))
        else:
            state = outcome.get("state") or outcome.get("node", {}).get("bridge", "")
            self._say(f"the robot is {state}")

    def _say(self, text: str) -> None:
        if text != self._shown:
            self._shown = text
            sys.stdout.write(text + "\r\n")
            sys.stdout.flush()


@contextmanager
def _raw_keys() -> Iterator[Iterator[str]]:
    """Keys as they are pressed; empty where none was within a beat."""
    fd = sys.stdin.fileno()
    before = termios.tcgetattr(fd) if sys.stdin.isatty() else None
    try:
        if before is not None:
            tty.setraw(fd)
        yield _keys(before is not None)
    finally:
        if before is not None:
            termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _keys(listening: bool) -> Iterator[str]:
    sources = [sys.stdin] if listening else []
    while True:
        ready, _, _ = select.select(sources, [], [], BEAT_S)
        yield sys.stdin.read(1) if ready else ""
