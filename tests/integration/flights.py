"""Starts the real graph through the command line and looks into it from outside."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetypilot.launch import attach, runtime_dir
from safetypilot.nodes.kernel.errors import KernelError
from safetypilot.nodes.kernel.interface import Interface
from safetypilot.nodes.kernel.topics import TOPICS
from safetypilot.nodes.kernel.transport import Endpoints, Tap
from safetypilot.nodes.kernel.wire import Codec

ZOO = Path(__file__).parents[2] / "models" / "zoo" / "maze"
PATIENCE_S = 60.0  # a learner loads torch first, on a machine that may be busy
SAFETYPILOT = [sys.executable, "-P", "-m", "safetypilot.launch.cli"]
NODES = ("simulator", "task_policy", "safety_critic", "recovery_planner", "arbiter")


def eventually(condition: Callable[[], Any], within_s: float = 10.0, what: str = "it") -> Any:
    """The first true result of `condition`."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        if result := condition():
            return result
        time.sleep(0.005)
    raise AssertionError(f"{what} did not come about within {within_s:g} s")


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def launch(out: Path, *arguments: str, check: bool = True) -> dict[str, Any]:
    """Flies a graph to its end; its summary."""
    done = subprocess.run(
        [*SAFETYPILOT, "launch", *arguments, "--out", str(out), "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    if check and done.returncode:
        raise AssertionError(f"exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
    return summary


class Flight:
    """A graph in flight, started in the background."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self._taps: list[Tap] = []

    def start(self, *arguments: str, nodes: tuple[str, ...] = NODES, armed: bool = True) -> Flight:
        """Launches a graph of these nodes and waits until the arbiter is armed, if it will be."""
        with open(self.out.with_suffix(".log"), "w") as log:
            self.process = subprocess.Popen(
                [*SAFETYPILOT, "launch", *arguments, "--out", str(self.out)],
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        self.run = eventually(self._find, PATIENCE_S, f"a run in {self.out}")
        self.ask = attach.asker(self.run.path)
        eventually(lambda: len(self.pids(nodes)) >= len(nodes), PATIENCE_S, "all nodes")
        if armed:
            self.await_armed()
        return self

    def await_armed(self) -> None:
        eventually(self._armed, PATIENCE_S, "an armed arbiter")

    def close(self) -> None:
        """Ends the run if the test has not, and stops looking."""
        for tap in self._taps:
            tap.close()
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def _find(self) -> Any:
        if self.process.poll() is not None:
            raise AssertionError(self.out.with_suffix(".log").read_text())
        return next(
            (run for run in runtime_dir.running() if str(run.graph["run_dir"]) == str(self.out)),
            None,
        )

    def status(self, node: str) -> dict[str, Any]:
        result: dict[str, Any] = self.ask(node, "status", {})
        return result

    def _armed(self) -> bool:
        try:
            return bool(self.status("arbiter")["node"]["armed"])
        except KernelError:
            return False

    def pid(self, node: str) -> int | None:
        """The node's process, found by its spec file on the command line."""
        for entry in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = entry.read_bytes().split(b"\0")
            except (FileNotFoundError, ProcessLookupError):
                continue
            if any(
                w.startswith(bytes(self.run.path)) and w.endswith(f"/{node}.json".encode())
                for w in words
            ):
                pid = int(entry.parent.name)
                if alive(pid):
                    return pid
        return None

    def pids(self, nodes: tuple[str, ...] = NODES) -> dict[str, int]:
        found = {node: self.pid(node) for node in nodes}
        return {node: pid for node, pid in found.items() if pid is not None}

    def tap(self, topic: str) -> Callable[[float], Any]:
        """A function that waits for the next message of a topic, or gives None."""
        interface = Interface.from_dict(self.run.graph["interface"])
        codec = Codec(TOPICS[topic].message, interface.dims)
        tap = Tap(Endpoints(self.run.path), topic)
        self._taps.append(tap)

        def receive(timeout_s: float) -> Any:
            frame = tap.receive(timeout_s)
            return None if frame is None else codec.decode(frame)

        return receive

    def finish(self, timeout_s: float = 60) -> tuple[int, dict[str, Any]]:
        """Waits for the end: exit code and summary."""
        code = self.process.wait(timeout_s)
        return code, json.loads((self.out / "summary.json").read_text())
