"""The ROS 2 driver and a bare peer: what it believes, whom it obeys, what goes out, by bytes."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from time import monotonic_ns, sleep, time_ns
from typing import Any

import pytest

pytest.importorskip("cyclonedds")

from ros2_rig import LATER, Peer, driver, free_domain, fresh, soon, until

from safetypilot.bridge.contract import DriverError, Failsafe, Mode, Setpoint
from safetypilot.bridge.drivers.ros2 import Ros2Driver
from safetypilot.bridge.drivers.ros2_options import Ros2Options
from safetypilot.bridge.protocols import ros2

HERE: dict[str, Any] = {"names": ["shoulder", "elbow"], "position": [0.1, -0.2],
                        "velocity": [0.0, 0.0], "effort": [1.0, 2.0]}  # fmt: skip
TURNED: dict[str, Any] = {"names": ["elbow", "gripper", "shoulder"], "position": [-0.2, 9.0, 0.1],
                          "velocity": [0.0, 9.0, 0.0], "effort": [2.0, 9.0, 1.0]}  # fmt: skip


@pytest.fixture(scope="module")
def domain() -> int:
    return free_domain()


@pytest.fixture
def peer(domain: int) -> Iterator[Peer]:
    made = Peer(domain, "states", "commands")
    made.repeat(HERE)
    yield made
    made.end()


@pytest.fixture
def opened(domain: int) -> Iterator[Ros2Driver]:
    made = driver(domain)
    yield made
    made.close()


def active(driver: Ros2Driver) -> Ros2Driver:
    driver.connect()
    driver.configure({})
    driver.activate(Mode.POSITION)
    return driver


def test_joints_come_by_name_and_commands_go_out_in_the_controllers_order(
    peer: Peer, opened: Ros2Driver
) -> None:
    identity = opened.connect()
    assert identity["model"] == "ros2_control" and all(identity.values())
    opened.configure({})
    start = opened.activate(Mode.POSITION)
    assert start.position == (0.1, -0.2) and start.effort == (1.0, 2.0)
    until(lambda: peer.heard)
    encode = ros2.Commands(2).write
    assert peer.heard[0] == encode((0.1, -0.2))  # first of all it is told to stay
    peer.repeat(TURNED)
    for _ in range(5):
        measured = fresh(opened)
        assert measured.position == (0.1, -0.2) and measured.effort == (1.0, 2.0)
        assert measured.faults == ()
    assert measured.device_ns < time_ns() and measured.received_ns < monotonic_ns()
    opened.write(Setpoint(Mode.POSITION, (0.5, 0.25)), LATER)
    until(lambda: peer.heard[-1] == encode((0.5, 0.25)))
    opened.deactivate()
    with pytest.raises(DriverError, match="not active"):
        opened.write(Setpoint(Mode.POSITION, (0.5, 0.25)), LATER)
    assert opened.check_watchdog() == ""


def test_what_may_not_go_out_is_refused_and_an_estop_holds_the_robot_where_it_is(
    peer: Peer, opened: Ros2Driver
) -> None:
    active(opened)
    until(lambda: peer.heard)
    count = len(peer.heard)
    for position in ((float("nan"), 0.0), (0.0, float("inf")), (0.0,), (), (1e12, 0.0)):
        with pytest.raises(DriverError):
            opened.write(Setpoint(Mode.POSITION, position), LATER)
    with pytest.raises(DriverError, match="deadline"):
        opened.write(Setpoint(Mode.POSITION, (0.0, 0.0)), 0)
    with pytest.raises(DriverError, match="effort"):
        opened.write(Setpoint(Mode.EFFORT, effort=(0.0, 0.0)), LATER)
    peer.repeat({**HERE, "position": [0.4, 0.3]})
    while fresh(opened).position != (0.4, 0.3):
        pass
    assert len(peer.heard) == count
    opened.estop("hand")
    opened.estop("again")
    until(lambda: len(peer.heard) > count)
    assert peer.heard[-1] == ros2.Commands(2).write((0.4, 0.3))
    with pytest.raises(DriverError, match="hand"):
        opened.write(Setpoint(Mode.POSITION, (0.0, 0.0)), LATER)
    with pytest.raises(DriverError, match="hand"):
        opened.activate(Mode.POSITION)
    opened.reset()
    with pytest.raises(DriverError, match="configure"):
        opened.activate(Mode.POSITION)


def test_a_joint_that_is_missing_is_a_fault_and_others_are_not_believed(
    peer: Peer, opened: Ros2Driver, domain: int
) -> None:
    active(opened)
    fresh(opened)
    liar = Peer(domain, "states")
    try:
        liar.repeat({**HERE, "position": [9.0, 9.0]})
        until(lambda: fresh(opened).position == (0.1, -0.2) and opened.counters["foreign"] > 3)
    finally:
        liar.end()
    peer.repeat({"names": ["shoulder"], "position": [0.1], "velocity": [0.0]})
    until(lambda: opened.read(soon()).faults)
    told = opened.read(monotonic_ns())
    assert "no elbow" in told.faults[0] and not told.fresh
    assert opened.counters["refused"] > 0
    peer.repeat(HERE)
    until(lambda: not opened.read(soon()).faults)


def test_what_comes_late_or_twice_is_dropped_and_velocities_are_made_up_where_there_are_none(
    peer: Peer, opened: Ros2Driver
) -> None:
    active(opened)
    peer.repeat(None)
    while opened.read(monotonic_ns() + 50_000_000).fresh:
        pass
    last = opened.read(monotonic_ns())
    for stamp in (last.device_ns, last.device_ns - 10**9):
        peer.tell(state={**HERE, "stamp": stamp, "position": [0.9, 0.9]})
    until(lambda: not opened.read(monotonic_ns()).fresh and opened.counters["late"] == 2)
    assert opened.read(monotonic_ns()).position == (0.1, -0.2)
    for velocity in ([], [float("nan")] * 2):
        before = opened.read(monotonic_ns())
        moved = {"names": HERE["names"], "position": [before.position[0] + 0.02, -0.2],
                 "velocity": velocity, "stamp": before.device_ns + 10_000_000}  # fmt: skip
        peer.tell(state=moved)
        found = fresh(opened)
        assert found.velocity == pytest.approx((2.0, 0.0))
        assert found.effort == (0.0, 0.0) and found.seq == before.seq + 1


def test_another_commander_is_a_fault_and_a_controller_that_leaves_is_an_error(
    peer: Peer, opened: Ros2Driver, domain: int
) -> None:
    active(opened)
    rival = Peer(domain, "rival")
    try:
        until(lambda: opened.read(soon()).faults)
        assert "publish /forward_position_controller/commands" in opened.read(soon()).faults[0]
        opened.deactivate()
        with pytest.raises(DriverError, match="1 others publish"):
            opened.activate(Mode.POSITION)
    finally:
        rival.end()
    until(lambda: not opened.read(soon()).faults)
    opened.activate(Mode.POSITION)
    peer.tell(close="commands")
    with pytest.raises(DriverError, match="no controller listens"):
        until(lambda: opened.read(soon()) and False)


def test_a_robot_that_falls_silent_is_told(peer: Peer, domain: int) -> None:
    silent = driver(domain, silence_s=0.2)
    try:
        active(silent)
        peer.repeat(None)
        with pytest.raises(DriverError, match=r"silent for 0\.2 s"):
            until(lambda: silent.read(monotonic_ns() + 10_000_000) and False)
        for call in (silent.reset, silent.deactivate):
            with pytest.raises(DriverError, match="gone silent"):
                call()
    finally:
        silent.close()


@pytest.mark.parametrize(("ends", "state", "told"), [
    ((), None, "/joint_states: nobody publishes it"),
    (("states",), HERE, "no controller listens to /forward_position_controller/commands"),
    pytest.param(("states", "commands"), None, "/joint_states: no message came",
                 marks=pytest.mark.slow),
    pytest.param(("states", "commands"), {**HERE, "names": ["shoulder", "wrist"]}, "no elbow",
                 marks=pytest.mark.slow),
])  # fmt: skip
def test_a_robot_that_is_not_there_is_told_for_what_is_missing(
    domain: int, ends: tuple[str, ...], state: Any, told: str
) -> None:
    peer = Peer(domain, *ends)
    lonely = driver(domain, connect_s=1.5 if ends else 0.3)
    try:
        peer.repeat(state)
        with pytest.raises(DriverError, match=told):
            lonely.connect()
        lonely.close()
    finally:
        peer.end()


def test_what_it_declares_and_refuses_while_nothing_is_connected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for controller in ("position", "velocity", "effort", "trajectory"):
        told = Ros2Driver(Ros2Options(controller=controller)).description
        assert told.watchdog_s is None and len(told.modes) == 1
        assert told.failsafes == (
            (Failsafe.TORQUE_OFF,) if controller == "effort" else (Failsafe.HOLD,)
        )
    assert Ros2Options(controller="velocity").commands_topic == (
        "/forward_velocity_controller/commands"
    )
    cases: list[tuple[dict[str, Any], str]] = [
        ({"controller": "dance"}, "dance"), ({"domain": "0"}, "domain is '0'"),
        ({"rate_hz": 0.0}, "rate_hz"), ({"joints": {}}, "joints"),
        ({"joints": {"a": {"hihg": 1}}}, "hihg"), ({"horizon_s": -1.0}, "horizon_s"),
        ({"watchdog_s": float("inf")}, "watchdog_s"), ({"model": ""}, "model"),
    ]  # fmt: skip
    for options, why in cases:
        with pytest.raises(DriverError, match=why):
            Ros2Driver(Ros2Options(**options))
    for options, why in (({"states": "joint_states"}, "full name"), ({"domain": 999}, "999")):
        with pytest.raises(DriverError, match=why):
            Ros2Driver(Ros2Options(**options)).connect()
    lost = Ros2Driver(Ros2Options())
    lost.close()
    lost.estop("before it is connected")
    for call in (lambda: lost.configure({}), lambda: lost.read(0), lost.deactivate, lost.reset,
                 lost.check_watchdog):  # fmt: skip
        with pytest.raises(DriverError):
            call()
    monkeypatch.setitem(sys.modules, "cyclonedds", None)
    with pytest.raises(DriverError, match=r"safetypilot\[dds\]"):
        lost.connect()


def test_reading_waits_until_its_deadline_and_not_longer(peer: Peer, opened: Ros2Driver) -> None:
    active(opened)
    peer.repeat(None)
    while opened.read(monotonic_ns() + 50_000_000).fresh:
        pass
    deadline_ns = monotonic_ns() + 30_000_000
    assert not opened.read(deadline_ns).fresh
    assert monotonic_ns() >= deadline_ns
    peer.repeat(HERE)
    sleep(0.05)
    assert opened.read(monotonic_ns()).fresh  # what has come does not wait
