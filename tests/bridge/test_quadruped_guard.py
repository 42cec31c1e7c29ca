"""What the simulated quadruped obeys, command by command; and what its body does, step by step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("cyclonedds")

from safetypilot.bridge.devices.common import Push
from safetypilot.bridge.devices.quadruped_guard import Guard, Refused
from safetypilot.bridge.devices.quadruped_world import TIMESTEP_S, World
from safetypilot.bridge.protocols.unitree import GO, NO_POSITION, NO_VELOCITY, Commands, Told
from safetypilot.bridge.protocols.unitree_crc import checksum
from safetypilot.bridge.protocols.unitree_robots import GO2

MS = 1_000_000
TIMEOUT_MS = 50
NAMES = [joint.name for joint in GO2.joints]
ZEROS = (0.0,) * 12
STANDING = (0.0, 0.9, -1.8) * 4
COMMANDS = Commands(GO, 12)
ME, OTHER = 1, 2


def command(**changed: float | tuple[float, ...]) -> bytes:
    """Damping, but for what is given: one number for all joints, or one each."""
    numbers = {"position": 0.0, "velocity": 0.0, "effort": 0.0, "kp": 0.0, "kd": 8.0, **changed}
    rows = {
        name: each if isinstance(each, tuple) else (each,) * 12 for name, each in numbers.items()
    }
    return COMMANDS.pack(**rows)


def altered(sample: bytes, offset: int, value: int) -> bytes:
    """With another byte in the C structure, and a checksum that fits."""
    image = bytearray(COMMANDS.shape.from_cdr(sample))
    image[offset] = value
    image[-4:] = checksum(image).to_bytes(4, "little")
    return COMMANDS.shape.to_cdr(image)


class Rig:
    """A guard and its events."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.guard = Guard(Commands(GO, 12), TIMEOUT_MS / 1000, self.log)

    def log(self, event: str, **details: Any) -> None:
        self.events.append((event, details))

    @property
    def names(self) -> list[str]:
        return [" ".join((name, *map(str, details.values()))[:2]) for name, details in self.events]

    def take(self, sample: bytes, writer: int = ME, at_ms: float = 0.0) -> Told:
        return self.guard.take(sample, writer, round(at_ms * MS))

    def refuses(self, cause: str, sample: bytes, writer: int = ME, at_ms: float = 0.0) -> None:
        told, accepted = self.guard.told, self.guard.accepted
        with pytest.raises(Refused, match=f"^{cause}$"):
            self.take(sample, writer, at_ms)
        assert (self.guard.told, self.guard.accepted) == (told, accepted)


@pytest.fixture
def rig() -> Rig:
    return Rig()


# The handshake.


def test_it_begins_damped_and_wants_a_hand_first(rig: Rig) -> None:
    assert rig.guard.damped
    rig.refuses("no handshake", command(kp=20.0))
    rig.refuses("no handshake", command(effort=1.0))
    rig.take(command())
    assert not rig.guard.damped
    told = rig.take(command(kp=20.0, effort=1.0), at_ms=2)
    assert told.kp == (20.0,) * 12
    assert rig.names == ["taken over", "active"]


def test_one_stiff_joint_is_no_hand(rig: Rig) -> None:
    rig.refuses("no handshake", command(kp=(*ZEROS[1:], 0.1)))


def test_it_tells_when_it_is_told_to_damp(rig: Rig) -> None:
    rig.take(command())
    rig.take(command(kp=20.0), at_ms=1)
    rig.take(command(), at_ms=2)
    rig.take(command(), at_ms=3)
    assert rig.names == ["taken over", "active", "damping commanded"]


# Silence.


def test_it_damps_after_a_silence_and_not_before(rig: Rig) -> None:
    rig.take(command())
    rig.take(command(kp=20.0), at_ms=10)
    assert not rig.guard.watch((10 + TIMEOUT_MS) * MS)
    assert rig.guard.watch((10 + TIMEOUT_MS) * MS + 1)
    assert rig.guard.damped
    assert not rig.guard.watch(1000 * MS)  # it tells it once
    rig.refuses("no handshake", command(kp=20.0), at_ms=1000)
    rig.take(command(), at_ms=1001)
    assert rig.names == ["taken over", "active", "damping silence", "recovered"]
    assert rig.events[2][1]["silent_ms"] == pytest.approx(TIMEOUT_MS)


def test_what_it_refuses_is_silence_too(rig: Rig) -> None:
    rig.take(command())
    for at_ms in range(1, 100):
        rig.refuses("range", command(kd=51.0), at_ms=at_ms)
        rig.guard.watch(at_ms * MS)
        if at_ms > TIMEOUT_MS:
            break
    assert rig.guard.damped


# Two who command.


def test_a_second_commander_is_refused_until_the_first_is_silent(rig: Rig) -> None:
    rig.take(command())
    rig.refuses("second commander", command(), OTHER, at_ms=1)
    rig.take(command(kp=1.0), at_ms=2)
    rig.refuses("second commander", command(), OTHER, at_ms=3)
    rig.guard.watch(200 * MS)
    rig.take(command(), OTHER, at_ms=201)
    rig.refuses("second commander", command(), ME, at_ms=202)


# What no command may be.

BAD = [math.nan, math.inf, -math.inf]


@pytest.mark.parametrize("field", ["position", "velocity", "effort", "kp", "kd"])
@pytest.mark.parametrize("joint", [0, 11])
@pytest.mark.parametrize("number", BAD)
def test_numbers_that_are_none(rig: Rig, field: str, joint: int, number: float) -> None:
    numbers = [0.0] * 12
    numbers[joint] = number
    rig.take(command())
    rig.refuses("not finite", command(**{field: tuple(numbers)}))


@pytest.mark.parametrize(
    ("field", "good", "bad"),
    [
        ("kp", 500.0, 500.1), ("kp", 0.0, -0.001), ("kd", 50.0, 50.1), ("kd", 0.0, -0.001),
        ("effort", 100.0, 100.1), ("effort", -100.0, -100.1),
        ("position", 12.5, 12.7), ("position", NO_POSITION, 2.147e9),
        ("velocity", -100.0, -100.1), ("velocity", NO_VELOCITY, 16001.0),
    ],
)  # fmt: skip
def test_numbers_without_sense(rig: Rig, field: str, good: float, bad: float) -> None:
    rig.take(command())
    rig.take(command(**{field: good}))
    rig.refuses("range", command(**{field: (*ZEROS[1:], bad)}))


@pytest.mark.parametrize("offset", [0, 1, 2])
def test_another_header(rig: Rig, offset: int) -> None:
    rig.refuses("header", altered(command(), offset, 0))


@pytest.mark.parametrize("slot", [0, 11])
@pytest.mark.parametrize("mode", [0, 2, 10, 255])
def test_another_mode(rig: Rig, slot: int, mode: int) -> None:
    rig.refuses("mode", altered(command(), 24 + 36 * slot, mode))


def test_another_checksum_length_or_encoding(rig: Rig) -> None:
    sample = command()
    rig.refuses("crc", sample[:-1] + bytes((sample[-1] ^ 1,)))
    rig.refuses("length", sample + bytes(4))
    rig.refuses("length", sample[:-4])
    rig.refuses("encoding", b"\0\0" + sample[2:])
    rig.refuses("encoding", b"")


@given(noise=st.binary(max_size=900), start=st.integers(0, 816), damped=st.booleans())
@settings(max_examples=300, deadline=None)
def test_no_noise_is_a_command(noise: bytes, start: int, damped: bool) -> None:
    rig = Rig()
    if not damped:
        rig.take(command())
    before, sample = rig.guard.told, command(kp=20.0)
    broken = sample[:start] + noise + sample[start + len(noise) :]
    try:
        rig.take(broken)
    except Refused:
        assert rig.guard.told == before
    else:  # only padding was hit
        assert not damped
        assert rig.guard.told == COMMANDS.unpack(sample)


# The body.


def turn(world: World, steps: int, look: Callable[[str], None] = lambda _: None) -> list[str]:
    reached = [world.step() for _ in range(steps)]
    return [posture for posture in reached if posture]


def told(position: tuple[float, ...] = STANDING, **changed: Any) -> Told:
    numbers = {"velocity": ZEROS, "effort": ZEROS, "kp": (60.0,) * 12, "kd": (3.0,) * 12}
    return Told(b"", (), position=position, **{**numbers, **changed})


def stood_up() -> World:
    world = World(NAMES, "standing")
    world.obey(told())
    assert turn(world, 300) == ["standing"]
    return world


def test_joints_are_moved_by_name() -> None:
    """The model's tree begins with the left leg, the robot's motors with the right."""
    world = World(NAMES, "lying")
    world.damp(8.0)
    turn(world, 100)
    before = world.look().position
    for joint, name in enumerate(NAMES):
        effort = tuple(4.0 * (each == joint) for each in range(12))
        world.obey(told(effort=effort, kp=ZEROS, kd=(1.0,) * 12))
        turn(world, 40)
        after = world.look()
        assert after.effort[joint] > 0
        index = world._model.joint(name).qposadr[0]
        assert world._data.qpos[index] == after.position[joint]
        world.obey(told(before))
        turn(world, 200)


def test_effort_is_what_the_law_says_and_never_beyond_the_limit() -> None:
    world = World(NAMES, "standing")
    world.obey(told(kp=(500.0,) * 12, position=tuple(q + 1.0 for q in STANDING)))
    world.step()
    assert world.look().effort == (23.7, 23.7, 45.43) * 4
    world = World(NAMES, "standing")
    world.obey(told(tuple(q + 0.1 for q in STANDING), effort=(1.0,) * 12))
    world.step()
    assert world.look().effort == pytest.approx((1.0 + 60.0 * 0.1,) * 12)


def test_terms_that_are_not_wanted_do_nothing() -> None:
    world = World(NAMES, "standing")
    world.obey(told((NO_POSITION,) * 12, velocity=(NO_VELOCITY,) * 12, effort=(2.0,) * 12))
    world.step()
    assert world.look().effort == (2.0,) * 12


def test_a_damped_robot_lies_down_and_a_limp_one_falls() -> None:
    world = stood_up()
    world.damp(8.0)
    assert turn(world, 2000) == ["lying"]
    world = stood_up()
    world.damp(0.0)
    assert turn(world, 1000) == ["fell"]


def test_a_pushed_robot_falls() -> None:
    world = World(NAMES, "standing", [Push(1.0, "trunk", (0.0, 300.0, 0.0), 0.2)])
    world.obey(told())
    steps = 0
    while world.posture != "fell" and steps < 2000:
        world.step()
        steps += 1
    assert 1.0 < steps * TIMESTEP_S < 2.0


def test_the_imu_says_which_way_is_up() -> None:
    look = stood_up().look()
    assert look.orientation[0] == pytest.approx(1.0, abs=0.01)
    assert look.accelerometer == pytest.approx((0.0, 0.0, 9.81), abs=0.3)
    assert look.rpy == pytest.approx((0.0, 0.0, 0.0), abs=0.05)
    assert sum(look.feet) == pytest.approx(15.02 * 9.81, rel=0.02)


def test_it_is_placed_on_the_ground_at_rest() -> None:
    world = stood_up()
    pose = (0.3, 1.2, -2.2) * 4
    world.place(pose)
    look = world.look()
    assert look.position == pytest.approx(pose)
    assert look.velocity == ZEROS
    assert world.posture == "lying"
    height = world.base[0][2]
    world.obey(told(pose, kp=(200.0,) * 12))
    turn(world, 20)
    assert world.base[0][2] == pytest.approx(height, abs=0.01)  # it neither fell nor jumped
