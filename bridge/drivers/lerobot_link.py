"""The thread that alone talks to a LeRobot robot.

LeRobot's calls block for as long as they like, and are made for one thread. So one thread makes
them all: it reads the robot at its rate, sends the newest action as soon as there is one, and is
told and asked through single values that nobody waits for. A robot that hangs does not hang the
bridge; it is told as silence.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import partial
from math import copysign, isfinite
from queue import Empty, SimpleQueue
from time import monotonic_ns
from typing import Any

from safetypilot.bridge.contract import DriverError, Measurement, Vector
from safetypilot.bridge.drivers.lerobot_features import Feature
from safetypilot.bridge.drivers.lerobot_robots import FOREIGN

_FAILURES = 5  # in a row; a serial bus loses a packet now and then


class Link:
    """One robot and its thread.

    Attributes:
        counters: shared with the driver.
        newest: what was measured last; None: nothing yet.
        failure: why the robot does not answer any more; empty: it does.
        stopped: hold, and obey no more.
    """

    def __init__(
        self,
        make: Callable[[], Any],
        features: tuple[Feature, ...],
        period_s: float,
        tolerance: float,
        counters: dict[str, int],
    ) -> None:
        """Start the thread; `wait_until_ready` says what came of it.

        Args:
            make: the robot, not connected.
            tolerance: an action that comes back may differ by so much, rad or m.
        """
        self.features, self.counters = features, counters
        self.newest: Measurement | None = None
        self.failure, self.stopped, self.let_go = "", False, False
        self.robot: Any = None
        self._make, self._period_ns, self._tolerance = make, round(period_s * 1e9), tolerance
        self._action: Vector | None = None
        self._held: Vector | None = None
        self._orders: SimpleQueue[None] = SimpleQueue()  # put() may be called in a signal handler
        self._news: SimpleQueue[None] = SimpleQueue()
        self._closing = False
        self._seq = self._failures = 0
        self._thread = threading.Thread(target=self._run, name="lerobot", daemon=True)
        self._thread.start()

    def wait_until_ready(self, timeout_s: float) -> None:
        """Until the first state has come.

        Raises:
            DriverError: none came, for whatever reason.
        """
        self.wait(monotonic_ns() + round(timeout_s * 1e9), since=None)
        if self.failure:
            raise DriverError(f"lerobot: {self.failure}")
        if self.newest is None:
            raise DriverError(f"lerobot: the robot did not answer within {timeout_s:g} s")

    def wait(self, deadline_ns: int, since: Measurement | None) -> None:
        """Until there is something newer than `since`, or a failure, or it is time."""
        while self.newest is since and not self.failure:
            left_s = (deadline_ns - monotonic_ns()) / 1e9
            if left_s <= 0:
                return
            try:
                self._news.get(timeout=left_s)
            except Empty:
                return

    def send(self, position: Vector) -> None:
        """The newest action; it replaces one that has not been sent yet."""
        self._action = position
        self._orders.put(None)

    def stop(self, let_go: bool) -> None:
        """Holds, or disconnects; takes no lock and may come from anywhere."""
        self.let_go = self.let_go or let_go
        self.stopped = True
        self._orders.put(None)

    def close(self, timeout_s: float) -> bool:
        """Disconnects the robot; False if it hangs."""
        self._closing = True
        self._orders.put(None)
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # The thread.

    def _run(self) -> None:
        try:
            self.robot = self._make()
            # LeRobot would ask for a calibration on the terminal, and wait for it.
            self.robot.connect(calibrate=False)
            if not self.robot.is_calibrated:
                raise DriverError("the robot is not calibrated: `lerobot-calibrate`")
            self._check_features()
            self._loop()
        except DriverError as error:
            self._fail(str(error))
        except FOREIGN as error:
            self._fail(f"{type(error).__name__}: {error}")
        try:
            if self.robot is not None and self.robot.is_connected:
                self.robot.disconnect()
        except FOREIGN as error:
            self._fail(f"it cannot be disconnected: {error}")

    def _loop(self) -> None:
        next_ns = monotonic_ns()
        while not self._closing and not self.failure:
            self._try("reads failed", self._read)
            next_ns = max(next_ns + self._period_ns, monotonic_ns())
            busy = True
            while busy and not self._closing:
                if self.stopped and self.let_go:
                    self._fail("it was let go by an e-stop")
                    return
                self._act()
                busy = self._ordered(next_ns)

    def _act(self) -> None:
        """The newest action, once; after a stop the same position, again and again."""
        action, self._action = self._action, None
        if self.stopped:
            if self._held is None and self.newest is not None:
                self._held = self.newest.position
            action = self._held
        else:
            self._held = None
        if action is not None:
            self._try("writes failed", partial(self._write, action))

    def _ordered(self, until_ns: int) -> bool:
        """Whether something is to be done before it is time to read again."""
        left_s = (until_ns - monotonic_ns()) / 1e9
        if left_s <= 0:
            return False
        try:
            self._orders.get(timeout=left_s)
            while True:
                self._orders.get_nowait()
        except Empty:
            return monotonic_ns() < until_ns

    def _try(self, count: str, work: Callable[[], None]) -> None:
        try:
            work()
        except FOREIGN as error:
            self.counters[count] += 1
            self._failures += 1
            if self._failures >= _FAILURES:
                self._fail(f"{_FAILURES} calls in a row failed: {type(error).__name__}: {error}")
        else:
            self._failures = 0

    def _fail(self, why: str) -> None:
        self.failure = self.failure or why
        self._news.put(None)

    def _check_features(self) -> None:
        for kind in ("observation_features", "action_features"):
            known: Mapping[str, Any] = getattr(self.robot, kind)
            for feature in self.features:
                named = [feature.position]
                if kind == "observation_features":
                    named += [each for each in (feature.velocity, feature.effort) if each]
                for name in named:
                    if name not in known:
                        raise DriverError(f"no {name!r} in {kind}; there are {', '.join(known)}")
        own = {feature.position for feature in self.features}
        extra = [name for name in self.robot.action_features if name not in own]
        if extra:
            raise DriverError(f"joints lacks {', '.join(extra)}, which an action has to have")

    def _read(self) -> None:
        observation = self.robot.get_observation()
        now_ns = monotonic_ns()
        position = tuple(f.gain * float(observation[f.position]) + f.bias for f in self.features)
        velocity = tuple(
            f.gain * float(observation[f.velocity]) if f.velocity else self._slope(at, now, now_ns)
            for at, (f, now) in enumerate(zip(self.features, position, strict=True))
        )
        effort = tuple(
            copysign(1.0, f.gain) * float(observation[f.effort]) if f.effort else 0.0
            for f in self.features
        )
        if not isfinite(sum(position) + sum(velocity) + sum(effort)):
            self.counters["not finite"] += 1
            return
        self._seq += 1
        self.newest = Measurement(self._seq, now_ns, -1, position, velocity, effort, {})
        if self._news.empty():
            self._news.put(None)

    def _slope(self, joint: int, position: float, now_ns: int) -> float:
        """The velocity of a robot that measures none."""
        before = self.newest
        if before is None or now_ns <= before.received_ns:
            return 0.0
        return (position - before.position[joint]) / (now_ns - before.received_ns) * 1e9

    def _write(self, position: Vector) -> None:
        asked = {f.position: f.raw(at) for f, at in zip(self.features, position, strict=True)}
        sent = self.robot.send_action(asked)
        for feature, wanted in zip(self.features, position, strict=True):
            got = sent.get(feature.position) if isinstance(sent, Mapping) else None
            if got is None or not isfinite(got):
                self.counters["not confirmed"] += 1
            elif abs(feature.gain * float(got) + feature.bias - wanted) > self._tolerance:
                self.counters["altered"] += 1
