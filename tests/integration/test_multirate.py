"""Plant, policy and planner at rates of their own, in lockstep and in real time."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flights import Flight, eventually, launch

from safetypilot.launch import files
from safetypilot.launch.graph import load
from safetypilot.nodes.kernel import messages, trace
from safetypilot.policies.shield import Source

pytestmark = pytest.mark.integration
LOCKSTEP = ("--clock", "lockstep", "--in-process", "--seed", "7")


def received(summary: dict[str, Any], node: str, topic: str) -> int:
    return int(summary["nodes"][node]["inputs"][topic]["received"])


def test_in_lockstep_it_succeeds_and_has_one_trace_in_every_arrangement(tmp_path: Path) -> None:
    arguments = ("maze-multirate", "rate=250", "planner_rate=25", "--episodes", "4")
    one = launch(tmp_path / "one", *arguments, *LOCKSTEP)
    assert one["successes"] == 4 and one["violations"] == 0 and one["missed_deadlines"] == 0
    episodes, steps = one["episodes"], one["steps"]
    # Episodes are whole control steps of 5 observations.
    assert steps % 5 == 0
    assert received(one, "task_policy", "observation") == steps // 5
    assert received(one, "safety_critic", "observation") == steps // 5
    assert steps // 10 <= received(one, "recovery_planner", "observation") <= steps // 10 + episodes
    assert received(one, "arbiter", "observation") == steps
    assert all(p["gaps"] == 0 for row in one["nodes"].values() for p in row["inputs"].values())
    processes = launch(tmp_path / "two", *arguments, "--clock", "lockstep", "--seed", "7")
    assert processes["trace_sha256"] == one["trace_sha256"]
    linear = launch(tmp_path / "linear", *arguments, "between=linear", *LOCKSTEP)
    assert linear["successes"] == 4 and linear["trace_sha256"] != one["trace_sha256"]


def test_held_actions_in_parts_are_what_flies_at_one_rate(tmp_path: Path) -> None:
    """Policy, planner and critic answer the same questions; the plant only moves in between."""
    settings = ("--episodes", "3", *LOCKSTEP)
    one = launch(tmp_path / "one", "maze", "--set", "arbiter.arm_steps=1", *settings)
    rates = ("rate=500", "planner_rate=50", "--set", "arbiter.arm_steps=1")
    several = launch(tmp_path / "several", "maze-multirate", *rates, *settings)
    # The first observation after arming differs: at one rate it is a whole control step later.
    assert abs(several["steps"] - 10 * one["steps"]) <= 10
    assert several["successes"] == one["successes"] == 3
    assert several["mean_reward"] == pytest.approx(one["mean_reward"], rel=0.1)


def test_in_real_time_it_succeeds_and_slow_nodes_sleep_in_between(tmp_path: Path) -> None:
    rates = ("rate=250", "policy_rate=25", "planner_rate=10")
    summary = launch(tmp_path / "run", "maze-multirate", *rates, "--episodes", "3")
    assert summary["successes"] >= 2 and summary["episodes"] == 3 and not summary["restarts"]
    control_steps = summary["steps"] // 10
    for node in ("task_policy", "safety_critic"):
        assert received(summary, node, "observation") <= control_steps + 5
    assert received(summary, "recovery_planner", "observation") <= summary["steps"] // 25 + 5
    assert summary["steps_by_source"]["task"] > 0.5 * summary["steps"]


def test_with_every_rate_equal_the_graph_is_the_one_without_rates(tmp_path: Path) -> None:
    plain = load("maze").plan()
    text = "name: maze\ninclude: [maze.yaml]\nnodes:\n  task_policy: {rate: 50}\n"
    text += "  recovery_planner: {rate: 50}\n  safety_critic: {rate: 50}\n  arbiter: {rate: 50}\n"
    own = tmp_path / "same.yaml"
    own.write_text(text.replace("maze.yaml", str(files.find_launch_file("maze"))))
    equal = load(own).plan()
    for one, other in zip(plain.nodes, equal.nodes, strict=True):
        assert plain.spec(one, tmp_path, tmp_path, 0) == equal.spec(other, tmp_path, tmp_path, 0)


@pytest.mark.parametrize("node", ["task_policy", "safety_critic"])
def test_a_node_that_stops_is_flown_without_once_what_is_held_is_too_old(
    fly: Callable[..., Flight], node: str
) -> None:
    flight = fly("maze-multirate", "rate=250", "policy_rate=25", "planner_rate=10", "--duration=60")
    commands = flight.tap("command")
    validity_ns = int(1.5 * 1e9 / 25)
    seen: list[messages.Command] = []

    def next_command() -> messages.Command | None:
        command: messages.Command | None = commands(1.0)
        if command is not None:
            seen.append(command)
        return command

    def flies(task: bool) -> bool:
        command = next_command()
        return command is not None and (command.source == Source.TASK) == task

    eventually(lambda: flies(task=True), 20, "a task command")
    pid = flight.pids()[node]
    os.kill(pid, signal.SIGSTOP)
    try:
        eventually(lambda: flies(task=False), 20, "another command")
        for _ in range(100):
            next_command()
        assert all(command.source != Source.TASK for command in seen[-50:])
    finally:
        os.kill(pid, signal.SIGCONT)
    eventually(lambda: flies(task=True), 20, "a task command again")
    for command in seen:
        if command.source == Source.TASK:
            chain = trace.unpack(command.chain)
            assert chain.arbiter_taken - chain.policy_observed <= validity_ns
