"""The limits of the joints in an MJCF model, as the options override and complete them.

A model says how far its joints go and what its actuators make, and nothing of speed and gains.
There the limits follow from physics: the speed that the effort reaches on half of the way, and the
gains that steps of such length can integrate.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, pi, sqrt
from typing import Any

import numpy as np

from safetypilot.bridge.contract import DriverError, Joint, Vector
from safetypilot.bridge.devices import mujoco_actuators as actuators
from safetypilot.bridge.devices.mujoco_options import MujocoOptions, for_each


def joints_of(
    model: Any, options: MujocoOptions, joints: Sequence[int], inertia: Vector
) -> tuple[Joint, ...]:
    """The joints of these numbers.

    Args:
        inertia: what each has to accelerate, kg m^2 or kg.

    Raises:
        DriverError: an option names a joint that there is not, or limits contradict each other.
    """
    names = tuple(model.joint(joint).name for joint in joints)
    step_s = options.timestep_s or float(model.opt.timestep)
    own = tuple(actuators.effort(model, joint) for joint in joints)
    efforts = for_each(options.effort, "effort", names, own)
    ways = (_way(model, joint) for joint in joints)
    speeds = (sqrt(e * way / m) for e, way, m in zip(efforts, ways, inertia, strict=True))
    endless, none = (inf,) * len(names), (0.0,) * len(names)
    defaults: dict[str, Vector] = {
        "velocity": tuple(speeds),
        "acceleration": endless,
        "jerk": endless,
        "effort": efforts,
        "margin": none,
        "lead": endless,
        "kp_limit": tuple(its / (4.0 * step_s**2) for its in inertia),
        "kd_limit": tuple(its / step_s for its in inertia),
    }
    columns = {
        name.removesuffix("_limit"): for_each(getattr(options, name), name, names, default)
        for name, default in defaults.items()
    }
    rows = zip(*columns.values(), strict=True)
    return tuple(
        _joint(model, joint, name, dict(zip(columns, row, strict=True)))
        for joint, name, row in zip(joints, names, rows, strict=True)
    )


def _way(model: Any, joint: int) -> float:
    """The length of a joint's range; a turn or a metre if it has none."""
    if model.jnt_limited[joint]:
        return float(np.ptp(model.jnt_range[joint]))
    return 2.0 * pi if actuators.unit(model, joint) == "rad" else 1.0


def _joint(model: Any, joint: int, name: str, limits: dict[str, float]) -> Joint:
    low, high = model.jnt_range[joint].tolist() if model.jnt_limited[joint] else (-inf, inf)
    try:
        return Joint(name, low, high, unit=actuators.unit(model, joint), **limits)
    except ValueError as error:
        raise DriverError(f"mujoco: {error}") from None
