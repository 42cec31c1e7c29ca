"""The robot behind ros2_control, simulated: what it obeys, and what it does without commands."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from time import monotonic, monotonic_ns, sleep
from typing import Any

import pytest

pytest.importorskip("cyclonedds")

from ros2_rig import LATER, PATIENCE_S, Robot, driver, fresh, soon, until

from safetypilot.bridge.contract import DriverError, Mode, Setpoint
from safetypilot.bridge.drivers.ros2 import Ros2Driver
from safetypilot.bridge.protocols import ros2
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
