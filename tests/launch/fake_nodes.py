"""Small nodes for tests of the supervisor: a plant, a pilot and several kinds of trouble."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from time import thread_time
from typing import Any

import numpy as np

from safetypilot.nodes.kernel import messages
from safetypilot.nodes.kernel.errors import NodeError, RequestRefused
from safetypilot.nodes.kernel.node import Input, Node


@dataclass(frozen=True)
class PlantConfig:
    steps: int = 5
    fail: str = ""


class Plant(Node):
    """Publishes observations and reports an episode every few steps."""

    inputs = (Input("command"),)
    outputs = ("observation", "episode")
    Config = PlantConfig

    def activate(self, now_ns: int) -> None:
        self._seq = self.context.generation << 32
        self._episode = 0
        self._answered = False
        self.next_wake_ns = now_ns
        self._sources: list[int] = []
        self._models: dict[str, None] = {}

    def on_timer(self, now_ns: int) -> None:
        if self._seq & 0xFFFFFFFF:
            self._sources.append(0 if self._answered else 3)
        if len(self._sources) == self.config.steps:
            self._report(now_ns)
        self._answered = False
        values = np.array([self._seq % 7, self.context.seed], np.float32)
        self.context.emit(
            "observation",
            messages.Observation(self._seq, now_ns, now_ns, self._episode, 0, values),
        )
        self._seq += 1
        self.next_wake_ns = now_ns + self.context.period_ns

    def on_message(self, topic: str, message: Any, now_ns: int) -> None:
        self._answered = message.seq == self._seq - 1
        self._models[message.model] = None

    def _report(self, now_ns: int) -> None:
        steps = len(self._sources)
        self.context.emit(
            "episode",
            messages.EpisodeReport(
                seq=self._seq,
                stamp_ns=now_ns,
                sent_ns=now_ns,
                episode=self._episode,
                steps=steps,
                success=True,
                violation=False,
                total_reward=1.0,
                missed=sum(source == 3 for source in self._sources),
                models=",".join(self._models),
                observations=np.zeros((steps, 2), np.float32),
                sources=np.array(self._sources, np.uint8),
                latency_us=np.full(steps, 100.0, np.float32),
                dropped=0,
            ),
        )
        self._sources.clear()
        self._models.clear()
        self._episode += 1


@dataclass(frozen=True)
class PilotConfig:
    model: str = "first"  # not a file here
    fail: str = ""  # what goes wrong, and when


class Pilot(Node):
    """Answers every observation with a command; can be swapped; can get into trouble."""

    inputs = (Input("observation"),)
    outputs = ("command",)
    Config = PilotConfig

    def configure(self) -> None:
        self._model = self.config.model
        self._state: dict[str, Any] = {"state": "none"}
        if self.config.fail == "unusable":
            sys.stderr.write("there is no such model\n")
            raise NodeError("model.onnx: not found")
        if self.config.fail == "crash at start":
            raise RuntimeError("a bug in configure")
        if self.config.fail == "deaf":  # hangs in C code with SIGTERM blocked
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            self._grandchild = subprocess.Popen(
                [sys.executable, "-c", "import time; time.sleep(99)"]
            )

    def on_message(self, topic: str, message: Any, now_ns: int) -> None:
        if self.config.fail == "deaf" and message.seq > 3:
            ctypes.CDLL(None).sleep(1000)
        if self.config.fail == "runaway" and message.seq == 4:
            end = thread_time() + 0.8  # longer than a real-time process may go without sleeping
            while thread_time() < end:
                pass
        if self.config.fail == "leave" and message.seq > 3:
            os._exit(0)
        if self.config.fail == "crash" and message.seq & 0xFFFFFFFF > 3:
            raise RuntimeError(f"a bug at observation {message.seq}")
        action = np.zeros(2, np.float32)
        until = now_ns + self.context.period_ns
        head = (message.seq, message.stamp_ns, now_ns)
        command = messages.Command(*head, action, 0, 0, 0, action, 0.0, until, False, self._model)
        self.context.emit("command", command)

    def on_request(self, request: str, arguments: dict[str, Any], now_ns: int) -> dict[str, Any]:
        if request == "swap":
            self._state = {"state": "refused", "reason": "not ONNX"}
            if "bad" not in arguments["path"]:
                self._state = {"state": "promoted", "version": arguments["path"]}
                self._model = arguments["path"]
                self.context.event("promoted", path=arguments["path"])
            return self._state
        if request == "swap_status":
            return self._state
        if request in ("estop", "reset"):
            self._model = request
            return {"estop": request == "estop"}
        raise RequestRefused(f"no request {request!r}")

    def status(self) -> dict[str, Any]:
        return {"model": self._model}
