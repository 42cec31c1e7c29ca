"""The driver on the hg family: a bare robot that tells what it was told, over DDS."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("cyclonedds")

from unitree_rig import PATIENCE_S, free_domain, soon, until

from safetypilot.bridge.contract import DriverError, Mode, Setpoint
from safetypilot.bridge.drivers.unitree import UnitreeDriver, UnitreeOptions

pytestmark = pytest.mark.integration
ZEROS = (0.0,) * 29

# Its joints are where they are told to be; it prints the header of each command that differs.
ROBOT = """
import json, sys
from time import monotonic_ns, sleep
from safetypilot.bridge.protocols.dds import Bus
from safetypilot.bridge.protocols.unitree import (
    COMMAND_TOPIC, HG, STATE_TOPIC, Commands, State, States, make_remote, Remote,
)
bus = Bus(int(sys.argv[1]))
reader, writer = bus.reader(COMMAND_TOPIC, HG.command), bus.writer(STATE_TOPIC, HG.state)
commands, states = Commands(HG, 29), States(HG, 29)
states.set_identity(0, (7, 8))
zeros, seen, position, modes = (0.0,) * 29, None, (0.0,) * 29, (0,) * 29
print("ready", flush=True)
while True:
    for sample in reader.take():
        told = commands.unpack(sample.data)
        position, modes = told.position, told.modes
        if told.header != seen:
            seen = told.header
            print(json.dumps(list(seen)), flush=True)
    imu = ((1.0, 0.0, 0.0, 0.0), *((0.0,) * 3,) * 3)
    tick = monotonic_ns() // 1_000_000
    state = State(tick, modes, position, zeros, zeros, (), *imu, (), bytes(40), 5)
    writer.write(states.pack(state))
    sleep(0.002)
"""


@pytest.fixture
def robot() -> Iterator[tuple[Any, int]]:
    domain = free_domain()
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", ROBOT, str(domain)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process, domain
    process.kill()
    process.communicate()


def test_a_humanoid_is_told_which_machine_it_is(robot: tuple[Any, int], tmp_path: Path) -> None:
    process, domain = robot
    driver = UnitreeDriver(
        UnitreeOptions(robot="g1", domain=domain, connect_s=PATIENCE_S, watchdog_s=0, ramp_s=0.1)
    )
    try:
        assert driver.connect() == {
            "model": "g1", "serial": "not told", "firmware": "7.8", "machine": "5",
        }  # fmt: skip
        driver.configure({})
        driver.activate(Mode.PD)
        target = tuple(joint / 100 for joint in range(29))
        setpoint = Setpoint(Mode.PD, target, ZEROS, ZEROS, (20.0,) * 29, (1.0,) * 29)

        def is_there() -> bool:
            driver.write(setpoint, soon())
            return driver.read(soon()).position == pytest.approx(target)

        until(is_there, lambda: "it does not get there")
        with pytest.raises(DriverError, match="29 numbers"):
            driver.write(Setpoint(Mode.PD, *((0.0,) * 12,) * 5), soon())
        driver.deactivate()
        process.kill()
        assert [json.loads(line) for line in process.stdout] == [[0, 5]]
    finally:
        driver.close()


def test_a_quadruped_s_driver_does_not_find_a_humanoid(robot: tuple[Any, int]) -> None:
    """Same topic, another type: they do not even see each other."""
    _, domain = robot
    driver = UnitreeDriver(UnitreeOptions(robot="go2", domain=domain, connect_s=1.0))
    with pytest.raises(DriverError, match="no go2 answered"):
        driver.connect()
    driver.close()
