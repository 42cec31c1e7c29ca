"""The robot in an MJCF file: limits, actuators, sensors, and what options cannot be."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from mujoco_rig import MOTORS, two_links

from safetypilot.bridge.contract import DriverError, Mode
from safetypilot.bridge.devices.mujoco_options import MujocoOptions
from safetypilot.bridge.devices.mujoco_robot import load


@pytest.fixture
def write(tmp_path: Path) -> Any:
    return partial(two_links, tmp_path)


def test_the_limits_of_the_joints_are_the_models(write: Any) -> None:
    robot = load(write())
    elbow, shoulder = robot.joints
    assert robot.names == ("elbow", "shoulder")  # in the order of the actuators
    assert (shoulder.low, shoulder.high, shoulder.unit) == (-1.0, 2.0, "rad")
    assert (elbow.low, elbow.high) == (-math.inf, math.inf)
    assert (elbow.effort, shoulder.effort) == (6.0, 4.0)  # ctrlrange * gear; forcerange
    assert elbow.acceleration == elbow.jerk == elbow.lead == math.inf
    assert (elbow.margin, shoulder.margin) == (0.0, 0.0)
    assert robot.modes == (Mode.EFFORT,)
    assert [(its.name, its.size, its.unit) for its in robot.sensors] == [
        ("tip", 3, "m"),
        ("spin", 1, "rad/s"),
    ]


def test_limits_that_a_model_does_not_have_follow_from_physics(write: Any) -> None:
    """A rod of 0.5 kg and 0.2 m about its end, 6 N m, a whole turn; steps of 1 ms."""
    elbow = load(write()).joints[0]
    inertia = 0.5 * 0.2**2 / 3
    assert elbow.velocity == pytest.approx(math.sqrt(6.0 / inertia * 2 * math.pi), rel=0.1)
    assert elbow.kd == pytest.approx(inertia / 1e-3, rel=0.15)
    assert elbow.kp == pytest.approx(inertia / 4e-6, rel=0.15)
    slower = load(write(timestep_s=0.002, rate_hz=100)).joints[0]
    assert (slower.kp, slower.kd) == pytest.approx((elbow.kp / 4, elbow.kd / 2))


def test_options_override_limits_for_all_joints_or_some(write: Any) -> None:
    robot = load(
        write(
            joints=["shoulder", "elbow"], velocity=2, effort={"elbow": 1.5}, jerk=100.0, lead=0.2,
            margin={"shoulder": 0.1}, acceleration=10.0, kp_limit=50, kd_limit=5,
        )
    )  # fmt: skip
    shoulder, elbow = robot.joints
    assert (shoulder.name, shoulder.velocity, elbow.velocity) == ("shoulder", 2.0, 2.0)
    assert (shoulder.effort, elbow.effort) == (4.0, 1.5)
    assert (shoulder.margin, elbow.margin) == (0.1, 0.0)
    assert (elbow.acceleration, elbow.jerk, elbow.lead, elbow.kp, elbow.kd) == (10, 100, 0.2, 50, 5)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"model": "nowhere.xml"}, "no model 'nowhere.xml'.*maze.xml"),
        ({"joints": ("wrist",)}, "no joint 'wrist'.*shoulder, elbow"),
        ({"joints": ("elbow", "elbow")}, "each once"),
        ({"joints": "elbow"}, "list of names"),
        ({"actuation": "torque"}, "one of model, position"),
        ({"rest": "drop"}, "one of damping"),
        ({"keyframe": "straight"}, "no keyframe 'straight'.*bent"),
        ({"kp": {"wrist": 1.0}}, "kp names wrist"),
        ({"kp": "high"}, "a number, or by joint"),
        ({"margin": 3.0}, "leaves no room"),
        ({"velocity": 0.0}, "velocity is 0.0"),
        ({"rate_hz": 1001.0}, "at most max_rate_hz"),
        ({"rate_hz": 2000.0, "max_rate_hz": 2000.0}, "1000 states per second"),
        ({"rate_hz": math.nan}, "rate_hz is nan"),
        ({"watchdog_s": 0}, "watchdog_s is 0"),
        ({"latency_s": -0.1}, "latency_s is -0.1"),
        ({"drop_rate": 1.0}, "below 1"),
        ({"seed": -1}, "seed is -1"),
        ({"timestep_s": 0.0}, "timestep_s is 0.0"),
        ({"payload_kg": 1.0}, "both payload_kg and payload_body"),
        ({"payload_kg": 1.0, "payload_body": "hand"}, "no body 'hand'.*upper"),
        ({"obstacles": "door"}, "no geom has 'door'"),
        ({"model": 3}, "model is 3; it is a text"),
        ({"model": ""}, "model is empty"),
    ],
)
def test_what_an_option_cannot_be_is_said(write: Any, options: dict[str, Any], said: str) -> None:
    with pytest.raises(DriverError, match=said):
        load(replace(write(), **options))


@pytest.mark.parametrize(
    ("actuators", "said"),
    [
        (MOTORS + '<motor joint="elbow"/>', "'elbow' has 2 actuators"),
        (
            MOTORS.replace("motor", "velocity", 1).replace('gear="2"', 'kv="1"'),
            "more than one kind",
        ),
        ('<general joint="elbow" dyntype="integrator"/>', "no motor"),
        ("", "at least one"),
    ],
)
def test_actuators_that_have_no_one_meaning_are_refused(
    write: Any, actuators: str, said: str
) -> None:
    options = write(actuators)
    with pytest.raises(DriverError, match=said):
        load(options)
    if actuators:
        assert load(replace(options, actuation="position")).modes == (Mode.POSITION,)


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "broken.xml").write_text("<mujoco><body></mujoco>")
    with pytest.raises(DriverError, match=r"broken\.xml is no model"):
        load(MujocoOptions(model=str(tmp_path / "broken.xml")))
