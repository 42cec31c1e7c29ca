"""Whether a graph's models and its robot fit, by what both declare; nothing is connected.

The bridge checks the same once more when it starts. Here it is a line of the launch file that is
wrong, or a bundle that was made for another robot.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from safetypilot.bridge.contract import Description, DriverError
from safetypilot.envs import registry as envs
from safetypilot.envs.body import Body
from safetypilot.models.errors import ModelError
from safetypilot.models.makers import isaac
from safetypilot.models.model_file import read_bytes, summarise
from safetypilot.nodes.bridge_config import BridgeConfig, check_fit, find_body, tightened
from safetypilot.nodes.plant import parts_of_a_step

_TOLERANCE = 1e-3  # of a gain: text of a maker's metadata
COMPARED = (  # of `facts`, beside the joints
    *("modes", "sensors", "time_factor", "task", "calibration"),
    *("watchdog_s", "command_timeout_s", "failsafes"),
)


def robot_of(config: Mapping[str, Any], period_ns: int) -> tuple[Description, Body]:
    """The robot that a bridge's config names, and the task's body, which fit.

    Raises:
        DriverError: they do not, and why.
    """
    made = BridgeConfig(**config)
    description = made.description
    body, _ = find_body(made.env)
    joints = tightened(description, made.limits)
    try:
        parts = parts_of_a_step(made.control_rate, period_ns)
    except ValueError as error:
        raise DriverError(str(error)) from None
    places, _ = check_fit(body, description, period_ns, parts)
    for place, (kp, kd) in zip(places, _gains(body, made.env), strict=False):
        joint = joints[place]
        if kp > joint.kp or kd > joint.kd:
            raise DriverError(
                f"the task's gains for {joint.name!r} are kp {kp:g} and kd {kd:g}; "
                f"{description.name} allows {joint.kp:g} and {joint.kd:g}"
            )
    return description, body


def _gains(body: Body, env: str) -> list[tuple[float, float]]:
    """kp and kd for each joint of the body; empty where it sets none."""
    failsafe = np.array(envs.describe(env)["failsafe"], np.float32)
    asked = body.drive(failsafe, (0.0,) * len(body.joints))
    return list(zip(asked.kp, asked.kd, strict=True))


def check_model(path: str, body: Body, env: str) -> None:
    """Refuses a policy whose maker says it was trained for other joints, order or gains.

    Raises:
        DriverError: so it is.
    """
    try:
        says = isaac(summarise(read_bytes(path)).metadata)
    except ModelError as error:
        raise DriverError(f"{path}: {error}") from None
    if not says:
        return
    if list(says["joint_names"]) != list(body.joints):
        theirs, ours = ", ".join(says["joint_names"]), ", ".join(body.joints)
        raise DriverError(f"{path} was trained for the joints {theirs}; the robot's are {ours}")
    for key, at in (("joint_stiffness", 0), ("joint_damping", 1)):
        for joint, trained, gains in zip(
            body.joints, says.get(key, ()), _gains(body, env), strict=False
        ):
            if abs(trained - gains[at]) > _TOLERANCE * max(1.0, abs(trained)):
                raise DriverError(
                    f"{path} was trained with a {key} of {trained:g} for {joint!r}; the body of "
                    f"the task drives it with {gains[at]:g}"
                )


def facts(description: Description, body: Body) -> dict[str, Any]:
    """What a bundle remembers of the robot that it was made for, JSON-able."""
    joints = []
    for joint in description.joints:
        values = asdict(joint)
        joints.append({k: str(v) if isinstance(v, float) else v for k, v in values.items()})
    return {
        "name": description.name,
        "joints": joints,
        "modes": list(map(str, description.modes)),
        "sensors": dict(description.sensors),
        "time_factor": description.time_factor,
        "watchdog_s": description.watchdog_s,
        "command_timeout_s": description.command_timeout_s,
        "failsafes": list(map(str, description.failsafes)),
        "task": {"joints": list(body.joints), "mode": body.mode, "rate_hz": body.rate_hz},
    }


def differences(made_for: Mapping[str, Any], here: Mapping[str, Any]) -> list[str]:
    """How the robot here differs from the one that a bundle was made for; empty: it does not.

    Both are `facts`, with the id of the calibration under `calibration`.
    """
    found = []
    theirs = [joint["name"] for joint in made_for["joints"]]
    ours = [joint["name"] for joint in here["joints"]]
    if theirs != ours:
        found.append(f"joints: made for {', '.join(theirs)}; here are {', '.join(ours)}")
    else:
        for one, other in zip(made_for["joints"], here["joints"], strict=True):
            found += [
                f"{key} of joint {one['name']!r}: made for {one[key]}, here {other.get(key)}"
                for key in one
                if one[key] != other.get(key)
            ]
    for key in COMPARED:
        if made_for[key] != here[key]:
            found.append(f"{key}: made for {made_for[key]}, here {here[key]}")
    return found
