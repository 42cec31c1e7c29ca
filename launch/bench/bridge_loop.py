"""The loop of `safetypilot bench bridge`, in a process of its own.

    python -P -m safetypilot.launch.bench.bridge_loop RATE CYCLES JOINTS 0|1

The device is another process. A cycle begins at an absolute time and is missed if its command is
not out when the next begins. Beside it a timer watches whether the host stands still.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import sin
from pathlib import Path
from time import monotonic, monotonic_ns, process_time, thread_time_ns
from typing import Any

import numpy as np

from safetypilot.bridge.contract import DriverError, Measurement, Mode, Setpoint
from safetypilot.bridge.devices.mujoco_options import MujocoOptions
from safetypilot.bridge.devices.mujoco_robot import find_model
from safetypilot.bridge.drivers.mujoco import MujocoDriver
from safetypilot.bridge.drivers.mujoco_link import Child
from safetypilot.bridge.lifecycle import Lifecycle, State
from safetypilot.bridge.limits import Limiter
from safetypilot.launch.bench import schedule
from safetypilot.launch.bench.course import Course
from safetypilot.launch.bench.plant import sleep_until
from safetypilot.launch.bench.samples import Samples, figures
from safetypilot.launch.bench.witness import explained, stalls_of

ROBOTS = {
    2: MujocoOptions(model="maze.xml", actuation="position", velocity=1.0, acceleration=20.0),
    12: MujocoOptions(
        model="quadruped.xml", actuation="pd", keyframe="standing", velocity=20.0,
        acceleration=500.0, kp_limit=100.0, kd_limit=5.0,
    ),
}  # fmt: skip
_STANDING = (0.0, 0.9, -1.8) * 4
_WARM_UP_S = 1.0
_WAIT = 0.25  # of a period, for a state that is due
_MOST_UNSENT = 1000
_NEVER_NS = 3_600_000_000_000
_PRIORITY = 40
_REALTIME = {"policy": "fifo", "lock_memory": True, "gc": "off", "timer_slack_us": 1}
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class _Tape:
    """What each cycle took; made and touched before the first, so that none of it is growth."""

    cost_us: Any  # from the cycle's begin to the command's end, (T,)
    wake_us: Any
    work_us: Any
    age_us: Any  # of the state, when the command went out
    begin_ns: Any
    stale: int = 0
    unsent: int = 0
    vetting_ns: int = 0  # CPU time of limiter and life cycle

    @classmethod
    def of(cls, cycles: int) -> _Tape:
        cost, wake, work, age = (np.full(cycles, 1.0) for _ in range(4))
        return cls(cost, wake, work, age, np.full(cycles, 1, np.int64))


class _Loop:
    """A bridge without a graph."""

    def __init__(self, driver: MujocoDriver, life: Lifecycle, rate: float) -> None:
        self._driver, self._life = driver, life
        self._period_ns = round(1e9 / rate)
        self._wait_ns = round(_WAIT * self._period_ns)
        mode = driver.description.modes[0]
        self._limiter = Limiter(driver.description.joints, mode, 1 / rate)
        size = len(driver.description.joints)
        self._targets = [_target(mode, size, tick / rate) for tick in range(2000)]

    def start(self, measured: Measurement) -> None:
        self._limiter.start(measured.position, monotonic_ns())

    def go(self, tape: _Tape | None, cycles: int) -> None:
        """So many cycles; a tick that has passed when a cycle ends is skipped, as it is missed."""
        driver, life, limiter, period = self._driver, self._life, self._limiter, self._period_ns
        targets, wait, vetting, stale, unsent = self._targets, self._wait_ns, 0, 0, 0
        tick = monotonic_ns() + period
        for cycle in range(cycles):
            sleep_until(tick)
            woke = monotonic_ns()
            measured = driver.read(tick + wait)
            began = thread_time_ns()
            if life.tripped or life.state is not State.ACTIVE:
                raise DriverError(f"{life.state}: {life.tripped}")
            target = targets[cycle % len(targets)]
            limiter.limit(target, measured.position, measured.velocity, monotonic_ns())
            vetting += thread_time_ns() - began
            try:
                driver.write(limiter.sent, tick + _NEVER_NS)  # late ones are counted, not dropped
            except DriverError:
                unsent += 1  # a device that the host starves
                if unsent > _MOST_UNSENT:
                    raise
            done = monotonic_ns()
            stale += not measured.fresh
            if tape is not None:
                tape.begin_ns[cycle] = tick
                tape.cost_us[cycle] = (done - tick) / 1e3
                tape.wake_us[cycle] = (woke - tick) / 1e3
                tape.work_us[cycle] = (done - woke) / 1e3
                tape.age_us[cycle] = (done - measured.received_ns) / 1e3
            tick += period
            while tick <= done:
                tick += period
        if tape is not None:
            tape.vetting_ns, tape.stale, tape.unsent = vetting, stale, unsent


def _target(mode: Mode, size: int, time_s: float) -> Setpoint:
    """A gentle motion."""
    way = 0.02 * sin(3.14159265 * time_s)
    if mode is Mode.POSITION:
        return Setpoint(mode, (way,) * size)
    zeros = (0.0,) * size
    place = tuple(its + way for its in _STANDING)
    return Setpoint(mode, place, zeros, zeros, (40.0,) * size, (1.0,) * size)


def _measure(rate: float, cycles: int, joints: int, realtime: bool) -> dict[str, Any]:
    """The loop's own process."""
    options = _options(rate, joints)
    device = Child(options, find_model(options.model))
    driver = MujocoDriver(replace(options, address=device.address))
    cpus = sorted(os.sched_getaffinity(0))[-2:]  # of the loop, and of the device
    witnesses = [_Witness(rate, cpu) for cpu in cpus]
    try:
        with tempfile.TemporaryDirectory() as folder:
            life = Lifecycle(driver, Path(folder) / "latch", monotonic_ns, lambda _: None)
            life.connect("bench")
            life.configure({}, "bench")
            refused = _rise(device.pid, cpus) if realtime else []
            return _fly(driver, life, device.pid, rate, cycles, witnesses) | {
                "rate_hz": rate, "cycles": cycles, "joints": joints, "realtime": realtime,
                "refused": refused,
            }  # fmt: skip
    finally:
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
        driver.close()
        for witness in witnesses:
            witness.end()
        device.end()


def _options(rate: float, joints: int) -> MujocoOptions:
    """Physics of no more steps than there are cycles, and no fewer."""
    return replace(
        ROBOTS[joints],
        timestep_s=min(0.002, 1 / rate),
        rate_hz=rate,
        max_rate_hz=max(1000.0, rate),
        watchdog_s=1.0,
    )


def _rise(device: int, cpus: Sequence[int]) -> list[str]:
    """Real time for this process and for the device, each on a CPU; what was refused."""
    refused = schedule.apply({**_REALTIME, "priority": _PRIORITY, "cpus": [cpus[-1]]})
    schedule.settle(_REALTIME)
    below = {"policy": "fifo", "priority": _PRIORITY - 1, "cpus": [cpus[0]]}
    return refused + schedule.apply(below, [device])


def _fly(
    driver: MujocoDriver,
    life: Lifecycle,
    device: int,
    rate: float,
    cycles: int,
    witnesses: Sequence[_Witness],
) -> dict[str, Any]:
    loop, tape = _Loop(driver, life, rate), _Tape.of(cycles)
    start = life.activate(driver.description.modes[0], "bench")
    loop.start(start)
    loop.go(None, round(_WARM_UP_S * rate))
    gc.collect()
    driver.counters.clear()
    before = (_resident(os.getpid()), _resident(device), process_time(), _cpu_s(device))
    began = monotonic()
    loop.go(tape, cycles)
    took = monotonic() - began
    after = (_resident(os.getpid()), _resident(device), process_time(), _cpu_s(device))
    counters, delay_us = dict(driver.counters), driver.delay_ns / 1e3
    life.deactivate("bench")
    period_us = 1e6 / rate
    missed = tape.cost_us > period_us
    samples = Samples(tape.cost_us, tape.begin_ns, missed, tape.wake_us)
    stalls = stalls_of([witness.end() for witness in witnesses])
    work = figures(tape.work_us, 0)
    return {
        "missed_deadlines": int(missed.sum()),
        "missed_unexplained": int(missed.sum())
        - explained(samples, stalls, round(period_us * 1e3)),
        "stalls": len(stalls),
        "cycle": figures(tape.cost_us, int(missed.sum())),
        "work": {key: its for key, its in work.items() if key.endswith("_us") or key == "n"},
        "state_age": figures(tape.age_us, 0),
        "stale": tape.stale,
        "unsent": tape.unsent,
        "last_delay_us": delay_us,
        "vetting_share": tape.vetting_ns / 1e9 / took,
        "loop_share": (after[2] - before[2]) / took,
        "device_share": (after[3] - before[3]) / took,
        "rss_bytes": [before[0], after[0]],
        "device_rss_bytes": [before[1], after[1]],
        "counters": counters,
    }


def _resident(pid: int) -> int:
    """Bytes of memory that a process has for itself and in memory."""
    size = Path(f"/proc/{pid}/statm").read_text().split()
    return (int(size[1]) - int(size[2])) * _PAGE


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


class _Witness:
    """A timer on one of the CPUs, above everything else, that notes when it is woken late."""

    def __init__(self, rate: float, cpu: int) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="spw-")
        above = {**_REALTIME, "priority": _PRIORITY + 20, "cpus": [cpu]}
        self._course = Course(
            "witness", max(1000.0, 4 * rate), 1, 0, "", 0, {}, 0.0, {}, {}, above, self._folder.name
        )
        command = [sys.executable, "-P", "-m", "safetypilot.launch.bench.timer"]
        self._process: subprocess.Popen[bytes] | None = subprocess.Popen(
            [*command, str(self._course.write()), "witness"], stderr=subprocess.DEVNULL
        )

    def end(self) -> Samples:
        """What it saw; nothing if it had no time to begin, or was asked before."""
        if self._process is not None:
            self._process.terminate()
            self._process.wait(10)
            self._process = None
            with self._folder:
                if self._course.result.exists():
                    return Samples.read(self._course.result)
        return Samples(np.zeros(0), np.zeros(0, np.int64), np.zeros(0, bool))


def main(arguments: list[str], write: Callable[[str], object]) -> None:
    rate, cycles, joints, realtime = arguments
    try:
        write(json.dumps(_measure(float(rate), int(cycles), int(joints), realtime == "1")) + "\n")
    except DriverError as error:
        sys.stderr.write(f"{error}\n")
        raise SystemExit(1) from None


if __name__ == "__main__":
    main(sys.argv[1:], sys.stdout.write)
