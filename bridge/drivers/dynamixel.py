"""A chain of Dynamixel X series motors over a serial adapter, or over a simulated chain's port.

A cycle is one sync read of registers 124 to 135 and one sync write of the goals. The motors' bus
watchdog is armed while the arm is active; every packet feeds it, so it acts when this process or
the cable is gone. That a process still reads and nobody commands is the bridge's own time-out.

What stops the arm, by default, holds it: an arm that is let go falls. The e-stop sends the motors
back to where they were measured last and sets their watchdogs to 20 ms, then nothing until these
have expired; from then on they take no goal from anybody until `reset`. What only a test on the
bench shows of real motors: 330 models with firmware 51 were seen to report an expired watchdog and
turn on, and others, in extended mode with a homing offset, to move when it expired.
"""

from __future__ import annotations

from time import monotonic_ns, sleep
from typing import Any, ClassVar

from safetypilot.bridge.contract import DriverError, Measurement, Mode, Setpoint, Vector
from safetypilot.bridge.drivers import dynamixel_setup as setup
from safetypilot.bridge.drivers import dynamixel_torque as torque
from safetypilot.bridge.drivers.dynamixel_chain import Chain
from safetypilot.bridge.drivers.dynamixel_child import Child
from safetypilot.bridge.drivers.dynamixel_options import (
    NAME,
    SIMULATED,
    STATE,
    DynamixelOptions,
    describe,
    servos,
    watchdog_ticks,
)
from safetypilot.bridge.drivers.dynamixel_state import State
from safetypilot.bridge.drivers.vetting import vet
from safetypilot.bridge.protocols import dynamixel as wire
from safetypilot.bridge.protocols.dynamixel_table import TABLE, WATCHDOG_UNIT_S

_WATCHDOG, _TORQUE = TABLE["bus_watchdog"].address, TABLE["torque_enable"].address
_GOAL = TABLE["goal_position"].address
_STALE_NS = 50_000_000  # older positions are none to be sent back to
_QUIET_NS = 100_000_000  # until watchdogs of 20 ms have expired


class DynamixelDriver:
    """See bridge/contract.py for the calls, and `Options`."""

    Options: ClassVar[type[DynamixelOptions]] = DynamixelOptions
    ADDRESS = ("port",)
    SIMULATED: ClassVar[tuple[str, dict[str, Any]]] = (
        "{python} -P -m safetypilot.bridge.devices.dynamixel",
        {"port": "{port}", "simulated": True},
    )

    def __init__(self, options: DynamixelOptions | None = None) -> None:
        self._options = options = options or DynamixelOptions()
        self._motors = servos(options)
        self.description = describe(options, self._motors)
        self.counters: dict[str, int] = {}
        self._state = State(self._motors, options, self.counters)
        self._chain: Chain | None = None
        self._child: Child | None = None
        self._configured = False
        self._mode: Mode | None = None
        self._stopped = ""  # why; latched
        self._quiet_until_ns = 0
        self._told, self._asked, self._seen = 0, 0, 0  # e-stops sent, looked after, seen to work
        self._armed = watchdog_ticks(options)
        self._tolerated_ns = int((self._armed * WATCHDOG_UNIT_S - 0.005) * 1e9)
        ids = [servo.number for servo in self._motors]
        self._trip = wire.sync_write(_WATCHDOG, [(number, b"\1") for number in ids])
        self._release = wire.sync_write(_TORQUE, [(number, b"\0") for number in ids])
        self._stop = self._trip  # what an e-stop sends while positions are fresh

    # What does not move.

    def connect(self) -> dict[str, str]:
        """Opens the port and identifies every motor; an absent one is reported within 0.6 s."""
        if self._chain is not None:
            raise DriverError(f"{NAME} is connected already; close it first")
        port = self._options.port
        if port == SIMULATED:
            self._child = Child(self._options, [servo.number for servo in self._motors])
            port = self._child.port
        try:
            ids = [servo.number for servo in self._motors]
            self._chain = Chain(port, self._options.baud, ids, self.counters)
            self._state.begin()
            identity = setup.identify(self._chain, self._motors, self._options.serial)
        except DriverError:
            self.close()
            raise
        self._stopped, self._quiet_until_ns, self._seen = "", 0, self._told
        return identity

    def calibration(self) -> dict[str, dict[str, int]]:
        """What a calibration file of this chain has to say, from its motors' EEPROM."""
        return setup.read_calibration(self._resting("calibrate"), self._motors)

    def configure(self, calibration: dict[str, Any]) -> dict[str, Any]:
        """See `setup.configure`; torque is turned off only where a register has to be changed."""
        chain, self._configured = self._resting("configure"), False
        self._check_latch()
        effective = setup.configure(chain, self._motors, self._options, calibration)
        for name in self.counters:
            self.counters[name] = 0
        self._configured = True
        return effective

    def check_watchdog(self) -> str:
        """See `setup.provoke_watchdog`."""
        return setup.provoke_watchdog(self._ready("check the watchdog"), self._motors)

    def activate(self, mode: Mode) -> Measurement:
        """Holds where the arm is, in that mode, with torque that comes within `ramp_s`."""
        if mode not in self.description.modes:
            raise DriverError(f"{NAME} has no mode {mode}; {', '.join(self.description.modes)}")
        chain = self._ready("activate")
        code = torque.code_of(mode, self._options.extended)
        torque.engage(chain, self._motors, code, self._armed, self._options.ramp_s)
        self._state.health.expect(self._armed)
        if mode is not Mode.POSITION:  # there the positions of each state take their place
            zeros: Vector = (0.0,) * len(self._motors)
            address, data = torque.goals(self._motors, mode, zeros)
            rows = [(servo.number, its) for servo, its in zip(self._motors, data, strict=True)]
            self._stop = wire.sync_write(address, rows) + self._trip
        self._mode = mode
        while True:
            measured = self.read(monotonic_ns() + _QUIET_NS)
            self._check_latch()
            if measured.fresh:
                return measured

    def deactivate(self) -> None:
        """Ends motion within `ramp_s`, stands, and then does as `failsafe` says."""
        chain, mode = self._connected(), self._mode
        if mode is None:
            raise DriverError(f"{NAME} is not active")
        self._rest()
        self._state.begin()
        torque.settle(chain, self._motors, mode, self._options.ramp_s)
        if self._options.failsafe == "torque off":
            torque.let_go(chain)

    def reset(self) -> None:
        """Reboots what has shut down and ends the latch; what stands goes on standing."""
        chain = self._connected()
        self._state.begin()
        while (left_ns := self._quiet_until_ns - monotonic_ns()) > 0:
            sleep(left_ns / 1e9)
        chain.resume()
        try:
            setup.reset(chain, self._motors)
        except DriverError:
            self._shout(chain)
            raise
        if chain.stopped:
            raise DriverError(f"{NAME} was stopped again in the meantime")
        self._rest()
        self._configured, self._stopped, self._seen = False, "", self._told

    def close(self) -> None:
        """Closes the port; the motors go on as they are, guarded by their watchdog."""
        chain, self._chain = self._chain, None
        child, self._child = self._child, None
        self._rest()
        self._configured = False
        if chain is not None:
            chain.close()
        if child is not None:
            child.end()

    # Every cycle.

    def read(self, deadline_ns: int) -> Measurement:
        """The newest state; DriverError when not everybody has answered for a second."""
        chain, now_ns = self._connected(), monotonic_ns()
        state, health = self._state, self._state.health
        if now_ns < self._quiet_until_ns:
            return state.last._replace(fresh=False)
        if self._mode is not None and now_ns - chain.sent_ns > self._tolerated_ns:
            health.doubt("watchdog")
        measured = state.read(chain, now_ns, deadline_ns)
        if measured.fresh and self._mode is Mode.POSITION:
            self._stop = wire.sync_write(_GOAL, state.here) + self._trip
        if self._seen != self._told:
            self._look_after_stop(chain)
        return measured

    def write(self, setpoint: Setpoint, deadline_ns: int) -> None:
        """Sends goals; waits only for answers that are on the wire, which it would collide with."""
        self._check_latch()
        numbers = vet(NAME, setpoint, self._mode, len(self._motors), deadline_ns)
        address, data = torque.goals(self._motors, setpoint.mode, numbers)
        chain = self._connected()
        self._state.clear_way(chain, deadline_ns)
        chain.tell(address, data)

    def estop(self, reason: str) -> None:
        """Puts what stops the arm on the wire, whoever is using it; after that no goal goes out."""
        self._stopped = self._stopped or reason or "e-stop"
        chain = self._chain
        if chain is not None:
            self._shout(chain)

    def _shout(self, chain: Chain) -> None:
        now_ns = monotonic_ns()
        if self._options.failsafe == "torque off":
            words = self._release
        else:
            stale = now_ns - self._state.last.received_ns > _STALE_NS
            words = self._trip if stale and self._mode is Mode.POSITION else self._stop
            self._quiet_until_ns = now_ns + _QUIET_NS
        # So often that the last one is sent when an answer that is on the wire has ended.
        chain.stop(words * (2 + len(self._motors) * (wire.OVERHEAD + STATE) // len(words)))
        self._told += 1

    def _look_after_stop(self, chain: Chain) -> None:
        """Asks whether the motors did what the e-stop told them; if not, it is sent again."""
        health, told = self._state.health, self._told
        if self._asked != told:
            self._asked = told
            health.doubt("torque", "watchdog")
        elif health.stands:
            self._seen = told
        elif health.stands is False:
            self._shout(chain)

    # Whether it may.

    def _connected(self) -> Chain:
        if self._chain is None:
            raise DriverError(f"{NAME} is not connected")
        return self._chain

    def _resting(self, what: str) -> Chain:
        """The chain, with no question open: what asks one motor may use it."""
        chain = self._connected()
        if self._mode is not None:
            raise DriverError(f"{NAME} cannot {what} while it is active")
        self._state.begin()
        return chain

    def _ready(self, what: str) -> Chain:
        chain = self._resting(what)
        self._check_latch()
        if not self._configured:
            raise DriverError(f"{NAME} cannot {what} before it is configured")
        return chain

    def _check_latch(self) -> None:
        if self._stopped:
            raise DriverError(f"{NAME} was stopped ({self._stopped}): reset it first")

    def _rest(self) -> None:
        """Nobody commands any more."""
        self._mode, self._stop = None, self._trip
        self._state.health.expect(None)
