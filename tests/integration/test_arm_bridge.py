"""The arm on its simulated chain of motors, flown by the real graph: it never enters the zone."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flights import launch

from safetypilot.bridge import calibration, registry

pytest.importorskip("dynamixel_sdk")

DEVICE = [sys.executable, "-P", "-m", "safetypilot.bridge.devices.dynamixel"]


class Chain:
    """A simulated chain, its port, and the log that it keeps itself."""

    def __init__(self, folder: Path) -> None:
        self.port, self.calibration = folder / "arm", folder / "calibration.json"
        self._events = folder / "events.jsonl"
        words = ["--link", str(self.port), "--events", str(self._events), "--with-parent"]
        self._process = subprocess.Popen([*DEVICE, *words], stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert json.loads(self._process.stdout.readline())["ready"]

    def calibrate(self) -> None:
        driver: Any = registry.create("dynamixel", {"port": str(self.port)})
        device = {"serial": driver.connect()["serial"]}
        calibration.save(calibration.Calibration(device, driver.calibration()), self.calibration)
        driver.close()

    def end(self) -> list[dict[str, Any]]:
        """Ends it; all that happened to it."""
        self._process.terminate()
        self._process.communicate(timeout=20)
        return [json.loads(line) for line in self._events.read_text().splitlines()]


@pytest.fixture
def chain(tmp_path: Path) -> Iterator[Chain]:
    made = Chain(tmp_path)
    yield made
    made.end()


@pytest.mark.parametrize("policy", ["trained", pytest.param("novice", marks=pytest.mark.slow)])
def test_the_arm_reaches_targets_and_never_enters_the_zone(
    chain: Chain, tmp_path: Path, policy: str
) -> None:
    chain.calibrate()
    summary = launch(
        tmp_path / "run", "arm", "plant=bridge", "driver=dynamixel", f"port={chain.port}",
        f"calibration={chain.calibration}", "arm=auto", f"policy={policy}", "--episodes", "4",
    )  # fmt: skip
    events = chain.end()
    assert summary["episodes"] == 4
    assert policy == "novice" or summary["successes"] >= 3
    assert [event["event"] for event in events].count("keepout") == 0
    (ended,) = [event for event in events if event["event"] == "ended"]
    assert ended["keepout"] == 0
