"""Drivers that are wrong in one thing each; the kit has to find that one, and nothing else.

All are the template's driver, over the template's device or one that is wrong in one thing.
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
import threading
from dataclasses import dataclass
from math import isfinite, nan
from time import monotonic_ns, sleep, thread_time_ns
from typing import Any, ClassVar

from safetypilot.bridge.contract import DriverError, Failsafe, Joint, Measurement, Mode, Setpoint
from safetypilot.bridge.template import skeleton, skeleton_device
from safetypilot.bridge.template.skeleton import SIZE, SkeletonDriver, SkeletonOptions

LONG_NS = 10**9


def on(device: str) -> tuple[str, dict[str, str]]:
    return f"{{python}} -P {{file}} {device}", {"port": "{port}"}


class Sound(SkeletonDriver):
    SIMULATED = on("Device")


class Unknown(SkeletonDriver):
    """Nobody says whether there is a simulated one."""

    SIMULATED = ("", {})


class Calibrated(Sound):
    """Asks for its zero."""

    def __init__(self, options: SkeletonOptions | None = None) -> None:
        super().__init__(options)
        self.description = dataclasses.replace(self.description, calibration=("zero",))


# What is declared.


class ChangesItsMind(Sound):
    """(description_is_readable)"""

    made = 0

    def __init__(self, options: SkeletonOptions | None = None) -> None:
        super().__init__(options)
        ChangesItsMind.made += 1
        self.description = dataclasses.replace(self.description, name=f"number {self.made}")


class SleepyWatchdog(Sound):
    """(numbers_fit)"""

    def __init__(self, options: SkeletonOptions | None = None) -> None:
        super().__init__(options)
        self.description = dataclasses.replace(self.description, command_timeout_s=30.0)


class StrongestFirst(Sound):
    """(numbers_fit)"""

    def __init__(self, options: SkeletonOptions | None = None) -> None:
        super().__init__(options)
        order = (Failsafe.TORQUE_OFF, Failsafe.DAMPING)
        self.description = dataclasses.replace(self.description, failsafes=order)


class Unlimited(Sound):
    """(joints_are_limited)"""

    def __init__(self, options: SkeletonOptions | None = None) -> None:
        super().__init__(options)
        joints = tuple(Joint(name, low=-1.5, high=1.5) for name in skeleton.JOINTS)
        self.description = dataclasses.replace(self.description, joints=joints)


class Degrees(Sound):
    """(joints_are_limited)"""

    def __init__(self, options: SkeletonOptions | None = None) -> None:
        super().__init__(options)
        joints = tuple(Joint(name, -180.0, 180.0, velocity=3.0) for name in skeleton.JOINTS)
        self.description = dataclasses.replace(self.description, joints=joints)

    def write(self, setpoint: Setpoint, deadline_ns: int) -> None:
        if any(abs(goal) > 1.5 for goal in setpoint.position):
            raise DriverError("beyond its range")
        super().write(setpoint, deadline_ns)


@dataclass(frozen=True)
class SecretOptions(SkeletonOptions):
    """Where the device is, and how patient to be.

    Attributes:
        host, port: of the device.
        timeout_s: of a request.
        torque_off: whether the arm is let go.
    """

    turbo: bool = False


class Secretive(Sound):
    """(options_are_explained)"""

    Options = SecretOptions


# Coming and going.


class Nameless(Sound):
    """(connect_identifies)"""

    def connect(self) -> dict[str, str]:
        identity = super().connect()
        del identity["serial"]
        return identity


class ConnectsTwice(Sound):
    """(connect_twice)"""

    def connect(self) -> dict[str, str]:
        return dict(self._identity) if self._link is not None else super().connect()


class CloseRaises(Sound):
    """(close_at_any_time): if what was connected, and no more, is closed twice"""

    calls = ""

    def connect(self) -> dict[str, str]:
        self.calls += "connect "
        return super().connect()

    def configure(self, calibration: dict[str, Any]) -> dict[str, Any]:
        self.calls = ""
        return super().configure(calibration)

    def close(self) -> None:
        self.calls += "close "
        if self.calls == "close connect close close ":
            raise OSError("already closed")
        super().close()


class LeaksFiles(Sound):
    """(reconnects)"""

    leaked: ClassVar[list[Any]] = []

    def close(self) -> None:
        if self._link is not None:
            self.leaked.append(self._link.dup())
        super().close()


class WrongError(Sound):
    """(connect_to_nothing): the operating system's errors come through"""

    def connect(self) -> dict[str, str]:
        try:
            return super().connect()
        except DriverError as error:
            if self._link is not None:
                raise
            raise OSError(str(error)) from None


# Taking over and letting go.


class ConfigureEnables(Sound):
    """(configure_moves_nothing)"""

    def configure(self, calibration: dict[str, Any]) -> dict[str, Any]:
        effective = super().configure(calibration)
        self._ask(skeleton.Ask.START)
        self._ask(skeleton.Ask.DAMP)
        while self._state.phase is skeleton.Phase.ACTIVE:
            self.read(monotonic_ns() + 10**7)
        return effective


class KeepsCounting(Sound):
    """(configure_moves_nothing): counters are not zeroed"""

    def configure(self, calibration: dict[str, Any]) -> dict[str, Any]:
        before = dict(self.counters)
        effective = super().configure(calibration)
        self.counters.update(before)
        return effective


class BelievesInItsWatchdog(Sound):
    """(watchdog_can_be_provoked): leaves the device unable to be activated"""

    def check_watchdog(self) -> str:
        seen = super().check_watchdog()
        self._configured = False
        return seen


class StepsAtActivation(Sound):
    """(activation_is_bumpless): goes to zero first"""

    def activate(self, mode: Mode) -> Measurement:
        start = super().activate(mode)
        for _ in range(5):
            super().write(Setpoint(mode, (-0.8,) * SIZE), monotonic_ns() + LONG_NS)
            sleep(0.01)
        return start


class SwapsJoints(Sound):
    """(commands_move_their_joint)"""

    def write(self, setpoint: Setpoint, deadline_ns: int) -> None:
        super().write(setpoint._replace(position=setpoint.position[::-1]), deadline_ns)


class IgnoresCommands(Sound):
    """(commands_move_their_joint): and so would pass all that looks for motion"""

    def write(self, setpoint: Setpoint, deadline_ns: int) -> None:
        if len(setpoint.position) == SIZE and all(map(isfinite, setpoint.position)):
            where = self._last.position
            setpoint = setpoint._replace(position=tuple(min(max(q, -1.0), 1.0) for q in where))
        super().write(setpoint, deadline_ns)


class DropsTorque(Sound):
    """(deactivation_is_gentle)"""

    def deactivate(self) -> None:
        super().deactivate()
        self._ask(skeleton.Ask.RELEASE)


class OnlyOnce(Sound):
    """(activates_again)"""

    done = False

    def configure(self, calibration: dict[str, Any]) -> dict[str, Any]:
        self.done = False
        return super().configure(calibration)

    def activate(self, mode: Mode) -> Measurement:
        if self.done:
            raise DriverError("once is enough")
        return super().activate(mode)

    def deactivate(self) -> None:
        super().deactivate()
        self.done = True


# Reading.


class BlocksPastDeadline(Sound):
    """(reads_in_time)"""

    def read(self, deadline_ns: int) -> Measurement:
        measurement = super().read(deadline_ns)
        if not measurement.fresh:
            sleep(0.01)
        return measurement


class StaleAsFresh(Sound):
    """(only_news_is_fresh)"""

    def read(self, deadline_ns: int) -> Measurement:
        return super().read(deadline_ns)._replace(fresh=True)


class CountsForItself(Sound):
    """(only_news_is_fresh): a number of its own, so that all seems new"""

    count = 0

    def read(self, deadline_ns: int) -> Measurement:
        self.count += 1
        return super().read(deadline_ns)._replace(fresh=True, seq=self.count)


class ClockGoesBack(Sound):
    """(measurements_make_sense)"""

    def read(self, deadline_ns: int) -> Measurement:
        measurement = super().read(deadline_ns)
        return measurement._replace(device_ns=10**12 - measurement.device_ns)


class NotANumber(Sound):
    """(measurements_make_sense): of one effort"""

    def read(self, deadline_ns: int) -> Measurement:
        return super().read(deadline_ns)._replace(effort=(0.0, nan))


class UndeclaredSensor(Sound):
    """(measurements_make_sense)"""

    def read(self, deadline_ns: int) -> Measurement:
        return super().read(deadline_ns)._replace(sensors={"nose": (1.0,)})


class Boasts(Sound):
    """(rate_is_as_declared): declares twice what comes"""

    def __init__(self, options: SkeletonOptions | None = None) -> None:
        super().__init__(options)
        self.description = dataclasses.replace(self.description, rate_hz=1000.0, max_rate_hz=1000.0)


# Writing.


class Trusting(Sound):
    """Sends what comes, as far as it can; the device at the other end refuses."""

    def write(self, setpoint: Setpoint, deadline_ns: int) -> None:
        if self._stopped or self._mode is None or not self._believes(setpoint, deadline_ns):
            super().write(setpoint, deadline_ns)

    def _believes(self, setpoint: Setpoint, deadline_ns: int) -> bool:
        raise NotImplementedError


class AcceptsNaN(Trusting):
    """(not_finite_is_refused)"""

    def _believes(self, setpoint: Setpoint, deadline_ns: int) -> bool:
        return not all(map(isfinite, setpoint.position))


class RunsToTheEnd(Trusting):
    """(huge_has_no_effect): takes the nearest that it can"""

    def _believes(self, setpoint: Setpoint, deadline_ns: int) -> bool:
        far = [goal for goal in setpoint.position if isfinite(goal) and abs(goal) > 1.5]
        if far:
            near = setpoint._replace(position=(1.4,) * SIZE)
            for _ in range(10):
                super(Trusting, self).write(near, deadline_ns)
                sleep(0.01)
        return bool(far)


class PadsWithZeros(Trusting):
    """(wrong_length_is_refused)"""

    def _believes(self, setpoint: Setpoint, deadline_ns: int) -> bool:
        return len(setpoint.position) < SIZE


class Indexes(Sound):
    """(wrong_length_is_refused): with an error of another kind"""

    def write(self, setpoint: Setpoint, deadline_ns: int) -> None:
        setpoint.position[SIZE - 1]
        super().write(setpoint, deadline_ns)


class AnyMode(Trusting):
    """(wrong_mode_is_refused)"""

    def _believes(self, setpoint: Setpoint, deadline_ns: int) -> bool:
        return setpoint.mode is not self._mode


class NeverTooLate(Sound):
    """(too_late_is_refused)"""

    def write(self, setpoint: Setpoint, deadline_ns: int) -> None:
        super().write(setpoint, monotonic_ns() + LONG_NS)


class AddsUp(Sound):
    """(duplicates_are_harmless): each repeated setpoint is a step on"""

    same: Setpoint | None = None
    times = 0

    def write(self, setpoint: Setpoint, deadline_ns: int) -> None:
        self.times = self.times + 1 if setpoint is self.same and not self.read_since else 0
        self.same, self.read_since = setpoint, False
        on = min(0.05 * self.times, 0.4)
        position = tuple(goal + on for goal in setpoint.position)
        super().write(setpoint._replace(position=position), deadline_ns)
        if self.times:
            sleep(0.005)

    read_since = False

    def read(self, deadline_ns: int) -> Measurement:
        self.read_since = True
        return super().read(deadline_ns)


# Order.


class ReadsNothing(Sound):
    """(calls_without_a_device): an error of another kind where nothing is connected"""

    def read(self, deadline_ns: int) -> Measurement:
        assert self._link is not None
        return super().read(deadline_ns)


class ActivatesUnconfigured(Sound):
    """(calls_out_of_order)"""

    def activate(self, mode: Mode) -> Measurement:
        if self._link is not None and self._mode is None and not self._stopped:
            self._configured = True
        return super().activate(mode)


class ConfiguresWhileActive(Sound):
    """(calls_out_of_order)"""

    def configure(self, calibration: dict[str, Any]) -> dict[str, Any]:
        return {} if self._mode is not None else super().configure(calibration)


class TiresOfWalking(Sound):
    """(random_walk): not what it was after three activations"""

    activations = 0

    def activate(self, mode: Mode) -> Measurement:
        self.activations += 1
        if self.activations > 3:
            raise DriverError("enough for today")
        return super().activate(mode)


# Stopping.


class StopsOnce(Sound):
    """(stops_from_every_state)"""

    def estop(self, reason: str) -> None:
        if self._stopped and self._link is None:
            raise RuntimeError("already stopped")
        super().estop(reason)


class OnlySaysSo(Sound):
    """(stops_within_a_period): refuses commands, and leaves the rest to the watchdog"""

    def estop(self, reason: str) -> None:
        self._stopped = True

    def reset(self) -> None:
        self._mode, self._configured, self._stopped = None, False, False
        try:
            self._ask(skeleton.Ask.CLEAR)
        except DriverError:
            self._stopped = True
            raise


class Forgets(Sound):
    """(stays_stopped): after a while"""

    since_ns = 0

    def estop(self, reason: str) -> None:
        super().estop(reason)
        self.since_ns, self.mode = monotonic_ns(), self._mode

    def write(self, setpoint: Setpoint, deadline_ns: int) -> None:
        if self._stopped and self._mode is not None and monotonic_ns() - self.since_ns > 2 * 10**8:
            return
        super().write(setpoint, deadline_ns)


class ResetActivates(Sound):
    """(stays_stopped): a reset takes commands again"""

    def reset(self) -> None:
        mode = self._mode
        super().reset()
        self._mode = mode


class ResetsBlindly(Sound):
    """(resets_only_what_answers)"""

    def reset(self) -> None:
        link = self._linked()
        self._number += 1
        link.send(skeleton.request(skeleton.Ask.RESET, self._number))
        self._mode, self._configured, self._stopped = None, False, False


class Locks(Sound):
    """(stops_from_another_thread, stops_from_a_signal): one lock for all"""

    def __init__(self, options: SkeletonOptions | None = None) -> None:
        super().__init__(options)
        self.lock = threading.Lock()

    def read(self, deadline_ns: int) -> Measurement:
        with self.lock:
            return super().read(deadline_ns)

    def estop(self, reason: str) -> None:
        with self.lock:
            super().estop(reason)


# Faults and the long run.


class FireAndForget(Sound):
    """(device_that_hangs): whether the device did it, it does not look"""

    def deactivate(self) -> None:
        if self._mode is None:
            raise DriverError("not active")
        self._mode = None
        self._number += 1
        self._send(skeleton.request(skeleton.Ask.DAMP, self._number))
        sleep(0.15)


class CloseWaits(Sound):
    """(device_that_dies, device_that_hangs): closing raises if nobody says goodbye"""

    def close(self) -> None:
        if self._link is not None and self._configured:
            try:
                self._ask(skeleton.Ask.HELLO)
            except DriverError as error:
                super().close()
                raise RuntimeError("nobody said goodbye") from error
        super().close()


class Hoards(Sound):
    """(soaks): keeps all it has ever read"""

    def __init__(self, options: SkeletonOptions | None = None) -> None:
        super().__init__(options)
        self.all: list[Measurement] = []

    def read(self, deadline_ns: int) -> Measurement:
        measurement = super().read(deadline_ns)
        self.all.append(measurement)
        return measurement


class Complains(Sound):
    """(soaks): every frame is counted as corrupt"""

    def write(self, setpoint: Setpoint, deadline_ns: int) -> None:
        super().write(setpoint, deadline_ns)
        self.counters["corrupt"] += 1


class Burns(Sound):
    """(soaks): a cycle costs most of its period"""

    def write(self, setpoint: Setpoint, deadline_ns: int) -> None:
        super().write(setpoint, deadline_ns)
        end_ns = thread_time_ns() + 1_500_000
        while thread_time_ns() < end_ns:
            pass


class TalksOn(Sound):
    """(silence_damps): a thread repeats the last command for ever"""

    talking: threading.Event | None = None
    setpoint: Setpoint | None = None

    def activate(self, mode: Mode) -> Measurement:
        start = super().activate(mode)
        self.talking = done = threading.Event()

        def talk() -> None:
            while not done.wait(0.02):
                if self.setpoint is not None:
                    with contextlib.suppress(DriverError):
                        SkeletonDriver.write(self, self.setpoint, monotonic_ns() + LONG_NS)

        threading.Thread(target=talk, daemon=True).start()
        return start

    def write(self, setpoint: Setpoint, deadline_ns: int) -> None:
        super().write(setpoint, deadline_ns)
        self.setpoint = setpoint

    def _end(self) -> None:
        self.setpoint = None
        if self.talking is not None:
            self.talking.set()

    def deactivate(self) -> None:
        self._end()
        super().deactivate()

    def close(self) -> None:
        self._end()
        super().close()


# Devices.


class Deaf(skeleton_device.Device):
    """Hears no silence, unless it is tested."""

    def step(self, dt: float) -> None:
        if self._phase is skeleton.Phase.ACTIVE:
            self._heard_ns = monotonic_ns()
        super().step(dt)


class Unguarded(Sound):
    """(silence_damps, killed_driver_damps)"""

    SIMULATED = on("Deaf")


class Slow(skeleton_device.Device):
    """Takes its time to stop."""

    def take(self, frame: bytes, sender: Any) -> bool:
        body = skeleton.unseal(frame)
        if body is not None and body[0] == skeleton.Ask.STOP:
            if not getattr(self, "_stop_at", 0):
                self._stop_at = monotonic_ns() + 85_000_000
            return False
        return super().take(frame, sender)

    def step(self, dt: float) -> None:
        super().step(dt)
        if getattr(self, "_stop_at", 0) and monotonic_ns() > self._stop_at:
            self._stop_at = 0
            self._damp(skeleton.Phase.STOPPED, "estop")


class SlowToStop(Sound):
    """(stops_within_a_period)"""

    SIMULATED = on("Slow")


class Revives(skeleton_device.Device):
    """Goes on by itself a while after an e-stop."""

    def step(self, dt: float) -> None:
        if self._phase is not skeleton.Phase.STOPPED:
            self.left = 30
        else:
            self.left -= 1
            if self.left < 0:
                self._obey(skeleton.Ask.RESET, [])
        super().step(dt)


class GoesOnByItself(Sound):
    """(stays_stopped)"""

    SIMULATED = on("Revives")


if __name__ == "__main__":
    skeleton_device.Device = {  # type: ignore[misc]
        kind.__name__: kind for kind in (skeleton_device.Device, Deaf, Slow, Revives)
    }[sys.argv.pop(1)]
    skeleton_device.main()
