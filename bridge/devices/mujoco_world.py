"""The physics of the MuJoCo device: joints that a commander, or a failsafe, or both move.

Every joint has a servo whose force is offset - kp position - kd velocity. What it does is the share
`lead` of what is commanded and the rest of what the failsafe does, so control is handed over
without a step by moving the share from 0 to 1, and back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import mujoco
import numpy as np

from safetypilot.bridge.contract import Mode, Setpoint, Vector
from safetypilot.bridge.devices.common import Push
from safetypilot.bridge.devices.mujoco_robot import Floats, Robot

_ASTRAY = (
    mujoco.mjtWarning.mjWARN_BADQPOS,
    mujoco.mjtWarning.mjWARN_BADQVEL,
    mujoco.mjtWarning.mjWARN_BADQACC,
)


class _Law(NamedTuple):
    """force = offset - kp position - kd velocity, of each joint."""

    offset: Floats
    kp: Floats
    kd: Floats


class World:
    """One robot, at work.

    Attributes:
        ticks: steps of physics since the start; placing the robot somewhere is none.
        touches: steps, and placings, after which the robot touched an obstacle.
        diverged: the simulation went astray and was reset.
    """

    def __init__(self, robot: Robot, pushes: Sequence[Push] = ()) -> None:
        self._robot, self._model = robot, robot.model
        self._data = mujoco.MjData(robot.model)
        self._step_s = float(robot.model.opt.timestep)
        self._own_gain = np.array(robot.model.actuator_gainprm[robot.own])
        self._own_bias = np.array(robot.model.actuator_biasprm[robot.own])
        self._looks = bool(robot.obstacles.any())
        self._warnings = [self._data.warning[int(each)] for each in _ASTRAY]
        self._pushes = [(push, robot.model.body(push.body).id) for push in pushes]
        self.ticks = self.touches = 0
        self.diverged = False
        nothing = np.zeros(len(robot.joints))
        self._off = _Law(nothing, nothing, nothing)
        self._failsafe = self._commanded = self._off
        self._lead = 0.0
        self._data.qpos[:] = robot.start
        mujoco.mj_forward(self._model, self._data)

    @property
    def time_ns(self) -> int:
        """Of the device; never goes back."""
        return round(self.ticks * self._step_s * 1e9)

    # Who moves the joints.

    def let_go(self) -> None:
        """The failsafe is to do nothing."""
        self._failsafe = self._off
        self._apply()

    def damp(self) -> None:
        """The failsafe is to resist motion."""
        nothing = self._off.kp
        self._failsafe = _Law(nothing, nothing, self._robot.damping)
        self._apply()

    def hold(self) -> None:
        """The failsafe is to keep the joints where they are."""
        robot = self._robot
        where = self._data.qpos[robot.positions]
        self._failsafe = _Law(robot.kp * where, robot.kp, robot.kd)
        self._apply()

    def stay(self, mode: Mode) -> None:
        """The commander is to begin with no motion: where the joints are, no speed, no effort."""
        zeros: Vector = (0.0,) * len(self._robot.joints)
        here: Vector = tuple(self._data.qpos[self._robot.positions].tolist())
        self.command(Setpoint(mode, here, zeros, zeros, zeros, zeros))

    def command(self, setpoint: Setpoint) -> None:
        """What the commander wants from the next step on."""
        robot, mode = self._robot, setpoint.mode
        if len(robot.own):
            self._data.ctrl[robot.own] = robot.scale * getattr(setpoint, mode)
            return
        if mode is Mode.POSITION:
            self._commanded = _Law(robot.kp * setpoint.position, robot.kp, robot.kd)
        elif mode is Mode.VELOCITY:
            self._commanded = _Law(robot.kd * setpoint.velocity, self._off.kp, robot.kd)
        elif mode is Mode.EFFORT:
            self._commanded = self._off._replace(offset=np.array(setpoint.effort))
        else:
            kp, kd = np.array(setpoint.kp), np.array(setpoint.kd)
            offset = kp * setpoint.position + kd * setpoint.velocity + setpoint.effort
            self._commanded = _Law(offset, kp, kd)
        self._apply()

    @property
    def lead(self) -> float:
        """The commander's share, 0 to 1."""
        return self._lead

    @lead.setter
    def lead(self, share: float) -> None:
        self._lead = share
        own = self._robot.own
        if len(own):
            self._model.actuator_gainprm[own] = share * self._own_gain
            self._model.actuator_biasprm[own] = share * self._own_bias
        self._apply()

    def _apply(self) -> None:
        lead, own, other = self._lead, self._commanded, self._failsafe
        if lead == 1.0:
            offset, kp, kd = own
        elif lead == 0.0:
            offset, kp, kd = other
        else:
            offset, kp, kd = (
                lead * mine + (1.0 - lead) * its for mine, its in zip(own, other, strict=True)
            )
        servos = self._robot.servos
        self._data.ctrl[servos] = offset
        self._model.actuator_biasprm[servos, 1] = -kp
        self._model.actuator_biasprm[servos, 2] = -kd

    # Time.

    def step(self, steps: int) -> None:
        """So many steps of physics."""
        model, data = self._model, self._data
        if self._looks or self._pushes:
            for _ in range(steps):
                self._push()
                mujoco.mj_step(model, data)
                self.ticks += 1
                if data.ncon and self._touching():
                    self.touches += 1
        else:
            mujoco.mj_step(model, data, nstep=steps)
            self.ticks += steps
        if any(warning.number for warning in self._warnings):  # MuJoCo began anew
            self.diverged = True

    def place(self, position: Vector, mode: Mode, holds: bool) -> None:
        """The joints there at rest, all else as at the start; whoever moves them is to stay there.

        Args:
            mode: of the commander.
            holds: the failsafe keeps positions.
        """
        start = np.array(self._robot.start)
        start[self._robot.positions] = position
        mujoco.mj_resetData(self._model, self._data)
        self._data.qpos[:] = start
        self.stay(mode)
        if holds:
            self.hold()
        mujoco.mj_forward(self._model, self._data)
        self.diverged = False
        self.touches += self._touching()

    def _push(self) -> None:
        for push, body in self._pushes:
            force = push.force if push.lasts(self.ticks * self._step_s) else (0.0, 0.0, 0.0)
            self._data.xfrc_applied[body, :3] = force

    def _touching(self) -> bool:
        """Whether the robot touches an obstacle."""
        pairs = self._data.contact.geom  # (contacts, 2)
        robot, first, second = self._robot, pairs[:, 0], pairs[:, 1]
        hits = robot.parts[first] & robot.obstacles[second]
        hits |= robot.parts[second] & robot.obstacles[first]
        return bool(hits.any())

    # What is measured.

    def measure(self) -> tuple[Vector, Vector, Vector, Vector]:
        """Position, velocity and effort of the joints; sensors, one after the other."""
        robot, data = self._robot, self._data
        sensors = data.sensordata
        numbers = [sensors[s.start : s.start + s.size].tolist() for s in robot.sensors]
        return (
            tuple(data.qpos[robot.positions].tolist()),
            tuple(data.qvel[robot.speeds].tolist()),
            tuple(data.qfrc_actuator[robot.speeds].tolist()),
            tuple(number for its in numbers for number in its),
        )
