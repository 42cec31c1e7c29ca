"""A chain of Dynamixel X series motors over a serial adapter, or over a simulated chain's port.

A cycle is one sync read of registers 124 to 135 and one sync write of the goals. The motors' bus
watchdog is armed while the arm is active; every packet feeds it, so it acts when this process or
the cable is gone. That a process still reads and nobody commands is the bridge's own time-out.

What stops the arm, by default, holds it: an arm that is let go falls. The e-stop sends the motors
back to where they were measured last and sets their watchdogs to 20 ms, then nothing until these
have expired; from then on they take no goal from anybody until `reset`. Three things to know of
real motors: the 330 models before firmware 52 report an expired watchdog and turn on; in extended
mode with a homing offset older firmware moves when it expires; and both only a bench test shows.
"""

from __future__ import annotations

import struct
from time import monotonic_ns, sleep
from typing import Any, ClassVar

from safetypilot.bridge.contract import DriverError, Measurement, Mode, Setpoint, Vector
from safetypilot.bridge.drivers import dynamixel_setup as setup
from safetypilot.bridge.drivers import dynamixel_torque as torque
from safetypilot.bridge.drivers.dynamixel_chain import Chain
from safetypilot.bridge.drivers.dynamixel_health import QUESTIONS, Health
from safetypilot.bridge.drivers.dynamixel_options import (
    NAME,
    STATE,
    DynamixelOptions,
    bus_time_s,
    describe,
    servos,
    watchdog_ticks,
)
from safetypilot.bridge.drivers.vetting import vet
from safetypilot.bridge.protocols import dynamixel as wire
from safetypilot.bridge.protocols.dynamixel_table import (
    CENTRE,
    RADIANS,
    RADIANS_PER_S,
    TABLE,
    WATCHDOG_EXPIRED,
    WATCHDOG_UNIT_S,
)

_STATE = struct.Struct("<hii")  # current, velocity, position: the last of the bytes read
_PRESENT = TABLE["present_pwm"].address
_WATCHDOG, _TORQUE = TABLE["bus_watchdog"].address, TABLE["torque_enable"].address
_GOAL = TABLE["goal_position"].address
_SHAPES = 3  # sizes of the same question
_LOST, _LOST_NS = 10, 1_000_000_000  # questions, and time, after which the chain counts as gone
_STALE_NS = 50_000_000  # older positions are none to be sent back to
_QUIET_NS = 100_000_000  # until watchdogs of 20 ms have expired


class DynamixelDriver:
    """Reads and commands the chain; see `DynamixelOptions`.

    Attributes:
        description, counters: as every driver's.
    """

    Options: ClassVar[type] = DynamixelOptions

    def __init__(self, options: DynamixelOptions) -> None:
        self._options, self._motors = options, servos(options)
        self.description = describe(options, self._motors)
        self.counters: dict[str, int] = {}
        self._chain: Chain | None = None
        self._configured = False
        self._mode: Mode | None = None
        self._stopped = ""  # why; latched
        self._confirmed = False
        self._quiet_until_ns = 0
        ids = [servo.number for servo in self._motors]
        self._answer_ns = int(options.answer_s * 1e9)
        self._wire_ns = int(bus_time_s(STATE, len(ids), options.baud) * 1e9)
        self._tolerated_ns = int((watchdog_ticks(options) * WATCHDOG_UNIT_S - 0.005) * 1e9)
        self._trip = wire.sync_write(_WATCHDOG, [(number, b"\1") for number in ids])
        self._release = wire.sync_write(_TORQUE, [(number, b"\0") for number in ids])
        self._stop = self._trip  # what an e-stop sends while positions are fresh
        self._health = Health(self._motors)
        zeros: Vector = (0.0,) * len(ids)
        self._measured = Measurement(0, 0, -1, zeros, zeros, zeros, self._health.sensors, False)
        self._asked = False  # and not everybody has answered yet
        self._seq = self._shape = self._misses = 0
        self._answered_ns = 0

    # What does not move.

    def connect(self) -> dict[str, str]:
        """Opens the port and identifies every motor; an absent one is reported within 0.6 s."""
        self.close()
        ids = [servo.number for servo in self._motors]
        chain = Chain(self._options.port, self._options.baud, ids, self.counters)
        try:
            identity = setup.identify(chain, self._motors, self._options.serial)
        except DriverError:
            chain.close()
            raise
        self._chain, self._stopped = chain, ""
        return identity

    def calibration(self) -> dict[str, dict[str, int]]:
        """What a calibration file of this chain has to say, from its motors' EEPROM."""
        return setup.read_calibration(self._idle(), self._motors)

    def configure(self, calibration: dict[str, Any]) -> dict[str, Any]:
        """See `setup.configure`; torque is turned off only where a register has to be changed."""
        self._configured = False
        effective = setup.configure(self._idle(), self._motors, self._options, calibration)
        for name in self.counters:
            self.counters[name] = 0
        self._configured = True
        return effective

    def check_watchdog(self) -> str:
        """See `setup.provoke_watchdog`."""
        return setup.provoke_watchdog(self._idle(), self._motors)

    def activate(self, mode: Mode) -> Measurement:
        """Holds where the arm is, in that mode, with torque that comes over `ramp_s`."""
        if mode not in self.description.modes:
            raise DriverError(f"{NAME} has no mode {mode}; {', '.join(self.description.modes)}")
        if self._stopped:
            raise DriverError(f"{NAME} was stopped ({self._stopped}): reset it first")
        if not self._configured:
            raise DriverError(f"{NAME} is not configured")
        chain, ticks = self._idle(), watchdog_ticks(self._options)
        code = torque.code_of(mode, self._options.extended)
        torque.engage(chain, self._motors, code, ticks, self._options.ramp_s)
        self._health.expect(ticks)
        self._mode = mode
        if mode is not Mode.POSITION:  # there the positions of each state take their place
            self._stop = self._packet(mode, (0.0,) * len(self._motors)) + self._trip
        return self._now()

    def deactivate(self) -> None:
        """Ends motion within `ramp_s`, stands, and then does as `failsafe` says."""
        chain, mode = self._idle(), self._mode
        self._mode, self._stop = None, self._trip
        self._health.expect(None)
        torque.settle(chain, self._motors, mode, self._options.ramp_s)
        if self._options.failsafe == "torque off":
            torque.let_go(chain)

    def reset(self) -> None:
        """Reboots what has shut down and ends the latch; what stands goes on standing."""
        chain = self._idle()
        chain.resume()
        setup.reset(chain, self._motors)
        if chain.stopped:
            raise DriverError(f"{NAME} was stopped again in the meantime")
        self._mode, self._configured, self._stopped = None, False, ""
        self._stop = self._trip
        self._health.expect(None)

    def close(self) -> None:
        """Closes the port; the motors go on as they are, guarded by their watchdog."""
        chain, self._chain = self._chain, None
        self._mode, self._configured, self._stop = None, False, self._trip
        if chain is not None:
            chain.close()

    # Every cycle.

    def read(self, deadline_ns: int) -> Measurement:
        """The newest state; DriverError when not everybody has answered for a second."""
        chain, now_ns = self._connected(), monotonic_ns()
        if now_ns < self._quiet_until_ns:
            return self._measured._replace(fresh=False)
        if self._mode is not None and now_ns - chain.sent_ns > self._tolerated_ns:
            self._health.hurry("watchdog")
        fresh = False
        if self._asked:
            fresh = self._collect(chain, 0)
            if not fresh and now_ns - chain.sent_ns > self._answer_ns:
                self._miss(chain, now_ns)
        if not self._asked:
            self._ask(chain)
        if deadline_ns > now_ns:
            fresh |= self._collect(chain, min(deadline_ns, chain.sent_ns + self._answer_ns))
        if not self._asked:
            self._health.look(chain, deadline_ns)
            if self._stopped and not self._confirmed:
                self._confirm(chain, deadline_ns)
        faults = (*self._health.faults, *((self._stopped,) if self._stopped else ()))
        sensors = self._health.sensors
        return self._measured._replace(sensors=sensors, fresh=fresh, faults=faults)

    def write(self, setpoint: Setpoint, deadline_ns: int) -> None:
        """Sends goals; waits only for answers that are on the wire, which it would collide with."""
        if self._stopped:
            raise DriverError(f"{NAME} was stopped ({self._stopped}): reset it first")
        numbers = vet(NAME, setpoint, self._mode, len(self._motors), deadline_ns)
        address, data = torque.goals(self._motors, setpoint.mode, numbers)
        chain = self._connected()
        if self._asked:
            chain.collect(min(deadline_ns, chain.sent_ns + self._wire_ns))
        chain.tell(address, data)

    def estop(self, reason: str) -> None:
        """Puts what stops the arm on the wire, whoever is using it; after that no goal goes out."""
        self._stopped = self._stopped or reason or "e-stop"
        chain = self._chain
        if chain is not None:
            self._shout(chain)

    def _shout(self, chain: Chain) -> None:
        if self._options.failsafe == "torque off":
            words = self._release
        else:
            stale = monotonic_ns() - self._answered_ns > _STALE_NS
            words = self._trip if stale and self._mode is Mode.POSITION else self._stop
            self._quiet_until_ns = monotonic_ns() + _QUIET_NS
        self._confirmed = False
        # So often that the last one is sent when an answer that is on the wire has ended.
        chain.stop(words * (2 + len(self._motors) * (wire.OVERHEAD + STATE) // len(words)))

    def _confirm(self, chain: Chain, deadline_ns: int) -> None:
        """Looks whether the motors did what the e-stop asked for; if not, it is sent again."""
        for question, sign in (("torque", 0), ("watchdog", WATCHDOG_EXPIRED)):
            chain.ask(*QUESTIONS[question])
            if not chain.collect(deadline_ns):
                return
            if all(data[0] == sign for data in chain.answers.values()):
                self._confirmed = True
                return
        self._shout(chain)

    def _ask(self, chain: Chain) -> None:
        chain.ask(_PRESENT - self._shape, STATE + self._shape)
        self._asked = True
        self._seq += 1

    def _collect(self, chain: Chain, deadline_ns: int) -> bool:
        """Whether everybody has answered by then; if so, that is the state."""
        if not chain.collect(deadline_ns):
            return False
        self._asked, self._misses = False, 0
        self._answered_ns = monotonic_ns()
        answers = chain.answers
        position, velocity, effort, here = [], [], [], []
        for servo in self._motors:
            data = answers[servo.number]
            current, rate, ticks = _STATE.unpack_from(data, len(data) - _STATE.size)
            position.append((ticks - CENTRE) * RADIANS)
            velocity.append(rate * RADIANS_PER_S)
            effort.append(current * servo.model.torque)
            here.append((servo.number, data[-4:]))
        if self._mode is Mode.POSITION:
            self._stop = wire.sync_write(_GOAL, here) + self._trip
        self._measured = Measurement(
            self._seq, self._answered_ns, -1, tuple(position), tuple(velocity), tuple(effort),
            self._health.sensors,
        )  # fmt: skip
        return True

    def _miss(self, chain: Chain, now_ns: int) -> None:
        """Gives a question up; the next has another size, so that its answers cannot be mistaken.

        Raises:
            DriverError: that went on for too long.
        """
        self._asked = False
        self._shape = (self._shape + 1) % _SHAPES
        self._misses += 1
        self.counters["missed"] += 1
        if self._misses >= _LOST and now_ns - self._answered_ns > _LOST_NS:
            silent = [s.joint.name for s in self._motors if s.number not in chain.answers]
            raise DriverError(f"{NAME}: no answer from {', '.join(silent)} for a second")

    # Helpers.

    def _packet(self, mode: Mode, numbers: Vector) -> bytes:
        address, data = torque.goals(self._motors, mode, numbers)
        ids = [servo.number for servo in self._motors]
        return wire.sync_write(address, list(zip(ids, data, strict=True)))

    def _now(self) -> Measurement:
        """A fresh state, for which it waits as long as it takes."""
        self._answered_ns = monotonic_ns()
        while True:
            measured = self.read(monotonic_ns() + self._answer_ns)
            if measured.fresh:
                return measured

    def _connected(self) -> Chain:
        if self._chain is None:
            raise DriverError(f"{NAME} is not connected")
        return self._chain

    def _idle(self) -> Chain:
        """The chain, with no question open: what asks one motor may use it."""
        chain = self._connected()
        self._asked, self._misses = False, 0
        while monotonic_ns() < self._quiet_until_ns:
            sleep(_QUIET_NS / 1e10)
        return chain
