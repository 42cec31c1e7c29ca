"""The plant of the bare graphs: the same environment as the stack's, paced the same way."""

from __future__ import annotations

import mmap
from time import monotonic_ns, sleep
from typing import Any, Protocol

import numpy as np

from safetypilot.launch.bench import schedule
from safetypilot.launch.bench.course import Course
from safetypilot.launch.bench.frames import HEAD, Frame
from safetypilot.launch.bench.samples import Samples

UP_PATIENCE_S = 45.0  # a graph that has not answered by then does not work
_PING_S = 0.05


class GraphError(Exception):
    """The graph does not work; says what happened."""


class Stopped(Exception):
    """Somebody has asked for an end; what is measured counts."""


class Link(Protocol):
    """The plant's end of a graph."""

    def send(self, frame: bytes) -> None:
        """Publishes an observation."""

    def receive(self, timeout_s: float) -> bytes | None:
        """The next command, or None if none came in time."""

    def close(self) -> None:
        """Ends the graph."""


class Progress:
    """A page that parent and plant share: steps done so far, and whether to stop; no calls."""

    def __init__(self, course: Course) -> None:
        if not course.progress.exists():
            course.progress.write_bytes(bytes(16))
        with course.progress.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 16)

    @property
    def steps(self) -> int:
        return int.from_bytes(self._map[:8], "little")

    @steps.setter
    def steps(self, steps: int) -> None:
        self._map[:8] = steps.to_bytes(8, "little")

    @property
    def stop(self) -> bool:
        return self._map[8] != 0

    def ask_to_stop(self) -> None:
        self._map[8] = 1


def sleep_until(time_ns: int) -> None:
    """Sleeps to an absolute time of CLOCK_MONOTONIC."""
    left = time_ns - monotonic_ns()
    if left > 0:
        sleep(left / 1e9)


class Plant:
    """Steps the environment once per period with the command for that very observation.

    The deadline is the next tick; without a command the plant applies zeros, and the command still
    counts with its latency when it comes. A tick that is a whole period late is never made up for.
    """

    def __init__(self, course: Course) -> None:
        from safetypilot.envs import registry

        self._course = course
        self._env = registry.make_flat(course.env)
        self._failsafe = np.zeros(course.dims["A"], np.float32)
        self._frame = Frame(course.sizes["observation"], course.dims)
        self._action_at = HEAD.size + 4 * course.dims["O"]
        self._progress = Progress(course)
        total = course.warmup + course.steps
        self._latency = np.full(total, np.nan)
        self._stamps = np.zeros(total, np.int64)
        self._missed = np.zeros(total, bool)
        self._wake = np.zeros(total)
        self._overruns = 0

    def fly(self, link: Link) -> Samples:
        """Waits until the graph answers, then flies the course, or as much as it is let."""
        self._reset(self._course.seed)
        try:
            self._wait_until_up(link)
            schedule.settle(self._course.schedule)
            flown = self._loop(link)
        except Stopped as stopped:
            flown = int(stopped.args[0])
        kept = slice(self._course.warmup, flown)
        return Samples(
            self._latency[kept], self._stamps[kept], self._missed[kept], self._wake[kept],
            overruns=self._overruns,
        )  # fmt: skip

    def _reset(self, seed: int | None = None) -> None:
        observation, _ = self._env.reset(seed=seed)
        self._frame.observation[:] = observation

    def _wait_until_up(self, link: Link) -> None:
        end = monotonic_ns() + int(UP_PATIENCE_S * 1e9)
        while monotonic_ns() < end:
            self._frame.stamp(-1, monotonic_ns())
            link.send(self._frame.to_bytes())
            if link.receive(_PING_S) is not None:
                while link.receive(_PING_S) is not None:  # the answers to earlier calls
                    pass
                return
            if self._progress.stop:
                raise Stopped(0)
        raise GraphError(f"the graph has not answered within {UP_PATIENCE_S:g} s")

    def _loop(self, link: Link) -> int:
        course, period, progress = self._course, self._course.period_ns, self._progress
        tick = monotonic_ns() + period
        for seq in range(len(self._latency)):
            sleep_until(tick)
            now = monotonic_ns()
            self._wake[seq] = (now - tick) / 1e3
            if now >= tick + period:
                self._overruns += seq >= course.warmup
                tick = now
            self._stamps[seq] = now
            self._frame.stamp(seq, now)
            link.send(self._frame.to_bytes())
            action = self._await(link, seq, tick + period)
            self._step(action)
            tick += period
            if not seq % 64:
                progress.steps = max(0, seq - course.warmup)
            if progress.stop:
                raise Stopped(seq + 1)
        return len(self._latency)

    def _await(self, link: Link, seq: int, deadline_ns: int) -> Any:
        """The action for this observation, or the failsafe at the deadline."""
        while (left := deadline_ns - monotonic_ns()) > 0:
            frame = link.receive(left / 1e9)
            if frame is None:
                continue
            now = monotonic_ns()
            answered, stamp_ns = HEAD.unpack_from(frame)
            if answered >= 0 and np.isnan(self._latency[answered]):
                self._latency[answered] = (now - stamp_ns) / 1e3
            if answered == seq and now <= deadline_ns:
                return np.frombuffer(frame, "<f4", len(self._failsafe), self._action_at)
        self._missed[seq] = True
        return self._failsafe

    def _step(self, action: Any) -> None:
        observation, _, terminated, truncated, _ = self._env.step(action)
        self._frame.observation[:] = observation
        if terminated or truncated:
            self._reset()
