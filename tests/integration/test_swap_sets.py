"""Models that belong together change over at one observation or not at all; what is worse goes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import onnx
import pytest
from flights import SAFETYPILOT, ZOO, Flight, eventually

from safetypilot.launch import swapping
from safetypilot.launch.swapping import Change
from safetypilot.nodes.kernel.errors import KernelError, RequestRefused

Fly = Callable[..., Flight]
pytestmark = pytest.mark.integration

PLANT = "simulator"
LIGHT = ("population=8", "horizon=2")  # the planner is to keep up on a busy machine
SLOTS = ("task_policy", "safety_critic", "recovery_planner")


def relabelled(source: Path, target: Path, version: str) -> Path:
    """The same network under another name, and so with another hash."""
    model = onnx.load_from_string(source.read_bytes())
    contract = json.loads(model.metadata_props[0].value)
    model.metadata_props[0].value = json.dumps(contract | {"version": version})
    target.write_bytes(model.SerializeToString())
    return target


def spoilt(source: Path, target: Path) -> Path:
    """A policy that flies well in staging and in the shadow, and steers into the walls after."""
    data = source.read_bytes()
    target.write_bytes(data[: len(data) - 100])
    return target


def pair(policy: Path, critic: Path) -> list[Change]:
    return [
        Change("task_policy", str(policy)),
        Change("safety_critic", str(critic)),
        Change("recovery_planner", str(critic), "safety_critic"),
    ]


def command_line(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*SAFETYPILOT, "swap", *words], capture_output=True, text=True, check=False
    )


def land(flight: Flight) -> dict[str, Any]:
    """Ends the run as a person would; its summary."""
    flight.process.send_signal(signal.SIGINT)
    code, summary = flight.finish()
    assert code == 130
    return summary


class Decisions:
    """Which models each step was decided with, from the arbiter's own stream."""

    def __init__(self, flight: Flight) -> None:
        self._receive = flight.tap("decision")
        self.steps: dict[int, dict[str, str]] = {}

    def collect(self) -> None:
        while (decision := self._receive(0.0)) is not None:
            named = dict(part.split("=", 1) for part in decision.models.split(", ") if part)
            self.steps[decision.seq] = named


def test_no_step_mixes_two_sets_in_dozens_of_swaps(fly: Fly, tmp_path: Path) -> None:
    flight = fly("maze", "rate=200", "policy=novice", *LIGHT, "--duration", "600")
    sets = {
        letter: pair(
            relabelled(ZOO / "novice.onnx", tmp_path / f"p{letter}.onnx", f"policy{letter}"),
            relabelled(ZOO / "critic.onnx", tmp_path / f"c{letter}.onnx", f"critic{letter}"),
        )
        for letter in "AB"
    }
    decisions = Decisions(flight)
    promoted: list[int] = []
    for number in range(30):
        outcome = swapping.swap_set(flight.ask, PLANT, sets["AB"[number % 2]])
        seqs = {s["promoted_at"] for s in outcome["nodes"].values()}
        assert outcome["epoch"] == number + 1 and min(seqs) > max(promoted, default=-1)
        promoted.append(outcome["promoted_at"])
        decisions.collect()
    time.sleep(0.2)
    decisions.collect()
    complete = [
        (seq, named)
        for seq, named in sorted(decisions.steps.items())
        if {"task_policy", "safety_critic"} <= set(named)
    ]
    letters = []
    for seq, named in complete:
        policy, critic = named["task_policy"], named["safety_critic"]
        assert policy.count("@") == critic.count("@") == 1
        if seq >= promoted[0]:
            letters.append(policy.split("@")[0][-1])
            assert critic.split("@")[0] == f"critic{letters[-1]}", (seq, named)
            if "recovery" in named:  # it may answer an older observation, and then names that one's
                assert "critic" in named["recovery"]
    changes = sum(a != b for a, b in pairwise(letters))
    assert changes == 29
    land(flight)


def test_what_a_learner_trained_together_changes_over_together(fly: Fly) -> None:
    learner = ("learner=on", "--set", "learner.start=zoo/maze/weights.pt")
    often = ("--set", "learner.announce_after=60", "--set", "learner.announce_every=60")
    flight = fly("maze", "rate=20", "policy=novice", *LIGHT, *learner, *often, "--duration", "600")
    decisions = Decisions(flight)

    def learned() -> bool:
        decisions.collect()
        versions = {
            named.get("task_policy", "").split("@")[0] for named in decisions.steps.values()
        }
        return len([version for version in versions if version.startswith("learned-")]) >= 2

    eventually(learned, 120, "two sets of the learner's")
    for seq, named in decisions.steps.items():
        if {"task_policy", "safety_critic"} <= set(named):
            policy, critic = (named[node].split("@")[0] for node in SLOTS[:2])
            assert policy.startswith("learned-") == critic.startswith("learned-"), (seq, named)
            assert policy == critic or not policy.startswith("learned-"), (seq, named)
    land(flight)


def test_a_learner_whom_nobody_follows_is_told_so() -> None:
    def ask(node: str, request: str, arguments: dict[str, Any]) -> dict[str, Any]:
        raise RequestRefused(f"{node} holds no models")

    with pytest.raises(RequestRefused, match="no node takes a learner's safety_critic"):
        swapping.hand_over(ask, PLANT, ["arbiter"], {"safety_critic": "c.onnx"})


def test_one_bad_file_refuses_the_whole_set(fly: Fly, tmp_path: Path) -> None:
    flight = fly("maze", "rate=50", "policy=novice", *LIGHT, "--duration", "600")
    before = swapping.statuses(flight.ask, list(SLOTS))
    half = spoilt(ZOO / "critic.onnx", tmp_path / "half.onnx")
    done = command_line(
        "task_policy", str(ZOO / "trained.onnx"), "safety_critic", str(half), "--shadow", "5"
    )
    assert done.returncode == 1 and "none of the set flies: safety_critic" in done.stderr
    assert "half.onnx" in done.stderr
    time.sleep(0.3)
    after = swapping.statuses(flight.ask, list(SLOTS))
    assert {n: s["live"] for n, s in after.items()} == {n: s["live"] for n, s in before.items()}
    assert after["task_policy"]["state"] == "refused"
    assert "the set it belongs to was refused" in after["task_policy"]["reason"]
    assert flight.status(PLANT)["node"]["epoch"] == 0


def test_a_set_goes_back_as_one_by_hand(fly: Fly, tmp_path: Path) -> None:
    fly("maze", "rate=50", "policy=novice", *LIGHT, "--duration", "600")
    critic = relabelled(ZOO / "critic.onnx", tmp_path / "c.onnx", "criticB")
    trained = str(ZOO / "trained.onnx")
    words = ("task_policy", trained, "safety_critic", str(critic))
    done = command_line(*words, "--shadow", "0.5s", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    outcome = json.loads(done.stdout)
    assert list(outcome["nodes"]) == ["task_policy", "safety_critic"]
    policy, same = (status["shadow"] for status in outcome["nodes"].values())
    assert policy["steps"] >= 10 and same["steps"] >= 10
    assert policy["difference_max"] > 0 and same["difference_max"] == 0
    refused = command_line("--rollback", "task_policy")
    assert refused.returncode == 1 and "go back with all of it" in refused.stderr
    shown = command_line("--status")
    assert "promoted at observation" in shown.stdout and "sha256" in shown.stdout
    half = spoilt(ZOO / "critic.onnx", tmp_path / "half.onnx")
    worse = command_line("task_policy", trained, "safety_critic", str(half))
    assert worse.returncode == 1  # what was refused since is no reason not to go back
    back = command_line("--rollback", "--json")
    assert back.returncode == 0, back.stdout + back.stderr
    statuses = json.loads(back.stdout)
    assert set(statuses) == {"task_policy", "safety_critic"}
    assert {s["state"] for s in statuses.values()} == {"rolled_back"}
    assert len({s["rolled_back_at"] for s in statuses.values()}) == 1
    again = command_line("--rollback")
    assert again.returncode == 1 and "no model to go back to" in again.stderr


def test_half_a_set_does_not_go_back(fly: Fly, tmp_path: Path) -> None:
    flight = fly("maze", "rate=50", "policy=novice", *LIGHT, "--duration", "600")
    critic = relabelled(ZOO / "critic.onnx", tmp_path / "c.onnx", "criticB")
    swapping.swap_set(flight.ask, PLANT, pair(ZOO / "trained.onnx", critic)[:2])
    assert command_line("task_policy", str(ZOO / "novice.onnx")).returncode == 0
    before = flight.status("safety_critic")["node"]["model"]
    back = command_line("--rollback")
    assert back.returncode == 1 and "task_policy has been changed since the set was" in back.stderr
    assert flight.status("safety_critic")["node"]["model"] == before


GUARDED = [
    word
    for node in ("task_policy", "safety_critic")
    for word in ("--set", f"{node}.rollback_s=20", "--set", f"{node}.rollback_latency=1000")
]


def test_a_worse_policy_is_rolled_back_by_itself(fly: Fly, tmp_path: Path) -> None:
    flight = fly("maze", "rate=50", "policy=trained", *LIGHT, "--duration", "600", *GUARDED)
    before = flight.status("task_policy")["node"]["model"]
    time.sleep(2.0)  # a past to compare with
    worse = str(ZOO / "novice.onnx")  # needs the shield in most of its steps
    done = command_line("task_policy", worse)
    assert done.returncode == 0, done.stderr
    status = eventually(lambda: rolled_back(flight, "task_policy"), 20, "the rollback")
    assert "rose from" in status["reason"] and status["live"] == before
    summary = land(flight)
    assert any("rolled_back" in entry["text"] for entry in summary["events"])


def test_a_worse_set_is_rolled_back_by_itself_as_one(fly: Fly, tmp_path: Path) -> None:
    flight = fly("maze", "rate=50", "policy=trained", *LIGHT, "--duration", "600", *GUARDED)
    time.sleep(2.0)
    critic = relabelled(ZOO / "critic.onnx", tmp_path / "c.onnx", "criticB")
    changes = pair(ZOO / "novice.onnx", critic)[:2]
    swapping.swap_set(flight.ask, PLANT, changes)
    for node in ("task_policy", "safety_critic"):
        eventually(lambda node=node: rolled_back(flight, node), 20, f"the rollback of {node}")
    assert flight.status(PLANT)["node"]["epoch"] == 0


def rolled_back(flight: Flight, node: str) -> dict[str, Any] | None:
    status = flight.ask(node, "swap_status", {})
    return status if status["state"] == "rolled_back" else None


def test_a_restarted_node_flies_what_was_promoted_last(fly: Fly) -> None:
    flight = fly("maze", "rate=50", "policy=novice", *LIGHT, "--duration", "600")
    assert command_line("task_policy", str(ZOO / "trained.onnx")).returncode == 0
    flying = flight.status("task_policy")["node"]["model"]
    assert command_line("--rollback").returncode == 0
    back = flight.status("task_policy")["node"]["model"]
    assert back != flying
    time.sleep(0.3)  # the supervisor hears of it
    os.kill(flight.pid("task_policy") or 0, signal.SIGKILL)
    assert eventually(lambda: restarted(flight), 20, "the policy") == back


def restarted(flight: Flight) -> str:
    try:
        status = flight.status("task_policy")
    except KernelError:
        return ""
    return status["node"]["model"] if status["generation"] and status["active"] else ""


def test_nonsense_on_the_command_line(fly: Fly) -> None:
    flight = fly("maze", "rate=25", "policy=novice", *LIGHT, "--duration", "600")
    trained = str(ZOO / "trained.onnx")
    for words, said in (
        (("task_policy",), "pairs of node and file"),
        (("task_polic", trained), "did you mean 'task_policy'?"),
        (("task_policy", trained, "--shadow", "long"), "neither seconds"),
        (("task_policy", trained, "--contract", "none.json"), "there is no file none.json"),
        (("--status", "--rollback"), "at a time"),
        (("--status", "task_policy"), "takes no node"),
    ):
        done = command_line(*words)
        assert done.returncode == 2 and said in done.stderr, done.stderr
    with pytest.raises(RequestRefused, match="names a node and kind once"):
        swapping.swap_set(flight.ask, PLANT, [Change("task_policy", trained)] * 2)
