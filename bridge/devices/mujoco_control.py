"""Who moves the joints of the MuJoCo device: its commander, or the device itself.

    off, damping, holding --arm--> rising --> active --release--> releasing --> the first three

From all of them an e-stop, and from rising and active also silence, leads to damping at once, and
is latched: only `reset` leads on. Silence is measured on the host's clock, ramps on the device's.
"""

from __future__ import annotations

from safetypilot.bridge.contract import DriverError, Mode, Setpoint, Vector
from safetypilot.bridge.devices.common import EventLog
from safetypilot.bridge.devices.mujoco_world import World
from safetypilot.bridge.protocols.mujoco import Cause, Refused, Status

_RESTING = {"off": Status.OFF, "damping": Status.DAMPING, "hold": Status.HOLDING}


class Control:
    """The device's own rules; knows no sockets.

    Attributes:
        status, cause: see protocols/mujoco.py.
        acknowledged: sequence number of the command in effect.
        delay_ns: from its stamp to the first step of physics that it had a say in.
    """

    def __init__(
        self, world: World, mode: Mode, log: EventLog, watchdog_s: float, ramp_steps: float
    ) -> None:
        """Begin without torque.

        Args:
            mode: in which the robot can be commanded.
            ramp_steps: of physics in which gains rise and fall.
        """
        self._world, self._mode, self._log = world, mode, log
        self._watchdog_ns, self._ramp_steps = round(watchdog_s * 1e9), max(ramp_steps, 1.0)
        self.status, self.cause = Status.OFF, Cause.NONE
        self.acknowledged = self.delay_ns = 0
        self._under = Status.OFF  # what the device does as far as nobody commands
        self._rest = Status.OFF  # where a release leads to
        self._risen = 0.0  # steps of the ramp
        self._fed_ns: int | None = None  # None: nobody has to feed the watchdog

    def arm(self, mode: str, now_ns: int) -> None:
        """Hands the joints to a commander, who is to stay where they are."""
        if self.cause is not Cause.NONE:
            raise DriverError(f"the device damps ({self.cause.name.lower()}); reset it first")
        if self.status in (Status.RISING, Status.ACTIVE):
            raise DriverError("the device is active already")
        if mode != self._mode:
            raise DriverError(f"the device's mode is {self._mode}, not {mode!r}")
        self._world.stay(self._mode)
        self._fed_ns = now_ns
        self.status = Status.RISING
        self._log("active", mode=mode)

    def feed(self, mode: Mode, now_ns: int) -> None:
        """Someone who may command the joints is there.

        Raises:
            Refused: not in that mode, or not now.
        """
        if mode is not self._mode:
            raise Refused("mode")
        if self.status not in (Status.ACTIVE, Status.RISING):
            raise Refused("not active")
        self._fed_ns = now_ns

    def obey(self, setpoint: Setpoint, seq: int, delay_ns: int) -> None:
        """The setpoint counts from now on, if the joints are still commanded."""
        if self.status in (Status.ACTIVE, Status.RISING):
            self._world.command(setpoint)
            self.acknowledged, self.delay_ns = seq, delay_ns

    def release(self, rest: str) -> None:
        """Takes the joints back, over the ramp: to "damping", "hold" or "off"."""
        if rest not in _RESTING:
            raise DriverError(f"rest is {rest!r}; it is one of {', '.join(_RESTING)}")
        self._fed_ns = None
        if self.cause is not Cause.NONE:
            return
        if self.status in (Status.ACTIVE, Status.RISING):
            # Damped on the way to off, too: nothing is ever dropped in the middle of a motion.
            self._fall_back(Status.HOLDING if rest == "hold" else Status.DAMPING)
            self._rest, self.status = _RESTING[rest], Status.RELEASING
        else:
            self._settle(_RESTING[rest])

    def damp(self, cause: Cause, **details: float) -> None:
        """The device takes over at once and keeps the joints, until a reset."""
        if self.cause in (cause, Cause.ESTOP):
            return
        self._fed_ns = None
        self.cause = cause
        self._settle(Status.DAMPING)
        self._log("damping", cause=cause.name.lower(), **details)

    def reset(self, rest: str) -> None:
        """Ends a latched state; the joints are damped, or let go."""
        if rest not in ("damping", "off"):
            raise DriverError(f"after a reset the joints are damped or off, not {rest!r}")
        if self._world.diverged:
            raise DriverError("the simulation went astray; place the robot anew")
        if self.cause is not Cause.NONE:
            self._log("recovered", cause=self.cause.name.lower())
            self.cause = Cause.NONE
            self._settle(_RESTING[rest])

    def rehearse(self, now_ns: int) -> None:
        """Arms the watchdog although nobody commands the joints, to see it act."""
        if self.status not in _RESTING.values() or self.cause is not Cause.NONE:
            raise DriverError(f"the watchdog is not rehearsed while {self.status.name.lower()}")
        self._fed_ns = now_ns

    def place(self, position: Vector) -> None:
        """Puts the joints there, at rest; whoever has them is to stay there."""
        self._world.place(position, self._mode, self._under is Status.HOLDING)
        self._log("placed", position=position)

    def watch(self, now_ns: int) -> None:
        """Damps if there has been silence for too long; to be called after all was heard."""
        if self._fed_ns is not None and now_ns - self._fed_ns > self._watchdog_ns:
            silence_s = (now_ns - self._fed_ns) / 1e9
            self.damp(Cause.SILENCE, silence_s=silence_s, timeout_s=self._watchdog_ns / 1e9)

    def advance(self, steps: int) -> None:
        """Lets physics run, and gains rise or fall with it."""
        if not steps:
            return
        if self.status is Status.RISING:
            self._move_lead(steps)
            if self._world.lead == 1.0:
                self.status = Status.ACTIVE
        elif self.status is Status.RELEASING:
            self._move_lead(-steps)
            if self._world.lead == 0.0:
                self._settle(self._rest)
        self._world.step(steps)
        if self._world.diverged and self.cause is Cause.NONE:
            self.damp(Cause.DIVERGED)

    def _move_lead(self, steps: int) -> None:
        self._risen = min(self._ramp_steps, max(0.0, self._risen + steps))
        self._world.lead = self._risen / self._ramp_steps

    def _settle(self, rest: Status) -> None:
        """At rest, nobody in command."""
        if not rest is self._under is Status.HOLDING:  # which would creep
            self._fall_back(rest)
        self._world.lead = self._risen = 0.0
        self.status = rest

    def _fall_back(self, rest: Status) -> None:
        """What the device itself does with the joints, as far as nobody commands them."""
        if rest is Status.HOLDING:
            self._world.hold()
        elif rest is Status.DAMPING:
            self._world.damp()
        else:
            self._world.let_go()
        self._under = rest
