"""Virtual time: fixed order, same trace in this process and across processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from safetypilot.nodes.kernel import messages
from safetypilot.nodes.kernel.errors import RequestRefused
from safetypilot.nodes.kernel.lockstep import Host, Lockstep, Remote
from safetypilot.nodes.kernel.node import Input, Node, Spec
from safetypilot.nodes.kernel.testing import INTERFACE
from safetypilot.nodes.kernel.transport import Endpoints


@dataclass(frozen=True)
class Config:
    count: int = 10


class Ticker(Node):
    """Emits an observation each period."""

    outputs = ("observation",)
    Config = Config

    def activate(self, now_ns: int) -> None:
        self.next_wake_ns = now_ns
        self.seq = 0

    def on_timer(self, now_ns: int) -> None:
        values = np.full(2, self.seq, np.float32)
        message = messages.Observation(self.seq, now_ns, now_ns, 0, self.seq, values)
        self.context.emit("observation", message)
        self.seq += 1
        done = self.seq == self.config.count
        self.next_wake_ns = None if done else now_ns + self.context.period_ns


class Answerer(Node):
    """Answers each observation with a proposal, half a period later by its timer."""

    inputs = (Input("observation"),)
    outputs = ("proposal",)
    Config = Config

    def on_message(self, topic: str, message: Any, now_ns: int) -> None:
        self.seen = message
        self.next_wake_ns = now_ns + self.context.period_ns // 2

    def on_timer(self, now_ns: int) -> None:
        seen = self.seen
        proposal = messages.Proposal(seen.seq, seen.stamp_ns, now_ns, seen.seq, seen.values, "m")
        self.context.emit("proposal", proposal)
        self.next_wake_ns = None
        self.context.event("answered", seq=seen.seq)

    def on_request(self, request: str, arguments: dict[str, Any], now_ns: int) -> dict[str, Any]:
        if request != "echo":
            raise RequestRefused("only echo")
        return arguments


def spec(name: str, root: Path, **changes: Any) -> Spec:
    base = Spec(name, f"x:{name}", {}, INTERFACE.to_dict(), 20_000_000, 0, str(root), str(root))
    return replace(base, clock="lockstep", **changes)


def run(handles: dict[str, Any]) -> tuple[Lockstep, list[tuple[str, bytes]], list[Any]]:
    frames: list[tuple[str, bytes]] = []
    events: list[Any] = []
    readers = {"observation": ["answerer"]}
    scheduler = Lockstep(
        handles, readers, lambda *frame: frames.append(frame), lambda *event: events.append(event)
    )
    scheduler.start()
    scheduler.run(lambda: False)
    return scheduler, frames, events


def local(root: Path) -> dict[str, Any]:
    return {
        "ticker": Host(Ticker, spec("ticker", root), Config()),
        "answerer": Host(Answerer, spec("answerer", root), Config()),
    }


def test_order_of_events_is_the_order_of_virtual_time(tmp_path: Path) -> None:
    scheduler, frames, events = run(local(tmp_path))
    assert [topic for topic, _ in frames] == ["observation", "proposal"] * 10
    assert scheduler.now_ns == 9 * 20_000_000 + 10_000_000
    assert [event["at_ns"] for _, event in events] == [
        n * 20_000_000 + 10_000_000 for n in range(10)
    ]
    scheduler.finish()


def test_two_runs_have_the_same_trace_and_another_run_has_another(tmp_path: Path) -> None:
    one, two = run(local(tmp_path))[0], run(local(tmp_path / "elsewhere"))[0]
    assert one.trace_sha256 == two.trace_sha256
    other = local(tmp_path)
    other["ticker"] = Host(Ticker, spec("ticker", tmp_path), Config(count=9))
    assert run(other)[0].trace_sha256 != one.trace_sha256


def test_requests_are_answered_or_refused_between_events(tmp_path: Path) -> None:
    scheduler, _, _ = run(local(tmp_path))
    assert scheduler.call("answerer", "request", "echo", {"a": 1}).result == {"a": 1}
    assert scheduler.call("answerer", "request", "what", {}).error == "only echo"
    assert scheduler.call("answerer", "status").result["inputs"]["observation"]["received"] == 10


def test_garbage_is_counted_and_does_not_reach_the_node(tmp_path: Path) -> None:
    handles = local(tmp_path)
    handles["answerer"].call("configure", 0)
    handles["answerer"].call("deliver", 0, "observation", b"junk")
    inputs = handles["answerer"].call("status", 0).result["inputs"]
    assert inputs["observation"]["drops"] == {"not msgpack": 1}


WORKER = """
    import importlib.util, json, sys
    loaded = importlib.util.spec_from_file_location("toy", {path!r})
    toy = importlib.util.module_from_spec(loaded)
    sys.modules["toy"] = toy
    loaded.loader.exec_module(toy)
    from safetypilot.nodes.kernel.lockstep import Host, serve
    from safetypilot.nodes.kernel.node import Spec
    spec = Spec(**json.loads(sys.argv[1]))
    serve(Host(getattr(toy, sys.argv[2]), spec, toy.Config()), spec)
"""


@pytest.mark.integration
def test_the_trace_across_processes_is_the_trace_of_one_process(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    import json

    root = tmp_path_factory.mktemp("r")
    endpoints = Endpoints(root)
    endpoints.make()
    code = textwrap.dedent(WORKER.format(path=__file__))
    workers = []
    for name, cls in (("ticker", "Ticker"), ("answerer", "Answerer")):
        arguments = json.dumps(asdict(spec(name, root, supervisor_pid=os.getpid())))
        workers.append(subprocess.Popen([sys.executable, "-c", code, arguments, cls]))
    scheduler, _, events = run({name: Remote(endpoints, name) for name in ("ticker", "answerer")})
    assert scheduler.trace_sha256 == run(local(root))[0].trace_sha256
    assert len(events) == 10
    scheduler.finish()
    assert [worker.wait(5) for worker in workers] == [0, 0]


@pytest.mark.integration
def test_a_lockstep_worker_leaves_on_sigterm(tmp_path_factory: pytest.TempPathFactory) -> None:
    import json

    root = tmp_path_factory.mktemp("r")
    endpoints = Endpoints(root)
    endpoints.make()
    code = textwrap.dedent(WORKER.format(path=__file__))
    arguments = json.dumps(asdict(spec("ticker", root)))
    worker = subprocess.Popen([sys.executable, "-c", code, arguments, "Ticker"])
    handle = Remote(endpoints, "ticker")
    handle.call("configure", 0)
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(3) == 0
    handle.close()
