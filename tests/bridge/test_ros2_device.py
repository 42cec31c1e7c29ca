"""The robot behind ros2_control, simulated: what it obeys, and what it does without commands."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from math import inf, nan
from pathlib import Path
from time import monotonic, monotonic_ns, sleep
from typing import Any

import pytest

pytest.importorskip("cyclonedds")

from ros2_rig import LATER, PATIENCE_S, Robot, driver, fresh, soon, until

from safetypilot.bridge.contract import DriverError, Mode, Setpoint
from safetypilot.bridge.drivers.ros2 import Ros2Driver
from safetypilot.bridge.protocols import ros2
from safetypilot.bridge.protocols.cdr import CdrWriter
from safetypilot.bridge.protocols.dds import Bus

STOP = {"estop": "/emergency_stop", "estop_state": "/emergency_stop/state"}


@pytest.fixture
def robots(tmp_path: Path) -> Iterator[Callable[..., Robot]]:
    running: list[Robot] = []

    def start(*more: str) -> Robot:
        running.append(Robot(tmp_path, *more))
        return running[-1]

    yield start
    for robot in running:
        if robot.process.poll() is None:
            robot.end()


def active(robot: Robot, mode: Mode = Mode.POSITION, **options: Any) -> Ros2Driver:
    made = robot.driver(**options)
    made.connect()
    made.configure({})
    made.activate(mode)
    return made


def go(driver: Ros2Driver, setpoint: Setpoint, done: Callable[[Any], bool]) -> None:
    """Commands and reads until it is there."""
    end = monotonic() + PATIENCE_S
    while not done(measured := driver.read(monotonic_ns() + 20_000_000)):
        assert not measured.faults and monotonic() < end
        driver.write(setpoint, LATER)
        sleep(0.005)


def test_it_moves_holds_for_ever_and_is_stopped_and_reset_by_its_own_topic(
    robots: Callable[..., Robot],
) -> None:
    robot = robots()
    made = active(robot, **STOP)
    goal = (0.5, -0.25)
    go(made, Setpoint(Mode.POSITION, goal), lambda m: m.position == pytest.approx(goal, abs=0.02))
    assert robot.wait_for("active")["mode"] == "position"
    sleep(0.5)  # without a command, which nobody minds here
    assert fresh(made).position == pytest.approx(goal, abs=0.02)
    assert not robot.events("damping")

    made.estop("hand")
    assert robot.wait_for("damping")["cause"] == "estop"
    with pytest.raises(DriverError, match="hand"):
        made.write(Setpoint(Mode.POSITION, (0.0, 0.0)), LATER)
    until(lambda: "the robot is e-stopped" in made.read(soon()).faults)
    made.close()
    again = robot.driver(**STOP)  # the robot remembers it, whoever comes
    again.connect()
    with pytest.raises(DriverError, match="e-stopped"):
        again.configure({})
    again.reset()
    assert robot.wait_for("recovered")["cause"] == "estop"
    again.configure({})
    start = again.activate(Mode.POSITION)
    assert start.position == pytest.approx(goal, abs=0.05)
    again.deactivate()
    again.close()
    assert robot.end() == 0
    ended = robot.wait_for("ended")
    assert set(ended["refused"]) <= {"e-stopped"}  # the position that the e-stop sent


def test_with_a_time_out_of_its_own_it_damps_by_itself_and_obeys_the_next_command(
    robots: Callable[..., Robot],
) -> None:
    robot = robots("--timeout", "0.2")
    made = active(robot, watchdog_s=0.2)
    assert made.description.watchdog_s == 0.2
    went_ns = monotonic_ns()
    made.write(Setpoint(Mode.POSITION, (0.1, 0.1)), LATER)
    event = robot.wait_for("damping")
    assert event["cause"] == "silence" and 0.2 < event["silence_s"] < 0.2 + PATIENCE_S
    assert event["at_ns"] - went_ns >= 0.2e9
    made.write(Setpoint(Mode.POSITION, (0.1, 0.1)), LATER)
    assert robot.wait_for("recovered")["cause"] == "silence"
    made.close()


COMMANDER = """
import sys, time
from safetypilot.bridge.contract import Mode, Setpoint
from safetypilot.bridge.drivers.ros2 import Ros2Driver, Ros2Options

driver = Ros2Driver(Ros2Options(domain=int(sys.argv[1]), controller="trajectory", connect_s=30.0))
driver.connect(), driver.configure({})
at = driver.activate(Mode.POSITION).position[0]
while True:
    at += 0.01  # 1 rad/s
    driver.write(Setpoint(Mode.POSITION, (at, 0.0)), time.monotonic_ns() + 10**9)
    print(at, flush=True)
    time.sleep(0.01)
"""


def test_a_trajectory_ends_where_its_commander_was_killed(robots: Callable[..., Robot]) -> None:
    robot = robots("--controller", "trajectory")
    commander = subprocess.Popen(
        [sys.executable, "-P", "-c", COMMANDER, str(robot.ready["domain"])],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert commander.stdout is not None
    lines = [commander.stdout.readline() for _ in range(30)]
    commander.kill()
    lines += commander.communicate()[0].splitlines(keepends=True)
    last = float([line for line in lines if line.endswith("\n")][-1])
    watcher = robot.driver(controller="trajectory")
    watcher.connect()
    until(lambda: max(map(abs, fresh(watcher).velocity)) < 0.01)
    sleep(0.3)
    assert fresh(watcher).position[0] == pytest.approx(last, abs=0.03)
    watcher.close()


@pytest.mark.parametrize(("controller", "mode"), [
    ("velocity", Mode.VELOCITY), ("effort", Mode.EFFORT),
])  # fmt: skip
def test_speed_and_effort_are_taken_off_when_it_is_deactivated(
    robots: Callable[..., Robot], controller: str, mode: Mode
) -> None:
    robot = robots("--controller", controller)
    made = active(robot, mode, controller=controller, ramp_s=0.2)
    pushed = Setpoint(mode, velocity=(0.5, 0.0), effort=(0.2, 0.0))
    go(made, pushed, lambda m: m.velocity[0] > 0.2)
    made.deactivate()
    bus_domain = robot.ready["domain"]
    made.close()
    listener = driver(bus_domain, controller=controller)
    listener.connect()
    until(lambda: max(map(abs, fresh(listener).velocity)) < 0.05)
    listener.close()


def test_what_it_refuses_it_counts_by_cause(robots: Callable[..., Robot]) -> None:
    robot = robots()
    bus = Bus(robot.ready["domain"])
    try:
        topic = ros2.topic("/forward_position_controller/commands")
        writer = bus.writer(topic, ros2.FLOAT64_MULTI_ARRAY)
        until(lambda: writer.readers)
        for numbers in ((0.1,), (0.1, 0.2, 0.3), (float("nan"), 0.0), (float("inf"), 0.0)):
            writer.write(ros2.Commands(len(numbers)).write(numbers))
            sleep(0.05)
        until(lambda: len(robot.events("refused")) == 2)
        assert not robot.events("active")
    finally:
        bus.close()
    assert robot.end() == 0
    refused = robot.wait_for("ended")["refused"]
    assert refused["not finite"] == 2 and set(refused) == {"length", "not finite"}
    assert refused["length"] in (1, 2)  # the first may have come before both ends knew each other


def unsendable(whole: bytes, *counts: int) -> list[bytes]:
    """What DDS itself does not send: cut off, or with absurd numbers at the offsets of counts."""
    made = [whole[:length] for length in (0, 3, 4, 9, len(whole) // 2, len(whole) - 5)]
    for at in counts:
        for number in (1 << 16, 1 << 31, (1 << 32) - 1):
            made.append(whole[:at] + number.to_bytes(4, "little") + whole[at + 4 :])
    return made


def flooded(
    robot: Robot, made: Ros2Driver, hold: Setpoint, planned: dict[str, list[bytes]]
) -> None:
    """It holds, on and on, while mutants of commands come between sound ones, and is obeyed then.

    They go out by the driver's own writer, which the robot obeys already.
    """
    link, there = made._linked(), hold.position
    flood = [(cause, each) for cause, them in planned.items() for each in them]
    random.Random(8).shuffle(flood)
    go(made, hold, lambda m: m.position == pytest.approx(there, abs=0.02))
    for cause, mutant in flood:
        made.write(hold, LATER)
        if cause:
            link.send(mutant)
        else:
            with pytest.raises(DriverError, match="do not fit its type"):
                link.send(mutant)
        for _ in range(3):  # states: were it obeyed it would be on its way
            measured = fresh(made)
            assert measured.position == pytest.approx(there, abs=0.03), cause
            assert measured.faults == (), cause
    assert len(robot.events("active")) == 1 and not robot.events("damping", "recovered")
    back = Setpoint(Mode.POSITION, (0.1, 0.1))
    go(made, back, lambda m: m.position == pytest.approx(back.position, abs=0.02))
    assert made.counters["refused"] == made.counters["foreign"] == 0
    made.close()
    assert robot.end() == 0
    refused = robot.wait_for("ended")["refused"]
    causes = {cause for cause in planned if cause}
    assert set(refused) == causes
    for cause in causes:  # a busy machine may lose some
        assert len(planned[cause]) // 2 <= refused[cause] <= len(planned[cause]), cause


def test_a_robot_that_holds_is_not_moved_by_mutants_of_its_commands(
    robots: Callable[..., Robot],
) -> None:
    robot = robots()
    far = (-0.9, 0.9)
    whole = ros2.Commands(2).write(far)
    planned = {
        "": unsendable(whole, 4, 12),
        "length": [
            CdrWriter().count(0).count(0).doubles(numbers).sample  # without a layout
            for numbers in ((), (-0.9,), (*far, 0.9), far * 500)
        ],
        "not finite": [
            ros2.Commands(2).write(numbers)
            for numbers in ((nan, 0.9), (-0.9, inf), (-inf, inf), (nan, nan), (-1.7e308, -1.7e308))
        ],
        "too long": [whole + bytes(4), whole + whole, whole[:12] + b"\1" + whole[13:]],
        "encoding": [b"\0\3" + whole[2:]],
    }
    hold = Setpoint(Mode.POSITION, (0.5, -0.25))
    patient = active(robot, silence_s=PATIENCE_S)  # a busy machine's states are late
    flooded(robot, patient, hold, {cause: them * 4 for cause, them in planned.items()})


Rows = list[tuple[tuple[float, ...], tuple[float, ...], int]]  # positions, velocities, ns


def trajectory(joints: tuple[str, ...], rows: Rows, stamp_ns: int = 0) -> bytes:
    """A `trajectory_msgs/msg/JointTrajectory` that says anything."""
    writer = CdrWriter().time(*divmod(stamp_ns, 10**9)).text("").texts(joints).count(len(rows))
    for positions, velocities, at_ns in rows:
        writer.doubles(positions).doubles(velocities).doubles(()).doubles(())
        writer.time(*divmod(at_ns, 10**9))
    return writer.sample


def test_a_trajectory_is_followed_by_name_and_its_mutants_are_not(
    robots: Callable[..., Robot],
) -> None:
    robot = robots("--controller", "trajectory")
    made = active(robot, controller="trajectory", silence_s=PATIENCE_S)
    both, far, soon_ns = ("shoulder", "elbow"), (-0.9, 0.9), 20_000_000
    # Names in another order are the same robot.
    turned = trajectory(both[::-1], [((-0.25, 0.5), (), soon_ns)])
    made._linked().send(turned)
    until(lambda: fresh(made).position == pytest.approx((0.5, -0.25), abs=0.02))
    whole = trajectory(both, [(far, (), soon_ns)])

    def one(*row: Any) -> bytes:
        return trajectory(both, [row])

    planned = {
        "": unsendable(whole, 12, 20),
        "joints": [
            trajectory(joints, [((*far, 0.9)[: len(joints)], (), soon_ns)])
            for joints in ((), both[:1], (*both, "gripper"), (*both, "elbow"), both[:1] * 2,
                           ("shoulder", "Elbow"), ("", "elbow"))
        ],
        "a start in the future or in the past": [
            trajectory(both, [(far, (), soon_ns)], at_ns) for at_ns in (1, -(10**9), 2**60)
        ],
        "empty": [trajectory(both, [])] * 2,
        "length": [
            one(far[:1], (), soon_ns), one((*far, 0.9), (), soon_ns), one((), (), soon_ns),
            one(far, (0.0,), soon_ns), one(far, (0.0,) * 3, soon_ns),
        ],
        "not finite": [
            one((nan, 0.9), (), soon_ns), one((-inf, inf), (), soon_ns),
            one(far, (0.0, nan), soon_ns), one((1.7e308, 1.7e308), (), soon_ns),
        ],
        "time": [
            one(far, (), 0), one(far, (), -1), one(far, (), -(2**31) * 10**9),
            trajectory(both, [(far, (), 2 * soon_ns), (far, (), soon_ns)]),
            trajectory(both, [(far, (), soon_ns)] * 2),
        ],
        "moving at its end": [one(far, (0.1, 0.0), soon_ns)] * 2,
        "too long": [whole + bytes(4), whole * 2],
        "encoding": [b"\0\3" + whole[2:]] * 2,
    }  # fmt: skip
    hold = Setpoint(Mode.POSITION, (0.5, -0.25))
    flooded(robot, made, hold, {cause: them * 3 for cause, them in planned.items()})


@pytest.mark.parametrize(("arguments", "told"), [
    (["--model", "nothing.xml"], "no model"), (["--joints", "wrist"], "wrist"),
    (["--interface", "nowhere"], "nowhere"), (["--timeout", "-1"], "--timeout"),
    (["--domain", "many"], "many"),
])  # fmt: skip
def test_what_it_cannot_be_is_said_in_one_line(arguments: list[str], told: str) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "safetypilot.bridge.devices.ros2", *arguments],
        capture_output=True, text=True, timeout=PATIENCE_S, check=False,
    )  # fmt: skip
    assert done.returncode == 1 and told in done.stderr
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
