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

from safetypilot.bridge.contract import DriverError, Measurement, Mode, Setpoint
from safetypilot.bridge.devices.dynamixel import Arm
from safetypilot.bridge.devices.dynamixel_motor import Motor
from safetypilot.bridge.drivers.dynamixel import DynamixelDriver, DynamixelOptions
from safetypilot.bridge.limits import Limiter
from safetypilot.bridge.protocols import dynamixel as wire
from safetypilot.bridge.protocols.dynamixel_table import CENTRE, MODELS, TABLE

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


def rows(register: str, value: int, *numbers: int) -> bytes:
    """The sound packet that writes a register of several motors."""
    found = TABLE[register]
    data = found.encode(value)
    return wire.sync_write(found.address, [(number, data) for number in numbers])


def one(instruction: int, register: str = "", rest: bytes = b"", number: int = 1) -> bytes:
    """A sound packet for one motor."""
    at = TABLE[register].address.to_bytes(2, "little") if register else b""
    return wire.packet(number, instruction, at + rest)


def resealed(packet: bytes, **changed: int) -> bytes:
    """The same packet with another byte where named, and a checksum that fits."""
    data = bytearray(packet)
    for name, value in changed.items():
        data[{"reserved": 3, "number": 4, "low": 5, "high": 6, "instruction": 7}[name]] = value
    return bytes(data[:-2]) + wire.crc16(data[:-2]).to_bytes(2, "little")


def flipped(packet: bytes, at: int, bit: int) -> bytes:
    return packet[:at] + bytes((packet[at] ^ 1 << bit,)) + packet[at + 1 :]


def assaults(far: int) -> dict[str, list[bytes]]:
    """What may come between sound packets, by the cause for which it has to be refused.

    All but noise and the last of them would turn the arm to `far`, or out of its limits, if they
    were taken for what they resemble.
    """
    chance = random.Random(7)
    order = rows("goal_position", far, 1, 2)
    head, tail = len(wire.HEADER) + 4, len(order)
    # A whole order inside of another packet, which is damaged: whoever looks for headers inside
    # would find it, but for the stuffing.
    wrapped = one(wire.WRITE, "goal_position", order)
    assert wrapped.count(wire.STUFFED) == 1
    # The tail of one that is cut looks like nothing, its front swallows what comes next.
    cut = [order[: chance.randrange(3, tail)] for _ in range(40)]
    goal = TABLE["goal_position"].address
    ragged = goal.to_bytes(2, "little") + b"\4\0\1" + far.to_bytes(4, "little") + b"\2"
    # Numbers that hold a header, or what looks like stuffing; and one that nobody stuffed.
    header, stuffed = wire.HEADER + b"\0", wire.STUFFED
    stuffy = [int.from_bytes(each, "little", signed=True) for each in (header, stuffed)]
    bare = resealed(rows("goal_position", far, 1).replace(far.to_bytes(4, "little"), stuffed))
    alone = one(wire.WRITE, "goal_position", far.to_bytes(4, "little"))
    empty = ((0, 0), (2, 0), (1, 4), (255, 255))
    return {
        "crc": [
            *[flipped(order, chance.randrange(head, tail), chance.randrange(8)) for _ in range(60)],
            *[flipped(wrapped, chance.randrange(head, len(wrapped)), 1) for _ in range(10)],
            *[order[:-2] + chance.randbytes(2) for _ in range(20)],
            *[flipped(order, 4, 7), flipped(alone, 4, 0), flipped(alone, 4, 1)],  # the id
        ],
        "length": [resealed(order, low=low, high=high) for low, high in empty] * 5,
        "noise": [
            *[chance.randbytes(chance.randrange(1, 60)) for _ in range(60)],
            *[flipped(order, chance.randrange(3), chance.randrange(8)) for _ in range(20)],
            resealed(order, reserved=0xFD),
            *[resealed(order, number=number) for number in (0xFD, 0xFF)],
            *[wire.HEADER * 5, wire.STUFFED * 5],
        ],
        "incomplete": cut,
        "malformed": [wire.packet(wire.BROADCAST, wire.SYNC_WRITE, ragged), bare] * 5,
        "group instruction to one motor": [resealed(order, number=1)] * 10,
        "status packet from the host": [resealed(order, instruction=wire.STATUS)] * 10,
        # Whole ones behind the front of another.
        "limit": [order[:12] + rows("goal_position", value, 1, 2) for value in (4096, -1)] * 5,
        "range": [rows("goal_position", value, 1) for value in stuffy] * 5,
        "read-only": [rows("present_position", far, 1)] * 10,
        "undefined address": [one(wire.READ, rest=b"\xf0\xff\4\0")] * 10,
        "unknown instruction": [resealed(one(wire.PING), instruction=0x7F)] * 10,
        "eeprom locked": [one(wire.WRITE, "operating_mode", b"\1", 2)] * 10,
    }  # fmt: skip


def answered(driver: DynamixelDriver) -> Measurement:
    """The next state."""
    while not (measured := driver.read(monotonic_ns() + 50_000_000)).fresh:
        pass
    return measured


def test_an_arm_that_holds_is_not_moved_by_what_comes_between_its_orders(tmp_path: Path) -> None:
    far = CENTRE + 900  # 1.4 rad away
    # What is sound, and not for us: nobody refuses it, and motors answer it.
    strange = [
        *[one(wire.PING), one(wire.PING, number=9), rows("goal_position", far, 3, 9)],
        *[one(wire.READ, "present_position", b"\4\0", 9), one(wire.READ, "led", b"\1\0", 2)],
    ]
    planned = assaults(far)
    flood = [(cause, each) for cause, them in planned.items() for each in them]
    flood += [("", each) for each in strange * 8]
    random.Random(11).shuffle(flood)
    with device(tmp_path, "--corrupt", "0.02") as arm:
        # A busy machine's answers are late; they are waited for.
        with connected(arm.port, ramp_s=0.04, watchdog_s=2.0, answer_s=0.2) as driver:
            held = driver.activate(Mode.POSITION).position
            hold = Setpoint(Mode.POSITION, held)
            other = os.open(arm.port, os.O_WRONLY | os.O_NOCTTY | os.O_NONBLOCK)
            try:
                for cause, data in flood:
                    driver.read(0)  # a question is open, among whose answers come others
                    os.write(other, data)
                    answered(driver)
                    # Long enough for the front of a packet to be given up, and for an order that
                    # was believed to have moved the arm.
                    sleep(0.03 if cause == "incomplete" else 0.02)
                    measured = answered(driver)
                    assert measured.position == pytest.approx(held, abs=0.03), (cause, data.hex())
                    assert not measured.faults, (cause, data.hex())
                    driver.write(hold, monotonic_ns() + 10**9)
            finally:
                os.close(other)
            assert {e["motor"] for e in arm.events("active")} == {1, 2}
            assert not arm.events("damping", "limp", "standing", "keepout", "recovered")
            # It is still obeyed.
            goal = Setpoint(Mode.POSITION, (held[0] + 0.2, held[1]))
            end = monotonic() + PATIENCE_S
            while abs(answered(driver).position[0] - held[0] - 0.2) > 0.02:
                assert monotonic() < end
                driver.write(goal, monotonic_ns() + 10**9)
            counters = dict(driver.counters)
        arm.stop()
    assert arm.process.returncode == 0
    refused = arm.events("ended")[0]["refused"]
    # What is a packet in itself is never lost: behind what is none it is looked for again.
    both = ("limit",)  # refused by either motor
    exact = {cause: len(planned[cause]) * (1 + (cause in both)) for cause in list(planned)[4:]}
    assert {cause: refused.get(cause) for cause in exact} == exact
    assert refused["crc"] >= len(planned["crc"]) and refused["length"] >= len(planned["length"])
    assert refused["noise"] >= len(planned["noise"]) // 2 and refused["incomplete"] > 0
    assert set(refused) == set(planned)
    # And the driver tells of what it saw: bits that flipped, and answers to what it never asked.
    assert counters["damaged"] > 0
    assert counters["late"] + counters["foreign"] > 10


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
