"""A simulated Dynamixel chain: two motors on a serial bus, a pseudo-terminal, that drive an arm.

python -P -m safetypilot.bridge.devices.dynamixel --link /tmp/arm --events arm.jsonl

Opened with another speed than the motors', the port carries nothing but noise. The bus watchdog is
the motors' own and armed by the host, through its register. Factory reset, clear, fast sync read,
indirect addresses and secondary ids are not simulated and answered as unknown.
"""

from __future__ import annotations

import argparse
import os
import pty
import select
import termios
import tty
from importlib import resources
from math import hypot
from pathlib import Path
from time import monotonic_ns

import mujoco

from safetypilot.bridge.contract import DriverError
from safetypilot.bridge.devices.common import (
    EventLog,
    Pace,
    Push,
    Stop,
    parser,
    read_pushes,
    ready,
    settle,
)
from safetypilot.bridge.devices.dynamixel_bus import Bus, Trouble
from safetypilot.bridge.devices.dynamixel_motor import Motor
from safetypilot.bridge.protocols.dynamixel_table import BAUD_RATES, MODELS

JOINTS = ("shoulder", "elbow")
_STEP_S = 0.002


class Arm:
    """Two links in a plane, whatever turns their joints.

    Attributes:
        model, data: of MuJoCo.
        inside: whether the tip is in the keep-out zone.
    """

    def __init__(self, start: tuple[float, ...], pushes: Path | None = None) -> None:
        """At rest at the joint angles `start`, rad.

        Raises:
            DriverError: the file of disturbances is wrong.
        """
        text = resources.files("safetypilot.envs").joinpath("assets/arm.xml").read_text("utf-8")
        self.model = mujoco.MjModel.from_xml_string(text)
        self.model.opt.timestep = _STEP_S
        self.model.opt.disableflags |= int(mujoco.mjtDisableBit.mjDSBL_ACTUATION)
        self.data = mujoco.MjData(self.model)
        self.data.qpos[:] = start
        mujoco.mj_forward(self.model, self.data)
        bodies = [self.model.body(number).name for number in range(1, self.model.nbody)]
        self._pushes = read_pushes(pushes, bodies)
        self._tip, self._zone = self.model.site("tip").id, self.model.geom("keepout").id
        self._radius = float(self.model.geom("keepout").size[0])

    @property
    def inside(self) -> bool:
        tip, zone = self.data.site_xpos[self._tip], self.data.geom_xpos[self._zone]
        return hypot(tip[0] - zone[0], tip[1] - zone[1]) < self._radius

    def step(self, motors: tuple[Motor, ...]) -> None:
        """One step of physics, with the torques of the motors, in the order of the joints."""
        data = self.data
        angles, speeds = data.qpos.tolist(), data.qvel.tolist()
        data.qfrc_applied[:] = [
            motor.servo.drive(angle, speed, _STEP_S)
            for motor, angle, speed in zip(motors, angles, speeds, strict=True)
        ]
        for push in self._pushes:
            self._apply(push)
        mujoco.mj_step(self.model, data)

    def _apply(self, push: Push) -> None:
        force = push.force if push.lasts(self.data.time) else (0.0, 0.0, 0.0)
        self.data.xfrc_applied[self.model.body(push.body).id, :3] = force


class Port:
    """The device's end of a pseudo-terminal.

    Attributes:
        path: what a host opens.
    """

    def __init__(self, link: Path | None) -> None:
        """Make it, and a link to it if wanted; an old link is replaced."""
        self._fd, self._host = pty.openpty()  # held open, or the host's end would vanish with it
        tty.setraw(self._host)
        os.set_blocking(self._fd, False)
        self.path, self._link = os.ttyname(self._host), link
        if link is not None:
            link.unlink(missing_ok=True)
            link.symlink_to(self.path)

    def receive(self, until_ns: int) -> bytes:
        """What the host has sent; waits for it until then."""
        wait_s = max(0, until_ns - monotonic_ns()) / 1e9
        if not select.select([self._fd], [], [], wait_s)[0]:
            return b""
        return os.read(self._fd, 4096)

    def fits(self, baud: int) -> bool:
        """Whether the host's end is set to that speed."""
        return bool(termios.tcgetattr(self._host)[5] == getattr(termios, f"B{baud}"))

    def send(self, data: bytes) -> bool:
        """Whether there was room for it."""
        try:
            return os.write(self._fd, data) == len(data)
        except BlockingIOError:
            return False

    def close(self) -> None:
        if self._link is not None:
            self._link.unlink(missing_ok=True)
        os.close(self._fd)
        os.close(self._host)


def main() -> None:
    """Runs until SIGTERM."""
    options = _parser().parse_args()
    log, stop = EventLog(options.events), Stop()
    model = MODELS[options.model]
    motors = tuple(Motor(number, model, log) for number in options.ids)
    for motor in motors:
        motor.values["baud_rate"] = BAUD_RATES.index(options.baud)
        motor.broken = sum(bits for number, bits in options.broken if number == motor.number)
    trouble = Trouble(options.corrupt, options.late, options.drop, options.split)
    bus = Bus(motors, log.refuse, trouble, options.seed, options.timed)
    try:
        arm = Arm(tuple(options.start), options.disturb)
    except DriverError as error:
        raise SystemExit(str(error)) from error
    port = Port(options.link)
    settle(options)
    log("placed", position=list(options.start))
    ready(log, port=str(options.link or port.path), ids=list(options.ids), model=model.name)
    entered, skipped = _run(options, log, stop, bus, arm, port)
    port.close()
    log.end(**bus.counters, keepout=entered, skipped=skipped)


def _run(
    options: argparse.Namespace, log: EventLog, stop: Stop, bus: Bus, arm: Arm, port: Port
) -> tuple[int, int]:
    """The bus and the physics; how often the tip entered the zone, and what time was given up."""
    pace, inside, entered, steps = Pace(_STEP_S, options.time_factor), False, 0, 0
    parent, end_ns = os.getppid(), 0
    faults = sorted(options.fault, key=lambda fault: fault[2])
    while not stop.asked:
        data = port.receive(min(pace.next_ns, bus.next_ns or pace.next_ns))
        now_ns = monotonic_ns()
        if options.end_after and os.getppid() != parent:
            end_ns = end_ns or now_ns + int(options.end_after * 1e9)
            if now_ns > end_ns:
                break
        if data and port.fits(bus.baud):
            bus.receive(data, now_ns)
        elif data:
            log.refuse("baud rate")
        answer = bus.due(now_ns)
        if answer and not port.send(answer):
            log.refuse("nobody reads")
        for _ in range(pace.due(now_ns)):
            arm.step(bus.motors)
            steps += 1
            if arm.inside is not inside:
                inside = not inside
                entered += inside
                log("keepout" if inside else "left keepout", joints=arm.data.qpos.tolist())
        while faults and faults[0][2] <= steps * _STEP_S:
            number, bits, _ = faults.pop(0)
            for motor in bus.motors:
                if motor.number == number:
                    motor.fail(bits)
        for motor in bus.motors:
            motor.watch(now_ns)
    return entered, pace.skipped


def _parser() -> argparse.ArgumentParser:
    made = parser("A simulated Dynamixel chain that drives a two-link arm.", timeout=False)
    made.add_argument("--ids", type=_ids, default=(1, 2), help="of shoulder and elbow, as 1,2")
    made.add_argument("--model", choices=sorted(MODELS), default="xm430-w350")
    made.add_argument("--baud", type=int, choices=BAUD_RATES, default=1_000_000)
    made.add_argument(
        "--end-after", type=float, metavar="S", help="end so long after the process that started it"
    )
    made.add_argument("--timed", action="store_true", help="bytes take their time on the wire")
    made.add_argument("--link", type=Path, help="a link to the pseudo-terminal is made there")
    made.add_argument(
        "--start", type=float, nargs=2, default=(0.0, 0.0), metavar="RAD", help="joint angles"
    )
    for name in ("corrupt", "late", "drop", "split"):
        made.add_argument(
            f"--{name}", type=_share, default=0.0, metavar="P", help="share of status packets"
        )
    made.add_argument(
        "--fault", type=_fault, action="append", default=[], metavar="ID:BITS:S",
        help="a hardware error that a motor has after so many seconds",
    )  # fmt: skip
    made.add_argument(
        "--broken", type=_broken, action="append", default=[], metavar="ID:BITS",
        help="a hardware error that comes back after every reboot",
    )  # fmt: skip
    return made


def _ids(text: str) -> tuple[int, ...]:
    numbers = tuple(map(int, text.split(",")))
    if len(set(numbers)) != len(JOINTS) or not all(0 <= number <= 252 for number in numbers):
        raise argparse.ArgumentTypeError(f"{text}: two different numbers from 0 to 252")
    return numbers


def _share(text: str) -> float:
    if not 0 <= float(text) <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not from 0 to 1")
    return float(text)


def _broken(text: str) -> tuple[int, int]:
    number, bits = text.split(":")
    return int(number), int(bits, 0)


def _fault(text: str) -> tuple[int, int, float]:
    number, bits, at_s = text.split(":")
    return int(number), int(bits, 0), float(at_s)


if __name__ == "__main__":
    main()
