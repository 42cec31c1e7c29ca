"""Simulated robots as separate processes, and what their own logs say happened to them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flights import eventually

from safetypilot.bridge import calibration, registry


@dataclass(frozen=True)
class Kind:
    """One kind of robot.

    Attributes:
        device: its module below safetypilot.bridge.devices, and its command line.
        graph: what to launch, given what the device said when it was ready.
        watchdog_s: its own time-out; the graph's silence is noticed after `timeout_s`.
        ramp_s: the longest that going down takes.
        stopped: what it calls that nobody moves it any more: by itself, or told to in good order.
    """

    name: str
    device: Callable[[Path], list[str]]
    graph: Callable[[dict[str, Any]], list[str]]
    watchdog_s: float
    timeout_s: float
    ramp_s: float
    stopped: tuple[str, ...] = ("damping",)


def _calibrate(port: str) -> Path:
    """What the motors say of themselves, in a file beside their port."""
    driver: Any = registry.create("dynamixel", {"port": port})
    device = {"serial": driver.connect()["serial"]}
    file = Path(port).with_name("calibration.json")
    calibration.save(calibration.Calibration(device, driver.calibration()), file)
    driver.close()
    return file


ARM = Kind(
    "dynamixel",
    lambda folder: ["dynamixel", "--link", str(folder / "port")],
    lambda ready: [
        "arm",
        "plant=bridge",
        "driver=dynamixel",
        "arm=auto",
        f"port={ready['port']}",
        f"calibration={_calibrate(ready['port'])}",
        "--episodes",
        "1000",
    ],
    watchdog_s=0.2,
    timeout_s=0.2,
    ramp_s=0.3,
    stopped=("damping", "standing"),
)
QUADRUPED = Kind(
    "quadruped",
    lambda folder: ["quadruped", "--domain", "77"],
    lambda ready: [
        "quadruped",
        "plant=bridge",
        "driver=unitree",
        "arm=auto",
        "domain=77",
        "--episodes",
        "1000",
    ],
    watchdog_s=0.05,
    timeout_s=0.1,
    ramp_s=1.0,
)


class Robot:
    """A simulated robot in a process of its own."""

    def __init__(self, kind: Kind, folder: Path) -> None:
        self.kind, self._events = kind, folder / "events.jsonl"
        name, *options = kind.device(folder)
        module = f"safetypilot.bridge.devices.{name}"
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", module, "--events", str(self._events), *options],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.ready: dict[str, Any] = json.loads(self.process.stdout.readline())

    def events(self) -> list[dict[str, Any]]:
        """Everything it has told so far."""
        lines = self._events.read_text().splitlines()
        return [json.loads(line) for line in lines if line.endswith("}")]

    def of(self, *events: str, since_ns: int = 0) -> list[dict[str, Any]]:
        return [e for e in self.events() if e["event"] in events and e["at_ns"] >= since_ns]

    def damped(self, since_ns: int, within_s: float) -> dict[str, Any]:
        """The first time that it damped since then; waits for it."""
        found: list[dict[str, Any]] = eventually(
            lambda: self.of(*self.kind.stopped, since_ns=since_ns),
            within_s,
            f"damping of the {self.kind.name}",
        )
        return found[0]

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(10)
        if self.process.stdout:
            self.process.stdout.close()
