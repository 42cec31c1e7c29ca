"""What a Unitree robot says of itself, in the words of bridge/contract.py."""

from __future__ import annotations

from safetypilot.bridge.contract import Measurement, Vector
from safetypilot.bridge.protocols.unitree import BUTTONS, GO, Remote, State, read_remote
from safetypilot.bridge.protocols.unitree_link import Link
from safetypilot.bridge.protocols.unitree_robots import Robot

_BITS = tuple(bit for bit, name in enumerate(BUTTONS) if name)


class Reading:
    """Turns states into measurements."""

    def __init__(self, robot: Robot) -> None:
        self._robot, self._stop = robot, set(robot.stop)
        self._keys, self._buttons = 0, (0.0,) * len(_BITS)

    def measure(self, link: Link, modes: tuple[int, ...] | None) -> Measurement:
        """The newest state that came.

        Args:
            modes: of the motors, as they were when the robot was taken over; None: it is not.

        Raises:
            DriverError: the link is closed.
        """
        state = link.newest
        remote = read_remote(state.remote)
        if remote.keys != self._keys:
            self._keys = remote.keys
            self._buttons = tuple([float(remote.keys >> bit & 1) for bit in _BITS])
        sensors: dict[str, Vector] = {
            "orientation": state.orientation,
            "gyroscope": state.gyroscope,
            "accelerometer": state.accelerometer,
            "rpy": state.rpy,
            "remote": remote[:4],
            "buttons": self._buttons,
        }
        if self._robot.family is GO:
            sensors["foot_force"] = state.foot_force
        return Measurement(
            link.seq,
            link.received_ns,
            link.device_ms * 1_000_000,
            state.position,
            state.velocity,
            state.effort,
            sensors,
            faults=self._faults(link, state, remote, modes),
        )

    def _faults(
        self, link: Link, state: State, remote: Remote, modes: tuple[int, ...] | None
    ) -> tuple[str, ...]:
        faults = []
        if remote.keys and self._stop <= set(remote.pressed()):
            faults.append(f"the remote controller says stop ({'+'.join(self._robot.stop)})")
        if link.commanded_by_others():
            faults.append("somebody else commands the robot")
        if any(state.errors):
            wrong = [f"{name} {bits:#x}" for name, bits in self._named(state.errors) if bits]
            faults.append(f"motor errors: {', '.join(wrong)}")
        if modes is not None and state.modes != modes:
            lost = [
                f"{name} (mode {mode})"
                for (name, mode), before in zip(self._named(state.modes), modes, strict=True)
                if mode != before
            ]
            faults.append(f"motors obey no more: {', '.join(lost)}")
        return tuple(faults)

    def _named(self, numbers: tuple[int, ...]) -> list[tuple[str, int]]:
        names = [joint.name for joint in self._robot.joints]
        return list(zip(names, numbers, strict=True))
