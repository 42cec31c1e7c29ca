"""The Dynamixel driver and its simulated arm as processes: killed, frozen, unplugged."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from math import cos, sin
from pathlib import Path
from time import monotonic, monotonic_ns, sleep
from typing import Any

import pytest

pytest.importorskip("dynamixel_sdk")

from safetypilot.bridge.contract import DriverError, Mode, Setpoint
from safetypilot.bridge.devices.dynamixel import Arm
from safetypilot.bridge.devices.dynamixel_motor import Motor
from safetypilot.bridge.drivers.dynamixel import DynamixelDriver, DynamixelOptions
from safetypilot.bridge.limits import Limiter
from safetypilot.bridge.protocols import dynamixel as wire
from safetypilot.bridge.protocols.dynamixel_table import MODELS

pytestmark = pytest.mark.integration
PATIENCE_S = 30.0
# Activates, tells so, and moves the arm until it is killed.
_MOVE = """
import sys, time
from safetypilot.bridge.contract import Mode, Setpoint
from safetypilot.bridge.drivers.dynamixel import DynamixelDriver, DynamixelOptions
options = DynamixelOptions(port=sys.argv[1], simulated=True, ramp_s=0.04, watchdog_s=0.5)
driver = DynamixelDriver(options)
driver.connect()
driver.configure({})
shoulder, elbow = driver.activate(Mode.POSITION).position
since = time.monotonic()
while True:
    driver.read(time.monotonic_ns() + 8_000_000)
    moved = 0.5 * (time.monotonic() - since)
    driver.write(
        Setpoint(Mode.POSITION, (shoulder + moved % 1.0, elbow)), time.monotonic_ns() + 10**9
    )
    if moved > 0.1 and since:
        print("moving", flush=True)
        since = time.monotonic()
    time.sleep(0.008)
"""


class Device:
    """A simulated arm that runs.

    Attributes:
        port: to be opened.
    """

    def __init__(self, folder: Path, *words: str) -> None:
        self._events = folder / "events.jsonl"
        self.process = subprocess.Popen(
            [
                sys.executable, "-P", "-m", "safetypilot.bridge.devices.dynamixel",
                "--events", str(self._events), "--with-parent", *words,
            ],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        told = json.loads(self.process.stdout.readline())
        assert told["ready"] is True
        self.port: str = told["port"]

    def events(self, *names: str, since_ns: int = 0) -> list[dict[str, Any]]:
        lines = self._events.read_text().splitlines()
        every = [json.loads(line) for line in lines if line.endswith("}")]
        return [e for e in every if e["at_ns"] >= since_ns and (not names or e["event"] in names)]

    def wait_for(self, name: str, count: int = 1, since_ns: int = 0) -> list[dict[str, Any]]:
        end = monotonic() + PATIENCE_S
        while len(found := self.events(name, since_ns=since_ns)) < count:
            assert monotonic() < end, f"no {name!r} in {self.events()}"
            sleep(0.01)
        return found

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(PATIENCE_S)
        assert self.process.stdout is not None
        self.process.stdout.close()


@contextmanager
def device(folder: Path, *words: str) -> Iterator[Device]:
    made = Device(folder, *words)
    try:
        yield made
    finally:
        made.stop()


@contextmanager
def connected(port: str, **options: Any) -> Iterator[DynamixelDriver]:
    driver = DynamixelDriver(DynamixelOptions(port=port, simulated=True, **options))
    try:
        driver.connect()
        driver.configure({})
        yield driver
    finally:
        driver.close()


@contextmanager
def moving(port: str) -> Iterator[subprocess.Popen[str]]:
    """A process whose driver moves the arm."""
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", _MOVE, port], stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "moving\n"
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_the_arm_stops_by_itself_when_its_driver_is_killed_or_frozen(
    tmp_path: Path, number: signal.Signals
) -> None:
    with device(tmp_path) as arm, moving(arm.port) as process:
        assert not arm.events("damping")
        process.send_signal(number)
        told = arm.wait_for("damping", 2)
        assert {event["motor"] for event in told} == {1, 2}
        for event in told:
            assert event["cause"] == "silence"
            # Silence by the device's own clock; declared are 0.5 s, and this host is shared.
            assert 0.48 <= event["after_s"] < 1.5
        process.kill()
        process.wait()
        with connected(arm.port, ramp_s=0.04) as driver:
            before = driver.read(monotonic_ns() + 10**9)
            assert driver.activate(Mode.POSITION).position == pytest.approx(
                before.position, abs=0.02
            )
        assert not arm.events("limp")


def test_a_device_that_is_gone_is_an_error_and_one_that_is_back_is_found(tmp_path: Path) -> None:
    link = tmp_path / "arm"
    with device(tmp_path, "--link", str(link)) as arm:
        with connected(str(link), ramp_s=0.04) as driver:
            driver.activate(Mode.POSITION)
            arm.process.kill()
            arm.process.wait()
            with pytest.raises(DriverError):
                for _ in range(200):
                    driver.read(monotonic_ns() + 50_000_000)
            driver.estop("the device is gone")
            driver.close()
            with pytest.raises(DriverError, match="cannot be opened"):
                driver.connect()
        with device(tmp_path, "--link", str(link)), connected(str(link)) as driver:
            assert driver.read(monotonic_ns() + 10**9).fresh
    assert not link.exists()


def test_fuzzed_bytes_are_counted_and_harmless(tmp_path: Path) -> None:
    generator = random.Random(7)
    good = [wire.packet(1, wire.PING), wire.packet(wire.BROADCAST, wire.SYNC_READ, b"\x84\0\4\0\1")]
    with device(tmp_path) as arm:
        serial = pytest.importorskip("serial")
        with serial.Serial(arm.port, 1_000_000, timeout=0) as port:
            for _ in range(300):
                data = bytearray(generator.choice(good) + generator.randbytes(40))
                data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
                port.write(data)
                port.read(4096)
        with connected(arm.port, ramp_s=0.04) as driver:
            driver.activate(Mode.POSITION)
            assert driver.read(monotonic_ns() + 10**9).fresh
        arm.stop()
        assert arm.process.returncode == 0
        (ended,) = arm.events("ended")
        assert ended["refused"]["noise"] + ended["refused"]["crc"] > 100
        assert not arm.events("damping", "keepout")


def test_another_speed_is_noise(tmp_path: Path) -> None:
    with device(tmp_path, "--baud", "115200") as arm:
        with pytest.raises(DriverError, match="does not answer"):
            DynamixelDriver(DynamixelOptions(port=arm.port)).connect()
        arm.wait_for("refused")
        assert arm.events("refused")[0]["cause"] == "baud rate"
        with connected(arm.port, baud=115_200):
            pass


def test_the_keepout_zone_is_watched(tmp_path: Path) -> None:
    with device(tmp_path, "--start", "0", "1.6") as arm:
        assert arm.events("placed")[0]["position"] == [0.0, 1.6]
        with connected(arm.port, ramp_s=0.04, watchdog_s=2.0) as driver:
            start = driver.activate(Mode.POSITION).position
            limiter = Limiter(driver.description.joints, Mode.POSITION, 0.01)
            limiter.start(start, monotonic_ns())
            end = monotonic() + PATIENCE_S
            while not arm.events("left keepout") and monotonic() < end:
                now = driver.read(monotonic_ns() + 8_000_000)
                aim = Setpoint(Mode.POSITION, (-1.6, 1.6))
                limiter.limit(aim, now.position, now.velocity, monotonic_ns())
                driver.write(limiter.sent, monotonic_ns() + 10**9)
                sleep(0.005)
            driver.deactivate()
        arm.stop()
        (entered,) = arm.events("keepout")
        x, y = _tip(*entered["joints"])
        assert (x - 0.19) ** 2 + y**2 < 0.035**2
        assert arm.events("ended")[0]["keepout"] == 1


def _tip(shoulder: float, elbow: float) -> tuple[float, float]:
    both = shoulder + elbow
    return 0.15 * cos(shoulder) + 0.13 * cos(both), 0.15 * sin(shoulder) + 0.13 * sin(both)


def test_a_fault_that_was_ordered_is_told_and_reset(tmp_path: Path) -> None:
    with device(tmp_path, "--fault", "2:0x20:0", "--broken", "1:0x10") as arm:
        with pytest.raises(DriverError, match="'elbow': overload"):
            with connected(arm.port):
                pass
        driver = DynamixelDriver(DynamixelOptions(port=arm.port, simulated=True))
        driver.connect()
        driver.reset()
        driver.configure({})
        driver.close()


def test_the_driver_starts_an_arm_of_its_own_which_outlives_it_for_a_while(tmp_path: Path) -> None:
    events = tmp_path / "events.jsonl"
    code = _MOVE.replace(
        "port=sys.argv[1], simulated=True", "device='--end-after 0.5 --events ' + sys.argv[1]"
    )
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", code, str(events)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "moving\n"
    process.kill()
    process.communicate()
    end = monotonic() + PATIENCE_S
    while '"ended"' not in events.read_text():
        assert monotonic() < end
        sleep(0.02)
    told = [json.loads(line)["event"] for line in events.read_text().splitlines()]
    assert told[-1] == "ended" and told.count("damping") == 2


def test_an_arm_that_does_not_start_says_why() -> None:
    driver = DynamixelDriver(DynamixelOptions(device="--start zero zero"))
    with pytest.raises(DriverError, match=r"did not start: .*--start"):
        driver.connect()


def test_a_push_moves_an_arm_without_torque(tmp_path: Path) -> None:
    file = tmp_path / "pushes.json"
    file.write_text(
        json.dumps([{"at_s": 0.1, "body": "lower", "force": [0, 2.0, 0], "duration_s": 0.1}])
    )
    arm = Arm((0.0, 0.0), file)
    motors = tuple(Motor(number, MODELS["xm430-w350"], lambda *_, **__: None) for number in (1, 2))
    for _ in range(50):
        arm.step(motors)
    assert abs(arm.data.qpos).max() < 1e-6
    for _ in range(50):
        arm.step(motors)
    assert abs(arm.data.qpos).max() > 0.1


def test_nothing_is_left_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    driver = DynamixelDriver()
    driver.connect()
    driver.close()
    assert len(os.listdir("/proc/self/fd")) == before
