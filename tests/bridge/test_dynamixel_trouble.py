"""The Dynamixel driver when answers are damaged, late or missing, and motors complain."""

from __future__ import annotations

from pathlib import Path
from time import monotonic, monotonic_ns, sleep

import numpy as np
import pytest

pytest.importorskip("dynamixel_sdk")

from dynamixel_rig import JOINTS, PATIENCE_S, Rig, cycle, driving, goal, soon, until, working

from safetypilot.bridge.contract import DriverError, Mode
from safetypilot.bridge.devices import dynamixel_bus
from safetypilot.bridge.devices.dynamixel_bus import Trouble
from safetypilot.bridge.drivers.dynamixel import DynamixelDriver, DynamixelOptions
from safetypilot.bridge.lifecycle import Lifecycle, State
from safetypilot.bridge.protocols import dynamixel as wire
from safetypilot.bridge.protocols.dynamixel_table import WATCHDOG_EXPIRED

# Trouble on the wire.


@pytest.mark.parametrize(
    ("trouble", "counter"),
    [
        (Trouble(corrupt=0.15), "damaged"),
        (Trouble(drop=0.15), "missed"),
        (Trouble(late=0.15), "late"),
        (Trouble(split=0.5), ""),
        (Trouble(corrupt=0.05, drop=0.05, late=0.05, split=0.2), "missed"),
    ],
)
def test_bad_answers_are_counted_and_never_believed(trouble: Trouble, counter: str) -> None:
    with working(watchdog_s=2.0) as (rig, driver):
        rig.bus._trouble = trouble
        fresh, before = 0, driver.read(soon())
        for step in range(150):
            measured = driver.read(monotonic_ns() + 8_000_000)
            driver.write(goal(0.3 + 0.004 * step, -0.4), soon())
            if measured.fresh:
                fresh += 1
                assert measured.seq > before.seq
                assert abs(measured.position[1] + 0.4) < 0.05
                assert measured.position[0] > before.position[0] - 0.02
                before = measured
            sleep(0.002)
        assert fresh > 15
        assert abs(rig.angles[0] - 0.9) < 0.25
        assert not counter or driver.counters[counter] > 0


def test_a_chain_is_set_up_over_a_bad_wire() -> None:
    trouble = Trouble(corrupt=0.05, late=0.05, drop=0.05, split=0.2)
    with Rig(trouble=trouble, seed=1) as rig, driving(rig, ramp_s=0.04, watchdog_s=2.0) as driver:
        assert driver.check_watchdog()
        driver.activate(Mode.POSITION)
        driver.deactivate()
        assert all(rig.values(joint)["torque_enable"] for joint in JOINTS)
        assert driver.counters["missed"] > 0


def test_a_late_answer_is_not_taken_for_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dynamixel_bus, "_LATE_S", (0.035, 0.035))  # the next question is open then
    with Rig() as rig, driving(rig) as driver:
        chain = driver._chain
        assert chain is not None
        monkeypatch.setattr(driver._state.health, "due", lambda alerts, now_ns: "")
        rig.bus._trouble = Trouble(late=1.0)
        since: list[tuple[int, float]] = []
        for angle in np.arange(0.0, 0.8, 0.02).tolist():
            with rig.lock:
                rig.angles[1] = angle
                rig._step()
            since.append((monotonic_ns(), angle))
            measured = driver.read(monotonic_ns() + 20_000_000)
            if measured.fresh:  # only where this thread did not get to give up in time
                asked_at = max(angle for at_ns, angle in since if at_ns <= chain.asked_ns)
                assert measured.position[1] > asked_at - 0.01
        assert driver.counters["late"] > 5
        rig.bus._trouble = Trouble()
        until(lambda: driver.read(soon()).fresh)


def test_a_late_answer_of_one_motor_is_not_taken_for_another_register(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(dynamixel_bus, "_LATE_S", (0.06, 0.06))  # after it was given up
    with Rig(seed=5) as rig, driving(rig) as driver:
        chain = driver._chain
        assert chain is not None
        rig.bus._trouble = Trouble(late=0.3)
        for _ in range(6):
            assert chain.read(1, "operating_mode") == 3
            assert chain.read(1, "drive_mode") == 0
        assert driver.counters["late"] > 0


def test_goals_wait_for_answers_on_the_wire_and_leave_them() -> None:
    with Rig(timed=True) as rig:
        for joint in JOINTS:
            rig.values(joint)["baud_rate"] = 2  # 115200
        with driving(rig, baud=115_200, ramp_s=0.04, answer_s=1.0) as driver:
            driver.activate(Mode.POSITION)
            chain = driver._chain
            assert chain is not None
            fresh = asked = 0
            end = monotonic() + PATIENCE_S
            while min(fresh, asked) < 10:
                assert monotonic() < end
                since_ns = monotonic_ns()
                fresh += driver.read(0).fresh
                driver.write(goal(0.3, -0.4), soon())
                if chain.asked_ns > since_ns:
                    asked += 1
                    assert monotonic_ns() - since_ns > 3_000_000  # even 40 bytes take 3.5 ms
                sleep(0.01)


def test_answers_that_come_after_the_goals_are_read() -> None:
    with working(answer_s=1.0) as (rig, driver):
        for joint in JOINTS:
            rig.values(joint)["return_delay_time"] = 254  # 0.5 ms
        seen: set[int] = set()

        def step() -> None:
            measured = driver.read(0)
            seen.update([measured.seq] if measured.fresh else [])
            driver.write(goal(0.3, -0.4), soon())
            sleep(0.005)

        until(lambda: len(seen) > 10, step)


def test_a_read_does_not_block_beyond_its_deadline() -> None:
    with working() as (rig, driver):
        rig.deaf = True
        sleep(0.02)
        driver.read(soon())
        for wait_ns in (-1_000_000, 0, 5_000_000):
            since = monotonic_ns()
            measured = driver.read(since + wait_ns)
            assert not measured.fresh
            assert monotonic_ns() - since < max(0, wait_ns) + 50_000_000


def test_without_waiting_each_read_has_the_answer_to_the_one_before() -> None:
    with working(answer_s=1.0) as (_, driver):
        seen: set[int] = set()

        def step() -> None:
            measured = driver.read(0)
            seen.update([measured.seq] if measured.fresh else [])
            sleep(0.005)

        until(lambda: len(seen) > 40, step)
        until(lambda: driver.read(0).sensors["voltage"] == (12.0, 12.0))


def test_a_chain_that_is_gone_is_an_error_within_seconds() -> None:
    with working() as (rig, driver):
        rig.deaf = True
        since = monotonic()
        with pytest.raises(DriverError, match="no answer from shoulder, elbow"):
            while True:
                driver.read(soon())
        assert monotonic() - since < 5.0


def test_one_motor_that_is_gone_is_named() -> None:
    with working() as (rig, driver):
        with rig.lock:
            rig.values("elbow")["id"] = 77
        with pytest.raises(DriverError, match="no answer from elbow"):
            while True:
                driver.read(soon())


def test_noise_on_the_link_is_harmless() -> None:
    with working() as (rig, driver):
        cycle(driver, goal(0.3, -0.4), 0.05)
        junk = bytes(range(256)) + wire.HEADER * 3 + wire.packet(1, wire.STATUS, b"\0" + bytes(12))
        for at in range(60):
            rig._port.send(junk[at * 4 : at * 4 + 40])
            measured = driver.read(soon())
            driver.write(goal(0.3, -0.4), soon())
            if measured.fresh:
                assert measured.position == pytest.approx((0.3, -0.4), abs=0.02)
        until(lambda: driver.read(soon()).fresh)
        assert sum(driver.counters.values()) > 0


# Hardware errors.


def test_a_hardware_error_is_a_fault_until_a_reset_reboots_the_motor(tmp_path: Path) -> None:
    with Rig() as rig:
        driver = DynamixelDriver(DynamixelOptions(port=rig.path, ramp_s=0.04, simulated=True))
        life = Lifecycle(driver, tmp_path / "estop", monotonic_ns, lambda transition: None)
        life.connect("test")
        life.configure({}, "test")
        life.activate(Mode.POSITION, "test")
        with rig.lock:
            rig.motors[1].fail(0x20)
        until(lambda: bool(driver.read(soon()).faults))
        assert any("elbow: overload" in fault for fault in driver.read(soon()).faults)
        life.fault("the device complains")
        assert rig.values("shoulder")["torque_enable"] == 1
        life.reset("the gripper was stuck")
        assert [event["cause"] for event in rig.events if event["event"] == "limp"] == ["shutdown"]
        assert rig.values("elbow")["hardware_error_status"] == 0
        assert life.state is State.CONNECTED
        life.configure({}, "test")
        life.activate(Mode.POSITION, "test")
        assert not cycle(driver, goal(*rig.angles), 0.3).faults
        life.close("test")


def test_what_is_still_broken_after_a_reboot_is_not_reset() -> None:
    with working() as (rig, driver):
        with rig.lock:
            rig.motors[1].broken = 0x08
            rig.motors[1].fail(0x08)
        driver.estop("the device complains")
        with pytest.raises(DriverError, match="encoder, also after a reboot"):
            driver.reset()
        with pytest.raises(DriverError, match="stopped"):
            driver.write(goal(0.0, 0.0), soon())
        expired = rig.values("shoulder")
        until(lambda: expired["bus_watchdog"] == WATCHDOG_EXPIRED)  # which had been reset already


def test_torque_that_somebody_turned_off_is_a_fault() -> None:
    with working() as (rig, driver):
        with rig.lock:
            rig.motors[0].write(64, b"\0")
        until(lambda: bool(driver.read(soon()).faults))
        assert driver.read(soon()).faults == ("shoulder: its torque is off",)
