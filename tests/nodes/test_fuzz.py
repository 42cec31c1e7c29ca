"""100,000 hostile frames into every node, by board and socket: all counted, no crash."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import zmq

from safetypilot.envs import registry
from safetypilot.nodes import arbiter, recovery_planner, safety_critic, simulator, task_policy
from safetypilot.nodes.kernel import board, messages
from safetypilot.nodes.kernel.interface import Interface
from safetypilot.nodes.kernel.node import Node, Spec
from safetypilot.nodes.kernel.realtime import RealtimeExecutor
from safetypilot.nodes.kernel.topics import TOPICS
from safetypilot.nodes.kernel.transport import Endpoints
from safetypilot.nodes.kernel.wire import Codec

ZOO = Path(__file__).parents[2] / "models" / "zoo" / "maze"
FRAMES = 100_000
DIMS = {"O": 2, "A": 2}
NODES: dict[str, tuple[type[Node], Any]] = {
    "simulator": (simulator.Simulator, simulator.SimulatorConfig(env="navigation1")),
    "task_policy": (
        task_policy.TaskPolicy,
        task_policy.TaskPolicyConfig(model=str(ZOO / "trained.onnx"), follow=False, rollback_s=1.0),
    ),
    "safety_critic": (
        safety_critic.SafetyCritic,
        safety_critic.SafetyCriticConfig(
            model=str(ZOO / "critic.onnx"), follow=False, rollback_s=1.0
        ),
    ),
    "recovery_planner": (
        recovery_planner.RecoveryPlanner,
        recovery_planner.RecoveryPlannerConfig(
            critic=str(ZOO / "critic.onnx"),
            dynamics=str(ZOO / "dynamics.onnx"),
            population=8,
            elites=2,
            iterations=1,
            horizon=2,
            follow=False,
            rollback_s=1.0,
        ),
    ),
    "arbiter": (arbiter.Arbiter, arbiter.ArbiterConfig(eps=0.15)),
}
SOCKETS = sum(len(cls.inputs) for cls, _ in NODES.values())
VALID = {
    "observation": messages.Observation(1, 2, 3, 0, 0, np.zeros(2, np.float32)),
    "proposal": messages.Proposal(1, 2, 3, 4, np.zeros(2, np.float32), "m"),
    "risk": messages.Risk(1, 2, 3, 4, 0.5, "m"),
    "recovery": messages.Recovery(
        1, 2, 3, np.zeros((3, 2), np.float32), np.zeros(3, np.float32), 1, "m"
    ),
    "command": messages.Command(
        1, 2, 3, np.zeros(2, np.float32), 0, 0, 4, np.zeros(2, np.float32), 0.1, 9, False, "m"
    ),
    "model": messages.ModelAnnouncement(1, 2, 3, "task_policy", "/x.onnx", "0" * 64, "m"),
}


def hostile_frames(topic: str, count: int, seed: int) -> Iterator[bytes]:
    """A third noise, a third mutated frames, a third well-formed with absurd contents."""
    rng = random.Random(seed)
    valid = Codec(TOPICS[topic].message, DIMS).encode(VALID[topic])
    absurd: list[Any] = [None, -1, 2**63, 1e308, float("nan"), "", "x" * 300, [], {}, b"", True]
    for number in range(count):
        kind = number % 3
        if kind == 0:
            yield rng.randbytes(rng.randrange(200))
        elif kind == 1:
            frame = bytearray(valid)
            for _ in range(rng.randrange(1, 5)):
                frame[rng.randrange(len(frame))] = rng.randrange(256)
            yield bytes(frame[: rng.randrange(len(frame) + 1)] if rng.random() < 0.3 else frame)
        else:
            fields = msgpack.unpackb(valid)
            for _ in range(rng.randrange(1, 4)):
                fields[rng.randrange(len(fields))] = rng.choice(absurd)
            try:
                yield msgpack.packb(fields)
            except OverflowError:
                yield valid


@pytest.mark.parametrize("name", NODES)
def test_hostile_frames_are_counted_by_reason_and_crash_nothing(
    name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("r")
    endpoints = Endpoints(root)
    endpoints.make()
    cls, config = NODES[name]
    description = registry.describe("navigation1")
    interface = {key: description[key] for key in Interface.__dataclass_fields__}
    interface |= {"action_low": [-0.1, -0.1], "action_high": [0.1, 0.1]}
    if name != "simulator":
        maze = registry.describe("maze")
        interface = {key: maze[key] for key in Interface.__dataclass_fields__}
    spec = Spec(name, "x:y", {}, interface, 20_000_000, 0, str(root), str(root))
    context = zmq.Context(1)
    send: dict[str, Callable[[bytes], Any]] = {}
    for port in cls.inputs:
        if TOPICS[port.topic].port == "stream":
            socket = context.socket(zmq.PUSH)
            socket.bind(endpoints.stream(port.topic, name))
            send[port.topic] = socket.send
        else:
            spec.boards[port.topic] = board.create(port.topic, 1 << 20)
            spec.places[port.topic] = 0
            send[port.topic] = board.BoardWriter(spec.boards[port.topic], []).write
    executor = RealtimeExecutor([(cls, spec, config)])
    (station,) = executor.stations
    station.node.configure()
    station._answer("activate", {})
    healths = {inlet.name: inlet.health for inlet in station.inlets}

    def drain() -> None:
        for inlet in station.inlets:
            if inlet.reader is not None:
                inlet.reader.fresh = True  # as if its socket had been polled
        station.drain()
        station.book()

    def seen(topic: str) -> int:
        return healths[topic].received + sum(healths[topic].drops.values())

    try:
        for topic, write in send.items():
            end = time.monotonic() + 5
            while not seen(topic) and time.monotonic() < end:  # until the sockets have met
                write(b"")
                drain()
            begun = seen(topic)
            count = FRAMES // SOCKETS + 1
            for number, frame in enumerate(hostile_frames(topic, count, seed=len(topic)), 1):
                write(frame)
                end = time.monotonic() + 5
                while seen(topic) < begun + number:
                    drain()
                    assert time.monotonic() < end, f"frame {number} on {topic} was not counted"
            assert set(healths[topic].drops) >= {"not msgpack", "wrong type"}
        executor.turn()
        assert station.status(time.monotonic_ns())["active"]
    finally:
        station.node.close()
        context.destroy(0)
        for fd in spec.descriptors:
            os.close(fd)
        executor._zmq.destroy(0)
