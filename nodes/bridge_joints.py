"""Between the joints of a task and those of a driver: by name, in SI units, gains from zero."""

from __future__ import annotations

import numpy as np

from safetypilot.bridge.contract import Joint, Measurement, Mode, Setpoint, Vector
from safetypilot.envs.body import Drive
from safetypilot.nodes.kernel import messages

_NOTHING = float("nan")


class Joints:
    """Maps numbers of the task's joints to the driver's and back.

    Args:
        places: where each of the task's joints is in the driver's order.
        limits: of the driver's joints.
        ramp_s: gains rise from zero for so long.
    """

    def __init__(
        self, places: tuple[int, ...], mode: Mode, limits: tuple[Joint, ...], ramp_s: float
    ) -> None:
        self.limits, self.mode = limits, mode
        self._places = places
        self._plain = places == tuple(range(len(limits)))
        self._ramp_ns = ramp_s * 1e9
        self._zeros: Vector = (0.0,) * len(limits)

    def of_body(self, measured: Measurement) -> tuple[Vector, Vector, Vector]:
        """Position, velocity and effort in the task's order."""
        if self._plain:
            return measured.position, measured.velocity, measured.effort
        places = self._places
        return (
            tuple([measured.position[i] for i in places]),
            tuple([measured.velocity[i] for i in places]),
            tuple([measured.effort[i] for i in places]),
        )

    def to_driver(self, numbers: Vector, others: Vector) -> Vector:
        """The task's numbers in the driver's order; joints that it does not have keep theirs."""
        if self._plain:
            return numbers
        full = list(others)
        for place, number in zip(self._places, numbers, strict=True):
            full[place] = number
        return tuple(full)

    def setpoint(self, drive: Drive, measured: Measurement, since_ns: int) -> Setpoint:
        """What an action asks, for the driver.

        Joints that the task does not have are held in position, and given neither speed nor effort.

        Args:
            since_ns: the time since activation.
        """
        zeros, mode = self._zeros, self.mode
        if mode is Mode.POSITION:
            return Setpoint(mode, self.to_driver(drive.position, measured.position))
        if mode is Mode.VELOCITY:
            return Setpoint(mode, velocity=self.to_driver(drive.velocity, zeros))
        if mode is Mode.EFFORT:
            return Setpoint(mode, effort=self.to_driver(drive.effort, zeros))
        share = min(1.0, since_ns / self._ramp_ns) if self._ramp_ns else 1.0
        gains = (drive.kp, drive.kd)
        if share < 1.0:
            gains = (tuple([share * k for k in drive.kp]), tuple([share * k for k in drive.kd]))
        still = (0.0,) * len(self._places)
        return Setpoint(
            mode,
            self.to_driver(drive.position, measured.position),
            self.to_driver(drive.velocity or still, zeros),
            self.to_driver(drive.effort or still, zeros),
            self.to_driver(gains[0], zeros),
            self.to_driver(gains[1], zeros),
        )


def actuation(
    seq: int,
    stamp_ns: int,
    now_ns: int,
    state: str,
    cut: int,
    measured: Measurement,
    sent: Setpoint,
) -> messages.Actuation:
    """What was measured and sent, for those who record or look."""
    nothing = (_NOTHING,) * len(measured.position)
    asked = {Mode.POSITION: 1, Mode.VELOCITY: 2, Mode.EFFORT: 3}.get(sent.mode)
    rows = [
        numbers if numbers and asked in (None, at) else nothing
        for at, numbers in enumerate(sent[1:], 1)
    ]
    return messages.Actuation(
        seq,
        stamp_ns,
        now_ns,
        state,
        cut,
        measured.seq,
        measured.device_ns,
        np.array((measured.position, measured.velocity, measured.effort), np.float32),
        np.array(rows, np.float32),
        np.array([n for numbers in measured.sensors.values() for n in numbers], np.float32),
    )
