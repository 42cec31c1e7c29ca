"""What moves the joints of an MJCF model: its own actuators, and servos of ours beside them."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

import mujoco
import numpy as np
import numpy.typing as npt

from safetypilot.bridge.contract import DriverError, Joint, Mode

_UNITS = {int(mujoco.mjtJoint.mjJNT_HINGE): "rad", int(mujoco.mjtJoint.mjJNT_SLIDE): "m"}
_ON_JOINT = int(mujoco.mjtTrn.mjTRN_JOINT)
_FIXED, _STATELESS = int(mujoco.mjtGain.mjGAIN_FIXED), int(mujoco.mjtDyn.mjDYN_NONE)
_NO_BIAS, _AFFINE = int(mujoco.mjtBias.mjBIAS_NONE), int(mujoco.mjtBias.mjBIAS_AFFINE)
_HUGE = 1e9  # stands for a limit that there is not


def unit(model: Any, joint: int) -> str:
    """Of a joint that turns or slides; empty for any other."""
    return _UNITS.get(int(model.jnt_type[joint]), "")


def joints_of(model: Any) -> tuple[str, ...]:
    """Joints that turn or slide and have an actuator, in the order of the actuators."""
    found: list[str] = []
    for act in range(model.nu):
        joint = int(model.actuator_trnid[act, 0])
        if model.actuator_trntype[act] == _ON_JOINT and unit(model, joint):
            name = model.joint(joint).name
            found += [name] if name not in found else []
    return tuple(found)


def of_joints(model: Any, joints: Sequence[int]) -> list[int]:
    """The model's actuator of each joint.

    Raises:
        DriverError: a joint has none, or more than one.
    """
    own = []
    for joint in joints:
        acts = _actuators_of(model, joint)
        if len(acts) != 1:
            raise DriverError(
                f"mujoco: joint {model.joint(joint).name!r} has {len(acts)} actuators in the "
                "model, not one; say actuation=position, for example"
            )
        own += acts
    return own


def _actuators_of(model: Any, joint: int) -> list[int]:
    pairs = zip(model.actuator_trntype.tolist(), model.actuator_trnid[:, 0].tolist(), strict=True)
    return [act for act, pair in enumerate(pairs) if pair == (_ON_JOINT, joint)]


def with_servos(spec: Any, joints: Sequence[Joint]) -> tuple[Any, npt.NDArray[np.int64]]:
    """The model with a servo of our own on each joint, and which actuators these are.

    A servo's force is ctrl - kp position - kd velocity, within the joint's effort; its gains are
    set while it works. Physics computes it at every step, in C. The model's own actuators stay.
    """
    for joint in joints:
        servo = spec.add_actuator(name=f"{joint.name}/servo", target=joint.name)
        servo.trntype = mujoco.mjtTrn.mjTRN_JOINT
        servo.gaintype, servo.gainprm[0] = mujoco.mjtGain.mjGAIN_FIXED, 1.0
        servo.biastype = mujoco.mjtBias.mjBIAS_AFFINE
        effort = min(joint.effort, _HUGE)
        servo.forcelimited, servo.forcerange = True, (-effort, effort)
    model = spec.compile()
    return model, np.array([model.actuator(f"{joint.name}/servo").id for joint in joints])


def silence(model: Any, joints: Sequence[int]) -> None:
    """The model's own actuators of these joints do nothing from now on."""
    for joint in joints:
        for act in _actuators_of(model, joint)[:-1]:  # the last is the servo
            model.actuator_gaintype[act], model.actuator_biastype[act] = _FIXED, _NO_BIAS
            model.actuator_gainprm[act] = 0.0


def mode_of_all(model: Any, acts: Sequence[int]) -> Mode:
    """What control signals mean to these actuators.

    Raises:
        DriverError: not the same to all of them.
    """
    modes = {_mode_of(model, act) for act in acts}
    if len(modes) > 1:
        raise DriverError(
            f"mujoco: the model's actuators are of more than one kind ({', '.join(sorted(modes))});"
            " say actuation=position, for example"
        )
    return modes.pop()


def _mode_of(model: Any, act: int) -> Mode:
    bias = model.actuator_biasprm[act]
    plain = (
        model.actuator_gaintype[act] == _FIXED
        and model.actuator_dyntype[act] == _STATELESS
        and model.actuator_gainprm[act, 0] * model.actuator_gear[act, 0] != 0
    )
    if plain and model.actuator_biastype[act] == _NO_BIAS:
        return Mode.EFFORT
    if plain and model.actuator_biastype[act] == _AFFINE and bias[0] == 0:
        if bias[1] < 0:
            return Mode.POSITION
        if bias[2] < 0:
            return Mode.VELOCITY
    raise DriverError(
        f"mujoco: actuator {model.actuator(act).name!r} is no motor, position or velocity servo; "
        "say actuation=effort, for example"
    )


def scale(model: Any, act: int) -> float:
    """Control signal per unit of command: N m, N, rad, m or their rates, of the joint."""
    gear, gain = float(model.actuator_gear[act, 0]), float(model.actuator_gainprm[act, 0])
    mode, bias = _mode_of(model, act), model.actuator_biasprm[act]
    if mode is Mode.EFFORT:
        return 1.0 / (gear * gain)
    return gear * float(-bias[1] if mode is Mode.POSITION else -bias[2]) / gain


def effort(model: Any, joint: int) -> float:
    """The largest that an actuator of the joint makes, N m or N."""
    largest = max((_effort_of(model, act) for act in _actuators_of(model, joint)), default=inf)
    if model.jnt_actfrclimited[joint]:
        largest = min(largest, float(np.abs(model.jnt_actfrcrange[joint]).max()))
    return largest


def _effort_of(model: Any, act: int) -> float:
    gear, largest = abs(float(model.actuator_gear[act, 0])), inf
    if model.actuator_forcelimited[act]:
        largest = gear * float(np.abs(model.actuator_forcerange[act]).max())
    motor = model.actuator_biastype[act] == _NO_BIAS
    if motor and model.actuator_ctrllimited[act]:
        gain = abs(float(model.actuator_gainprm[act, 0]))
        largest = min(largest, gear * gain * float(np.abs(model.actuator_ctrlrange[act]).max()))
    return largest
