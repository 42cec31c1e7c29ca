"""The Dynamixel arm reaches targets beside a keep-out zone that it never enters, as it says itself.

The scripted expert decides; body, limiter, driver, bus, motors and arm are those of a real run.
"""

from __future__ import annotations

import json
from pathlib import Path
from time import monotonic_ns, sleep

import numpy as np
import pytest

pytest.importorskip("dynamixel_sdk")

from safetypilot.bridge.contract import Mode, Setpoint
from safetypilot.bridge.drivers.dynamixel import DynamixelDriver, DynamixelOptions
from safetypilot.bridge.limits import Limiter
from safetypilot.envs.arm_body import RATE_HZ, ArmBody
from safetypilot.envs.arm_data import ArmExpert

EPISODES, STEPS, PARTS = 8, 150, 2  # parts of a control step in which the driver is commanded


@pytest.mark.slow
@pytest.mark.parametrize("wire", ["", "--corrupt 0.02 --late 0.02 --drop 0.02 --split 0.05"])
def test_the_arm_reaches_targets_and_stays_out(tmp_path: Path, wire: str) -> None:
    events = tmp_path / "events.jsonl"
    device = f"--start 1.2 -0.6 --events {events} {wire}"
    driver = DynamixelDriver(DynamixelOptions(device=device, watchdog_s=0.5))
    try:
        driver.connect()
        driver.configure({})
        driver.activate(Mode.POSITION)
        reached = _reach(driver)
        driver.deactivate()
    finally:
        driver.close()
    told = [json.loads(line) for line in events.read_text().splitlines()]
    assert reached == EPISODES
    assert not [event for event in told if event["event"] == "keepout"]
    assert told[-1]["keepout"] == 0
    if not wire:
        assert driver.counters["damaged"] == 0


def _reach(driver: DynamixelDriver) -> int:
    """How many targets were reached."""
    body, expert, generator = ArmBody(), ArmExpert(), np.random.default_rng(0)
    part_ns, reached = round(1e9 / RATE_HZ / PARTS), 0
    limiter = Limiter(driver.description.joints, Mode.POSITION, part_ns / 1e9)
    measured = driver.read(monotonic_ns() + part_ns)
    limiter.start(measured.position, monotonic_ns())
    for _ in range(EPISODES):
        body.start(generator)
        before, action, next_ns = None, np.zeros(2, np.float32), monotonic_ns()
        for _ in range(STEPS):
            measured = driver.read(monotonic_ns() + part_ns // 2)
            seen = body.observe(measured.position, measured.velocity, measured.effort, {})
            if before is not None:
                verdict = body.judge(before, action, seen)
                assert not verdict.cost
                if verdict.success:
                    reached += 1
                    break
            before, action = seen, expert(seen)
            aim = Setpoint(Mode.POSITION, body.drive(action, measured.position).position)
            for _ in range(PARTS):
                limiter.limit(aim, measured.position, measured.velocity, monotonic_ns())
                driver.write(limiter.sent, monotonic_ns() + 10**9)
                next_ns += part_ns
                sleep(max(0, next_ns - monotonic_ns()) / 1e9)
    return reached
