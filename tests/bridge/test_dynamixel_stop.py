"""What stops a Dynamixel chain: its own watchdogs, and the e-stop."""

from __future__ import annotations

import threading
from time import monotonic, monotonic_ns, sleep
from typing import Any

import pytest

pytest.importorskip("dynamixel_sdk")

from dynamixel_rig import JOINTS, Rig, cycle, driving, goal, soon, until, working

from safetypilot.bridge.contract import DriverError, Mode, Setpoint
from safetypilot.bridge.drivers.dynamixel import DynamixelDriver
from safetypilot.bridge.protocols.dynamixel_table import (
    WATCHDOG_EXPIRED,
)

# Watchdog.


def test_the_watchdog_is_provoked_without_moving_anything() -> None:
    with Rig() as rig, driving(rig) as driver:
        with rig.lock:
            rig.angles[:] = [1.0, -1.0]  # its goals are elsewhere
        before = [dict(motor.values) for motor in rig.motors]
        assert "expired" in driver.check_watchdog()
        stopped = [event for event in rig.events if event["event"] == "damping"]
        assert {event["motor"] for event in stopped} == {1, 2}
        assert rig.angles == [1.0, -1.0]
        for motor, then in zip(rig.motors, before, strict=True):
            for name in ("torque_enable", "bus_watchdog", "goal_pwm", "operating_mode"):
                assert motor.values[name] == then[name]
        assert driver.counters["refused"] == 0


def test_the_watchdog_of_an_arm_that_holds_is_provoked_without_letting_go() -> None:
    with working() as (rig, driver):
        driver.deactivate()
        rig.events.clear()
        assert driver.check_watchdog()
        assert not any(event["event"] == "limp" for event in rig.events)
        assert all(rig.values(joint)["torque_enable"] for joint in JOINTS)
        driver.activate(Mode.POSITION)


def test_a_watchdog_that_does_not_act_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    with Rig() as rig, driving(rig) as driver:
        monkeypatch.setattr(rig.motors[1], "watch", lambda now_ns: None)
        with pytest.raises(DriverError, match=r"'elbow'.*did not expire"):
            driver.check_watchdog()
        assert not any(rig.values(joint)["torque_enable"] for joint in JOINTS)


def test_silence_stops_the_arm_and_is_reported() -> None:
    with working() as (rig, driver):
        cycle(driver, goal(1.0, 0.0), 0.05)
        heard_ns = monotonic_ns()
        until(lambda: any(event["event"] == "damping" for event in rig.events))
        event = next(event for event in rig.events if event["event"] == "damping")
        assert event["cause"] == "silence"
        assert 0.18 < event["after_s"] and event["at_ns"] > heard_ns
        for _ in range(5):  # it is asked for at once
            measured = driver.read(soon())
        assert "watchdog has stopped it" in measured.faults[0]
        at = list(rig.angles)
        driver.write(goal(0.0, 0.0), soon())  # goals are refused by now
        sleep(0.1)
        assert rig.angles == pytest.approx(at, abs=0.02)
        driver.estop("as the bridge does")
        driver.reset()
        driver.configure(driver.calibration())
        driver.activate(Mode.POSITION)
        assert not cycle(driver, goal(*rig.angles), 0.1).faults


# E-stop.


def stop_seen(rig: Rig) -> bool:
    return all(rig.values(joint)["bus_watchdog"] == WATCHDOG_EXPIRED for joint in JOINTS)


@pytest.mark.parametrize("mode", [Mode.POSITION, Mode.VELOCITY])
def test_an_estop_holds_and_is_latched_in_the_motors(mode: Mode) -> None:
    with working(mode) as (rig, driver):
        cycle(driver, Setpoint(mode, (1.5, -1.5), (1.5, -1.5)), 0.1)
        driver.estop("test")
        driver.estop("test again")
        until(lambda: stop_seen(rig), lambda: driver.read(soon()))
        sleep(0.15)
        at = list(rig.angles)
        with pytest.raises(DriverError, match=r"stopped \(test\)"):
            driver.write(Setpoint(mode, (0.0, 0.0), (1.0, 1.0)), soon())
        for call in (
            lambda: driver.activate(mode),
            lambda: driver.configure({}),
            driver.check_watchdog,
        ):
            with pytest.raises(DriverError):
                call()
        sleep(0.1)
        assert rig.angles == pytest.approx(at, abs=0.02)
        assert all(rig.values(joint)["torque_enable"] for joint in JOINTS)
        driver.reset()
        assert not any(rig.values(joint)["bus_watchdog"] for joint in JOINTS)
        sleep(0.1)
        assert rig.angles == pytest.approx(at, abs=0.02)
        with pytest.raises(DriverError, match="before it is configured"):
            driver.activate(mode)


def test_an_estop_sends_back_and_is_followed_by_silence() -> None:
    with working() as (rig, driver):
        cycle(driver, goal(1.5, -0.4), 0.1)
        before = len(rig.heard)
        driver.estop("test")
        until(lambda: len(rig.heard) > before)
        sleep(0.005)
        sent = bytes(rig.heard[before:])
        assert b"\xfe\x11\x00\x83\x74\0\4\0" in sent and b"\xfe\x0b\0\x83\x62\0\1\0" in sent
        assert not driver.read(monotonic_ns() + 10_000_000).fresh
        assert bytes(rig.heard[before:]) == sent


def test_a_stop_while_nothing_moves_needs_a_reset_too() -> None:
    with Rig() as rig, driving(rig) as driver:
        own = driver.calibration()
        driver.estop("test")
        for call in (lambda: driver.configure(own), driver.check_watchdog):
            with pytest.raises(DriverError, match="reset it first"):
                call()
        driver.reset()
        driver.configure(own)


def test_an_estop_lets_go_where_that_is_wanted() -> None:
    with working(failsafe="torque off") as (rig, driver):
        driver.estop("test")
        until(lambda: not any(rig.values(joint)["torque_enable"] for joint in JOINTS))


def test_an_estop_is_sent_again_until_it_is_seen_to_work() -> None:
    with working() as (rig, driver):
        rig.deaf = True
        driver.estop("the first is lost")
        sleep(0.12)
        rig.deaf = False
        until(lambda: stop_seen(rig), lambda: driver.read(soon()))


def test_an_estop_from_another_thread_does_not_wait_for_a_read() -> None:
    with working(answer_s=5.0) as (rig, driver):
        rig.deaf = True
        took: list[float] = []

        def stop() -> None:
            sleep(0.1)
            rig.deaf = False
            since = monotonic()
            driver.estop("thread")
            took.append(monotonic() - since)

        thread = threading.Thread(target=stop)
        thread.start()
        since = monotonic()
        driver.read(monotonic_ns() + 600_000_000)
        assert monotonic() - since > 0.5
        thread.join()
        assert took[0] < 0.3
        assert stop_seen(rig), "it is on the wire while the read waits"


def test_a_goal_that_races_with_an_estop_has_not_the_last_word() -> None:
    with working() as (rig, driver):
        chain = driver._chain
        assert chain is not None
        send = chain._send

        def slow(*args: Any) -> None:
            chain._send = send  # type: ignore[method-assign]
            driver.estop("in the middle of a write")
            send(*args)

        chain._send = slow  # type: ignore[method-assign]
        with pytest.raises(DriverError, match="stopped"):
            driver.write(goal(1.5, 1.5), soon())
        until(lambda: stop_seen(rig))
        assert abs(rig.angles[0] - 0.3) < 0.2


def test_estop_and_close_are_safe_at_any_time() -> None:
    driver = DynamixelDriver()
    driver.estop("not connected")
    driver.close()
    with working() as (_, active):
        active.close()
        active.close()
        active.estop("closed")
