"""The Unitree driver on the simulated quadruped: a process of its own, DDS between them."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from time import monotonic, monotonic_ns, sleep
from typing import Any

import pytest

pytest.importorskip("cyclonedds")

from unitree_rig import (
    LYING,
    PATIENCE_S,
    STANDING,
    ZEROS,
    Robot,
    free_domain,
    soon,
    until,
)

from safetypilot.bridge import registry
from safetypilot.bridge.contract import DriverError, Measurement, Mode, Setpoint
from safetypilot.bridge.drivers.unitree import UnitreeDriver, UnitreeOptions
from safetypilot.bridge.protocols import unitree_link, unitree_types
from safetypilot.bridge.protocols.unitree_robots import G1, GO2

integration = pytest.mark.integration
Start = Callable[..., tuple[Robot, UnitreeDriver]]


def pd(position: tuple[float, ...], kp: float = 60.0, kd: float = 3.0) -> Setpoint:
    return Setpoint(Mode.PD, position, ZEROS, ZEROS, (kp,) * 12, (kd,) * 12)


@pytest.fixture(scope="module")
def connected(robot: Robot) -> Iterator[UnitreeDriver]:
    made = robot.driver(ramp_s=0.3)
    made.connect()
    yield made
    made.close()


@pytest.fixture
def driver(robot: Robot, connected: UnitreeDriver) -> UnitreeDriver:
    """Connected to the robot, which lies there, and configured."""
    connected.reset()
    connected.configure({})
    connected.place(LYING)
    robot.since_ns = monotonic_ns()
    return connected


@pytest.fixture
def strict_driver(strict: Robot) -> Iterator[UnitreeDriver]:
    """Connected to it, and configured."""
    made = strict.driver()
    made.connect()
    made.configure({})
    strict.since_ns = monotonic_ns()
    yield made
    made.close()


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts a robot with options of its own, and a driver for it, connected and configured."""
    with ExitStack() as running:

        def make(*options: str, **told: Any) -> tuple[Robot, UnitreeDriver]:
            robot = Robot(tmp_path, *options)
            running.callback(robot.end)
            driver = robot.driver(**told)
            running.callback(driver.close)
            driver.connect()
            driver.configure({})
            return robot, driver

        yield make


def drive(
    driver: UnitreeDriver, setpoint: Callable[[float], Setpoint], seconds: float
) -> Measurement:
    """Reads and writes, as a bridge would, for so many states of the robot.

    Args:
        setpoint: by the time since then, as the states count it; a busy machine may be slower.
    """
    for count in range(round(seconds * 500)):
        measured = driver.read(soon())
        driver.write(setpoint(count / 500), soon())
    return measured


def stand_up(driver: UnitreeDriver, robot: Robot) -> None:
    """From where it is, over a second; then until it says that it stands."""
    first = driver.read(0).position
    end = monotonic() + PATIENCE_S

    def on_the_way(seconds: float) -> Setpoint:
        share = min(1.0, seconds)
        return pd(tuple(f + (s - f) * share for f, s in zip(first, STANDING, strict=True)))

    drive(driver, on_the_way, 1.0)
    while not robot.events("standing"):
        assert monotonic() < end, robot.events()
        drive(driver, lambda _: pd(STANDING), 0.05)


# What is known without a robot.


def test_it_is_described_without_dds_and_connecting_says_what_to_install() -> None:
    code = """
import sys
sys.modules["cyclonedds"] = None
from safetypilot.bridge import registry
from safetypilot.bridge.contract import DriverError
driver = registry.create("unitree")
print([joint.name for joint in driver.description.joints][:3])
try:
    driver.connect()
except DriverError as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.stderr == ""
    assert "['FR_hip_joint', 'FR_thigh_joint', 'FR_calf_joint']" in done.stdout
    assert "pip install 'safetypilot[dds]'" in done.stdout


def test_only_what_is_simulated_has_a_watchdog() -> None:
    here, there = (registry.describe("unitree", {"interface": name}) for name in ("lo", "eth9"))
    assert (here.simulated, here.watchdog_s) == (True, 0.05)
    assert (there.simulated, there.watchdog_s) == (False, None)
    assert registry.describe("unitree", {"watchdog_s": 0}).watchdog_s is None
    assert registry.describe("unitree", {"watchdog_s": 0.2, "interface": "eth9"}).watchdog_s == 0.2


def test_joints_and_sensors_of_both_families() -> None:
    go2, g1 = (registry.describe("unitree", {"robot": name}) for name in ("go2", "g1"))
    assert (go2.joints, g1.joints) == (GO2.joints, G1.joints)
    assert set(go2.sensors) - set(g1.sensors) == {"foot_force"}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"robot": "go3"}, "robot is 'go3'; it is one of go2, g1"),
        ({"rest": "hold"}, "rest is 'hold'"),
        ({"domain": "0"}, "domain is '0'"),
        ({"rate_hz": math.nan}, "rate_hz is nan"),
        ({"ramp_s": -1}, "ramp_s is -1"),
        ({"interface": "eth0", "device": ""}, "only started on interface lo"),
    ],
)
def test_options_that_will_not_do(options: dict[str, Any], words: str) -> None:
    with pytest.raises(DriverError, match=words.replace("'", ".")):
        registry.create("unitree", options)


def test_a_robot_s_domain_is_not_opened_with_types_it_does_not_know(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    opened: list[object] = []
    monkeypatch.setattr(unitree_link, "Bus", lambda *given: opened.append(given))
    monkeypatch.setitem(unitree_types.DIGESTS, GO2.family.state.name, ("0" * 12, "0" * 12))
    driver = UnitreeDriver(UnitreeOptions(domain=0, interface="lo"))
    with pytest.raises(DriverError, match="nothing was sent"):
        driver.connect()
    assert opened == []


def test_nobody_answers() -> None:
    driver = UnitreeDriver(UnitreeOptions(domain=free_domain(), connect_s=0.2))
    with pytest.raises(DriverError, match=r"no go2 answered on domain \d+ of lo within 0.2 s"):
        driver.connect()
    driver.close()
    driver.close()


def test_calls_without_a_connection_say_so() -> None:
    driver = UnitreeDriver(UnitreeOptions())
    driver.estop("from nowhere")
    for call in (lambda: driver.read(0), lambda: driver.activate(Mode.PD), driver.reset):
        with pytest.raises(DriverError):
            call()
    driver.close()


# Identity, configuration, watchdog.


@integration
def test_who_the_robot_is(start: Start) -> None:
    _, driver = start("--serial", "4711")
    driver.close()
    assert driver.connect() == {
        "model": "go2", "serial": "6712000000000000", "firmware": "1.0",
    }  # fmt: skip
    assert driver.configure({})["joints"] == [joint.name for joint in GO2.joints]
    with pytest.raises(DriverError, match="calibrates itself"):
        driver.configure({"offset": 1})


@integration
def test_the_robot_s_watchdog_is_seen_to_act(strict: Robot, strict_driver: UnitreeDriver) -> None:
    seen = strict_driver.check_watchdog()
    assert "damped by itself" in seen
    event = strict.wait_for("damping")
    assert event["cause"] == "silence"
    assert strict_driver.activate(Mode.PD).faults == ()


@integration
def test_a_watchdog_that_does_not_act(start: Start) -> None:
    _, driver = start("--timeout", "1000")
    with pytest.raises(DriverError, match=r"still obeyed it; its watchdog was declared"):
        driver.check_watchdog()


@integration
def test_where_there_is_no_watchdog_none_is_seen(strict: Robot) -> None:
    strict.since_ns = monotonic_ns()
    driver = strict.driver(watchdog_s=0)
    driver.connect()
    driver.configure({})
    assert driver.check_watchdog() == ""
    driver.close()
    assert not strict.events("recovered", "taken over")


# At work.


@integration
def test_it_stands_up_holds_and_lies_down(robot: Robot, driver: UnitreeDriver) -> None:
    first = driver.activate(Mode.PD)
    assert first.fresh
    stand_up(driver, robot)
    measured = drive(driver, lambda _: pd(STANDING), 0.3)
    assert measured.faults == ()
    assert measured.sensors["orientation"][0] == pytest.approx(1.0, abs=0.01)
    assert sum(measured.sensors["foot_force"]) == pytest.approx(150, abs=50)
    driver.deactivate()
    robot.wait_for("lying")  # damped all the way, and not fallen
    assert not robot.events("fell")
    assert robot.wait_for("damping")["cause"] == "commanded"
    with pytest.raises(DriverError, match="not active"):
        driver.write(pd(STANDING), soon())


@integration
def test_joints_are_commanded_by_name(driver: UnitreeDriver) -> None:
    """One joint after the other is moved a little, and no other one is."""
    driver.activate(Mode.PD)
    rest = drive(driver, lambda _: pd(ZEROS, kp=0.0), 0.2).position

    def go(target: tuple[float, ...], index: int) -> tuple[float, ...]:
        end = monotonic() + PATIENCE_S
        while True:
            position = drive(driver, lambda _: pd(target, kp=150.0), 0.05).position
            if abs(position[index] - target[index]) < 0.05:
                return tuple(abs(q - r) for q, r in zip(position, rest, strict=True))
            assert monotonic() < end, (index, position, target)

    for index in (0, 3, 6, 9):  # hips, which may turn outwards where it lies
        outwards = -0.15 if GO2.joints[index].name.startswith(("FR", "RR")) else 0.15
        changes = go(tuple(q + outwards * (i == index) for i, q in enumerate(rest)), index)
        assert changes[index] > 0.1
        assert sorted(changes)[-2] < 0.05, (index, changes)
        go(rest, index)


@integration
def test_effort_alone(driver: UnitreeDriver) -> None:
    driver.activate(Mode.EFFORT)
    effort = (0.5, -0.5, 0.25) * 4
    measured = drive(driver, lambda _: Setpoint(Mode.EFFORT, effort=effort), 0.2)
    assert measured.effort == pytest.approx(effort)
    driver.deactivate()


@integration
def test_states_are_new_once(driver: UnitreeDriver) -> None:
    first = driver.read(soon())
    assert first.fresh
    again = driver.read(0)
    for _ in range(100):
        if not again.fresh:
            break
        again = driver.read(0)  # one came in between
    assert not again.fresh
    later = driver.read(soon())
    assert later.fresh
    assert later.seq > first.seq
    assert later.device_ns > first.device_ns
    assert first.received_ns <= later.received_ns <= monotonic_ns()


@integration
def test_what_is_no_setpoint_is_not_sent(robot: Robot, driver: UnitreeDriver) -> None:
    driver.activate(Mode.PD)
    good = pd(ZEROS, kp=0.0)
    bad = [
        good._replace(position=(*ZEROS[1:], math.nan)),
        good._replace(effort=(math.inf, *ZEROS[1:])),
        good._replace(kp=ZEROS[1:]),
        good._replace(kd=(-1.0, *ZEROS[1:])),
        good._replace(velocity=(1e39, *ZEROS[1:])),
        good._replace(velocity=("1", *ZEROS[1:])),
        Setpoint(Mode.EFFORT, effort=ZEROS),
        Setpoint(Mode.PD),
    ]
    for setpoint in bad:
        with pytest.raises(DriverError):
            driver.write(setpoint, soon())
    with pytest.raises(DriverError, match="after its deadline"):
        driver.write(good, monotonic_ns())
    driver.write(good, soon())
    assert not robot.events("refused")


@integration
def test_writing_waits_for_nobody(start: Start) -> None:
    """The robot stands still; a thousand commands go out all the same, and none of them is kept."""
    robot, driver = start()
    driver.activate(Mode.PD)
    robot.freeze()
    begun = monotonic()
    for _ in range(1000):
        driver.write(pd(ZEROS, kp=0.0), soon())
    assert monotonic() - begun < 5.0  # 1000 times the network's 100 ms would be more
    robot.thaw()
    sleep(0.3)
    assert robot.end() == 0
    assert robot.events("ended")[0]["accepted"] < 200  # what its own socket held


@integration
def test_it_is_placed_where_an_episode_begins(robot: Robot, driver: UnitreeDriver) -> None:
    pose = (0.1, 1.2, -2.3) * 4
    driver.place(STANDING)  # obeys nobody yet
    assert driver.read(soon()).position == pytest.approx(STANDING, abs=0.05)
    driver.activate(Mode.PD)
    stand_up(driver, robot)
    driver.place(pose)
    measured = driver.read(soon())
    assert measured.position == pytest.approx(pose, abs=0.05)
    assert measured.faults == ()
    driver.write(pd(pose), soon())
    with pytest.raises(DriverError, match="not placed"):
        driver.place((9.0,) * 12)
    assert [event["event"] for event in robot.events("placed")] == ["placed"] * 2
    assert robot.events("refused")[0]["cause"] == "place range"


def test_a_real_robot_is_not_placed() -> None:
    assert not hasattr(UnitreeDriver(UnitreeOptions(interface="eth9")), "place")


# How it ends.


@integration
def test_an_e_stop_from_a_signal_during_a_blocked_read(robot: Robot, driver: UnitreeDriver) -> None:
    driver.activate(Mode.PD)
    stand_up(driver, robot)
    robot.freeze()  # nothing comes any more
    before = signal.signal(signal.SIGUSR1, lambda *_: driver.estop("a signal"))
    try:
        timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        begun = monotonic()
        driver.read(0)
        while driver.read(soon(0.5)).fresh:
            pass
        timer.join()
        assert driver._stopped == "a signal"
        assert monotonic() - begun < PATIENCE_S
    finally:
        signal.signal(signal.SIGUSR1, before)
        robot.thaw()
    with pytest.raises(DriverError, match="e-stopped"):
        driver.write(pd(STANDING), soon())
    event = robot.wait_for("damping")
    assert event["cause"] in ("commanded", "silence")


@integration
def test_after_an_e_stop_only_damping_goes_out_until_reset(
    robot: Robot, driver: UnitreeDriver
) -> None:
    driver.activate(Mode.PD)
    stand_up(driver, robot)
    stopped_ns = monotonic_ns()
    threads = [threading.Thread(target=driver.estop, args=(f"{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    driver.estop("again")
    event = robot.wait_for("damping")
    assert event["at_ns"] > stopped_ns
    assert event["cause"] == "commanded"
    for _ in range(50):
        driver.read(soon())  # repeats it
        with pytest.raises(DriverError, match="e-stopped"):
            driver.write(pd(STANDING), soon())
        with pytest.raises(DriverError, match="e-stopped"):
            driver.activate(Mode.PD)
    robot.wait_for("lying")
    assert len(robot.events("active")) == 1
    driver.reset()
    with pytest.raises(DriverError, match="not active"):
        driver.write(pd(STANDING), soon())
    driver.configure({})
    driver.activate(Mode.PD)
    stand_up(driver, robot)


@integration
def test_the_remote_controller_s_e_stop_is_a_fault(start: Start, tmp_path: Path) -> None:
    remote = tmp_path / "remote.json"
    remote.write_text(json.dumps([{"at_s": 0, "buttons": ["L2", "B"], "duration_s": 1e9}]))
    _, driver = start("--remote", str(remote))
    measured = driver.read(soon())
    assert measured.faults == ("the remote controller says stop (L2+B)",)
    assert measured.sensors["buttons"] == (0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0, 0)
    with pytest.raises(DriverError, match=r"not healthy.*L2\+B"):
        driver.activate(Mode.PD)


@integration
def test_a_driver_that_hangs_finds_the_robot_damped(
    strict: Robot, strict_driver: UnitreeDriver
) -> None:
    strict_driver.activate(Mode.PD)
    drive(strict_driver, lambda _: pd(ZEROS, kp=1.0), 0.1)
    strict.wait_for("damping")
    until(lambda: strict_driver.read(soon()).faults != (), lambda: "no fault")
    fault = strict_driver.read(soon()).faults[0]
    assert fault.startswith("motors obey no more: FR_hip_joint (mode 0), ")


@integration
def test_who_drives_is_killed_and_the_robot_damps(strict: Robot) -> None:
    strict.since_ns = monotonic_ns()
    client = subprocess.Popen(
        [sys.executable, "-P", "-c", CLIENT, str(Path(__file__).parent), str(strict.domain)]
    )
    try:
        active = strict.wait_for("active")
        sleep(0.1)
    finally:
        killed_ns = monotonic_ns()
        client.send_signal(signal.SIGKILL)
        client.wait()
    strict.check_silence_after(active, killed_ns)


CLIENT = """
import sys
sys.path.append(sys.argv[1])
from test_unitree_driver import *
driver = UnitreeDriver(UnitreeOptions(domain=int(sys.argv[2]), connect_s=PATIENCE_S))
driver.connect()
driver.configure({})
driver.activate(Mode.PD)
drive(driver, lambda _: pd(STANDING, kp=1.0), 1000.0)
"""


@integration
@pytest.mark.slow
def test_a_robot_that_was_restarted_is_found_again(start: Start, tmp_path: Path) -> None:
    robot, driver = start()
    driver.activate(Mode.PD)
    robot.process.kill()
    robot.process.communicate()
    with pytest.raises(DriverError, match="has been silent"):
        while True:
            driver.read(soon(0.1))
    driver.estop("the bridge's fault")
    second = Robot(tmp_path, domain=robot.domain)
    try:
        end = monotonic() + PATIENCE_S
        while True:
            try:
                driver.reset()
                break
            except DriverError:
                assert monotonic() < end
        driver.configure({})
        assert driver.activate(Mode.PD).faults == ()
    finally:
        second.end()


@integration
@pytest.mark.slow
def test_two_robots_are_one_too_many(start: Start, tmp_path: Path) -> None:
    robot, driver = start()
    driver.close()
    folder = tmp_path / "second"
    folder.mkdir()
    second = Robot(folder, domain=robot.domain)
    try:
        sleep(0.5)  # both are known by then, or the first answer is taken for the only one
        with pytest.raises(DriverError, match="2 robots publish"):
            for _ in range(20):
                driver.connect()
                driver.close()
    finally:
        second.end()
        driver.close()


@integration
def test_somebody_else_who_commands_is_a_fault(robot: Robot, driver: UnitreeDriver) -> None:
    driver.activate(Mode.PD)
    stranger = subprocess.Popen(
        [sys.executable, "-P", "-c", STRANGER, str(Path(__file__).parent), str(robot.domain)]
    )
    try:
        end = monotonic() + PATIENCE_S
        while True:
            measured = driver.read(soon())
            if measured.faults:
                break
            driver.write(pd(ZEROS, kp=0.0), soon())
            assert monotonic() < end
        assert measured.faults == ("somebody else commands the robot",)
        assert driver.counters["foreign_commands"] > 0
    finally:
        stranger.kill()
        stranger.wait()


STRANGER = """
import sys
sys.path.append(sys.argv[1])
from unitree_rig import Commander
me = Commander(int(sys.argv[2]))
me.stream(lambda state: False)
"""


@integration
def test_the_driver_starts_a_robot_and_ends_it() -> None:
    driver = UnitreeDriver(
        UnitreeOptions(domain=free_domain(), device="--serial 7", connect_s=PATIENCE_S)
    )
    for _ in range(2):
        assert driver.connect()["serial"].startswith("07")
        process = driver._child._process
        driver.close()
        assert process.poll() is not None


@integration
def test_a_robot_that_does_not_start_says_why() -> None:
    driver = UnitreeDriver(UnitreeOptions(domain=free_domain(), device="--disturb /nonexistent"))
    with pytest.raises(DriverError, match="simulated quadruped did not start: /nonexistent"):
        driver.connect()
    driver.close()
