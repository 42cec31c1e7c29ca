"""A simulated device as the kit sees it: a process to start, freeze and kill, with a log of events.

The device tells of itself in a file of its own, in lines of JSON with the time of each; so what is
known of it does not come through the driver that is being checked.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from time import monotonic, monotonic_ns, sleep
from typing import Any

from safetypilot.bridge.conformance import host
from safetypilot.bridge.contract import DriverError

Event = dict[str, Any]  # at_ns, event, and what belongs to it
STOPPED = ("damping", "hold", "limp")  # the events with which a device obeys nobody any more
START_S = 30.0  # a simulator may load large models first
# Dies with the kit, however that ends; SIGTERM is what a device knows.
_MORTAL = (
    "import ctypes, os, signal, sys; ctypes.CDLL(None).prctl(1, signal.SIGTERM, 0, 0, 0); "
    "os.execvp(sys.argv[1], sys.argv[1:])"
)


class Device:
    """A simulated device.

    Attributes:
        details: what its first line says: how to connect to it.
    """

    def __init__(self, command: str, folder: Path) -> None:
        """Starts nothing yet.

        Args:
            command: as for a shell; `--events FILE` is added.
            folder: for the events and what it prints; its own.
        """
        self._words = shlex.split(command)
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self._starts = 0
        self._frozen = False
        self.details: dict[str, Any] = {}

    def pid(self) -> int | None:
        """Its process while it lives."""
        if self._process is None or self._process.poll() is not None:
            return None
        return self._process.pid

    def start(self) -> None:
        """Starts it, unless it lives, and waits until it is ready.

        Raises:
            DriverError: it is not ready in time, or has ended.
        """
        if self.pid() is not None:
            return
        self._starts += 1
        command = [*self._words, "--events", str(self._events)]
        with open(self._printed, "wb") as printed, open(self._complaints, "wb") as complaints:
            try:
                self._process = subprocess.Popen(
                    [sys.executable, "-P", "-S", "-c", _MORTAL, *command],
                    stdin=subprocess.DEVNULL, stdout=printed, stderr=complaints,
                    start_new_session=True,
                )  # fmt: skip
            except OSError as error:
                raise DriverError(f"the device does not start: {error.strerror}") from None
        end = monotonic() + START_S
        while not self._read_ready():
            if self.pid() is None or monotonic() > end:
                said = self._complaints.read_text(errors="replace").strip().splitlines()
                self.stop()
                raise DriverError(
                    f"the device does not get ready ({shlex.join(command)}); it says: "
                    f"{said[-1] if said else 'nothing'}"
                )
            sleep(0.01)

    def _read_ready(self) -> bool:
        line, newline, _ = self._printed.read_bytes().partition(b"\n")
        try:
            details = json.loads(line) if newline else None
        except ValueError:
            details = None
        if isinstance(details, dict) and details.get("ready"):
            self.details = details
            return True
        return False

    def starved_s(self) -> float:
        """How long it has been kept from a CPU by others."""
        pid = self.pid()
        return host.starved_s(pid) if pid is not None else 0.0

    def freeze(self) -> None:
        """From now on it does nothing, as if it hung."""
        self._signal(signal.SIGSTOP)
        self._frozen = True

    def thaw(self) -> None:
        """Goes on, if it was frozen."""
        if self._frozen:
            self._signal(signal.SIGCONT)
            self._frozen = False

    def kill(self) -> None:
        """It is gone, as if its cable were."""
        self._signal(signal.SIGKILL)
        self._reap(5.0)

    def stop(self) -> None:
        """Asks it to end, and sees to it."""
        self.thaw()
        self._signal(signal.SIGTERM)
        self._reap(2.0)
        self.kill()

    def _signal(self, number: signal.Signals) -> None:
        pid = self.pid()
        if pid is not None:
            os.killpg(pid, number)

    def _reap(self, seconds: float) -> None:
        if self._process is not None:
            try:
                self._process.wait(seconds)
            except subprocess.TimeoutExpired:
                return
            self._frozen = False

    # What it tells.

    @property
    def _events(self) -> Path:
        return self._folder / f"events-{self._starts}.jsonl"

    @property
    def _printed(self) -> Path:
        return self._folder / f"device-{self._starts}.out"

    @property
    def _complaints(self) -> Path:
        return self._folder / f"device-{self._starts}.err"

    def events(self, since_ns: int = 0) -> list[Event]:
        """What happened from then on, CLOCK_MONOTONIC."""
        try:
            lines = self._events.read_bytes().split(b"\n")[:-1]
        except FileNotFoundError:
            return []
        events = [json.loads(line) for line in lines]
        return [event for event in events if event["at_ns"] >= since_ns]

    def wait_for(self, names: Collection[str], since_ns: int, seconds: float) -> Event | None:
        """The first of these events since then, if one comes in time."""
        end_ns = monotonic_ns() + round(seconds * 1e9)
        while True:
            late = monotonic_ns() > end_ns
            for event in self.events(since_ns):
                if event["event"] in names:
                    return event
            if late:
                return None
            sleep(0.002)
