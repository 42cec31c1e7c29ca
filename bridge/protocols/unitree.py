"""Low-level commands and states of Unitree robots, go and hg families: numbers to bytes and back.

Commands and states go both ways here, since our simulated robot reads what the driver writes.
Joints are those of the first motor slots, in the robot's own order.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import Struct as Layout
from typing import NamedTuple

from safetypilot.bridge.contract import Vector
from safetypilot.bridge.protocols import unitree_types as types
from safetypilot.bridge.protocols.dds import Struct
from safetypilot.bridge.protocols.unitree_crc import checksum
from safetypilot.bridge.protocols.unitree_image import Corrupted, Image

COMMAND_TOPIC, STATE_TOPIC = "rt/lowcmd", "rt/lowstate"
SPORT_TOPIC = "rt/sportmodestate"
SERVO, IDLE = 1, 0  # modes of a motor: it does what it is told, or damps by itself
NO_POSITION, NO_VELOCITY = 2.146e9, 16000.0  # go family: this term is not wanted
LOW_LEVEL = b"\xfe\xef\xff"  # go family: what commands begin with
BUTTONS = ("R1", "L1", "start", "select", "R2", "L2", "", "", "A", "B", "X", "Y", "up", "right",
           "down", "left")  # fmt: skip
_WORD, _PAIR, _FIVE, _FEET, _IMU = map(Layout, ("<I", "<2I", "<5f", "<4h", "<13f"))
_MOTOR = Layout("<B3x4f")
# lx, rx, ry, a word that nobody explains, ly.
_STICKS = Layout("<3f4xf")


@dataclass(frozen=True, slots=True)
class Family:
    """Robots that have the same messages, with room for so many motors."""

    name: str
    command: Struct
    state: Struct
    slots: int


GO = Family("go", types.GO_LOW_COMMAND, types.GO_LOW_STATE, 20)
HG = Family("hg", types.HG_LOW_COMMAND, types.HG_LOW_STATE, 35)


class Told(NamedTuple):
    """A command as the robot gets it.

    Attributes:
        header: go: what it begins with, to be LOW_LEVEL; hg: mode_pr and mode_machine.
        modes: of the joints' motors.
    """

    header: bytes
    modes: tuple[int, ...]
    position: Vector
    velocity: Vector
    effort: Vector
    kp: Vector
    kd: Vector


class State(NamedTuple):
    """A state of the robot.

    Attributes:
        tick_ms: the robot's clock; wraps at 2**32.
        modes: of the joints' motors.
        errors: hg: bits of what each motor complains of; go: empty.
        orientation: w, x, y, z.
        foot_force: go: of the four feet, raw; hg: empty.
        machine: hg: what commands have to repeat.
        placed: go: a word that robots leave 0; our simulated one repeats what it was placed by.
    """

    tick_ms: int
    modes: tuple[int, ...]
    position: Vector
    velocity: Vector
    effort: Vector
    errors: tuple[int, ...]
    orientation: Vector
    gyroscope: Vector
    accelerometer: Vector
    rpy: Vector
    foot_force: Vector
    remote: bytes
    machine: int
    placed: int = 0


class Commands:
    """Makes commands, and reads them.

    Attributes:
        shape: their layout.
    """

    def __init__(self, family: Family, joints: int) -> None:
        self.shape, self._go = Image(family.command), family is GO
        first, stride = self.shape.offsets["motor_cmd"], self.shape.strides["motor_cmd"]
        self._image = bytearray(self.shape.size)
        self._motors = [first + stride * joint for joint in range(joints)]
        self._rows = Layout(f"<{first}x" + f"B3x5f{stride - 24}x" * joints)
        for motor in self._motors:
            self._image[motor] = SERVO
        if self._go:
            self._image[: len(LOW_LEVEL)] = LOW_LEVEL
            for motor in range(first + stride * joints, first + stride * family.slots, stride):
                self._image[motor] = SERVO
                _FIVE.pack_into(self._image, motor + 4, NO_POSITION, NO_VELOCITY, 0.0, 0.0, 0.0)

    def use_machine(self, machine: int) -> None:
        """What a robot of the hg family says of itself, every command has to repeat."""
        if not self._go:
            self._image[self.shape.offsets["mode_machine"]] = machine

    def pack(
        self, position: Vector, velocity: Vector, effort: Vector, kp: Vector, kd: Vector
    ) -> bytes:
        """A sample that tells every joint: effort + kp (position - q) + kd (velocity - dq).

        Raises:
            OverflowError: a number does not fit into 32 bits.
        """
        image = self._image
        rows = zip(self._motors, position, velocity, effort, kp, kd, strict=True)
        for motor, q, dq, tau, p, d in rows:
            _FIVE.pack_into(image, motor + 4, q, dq, tau, p, d)
        return self._finished()

    def pack_effort(self, effort: Vector) -> bytes:
        """A sample that tells every joint its effort and nothing else."""
        zeros = (0.0,) * len(effort)
        if not self._go:
            return self.pack(zeros, zeros, effort, zeros, zeros)
        nowhere, still = (NO_POSITION,) * len(effort), (NO_VELOCITY,) * len(effort)
        return self.pack(nowhere, still, effort, zeros, zeros)

    def unpack(self, sample: bytes) -> Told:
        """What a sample tells the joints.

        Raises:
            Corrupted: it is no command, or its checksum is wrong.
        """
        image = _intact(self.shape, sample)
        rows = self._rows.unpack_from(image)
        header = image[: len(LOW_LEVEL)] if self._go else image[:2]
        position, velocity, effort, kp, kd = (rows[column::6] for column in range(1, 6))
        return Told(header, rows[0::6], position, velocity, effort, kp, kd)

    def _finished(self) -> bytes:
        _WORD.pack_into(self._image, self.shape.size - 4, checksum(self._image))
        return self.shape.to_cdr(self._image)


class States:
    """Reads states, and makes them.

    Attributes:
        shape: their layout.
    """

    def __init__(self, family: Family, joints: int) -> None:
        self.shape, self._go, self._count = Image(family.state), family is GO, joints
        at, stride = self.shape.offsets, self.shape.strides["motor_state"]
        # Of each motor: mode, q, dq, (ddq), tau_est and, where there is one, a word of errors.
        row = f"B3x2f4xf{stride - 20}x" if self._go else "B3x2f4xf16xI16x"
        self._rows = Layout(f"<{at['motor_state']}x" + row * joints)
        self._motors = [at["motor_state"] + stride * joint for joint in range(joints)]
        self._imu, self._tick, self._placed = at["imu_state"], at["tick"], at["reserve"]
        self._remote = slice(at["wireless_remote"], at["wireless_remote"] + 40)
        self._feet, self._machine = at.get("foot_force", 0), at.get("mode_machine", 0)
        self._image = bytearray(self.shape.size)
        if self._go:
            self._image[: len(LOW_LEVEL)] = LOW_LEVEL

    def unpack(self, sample: bytes) -> State:
        """What the robot says of itself.

        Raises:
            Corrupted: it is no state, or its checksum is wrong.
        """
        image = _intact(self.shape, sample)
        rows = self._rows.unpack_from(image)
        width = 4 if self._go else 5
        imu = _IMU.unpack_from(image, self._imu)
        return State(
            _WORD.unpack_from(image, self._tick)[0],
            rows[0::width],
            rows[1::width],
            rows[2::width],
            rows[3::width],
            () if self._go else rows[4::width],
            imu[:4],
            imu[4:7],
            imu[7:10],
            imu[10:],
            tuple(map(float, _FEET.unpack_from(image, self._feet))) if self._go else (),
            image[self._remote],
            0 if self._go else image[self._machine],
            _WORD.unpack_from(image, self._placed)[0] if self._go else 0,
        )

    def identity(self, sample: bytes) -> tuple[str, str]:
        """Serial number, where it is told, and firmware version.

        Raises:
            Corrupted: as for `unpack`.
        """
        image, at = _intact(self.shape, sample), self.shape.offsets
        serial = image[at["sn"] : at["sn"] + 8].hex() if self._go else "not told"
        return serial, ".".join(map(str, _PAIR.unpack_from(image, at["version"])))

    def set_identity(self, serial: int, version: tuple[int, int]) -> None:
        """What a simulated robot says of itself from now on."""
        at = self.shape.offsets
        if self._go:
            _PAIR.pack_into(self._image, at["sn"], serial & 0xFFFFFFFF, serial >> 32)
        _PAIR.pack_into(self._image, at["version"], *version)

    def pack(self, state: State) -> bytes:
        """A sample that says so."""
        image = self._image
        rows = zip(
            self._motors, state.modes, state.position, state.velocity, state.effort, strict=True
        )
        for motor, mode, q, dq, tau in rows:
            _MOTOR.pack_into(image, motor, mode, q, dq, 0.0, tau)
        _IMU.pack_into(
            image, self._imu, *state.orientation, *state.gyroscope, *state.accelerometer, *state.rpy
        )
        if self._go:
            _FEET.pack_into(image, self._feet, *map(int, state.foot_force))
            _WORD.pack_into(image, self._placed, state.placed)
        else:
            image[self._machine] = state.machine
        _WORD.pack_into(image, self._tick, state.tick_ms & 0xFFFFFFFF)
        image[self._remote] = state.remote
        _WORD.pack_into(image, self.shape.size - 4, checksum(image))
        return self.shape.to_cdr(image)


class Remote(NamedTuple):
    """The remote controller: sticks from -1 to 1, and bits of BUTTONS."""

    lx: float
    ly: float
    rx: float
    ry: float
    keys: int

    def pressed(self) -> tuple[str, ...]:
        return tuple(name for bit, name in enumerate(BUTTONS) if name and self.keys >> bit & 1)


def read_remote(data: bytes) -> Remote:
    """What a state carries of it, in 40 bytes."""
    lx, rx, ry, ly = _STICKS.unpack_from(data, 4)
    return Remote(lx, ly, rx, ry, data[2] | data[3] << 8)


def make_remote(remote: Remote) -> bytes:
    """The 40 bytes that a state carries of it."""
    data = bytearray(40)
    data[2:4] = remote.keys.to_bytes(2, "little")
    _STICKS.pack_into(data, 4, remote.lx, remote.rx, remote.ry, remote.ly)
    return bytes(data)


def _intact(shape: Image, sample: bytes) -> bytes:
    image = shape.from_cdr(sample)
    told = _WORD.unpack_from(image, shape.size - 4)[0]
    # Who sends may leave anything between the fields, but almost nobody does.
    if told != checksum(image) and told != checksum(shape.blank(image)):
        raise Corrupted("crc")
    return image
