"""The simulated quadruped as a process on DDS: whom it obeys, when it damps, what it survives."""

from __future__ import annotations

import json
import math
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from time import monotonic_ns, sleep

import pytest

pytest.importorskip("cyclonedds")

from unitree_rig import LYING, PATIENCE_S, STANDING, STRICT_MS, Commander, Robot, until

from safetypilot.bridge.protocols.unitree import State
from safetypilot.bridge.protocols.unitree_crc import checksum

pytestmark = pytest.mark.integration
Start = Callable[..., tuple[Robot, Commander]]


@pytest.fixture(scope="module")
def commander(robot: Robot) -> Iterator[Commander]:
    made = Commander(robot.domain)
    yield made
    made.bus.close()


@pytest.fixture
def me(robot: Robot, commander: Commander) -> Commander:
    """Somebody who may command the robot, which lies there; it may have been commanded before."""
    commander.place(LYING)
    robot.since_ns = monotonic_ns()
    return commander


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a robot with options, or one that ends with the test, and somebody who commands it."""
    with ExitStack() as running:

        def make(*options: str) -> tuple[Robot, Commander]:
            robot = Robot(tmp_path, *options)
            running.callback(robot.end)
            commander = Commander(robot.domain)
            running.callback(commander.bus.close)
            return robot, commander

        yield make


def obeys(state: State) -> bool:
    return set(state.modes) == {1}


def damps(state: State) -> bool:
    return set(state.modes) == {0}


def its_ports(robot: Robot) -> list[int]:
    """The UDP ports on which somebody listens in its domain."""
    lines = Path("/proc/net/udp").read_text().splitlines()[1:]
    ports = [int(line.split()[1].split(":")[1], 16) for line in lines]
    return sorted({port for port in ports if 0 <= port - 7400 - 250 * robot.domain < 250})


def test_it_stands_up_and_tells_so(robot: Robot, me: Commander) -> None:
    me.shake_hands()
    begin, count = me.state().position, 0
    while not robot.events("standing"):
        share = min(1.0, count / 500)  # states, of which 500 are a second of the robot's
        count += 1
        assert count < 10_000, robot.events()
        me.say(
            position=tuple(b + (s - b) * share for b, s in zip(begin, STANDING, strict=True)),
            kp=60.0, kd=3.0,
        )  # fmt: skip
        me.state()
    state = me.stream(
        lambda state: max(map(abs, state.rpy)) < 0.05, position=STANDING, kp=60.0, kd=3.0
    )
    # Its calves are bent, by name: the third of every leg.
    assert all(-2.1 < state.position[leg + 2] < -1.6 for leg in (0, 3, 6, 9))
    names = [event["event"] for event in robot.events()]
    assert names[-2:] == ["active", "standing"]


def test_it_damps_by_itself_when_nobody_commands_and_wants_a_hand_then(strict: Robot) -> None:
    strict.since_ns = monotonic_ns()
    me = Commander(strict.domain)
    try:
        assert damps(me.state())
        me.shake_hands()
        event = strict.wait_for("damping")
        assert event["cause"] == "silence"
        assert event["silent_ms"] >= STRICT_MS - 3
        until(lambda: damps(me.state()), lambda: "it obeys whom?")
        for _ in range(20):
            me.say(position=STANDING, kp=20.0)
            assert damps(me.state())
        assert strict.events("refused")[-1]["cause"] == "no handshake"
        me.shake_hands()
        strict.wait_for("recovered")
    finally:
        me.bus.close()


def test_who_is_killed_is_not_obeyed_any_more(strict: Robot) -> None:
    """SIGKILL in the middle of commanding; the robot's own log says what it did then."""
    strict.since_ns = monotonic_ns()
    client = subprocess.Popen(
        [sys.executable, "-P", "-c", CLIENT, str(strict.domain), str(Path(__file__).parent)]
    )
    try:
        active = strict.wait_for("active")
        sleep(random.uniform(0.05, 0.15))
    finally:
        killed_ns = monotonic_ns()
        client.send_signal(signal.SIGKILL)
        client.wait()
    strict.check_silence_after(active, killed_ns)


CLIENT = """
import sys
sys.path.append(sys.argv[2])
from unitree_rig import STANDING, Commander
me = Commander(int(sys.argv[1]))
while True:
    me.shake_hands()
    for _ in range(500):
        me.say(position=STANDING, kp=1.0)
        me.state()
"""


def test_a_stranger_moves_nothing(start: Start) -> None:
    """Wrong checksums, headers, modes and numbers, as fast as they go: not one of them counts."""
    robot, me = start()
    whole = me.sample(position=STANDING, kp=100.0, effort=20.0)
    crc = bytearray(whole)
    crc[-1] ^= 0xFF
    wrong = {
        "crc": bytes(crc),
        "not finite": me.sample(effort=math.nan),
        "range": me.sample(kp=1e6),
        "no handshake": whole,
    }
    before = me.state()
    for _ in range(100):
        for sample in wrong.values():
            me.writer.write(sample)
        after = me.state()
        assert damps(after)
    assert after.position == pytest.approx(before.position, abs=0.05)
    assert {event["cause"] for event in robot.events("refused")} == set(wrong)
    assert robot.end() == 0
    assert robot.events("ended")[0]["accepted"] == 0
    assert robot.events("ended")[0]["refused"]["crc"] >= 50


def test_one_who_commands_is_not_disturbed_by_another(robot: Robot, me: Commander) -> None:
    stranger = me.another_writer()
    me.shake_hands()
    there = me.state().position
    for _ in range(200):
        me.say(position=there, kp=60.0, kd=3.0)
        stranger.write(me.sample(position=STANDING, kp=100.0))
        stranger.write(me.sample())
        assert obeys(me.state())
    assert me.state().position == pytest.approx(there, abs=0.05)
    assert [event["cause"] for event in robot.events("refused")] == ["second commander"]
    assert "silence" not in [event["cause"] for event in robot.events("damping")]


def mutants(me: Commander) -> dict[str, list[bytes]]:
    """Commands that would throw a robot which lies there, by the cause to refuse them for."""
    shape, chance = me.commands.shape, random.Random(3)
    whole = me.sample(position=STANDING, kp=400.0, effort=60.0)
    image = shape.from_cdr(whole)

    def bent() -> bytes:
        """Some bits of it are flipped, at least one of them in a field."""
        while True:
            data = bytearray(whole)
            for _ in range(chance.randrange(1, 9)):
                data[chance.randrange(4, len(data))] ^= 1 << chance.randrange(8)
            if shape.blank(shape.from_cdr(bytes(data))) != shape.blank(image):
                return bytes(data)

    def sealed(at: int, value: int) -> bytes:
        """Another byte of the structure, with a checksum that fits."""
        data = bytearray(image)
        data[at] = value
        data[-4:] = checksum(data).to_bytes(4, "little")
        return shape.to_cdr(data)

    def but(name: str, value: float, joint: int) -> bytes:
        """One number of one joint is another."""
        numbers = {"position": list(STANDING), "velocity": [0.0] * 12, "effort": [60.0] * 12,
                   "kp": [400.0] * 12, "kd": [8.0] * 12}  # fmt: skip
        numbers[name][joint] = value
        return me.sample(**{each: tuple(row) for each, row in numbers.items()})

    first, stride = shape.offsets["motor_cmd"], shape.strides["motor_cmd"]
    names = ("position", "velocity", "effort", "kp", "kd")
    beyond = {"position": 12.7, "velocity": 101.0, "effort": 101.0, "kp": 501.0, "kd": 51.0}
    beneath = {name: -value for name, value in beyond.items()} | {"kp": -0.001, "kd": -0.001}
    return {
        "crc": [bent() for _ in range(120)],
        "not finite": [
            but(name, value, chance.randrange(12))
            for name in names
            for value in (math.nan, math.inf, -math.inf)
        ],
        "range": [
            but(name, row[name], chance.randrange(12))
            for name in names
            for row in (beyond, beneath, dict.fromkeys(names, 3e38))
        ],
        "header": [sealed(at, image[at] ^ 1 << bit) for at in range(3) for bit in (0, 7)],
        "mode": [
            sealed(first + stride * joint, mode) for joint in (0, 5, 11) for mode in (0, 2, 10, 255)
        ],
    }


def test_a_robot_that_holds_is_not_moved_by_mutants_of_its_commands(start: Start) -> None:
    robot, me = start()
    planned = mutants(me)
    flood = [(cause, each) for cause, them in planned.items() for each in them]
    random.Random(4).shuffle(flood)
    stranger = me.another_writer()
    there, sound = me.state().position, 0
    while not obeys(me.state()):
        me.say()
        sound += 1
    hold = me.sample(position=there, kp=60.0, kd=3.0)
    while not robot.events("active"):
        me.writer.write(hold)
        sound += 1
        me.state()
    for count, (cause, mutant) in enumerate(flood):
        (stranger if count % 4 == 0 else me.writer).write(mutant)
        # What it does at a state or two: were the mutant obeyed it would have begun to leap.
        states = [me.state(), me.state()]
        assert all(map(obeys, states)), cause
        assert states[-1].position == pytest.approx(there, abs=0.05), cause
        me.writer.write(hold)
        sound += 1
        me.state()
    assert not robot.events("damping", "recovered", "standing", "fell")
    assert robot.end() == 0
    ended = robot.events("ended")[0]
    assert set(ended["refused"]) == set(planned)
    # A busy machine may lose some of either kind; what none can do is take one for the other.
    for cause, them in planned.items():
        assert len(them) // 2 <= ended["refused"][cause] <= len(them), cause
    assert len(flood) // 2 < ended["accepted"] <= sound


def test_garbage_on_its_ports_is_harmless(start: Start) -> None:
    """Raw UDP: noise, noise behind the protocol's own header, and cut and bent messages."""
    robot, me = start()
    me.shake_hands()
    there = me.state().position
    hold = {"position": there, "kp": 60.0, "kd": 3.0}
    me.stream(obeys, **hold)
    robot.wait_for("active")
    generator = random.Random(5)
    ports = its_ports(robot)
    assert len(ports) >= 3, "common ones, the robot's and the commander's"
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as garbage:
        for count in range(3000):
            noise = generator.randbytes(generator.randrange(1400))
            if count % 3:
                noise = b"RTPS\x02\x01\x01\x10" + generator.randbytes(12) + noise
            if count % 3 == 2:  # a DATA submessage
                noise = noise[:20] + b"\x15\x05" + noise[22:]
            garbage.sendto(noise, ("127.0.0.1", ports[count % len(ports)]))
            if count % 20 == 0:
                me.say(**hold)
                state = me.state()
                assert obeys(state)
                assert state.position == pytest.approx(there, abs=0.05)
    # The very one that held it is obeyed on, without another handshake.
    me.stream(
        lambda state: abs(state.position[1] - there[1] + 0.2) < 0.05,
        **{**hold, "position": (there[0], there[1] - 0.2, *there[2:])},
    )
    assert not robot.events("damping", "recovered", "refused")
    assert robot.end() == 0
    assert not robot.events("ended")[0]["refused"]


def test_it_holds_itself_until_it_is_pushed(start: Start, tmp_path: Path) -> None:
    push, remote = tmp_path / "push.json", tmp_path / "remote.json"
    rows = [{"at_s": 1.0, "body": "trunk", "force": [0, 300, 0], "duration_s": 0.2}]
    push.write_text(json.dumps(rows))
    remote.write_text(json.dumps([{"at_s": 0, "buttons": ["L2", "B"], "duration_s": 1e9}]))
    robot, me = start(
        "--start", "standing", "--disturb", str(push), "--remote", str(remote), "--rate", "100"
    )
    robot.wait_for("standing")
    robot.wait_for("fell")
    assert me.state().remote[2:4] == bytes((0b100000, 0b10))
    ticks = [me.state().tick_ms for _ in range(20)]
    assert all(after - before >= 10 for before, after in pairwise(ticks))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--interface", "nonsense0"], "no network interface 'nonsense0'"),
        (["--domain", "9999"], "domain is 9999"),
        (["--disturb", "/nonexistent"], "/nonexistent"),
        (["--remote", "/nonexistent"], "/nonexistent"),
    ],
)
def test_options_that_will_not_do(options: list[str], words: str) -> None:
    command = [sys.executable, "-P", "-m", "safetypilot.bridge.devices.quadruped"]
    done = subprocess.run(
        [*command, "--domain", "3", *options], capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.returncode == 2
    assert words in done.stderr
    assert "Traceback" not in done.stderr


def test_it_is_heard_on_loopback_only(robot: Robot) -> None:
    ports = its_ports(robot)
    assert ports
    shown = subprocess.run(["ss", "-ulnH"], capture_output=True, text=True, check=True).stdout
    for port in ports:
        lines = [line for line in shown.splitlines() if f":{port} " in line]
        assert lines
        assert all("%lo:" in line or "127.0.0.1:" in line for line in lines), lines
