"""Our drivers as robots of LeRobot's, with limits and life cycle.

Twice: with a stand-in for the few names of LeRobot's that are used, and (slow, as its import is)
with LeRobot itself, where it is installed.
"""

from __future__ import annotations

import importlib
import importlib.machinery
import json
import sys
import time
import types
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, make_dataclass
from math import nan, radians
from pathlib import Path
from typing import Any

import pytest

from safetypilot.bridge import registry
from safetypilot.bridge.contract import (
    Description,
    DriverError,
    Failsafe,
    Joint,
    Measurement,
    Mode,
    Setpoint,
)
from safetypilot.bridge.limits import Escalation

PATIENCE_S = 20.0
OURS = "safetypilot.bridge.lerobot_robot"


@dataclass(frozen=True)
class ServoOptions:
    """Nothing of it matters but the mode."""

    mode: str = "position"
    calibrated: bool = True


class ServoDriver:
    """A perfect device: it is where it was sent last."""

    Options = ServoOptions

    def __init__(self, options: ServoOptions) -> None:
        self.description = Description(
            "servo", (Joint("lift", 0.0, 1.0, velocity=1.0, unit="m"), Joint("turn", -2.0, 2.0)),
            (Mode(options.mode),), 200.0, 400.0, 0.15, (Failsafe.HOLD,), sensors={"force": "N"},
            calibration=() if options.calibrated else ("zero",),
        )  # fmt: skip
        self.counters: dict[str, int] = {}
        self.position = (0.5, 0.1)
        self.stopped, self._seq = "", 0

    def connect(self) -> dict[str, str]:
        return {"model": "servo", "serial": "7", "firmware": "1"}

    def configure(self, calibration: dict[str, Any]) -> dict[str, Any]:
        return calibration

    def check_watchdog(self) -> str:
        return ""

    def activate(self, mode: Mode) -> Measurement:
        return self.read(0)

    def read(self, deadline_ns: int) -> Measurement:
        self._seq += 1
        return Measurement(
            self._seq, time.monotonic_ns(), -1, self.position, (0.0, 1.0), (3.0, 4.0),
            {"force": (5.0, 6.0)},
        )  # fmt: skip

    def write(self, setpoint: Setpoint, deadline_ns: int) -> None:
        if self.stopped:
            raise DriverError(f"stopped: {self.stopped}")
        if setpoint.mode is Mode.POSITION:
            self.position = (setpoint.position[0], setpoint.position[1])

    def deactivate(self) -> None: ...

    def estop(self, reason: str) -> None:
        self.stopped = reason

    def reset(self) -> None:
        self.stopped = ""

    def close(self) -> None: ...


def _module(name: str, **names: Any) -> types.ModuleType:
    made = types.ModuleType(name)
    made.__spec__, made.__path__ = importlib.machinery.ModuleSpec(name, None), []
    vars(made).update(names)
    return made


def stand_in(folder: Path) -> dict[str, types.ModuleType]:
    """What we use of LeRobot, as its 0.4.4 has it."""

    @dataclass(kw_only=True)
    class RobotConfig:
        id: str | None = None
        calibration_dir: Path | None = None

        @classmethod
        def register_subclass(cls, name: str) -> Callable[[type], type]:
            return lambda kind: kind

    class Robot:
        name: str

        def __init__(self, config: RobotConfig) -> None:
            self.id = config.id
            self.calibration_dir = config.calibration_dir or folder
            self.calibration_fpath = self.calibration_dir / f"{self.id}.json"

        def __enter__(self) -> Robot:
            self.connect()  # type: ignore[attr-defined]
            return self

        def __exit__(self, *_: object) -> None:
            self.disconnect()  # type: ignore[attr-defined]

    class DeviceNotConnectedError(ConnectionError): ...

    class DeviceAlreadyConnectedError(ConnectionError): ...

    errors = {"DeviceNotConnectedError": DeviceNotConnectedError,
              "DeviceAlreadyConnectedError": DeviceAlreadyConnectedError}  # fmt: skip
    return {
        "lerobot": _module("lerobot"),
        "lerobot.robots": _module("lerobot.robots", Robot=Robot, RobotConfig=RobotConfig),
        "lerobot.utils": _module("lerobot.utils"),
        "lerobot.utils.errors": _module("lerobot.utils.errors", **errors),
    }


def real() -> None:
    """Imports LeRobot, or skips.

    Its base class imports torchvision, of which PyPI only has builds that need another torch than
    the CPU's; no test here comes near an image.
    """
    for name in ("", ".transforms", ".transforms.functional"):
        whole = f"torchvision{name}"
        sys.modules.setdefault(whole, _module(whole))
    sys.modules["torchvision"].transforms = sys.modules["torchvision.transforms"]  # type: ignore
    functional = sys.modules["torchvision.transforms.functional"]
    sys.modules["torchvision.transforms"].functional = functional  # type: ignore[attr-defined]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pytest.importorskip("lerobot.robots", exc_type=ImportError)


@pytest.fixture(params=["stand-in", pytest.param("real", marks=pytest.mark.slow)])
def robots(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Iterator[Callable[..., Any]]:
    """Makes robots; all are closed in the end."""
    monkeypatch.setitem(sys.modules, "pond", _module("pond", ServoDriver=ServoDriver))
    if request.param == "real":
        real()
    else:
        for name in [name for name in sys.modules if name.split(".")[0] == "lerobot"]:
            monkeypatch.delitem(sys.modules, name)
        for name, module in stand_in(tmp_path).items():
            monkeypatch.setitem(sys.modules, name, module)
        for name in [name for name in sys.modules if name.startswith(OURS)]:
            monkeypatch.delitem(sys.modules, name)
    config = importlib.import_module(f"{OURS}.config_safety_pilot").SafetyPilotRobotConfig
    kind = importlib.import_module(f"{OURS}.safety_pilot").SafetyPilotRobot
    made = []

    def make(mode: str = "position", calibrated: bool = True, **options: Any) -> Any:
        given = {"id": "blue", "calibration_dir": tmp_path, "driver": "pond:ServoDriver",
                 "options": {"mode": mode, "calibrated": calibrated}, "mode": mode}  # fmt: skip
        made.append(kind(config(**{**given, **options})))
        return made[-1]

    yield make
    for robot in made:
        robot.guarded.close()
    for name in [name for name in sys.modules if name.startswith(OURS)]:
        monkeypatch.delitem(sys.modules, name)


def test_its_features_are_known_while_disconnected(robots: Callable[..., Any]) -> None:
    robot = robots(sensors={"force": 2})
    assert robot.observation_features == dict.fromkeys(
        ["lift.pos", "turn.pos", "lift.vel", "turn.vel", "lift.effort", "turn.effort",
         "force.0", "force.1"], float,
    )  # fmt: skip
    assert robot.action_features == {"lift.pos": float, "turn.pos": float}
    assert robots("velocity").action_features == {"lift.vel": float, "turn.vel": float}
    assert not robot.is_connected and robot.is_calibrated
    assert not robots(calibrated=False).is_calibrated
    for call in (robot.get_observation, robot.disconnect, lambda: robot.send_action({})):
        with pytest.raises(ConnectionError):
            call()


def test_what_is_observed_has_the_features_that_were_declared(robots: Callable[..., Any]) -> None:
    with robots(sensors={"force": 2}) as robot:
        seen = robot.get_observation()
        assert set(seen) == set(robot.observation_features)
        assert seen["lift.pos"] == 0.5 and seen["turn.vel"] == 1.0 and seen["turn.effort"] == 4.0
        assert (seen["force.0"], seen["force.1"]) == (5.0, 6.0)
        with pytest.raises(ConnectionError):
            robot.connect()
    assert not robot.is_connected


def test_an_action_returns_what_was_really_sent_limits_included(robots: Callable[..., Any]) -> None:
    with robots() as robot:
        sent = robot.send_action({"lift.pos": 7.0, "turn.pos": 0.4})
        assert sent["turn.pos"] == 0.4 and 0.5 < sent["lift.pos"] < 0.52  # 1 m/s
        end = time.monotonic() + PATIENCE_S
        while robot.send_action({"lift.pos": 7.0, "turn.pos": 0.4})["lift.pos"] < 1.0:
            assert time.monotonic() < end
        while robot.get_observation()["lift.pos"] < 1.0:
            assert time.monotonic() < end
        assert robot.get_observation()["lift.pos"] == 1.0


def test_numbers_that_are_not_finite_move_nothing(robots: Callable[..., Any]) -> None:
    with robots() as robot:
        assert robot.send_action({"lift.pos": nan, "turn.pos": 1.0}) == {
            "lift.pos": 0.5, "turn.pos": 0.1,
        }  # fmt: skip
        assert robot.guarded.cuts == {"not_finite": robot.guarded.cuts["not_finite"]}
        with pytest.raises(ValueError, match=r"turn\.pos"):
            robot.send_action({"lift.pos": 0.5})
        with pytest.raises(ValueError):
            robot.send_action({"lift.pos": "up", "turn.pos": 0.1})


def test_degrees_are_for_angles_only(robots: Callable[..., Any]) -> None:
    with robots(degrees=True) as robot:
        seen = robot.get_observation()
        assert seen["lift.pos"] == 0.5 and seen["turn.pos"] == pytest.approx(5.729578)
        sent = robot.send_action({"lift.pos": 0.5, "turn.pos": 30.0})
        assert sent == pytest.approx({"lift.pos": 0.5, "turn.pos": 30.0})
        assert robot.guarded.driver.position[1] == pytest.approx(radians(30.0))


@pytest.mark.parametrize("mode", ["velocity", "effort", "pd"])
def test_other_modes(robots: Callable[..., Any], mode: str) -> None:
    with robots(mode, kp=5.0, kd=1.0) as robot:
        sent = robot.send_action(dict.fromkeys(robot.action_features, 0.25))
        assert set(sent) == set(robot.action_features)
        if mode != "pd":
            assert set(sent.values()) == {0.25}


def test_an_estop_outlives_the_robot_until_somebody_resets_it(robots: Callable[..., Any]) -> None:
    robot = robots()
    robot.connect()
    robot.estop("hand")
    with pytest.raises(DriverError, match="hand"):
        for _ in range(10):
            robot.send_action({"lift.pos": 0.5, "turn.pos": 0.1})
    robot.disconnect()
    again = robots()
    with pytest.raises(DriverError, match="e-stopped"):
        again.connect()
    again.reset("looked at it")
    again.connect()
    again.disconnect()


def test_limits_that_cut_too_often_are_a_warning_and_then_take_it_down(
    robots: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    robot = robots()
    robot.guarded._escalation = Escalation(5, 10)
    with robot:
        with pytest.raises(DriverError, match="limits: 5 of 10 setpoints"):
            for _ in range(60):
                robot.send_action({"lift.pos": 1.0, "turn.pos": 0.1})
    warned = [one.message for one in caplog.records if one.levelname == "WARNING"]
    assert len(warned) == 1 and "active, limits: 5 of 10 setpoints had to be cut" in warned[0]


def test_a_calibration_of_another_robot_is_refused(
    robots: Callable[..., Any], tmp_path: Path
) -> None:
    for serial in ("8", "7"):
        file = tmp_path / f"{serial}.json"
        file.write_text(json.dumps({"device": {"serial": serial}, "values": {"zero": 0.1}}))
    with pytest.raises(DriverError, match="belongs"):
        robots(calibrated=False, calibration=str(tmp_path / "8.json")).connect()
    with robots(calibrated=False, calibration=str(tmp_path / "7.json")) as robot:
        assert robot.is_calibrated


def test_what_does_not_exist_is_said_at_once(robots: Callable[..., Any]) -> None:
    for wrong, told in (
        ({"driver": "mujocco"}, "mujoco"), ({"options": {"colour": 1}}, "colour"),
        ({"sensors": {"smell": 1}}, "smell"),
    ):  # fmt: skip
        with pytest.raises(DriverError, match=told):
            robots(**wrong)
    with pytest.raises(DriverError, match="effort"):
        robots(options={"mode": "velocity"}, mode="effort")


def test_a_sensor_of_another_size_is_told(robots: Callable[..., Any]) -> None:
    with robots(sensors={"force": 3}) as robot, pytest.raises(DriverError, match="2 numbers"):
        robot.get_observation()


@pytest.mark.slow
def test_lerobots_own_factory_and_parser_find_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real()
    for name in [name for name in sys.modules if name.startswith(OURS)]:
        monkeypatch.delitem(sys.modules, name)
    import draccus
    from lerobot.configs.parser import load_plugin
    from lerobot.robots import RobotConfig, make_robot_from_config

    script = make_dataclass("Script", [("robot", RobotConfig)])  # as LeRobot's own have it
    load_plugin(OURS)
    config = draccus.parse(
        script,
        args=[
            "--robot.type=safety_pilot", "--robot.driver=mujoco", "--robot.id=blue",
            "--robot.options={actuation: position}", f"--robot.calibration_dir={tmp_path}",
        ],
    )  # fmt: skip
    robot = make_robot_from_config(config.robot)
    assert type(robot).__name__ == "SafetyPilotRobot"
    assert robot.config.options == {"actuation": "position"}
    assert robot.action_features


def test_a_robot_of_lerobots_made_of_a_driver_of_ours_is_a_driver_again(
    robots: Callable[..., Any], tmp_path: Path
) -> None:
    robots()  # the modules
    joints = {"lift": {"feature_unit": "m", "unit": "m"}, "turn": {"feature_unit": "deg"}}
    config = {"id": "blue", "calibration_dir": tmp_path, "driver": "pond:ServoDriver",
              "degrees": True}  # fmt: skip
    options = {"robot": f"{OURS}.safety_pilot:SafetyPilotRobot", "config": config,
               "joints": joints, "rate_hz": 100.0}  # fmt: skip
    driver = registry.create("lerobot", options)
    try:
        assert driver.connect()["model"] == "safety_pilot"
        driver.configure({})
        assert driver.activate(Mode.POSITION).position == pytest.approx((0.5, 0.1))
        end = time.monotonic() + PATIENCE_S
        while driver.read(1 << 62).position != pytest.approx((0.5, -1.0)):
            driver.write(Setpoint(Mode.POSITION, (0.5, -1.0)), 1 << 62)
            assert time.monotonic() < end
        driver.deactivate()
    finally:
        driver.close()
    assert not driver.counters["not confirmed"]
