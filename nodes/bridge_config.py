"""What a launch file says about the bridge, and what follows from it before anything moves."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from math import isfinite, isinf
from typing import Any

from safetypilot.bridge import registry as drivers
from safetypilot.bridge.contract import Description, DriverError, Joint, Mode
from safetypilot.bridge.estop import Wiring
from safetypilot.envs import registry as envs
from safetypilot.envs.body import Body

_ALL = "all"  # the joints that have no entry of their own


@dataclass(frozen=True)
class BridgeConfig:
    """Which robot plays the plant, and how careful its last line is.

    Attributes:
        env: whose task the robot does; an environment with a body (envs/tasks.py).
        driver: a name of bridge/registry.py, `module:Class`, or `file.py:Class`.
        options: by driver, so that one launch file may know several.
        calibration: a calibration file.
        arm: "manual" waits for `safetypilot bridge activate`; "auto" activates with the graph's
            first approved command; "safe" is auto where the driver says that its device is
            simulated, else manual. A restarted bridge is never activated by itself, nor one that
            was e-stopped before it started.
        deadline: share of the period by which a command must have come.
        wait: share of the period that it may wait for the device's newest state.
        control_rate: Hz of the task's own control steps, where the graph is faster.
        limits: tighter than the driver's, by joint or `all`: position low, high, velocity, ...
        ramp_s: gains rise from zero for so long after activation.
        command_timeout_s: silence of the graph after which the robot is stopped; else the driver's.
        silence_s: of the device, after which it is stopped.
        cuts, window: limits that had to cut so many of so many commands are one level worse; at
            the second the robot is taken down.
        heartbeat_s, supervisor_s, watch, joystick, button: e-stop lines (bridge/estop.py).
        latch: a file that keeps an e-stop beyond the run; by default one of the device in the
            user's state directory (bridge/latch.py), or of the run if the device is simulated.
        self_test: test e-stop and the device's watchdog at every start.
        episode_steps: control steps of an episode; else the environment's.
    """

    env: str
    driver: str
    options: dict[str, dict[str, Any]] | None = None
    calibration: str | None = None
    arm: str = "safe"
    deadline: float = 0.85
    wait: float = 0.1
    control_rate: float | None = None
    limits: dict[str, dict[str, float]] | None = None
    ramp_s: float = 0.5
    command_timeout_s: float | None = None
    silence_s: float = 0.1
    cuts: int = 50
    window: int = 100
    heartbeat_s: float = 0.0
    supervisor_s: float = 2.0
    watch: str = ""
    joystick: str = ""
    button: int = 0
    latch: str = ""
    self_test: bool = True
    episode_steps: int | None = None

    def __post_init__(self) -> None:
        """Says no before anything starts."""
        if self.arm not in ("safe", "manual", "auto"):
            raise ValueError(f"arm is {self.arm!r}; it is safe, manual or auto")
        if not 0 < self.deadline < 1 or not 0 <= self.wait < self.deadline:
            raise ValueError(
                f"deadline is {self.deadline} and wait {self.wait}; they are shares of the "
                "period, 0 <= wait < deadline < 1"
            )
        for name in ("control_rate", "command_timeout_s", "silence_s"):
            value = getattr(self, name)
            if value is not None and not (isfinite(value) and value > 0):
                raise ValueError(f"{name} is {value}; it is above 0")
        if not 1 <= self.cuts <= self.window:
            raise ValueError(f"cuts is {self.cuts}; it goes from 1 to the window, {self.window}")
        if not (isfinite(self.ramp_s) and self.ramp_s >= 0):
            raise ValueError(f"ramp_s is {self.ramp_s}; it is a time")

    @property
    def driver_options(self) -> dict[str, Any]:
        return dict((self.options or {}).get(self.driver, {}))

    @property
    def description(self) -> Description:
        """What the driver declares, made anew at every call.

        Raises:
            DriverError: there is no such driver or option.
        """
        return drivers.describe(self.driver, self.driver_options)

    @property
    def wiring(self) -> Wiring:
        names = [field.name for field in fields(Wiring)]
        return Wiring(**{name: getattr(self, name) for name in names})


def find_body(env: str) -> tuple[Body, int]:
    """What a task needs of a robot, and the control steps of an episode.

    Raises:
        DriverError: the task has no body.
    """
    task = envs.TASKS.get(envs.resolve(env))
    if task is None or not task.body:
        able = [short for short, full in envs.IDS.items() if envs.TASKS[full].body]
        raise DriverError(f"{env} cannot be done by a robot; these can: {', '.join(able)}")
    module, _, name = task.body.partition(":")
    body: Body = getattr(importlib.import_module(module), name)()
    return body, task.episode_steps


def tightened(
    description: Description, limits: Mapping[str, Mapping[str, float]] | None
) -> tuple[Joint, ...]:
    """The driver's joints with the launch file's limits; in the driver's order.

    Raises:
        DriverError: a joint or limit that there is not, or one looser than the driver's.
    """
    given = dict(limits or {})
    known = {field.name for field in fields(Joint)} - {"name", "unit"}
    for name in given:
        if name != _ALL:
            description.index(name)
    joints = []
    for joint in description.joints:
        own = given.get(joint.name, given.get(_ALL, {}))
        for name, value in own.items():
            if name not in known:
                raise DriverError(f"limits: {name!r} is none; there are {', '.join(sorted(known))}")
            old = getattr(joint, name)
            if value < old if name in ("low", "margin") else value > old:
                raise DriverError(
                    f"limits: {name} of {joint.name!r} is {value:g}, looser than the driver's "
                    f"{old:g}; a launch file may only tighten"
                )
        try:
            joints.append(replace(joint, **dict[str, Any](own)))
        except ValueError as error:
            raise DriverError(f"limits: {error}") from None
    return tuple(joints)


def check_fit(
    body: Body, description: Description, period_ns: int, parts: int
) -> tuple[tuple[int, ...], Mode]:
    """Whether a robot can do a task, at this rate.

    Returns:
        Where the body's joints are in the driver's order, and the mode.

    Raises:
        DriverError: a joint, a mode or a sensor is missing, or the rates do not fit.
    """
    name, rate = description.name, 1e9 / period_ns
    if rate > description.max_rate_hz:
        raise DriverError(f"{name} takes at most {description.max_rate_hz:g} Hz, not {rate:g}")
    mode = Mode(body.mode)
    if mode not in description.modes:
        able = ", ".join(description.modes)
        raise DriverError(f"the task drives joints by {mode}; {name} can {able}")
    missing = [sensor for sensor in body.sensors if sensor not in description.sensors]
    if missing:
        able = ", ".join(description.sensors) or "none"
        raise DriverError(f"the task needs the sensors {', '.join(missing)}; {name} has {able}")
    seconds = parts / rate * description.time_factor
    if abs(seconds * body.rate_hz - 1) > 1e-6:
        raise DriverError(
            f"a control step of the task is {1 / body.rate_hz:g} s of the robot, here it would be "
            f"{seconds:g} s: change the rate, control_rate or the driver's time_factor"
        )
    joints = tuple(description.index(joint) for joint in body.joints)
    return joints, mode


def describe(config: BridgeConfig, description: Description) -> dict[str, Any]:
    """What a person should know before arming, JSON-able; None: no limit."""
    return {
        "driver": config.driver,
        "joints": [
            {
                name: None if isinstance(value, float) and isinf(value) else value
                for name, value in asdict(joint).items()
            }
            for joint in tightened(description, config.limits)
        ],
        "modes": list(description.modes),
        "failsafes": list(description.failsafes),
        "watchdog_s": description.watchdog_s,
        "command_timeout_s": config.command_timeout_s or description.command_timeout_s,
        "time_factor": description.time_factor,
    }
