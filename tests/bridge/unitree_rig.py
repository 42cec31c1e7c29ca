"""What tests of the quadruped and of the Unitree driver share: a robot, and a bare commander."""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic, monotonic_ns, sleep
from typing import Any

from safetypilot.bridge.devices.common import free_domain
from safetypilot.bridge.drivers.unitree import UnitreeDriver, UnitreeOptions
from safetypilot.bridge.protocols.dds import Bus, Writer
from safetypilot.bridge.protocols.unitree import (
    COMMAND_TOPIC,
    GO,
    STATE_TOPIC,
    Commands,
    State,
    States,
)
from safetypilot.bridge.protocols.unitree_place import PLACE, PLACE_TOPIC, Place, pack_place

PATIENCE_S = 60.0  # a busy machine
PATIENT_MS = 5000  # a robot's watchdog where it is not looked at: a busy machine is slow
STRICT_MS = 100  # where it is
ZEROS = (0.0,) * 12
STANDING = (0.0, 0.9, -1.8) * 4
LYING = (-0.47, 1.29, -2.71, 0.47, 1.29, -2.71) * 2


class Robot:
    """A simulated quadruped that runs by itself."""

    def __init__(
        self, folder: Path, *more: str, domain: int | None = None, timeout_ms: int = PATIENT_MS
    ) -> None:
        self._timeout_ms = timeout_ms
        self._events = folder / "events.jsonl"
        self.domain = free_domain() if domain is None else domain
        command = [
            sys.executable, "-P", "-m", "safetypilot.bridge.devices.quadruped", "--domain",
            str(self.domain), "--events", str(self._events), "--with-parent",
            "--timeout", str(timeout_ms / 1000), *more,
        ]  # fmt: skip
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1].decode()
        self.ready = json.loads(line)
        self.since_ns = 0

    def events(self, *named: str) -> list[dict[str, Any]]:
        """What it has told so far, since `since_ns`."""
        rows = [json.loads(line) for line in self._events.read_text().splitlines()]
        rows = [row for row in rows if row["at_ns"] >= self.since_ns]
        return [row for row in rows if not named or row["event"] in named]

    def wait_for(self, event: str, count: int = 1) -> dict[str, Any]:
        """The event, which may still be to come."""
        until(lambda: len(self.events(event)) >= count, lambda: f"no {event}: {self.events()}")
        return self.events(event)[count - 1]

    def check_silence_after(self, active: dict[str, Any], killed_ns: int) -> None:
        """It damped by itself, in its own time, since somebody made it active."""
        self.since_ns = active["at_ns"]
        event = self.wait_for("damping")
        assert event["cause"] == "silence"
        assert self._timeout_ms - 3 <= event["silent_ms"]  # it acts before the time is over
        if event["at_ns"] > killed_ns:  # or a busy machine was faster
            assert event["silent_ms"] < (event["at_ns"] - killed_ns) / 1e6 + self._timeout_ms

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def end(self) -> int:
        """Its exit status."""
        self.thaw()
        self.process.terminate()
        self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode

    def driver(self, **options: Any) -> UnitreeDriver:
        """One for it, not connected."""
        told = {"connect_s": PATIENCE_S, "watchdog_s": self._timeout_ms / 1000, **options}
        return UnitreeDriver(UnitreeOptions(domain=self.domain, **told))


class Commander:
    """Somebody who speaks DDS, and says what the driver never would."""

    def __init__(self, domain: int) -> None:
        self.bus = Bus(domain)
        self.commands = Commands(GO, 12)
        self.writer = self.bus.writer(COMMAND_TOPIC, GO.command)
        self._reader = self.bus.reader(STATE_TOPIC, GO.state)
        self._states = States(GO, 12)
        until(lambda: bool(self.writer.readers and self._reader.writers), lambda: "no robot")

    def place(self, position: tuple[float, ...]) -> None:
        """Puts it there, damped."""
        number = random.randrange(1, 1 << 32)
        writer = self.bus.writer(PLACE_TOPIC, PLACE)

        def placed() -> bool:
            writer.write(pack_place(Place(number, position)))
            return self.state().placed == number

        until(placed, lambda: "it is not placed")

    def another_writer(self) -> Writer:
        before = self.writer.readers
        writer = self.bus.writer(COMMAND_TOPIC, GO.command)
        until(lambda: writer.readers >= before, lambda: "no robot")
        return writer

    def sample(self, **changed: float | tuple[float, ...]) -> bytes:
        """Damping, but for what is given."""
        numbers = {"position": 0.0, "velocity": 0.0, "effort": 0.0, "kp": 0.0, "kd": 8.0}
        rows = {
            name: each if isinstance(each, tuple) else (each,) * 12
            for name, each in {**numbers, **changed}.items()
        }
        return self.commands.pack(**rows)

    def say(self, **changed: float | tuple[float, ...]) -> None:
        self.writer.write(self.sample(**changed))

    def state(self) -> State:
        """The next one."""
        self._reader.take()
        samples = self._reader.wait(soon())
        assert samples, "no state"
        return self._states.unpack(samples[-1].data)

    def stream(self, done: Callable[[State], bool], **changed: float | tuple[float, ...]) -> State:
        """Says the same at every state until one is as wanted."""
        end = monotonic() + PATIENCE_S
        while monotonic() < end:
            self.say(**changed)
            state = self.state()
            if done(state):
                return state
        raise AssertionError(f"it does not get there: {state}")

    def shake_hands(self) -> None:
        self.stream(lambda state: set(state.modes) == {1})


def until(holds: Callable[[], bool], otherwise: Callable[[], str]) -> None:
    end = monotonic() + PATIENCE_S
    while not holds():
        assert monotonic() < end, otherwise()
        sleep(0.005)


def soon(seconds: float = PATIENCE_S) -> int:
    """A deadline that no busy machine passes by accident."""
    return monotonic_ns() + round(seconds * 1e9)
