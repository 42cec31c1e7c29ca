"""Swaps in a node: shadow, promotion at a step, sets of models, rollback, followed files."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from safetypilot.envs import registry
from safetypilot.nodes.kernel import messages
from safetypilot.nodes.kernel.errors import NodeError, RequestRefused
from safetypilot.nodes.kernel.interface import Interface
from safetypilot.nodes.kernel.testing import Bench
from safetypilot.nodes.recovery_planner import RecoveryPlanner, RecoveryPlannerConfig
from safetypilot.nodes.safety_critic import SafetyCritic, SafetyCriticConfig
from safetypilot.nodes.task_policy import TaskPolicy, TaskPolicyConfig

ZOO = Path(__file__).parents[2] / "models" / "zoo" / "maze"
NOVICE, TRAINED = ZOO / "novice.onnx", ZOO / "trained.onnx"
PERIOD = 20_000_000
MAZE = registry.describe("maze")
INTERFACE = Interface.from_dict({key: MAZE[key] for key in Interface.__dataclass_fields__})


class Flown:
    """A node with a model, fed one observation per period."""

    def __init__(self, node: Any, config: Any, folder: Path) -> None:
        self.bench = Bench(node, config, folder, interface=INTERFACE, period_ns=PERIOD)
        self.ask = self.bench.ask
        self.seq = self.epoch = 0
        self.command: dict[str, Any] | None = None  # what the arbiter says after each step

    def step(self, count: int = 1, episode: int = 0) -> Any:
        """So many observations; the node's last answer."""
        b = self.bench
        for _ in range(count):
            rng = np.random.default_rng(self.seq)
            values = rng.uniform(-0.3, 0.3, 2).astype(np.float32)
            head = (self.seq, b.now_ns, b.now_ns)
            b.send(
                "observation", messages.Observation(*head, episode, self.seq, values, self.epoch)
            )
            if isinstance(b.node, SafetyCritic):
                action = np.zeros(2, np.float32)
                b.send("proposal", messages.Proposal(*head, self.seq, action, "p@1"))
            if self.command is not None:
                b.send("command", self._command(head))
            b.pass_time(PERIOD)
            self.seq += 1
        return b.executor.emitted[-1][1]

    def _command(self, head: tuple[int, int, int]) -> messages.Command:
        said = {"source": 0, "risk": 0.0, "estop": False} | (self.command or {})
        zero = np.zeros(2, np.float32)
        return messages.Command(
            *head, zero, said["source"], 0, 1, zero, said["risk"], 1, said["estop"], "p@1"
        )

    def swap(self, path: Path, **options: Any) -> dict[str, Any]:
        self.ask("swap", path=str(path), **options)
        self.bench.executor.finish_jobs()
        return self.ask("swap_status")

    def events(self, kind: str) -> list[dict[str, Any]]:
        return [data for name, data in self.bench.executor.events if name == kind]


def policy(folder: Path, model: Path = NOVICE, **config: Any) -> Flown:
    return Flown(TaskPolicy, TaskPolicyConfig(model=str(model), budget_ms=50, **config), folder)


def changed(source: Path, target: Path, change: Callable[[Any, dict[str, Any]], None]) -> Path:
    """A copy of a model after `change(model, contract)`, without golden rows."""
    model = onnx.load_from_string(source.read_bytes())
    contract = json.loads(model.metadata_props[0].value)
    contract |= {"golden": {}, "graph_sha256": ""}
    change(model, contract)
    model.metadata_props[0].value = json.dumps(contract)
    target.write_bytes(model.SerializeToString())
    return target


def test_a_promotion_falls_between_two_steps_and_is_told_after_the_answer(tmp_path: Path) -> None:
    node = policy(tmp_path)
    before = node.step().model
    status = node.swap(TRAINED)
    assert status["state"] == "staged" and node.ask("swap_status")["live"] == before
    answer = node.step()
    status = node.ask("swap_status")
    assert answer.model == status["live"] == status["version"] != before
    assert (status["state"], status["promoted_at"], status["previous"]) == ("promoted", 1, before)
    at = status["at_ns"]
    assert at["asked"] <= at["staged"] <= at["ready"] <= at["promoted"]
    (event,) = node.events("promoted")
    assert event["path"] == str(TRAINED) == event["settings"]["model"] and event["seq"] == 1
    history = node.ask("swaps")["task_policy"]["history"]
    assert [(h["what"], h["seq"]) for h in history] == [("loaded", None), ("promoted", 1)]
    assert history[-1]["version"].endswith(history[-1]["sha256"][:12])


def test_a_shadow_answers_in_the_idle_time_and_changes_nothing(tmp_path: Path) -> None:
    node, plain = policy(tmp_path), policy(tmp_path)
    node.swap(TRAINED, shadow_steps=30)
    for _ in range(30):
        ours, theirs = node.step(), plain.step()
        assert ours.model == theirs.model and np.array_equal(ours.action, theirs.action)
    status = node.ask("swap_status")
    assert status["state"] == "staged" and status["shadow"]["steps"] == 30
    assert 0 < status["shadow"]["difference_mean"] <= status["shadow"]["difference_max"] <= 0.2
    assert status["shadow"]["call_us"]["p50"] > 0
    assert node.step().model == status["version"]
    assert len(node.events("shadowed")) == 1


def test_a_shadow_lasts_for_the_declared_time(tmp_path: Path) -> None:
    node = policy(tmp_path, shadow_s=0.5)
    began = node.step().model
    node.swap(TRAINED)
    assert node.step(25).model == began  # the first step of the shadow began the clock
    node.step(2)
    assert node.step().model != began
    quick = policy(tmp_path, shadow_s=0.5)
    quick.step()
    quick.swap(TRAINED, shadow_steps=0)  # in place of the config's
    assert quick.step().model != began


@pytest.mark.parametrize(("value", "reason"), [(np.nan, "not finite"), (9.0, "leaves the limits")])
def test_what_staging_could_not_know_the_shadow_finds(
    tmp_path: Path, value: float, reason: str
) -> None:
    """A network that goes wrong only at some observations of this very plant."""

    def sometimes(model: Any, contract: dict[str, Any]) -> None:
        graph, wrong = model.graph, onnx.numpy_helper.from_array
        graph.initializer.append(wrong(np.float32([[value, value]]), "wrong"))
        graph.initializer.append(wrong(np.float32(0.25), "edge"))
        graph.initializer.append(wrong(np.float32(0.251), "end"))
        for node in graph.node:
            node.output[:] = ["own" if name == "action" else name for name in node.output]
        make = onnx.helper.make_node
        graph.node.append(make("ReduceMax", ["observation"], ["most"], keepdims=1, axes=[1]))
        graph.node.append(make("Greater", ["most", "edge"], ["above"]))
        graph.node.append(make("Less", ["most", "end"], ["below"]))
        graph.node.append(make("And", ["above", "below"], ["there"]))
        graph.node.append(make("Where", ["there", "wrong", "own"], ["action"]))
        del model.opset_import[:]
        model.opset_import.append(onnx.helper.make_opsetid("", 17))

    path = changed(TRAINED, tmp_path / "sometimes.onnx", sometimes)
    node = policy(tmp_path)
    began = node.step().model
    assert node.swap(path, shadow_steps=5000)["state"] == "shadow"
    while node.ask("swap_status")["state"] == "shadow":
        assert node.step().model == began
    status = node.ask("swap_status")
    assert status["state"] == "refused" and reason in status["reason"]
    assert node.step().model == began


def test_a_swap_under_way_is_not_disturbed_but_can_be_given_up(tmp_path: Path) -> None:
    node = policy(tmp_path)
    node.step()
    with pytest.raises(RequestRefused, match="no swap under way"):
        node.ask("swap_cancel")
    node.swap(TRAINED, shadow_steps=100)
    with pytest.raises(RequestRefused, match=r"in its shadow; wait for its outcome"):
        node.ask("swap", path=str(NOVICE))
    assert node.ask("swap_cancel", reason="changed my mind")["reason"] == "changed my mind"
    assert node.step().model.startswith("maze") and node.bench.node.next_wake_ns is None
    node.ask("swap", path=str(TRAINED))
    node.ask("swap_cancel")  # while it is staged
    node.bench.executor.finish_jobs()
    assert node.ask("swap_status")["state"] == "refused"
    assert node.swap(TRAINED)["state"] == "staged"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shadow_steps": -1}, "neither is below 0"),
        ({"shadow_s": float("nan")}, "neither is below 0"),
        ({"epoch": "1"}, "number that the plant handed out"),
        ({"path": ""}, "swap needs a path"),
    ],
)
def test_requests_that_make_no_sense(tmp_path: Path, options: Any, message: str) -> None:
    node = policy(tmp_path)
    with pytest.raises(RequestRefused, match=message):
        node.ask("swap", **({"path": str(TRAINED)} | options))
    assert node.ask("swap_status")["state"] == "none"


def test_the_action_drifts_to_the_new_policy(tmp_path: Path) -> None:
    node, old, new = (
        policy(tmp_path, bumpless_steps=5),
        policy(tmp_path),
        policy(tmp_path, model=TRAINED),
    )
    for each in (node, old, new):
        each.step(3)
    last = node.step().action
    old.step()
    new.step()
    node.swap(TRAINED)
    np.testing.assert_allclose(node.step().action, last, atol=1e-6)
    new.step()
    found = [(node.step().action, new.step().action) for _ in range(8)]
    gaps = [float(np.abs(a - b).max()) for a, b in found]
    assert gaps[0] > 0 and gaps[4:] == [0.0] * 4
    node.ask("rollback")
    last = found[-1][0]
    np.testing.assert_allclose(node.step().action, last, atol=1e-6)


def test_the_model_before_comes_back_when_asked_for(tmp_path: Path) -> None:
    node = policy(tmp_path)
    before = node.step().model
    with pytest.raises(RequestRefused, match="it flies the one it began with"):
        node.ask("rollback")
    node.swap(TRAINED)
    after = node.step().model
    node.ask("rollback", reason="it hums")
    assert node.ask("swap_status")["live"] == after  # not within a step
    assert node.step().model == before
    status = node.ask("swap_status")
    assert (status["state"], status["reason"]) == ("rolled_back", "it hums")
    assert (status["rolled_back_at"], status["previous"]) == (2, after)
    (event,) = node.events("rolled_back")
    assert event["settings"]["model"] == str(NOVICE) and event["reason"] == "it hums"
    with pytest.raises(RequestRefused, match="has gone back already"):
        node.ask("rollback")


WORSE: list[tuple[dict[str, Any], str]] = [
    ({"source": 1}, "interventions rose"),
    ({"risk": 0.9}, "mean risk rose"),
]


@pytest.mark.parametrize(("after", "reason"), WORSE)
@pytest.mark.parametrize("node_class", [TaskPolicy, SafetyCritic, RecoveryPlanner])
def test_a_model_that_does_worse_is_rolled_back_within_the_window(
    tmp_path: Path, after: Any, reason: str, node_class: Any
) -> None:
    node, other = flown(node_class, tmp_path, rollback_s=2.0)
    node.command = {}
    node.step(60)
    before = node.ask("swap_status")["live"]
    node.swap(other)
    node.step()
    assert node.ask("swap_status")["guard"]["watching"]
    node.command = {**after, "estop": True}
    node.step(40)  # an e-stop is nobody's fault
    assert node.ask("swap_status")["live"] != before
    node.command = after
    node.step(40)
    status = node.ask("swap_status")
    assert status["state"] == "rolled_back" and status["reason"].startswith(reason)
    assert status["live"] == before and not status["guard"]["watching"]
    (event,) = node.events("tripped")
    assert event["epoch"] is None and event["reason"] == status["reason"]


def flown(node_class: Any, folder: Path, **config: Any) -> tuple[Flown, Path]:
    """A node of any class with a model, and another model for it."""
    other = changed(ZOO / "critic.onnx", folder / "critic2.onnx", lambda model, contract: None)
    if node_class is TaskPolicy:
        return policy(folder, **config), TRAINED
    critic = str(ZOO / "critic.onnx")
    if node_class is SafetyCritic:
        return Flown(
            node_class, SafetyCriticConfig(model=critic, budget_ms=50, **config), folder
        ), other
    settings = {"population": 8, "elites": 2, "iterations": 1, "horizon": 2}
    dynamics = str(ZOO / "dynamics.onnx")
    made = RecoveryPlannerConfig(**{"critic": critic, "dynamics": dynamics, **settings, **config})
    return Flown(node_class, made, folder), other


def test_a_model_that_does_as_well_stays_and_the_next_may_come(tmp_path: Path) -> None:
    node = policy(tmp_path, rollback_s=1.0)
    node.command = {"risk": 0.1}
    node.step(60)
    node.swap(TRAINED)
    flying = node.step().model
    node.bench.node._slot.follow(str(NOVICE))  # announced while the guard watches: it waits
    node.step(40)
    assert node.ask("swap_status")["live"] == flying and not node.events("kept")
    node.step(20)
    assert len(node.events("kept")) == 1
    node.bench.executor.finish_jobs()
    assert node.step().model != flying


def test_without_a_window_nobody_reads_commands(tmp_path: Path) -> None:
    assert [port.topic for port in policy(tmp_path).bench.node.ports] == ["observation", "model"]
    watched = policy(tmp_path, rollback_s=1.0).bench.node
    assert [port.topic for port in watched.ports] == ["observation", "model", "command"]


def test_a_set_changes_over_at_the_observation_that_names_it(tmp_path: Path) -> None:
    nodes = [flown(c, tmp_path) for c in (TaskPolicy, SafetyCritic, RecoveryPlanner)]
    before = [node.step() and node.ask("swap_status")["live"] for node, _ in nodes]
    for node, other in nodes:
        assert node.swap(other, epoch=7)["state"] == "staged"
        node.step(5)
        node.epoch = 3
        node.step(2)  # somebody else's
        assert node.ask("swap_status")["state"] == "staged"
        node.epoch = 7
        node.step()
        assert node.ask("swap_status")["promoted_at"] == node.seq - 1
        with pytest.raises(RequestRefused, match="a set of models that belong together"):
            node.ask("rollback")
        node.epoch = 4
        node.step()  # another set, of other nodes
    after = [node.ask("swap_status")["live"] for node, _ in nodes]
    assert all(a != b for a, b in zip(after, before, strict=True))
    for node, _ in nodes:
        node.epoch = 3  # what was in force before 7
        node.step()
        assert node.ask("swap_status")["state"] == "rolled_back"
    assert [node.ask("swap_status")["live"] for node, _ in nodes] == before


def test_a_set_whose_guard_trips_waits_for_the_plant(tmp_path: Path) -> None:
    node = policy(tmp_path, rollback_s=2.0)
    node.command = {}
    before = node.step(60).model
    node.swap(TRAINED, epoch=1)
    node.epoch = 1
    node.command = {"source": 2}
    node.step(60)
    (event,) = node.events("tripped")
    assert event["epoch"] == 0 and node.ask("swap_status")["state"] == "promoted"
    node.epoch = 0
    assert node.step().model == before
    status = node.ask("swap_status")
    assert status["state"] == "rolled_back" and "interventions rose" in status["reason"]


def test_the_planner_shadows_each_of_its_models(tmp_path: Path) -> None:
    node, other = flown(RecoveryPlanner, tmp_path)
    dynamics = changed(ZOO / "dynamics.onnx", tmp_path / "d2.onnx", lambda model, contract: None)
    node.step()
    node.ask("swap", path=str(other), shadow_steps=10)
    node.ask("swap", path=str(dynamics), kind="dynamics", shadow_steps=20)
    node.bench.executor.finish_jobs()
    node.step(15)
    states = {kind: s["state"] for kind, s in node.ask("swaps").items()}
    assert states == {"safety_critic": "promoted", "dynamics": "shadow"}
    node.step(10)
    status = node.ask("swap_status", kind="dynamics")
    assert status["state"] == "promoted" and status["shadow"]["steps"] == 20
    assert status["shadow"]["difference_max"] == 0.0  # the same weights
    with pytest.raises(RequestRefused, match="the planner holds safety_critic and dynamics"):
        node.ask("swap_status", kind="policy")


def test_another_rate_than_the_live_models_is_refused(tmp_path: Path) -> None:
    def of(rate_hz: float) -> Callable[[Any, dict[str, Any]], None]:
        return lambda model, contract: contract.update(rate_hz=rate_hz)

    node = policy(tmp_path, model=changed(NOVICE, tmp_path / "20.onnx", of(20.0)))
    node.step()
    status = node.swap(changed(TRAINED, tmp_path / "7.onnx", of(7.0)))
    assert status["state"] == "refused" and "trained at 7 Hz" in status["reason"]


def test_a_planner_goes_by_the_rate_of_the_model_that_it_has(tmp_path: Path) -> None:
    def rated(rate_hz: float) -> Path:
        path = tmp_path / f"{rate_hz}.onnx"
        return changed(ZOO / "critic.onnx", path, lambda _, said: said.update(rate_hz=rate_hz))

    node, _ = flown(RecoveryPlanner, tmp_path, critic=str(rated(10.0)))
    node.step()
    node.ask("swap", path=str(rated(7.0)))
    node.bench.executor.finish_jobs()
    assert "trained at 7 Hz, to be run at 10 Hz" in node.ask("swap_status")["reason"]


def test_configs_and_first_models_that_cannot_be_used(tmp_path: Path) -> None:
    for wrong, message in (
        ({"shadow_s": -1.0}, "shadow_s is -1"),
        ({"rollback_latency": 1.0}, "above 1"),
        ({"rollback_risk": -0.1}, "rollback_risk"),
        ({"bumpless_steps": -1}, "bumpless_steps"),
    ):
        with pytest.raises(ValueError, match=message):
            TaskPolicyConfig(model="x", **wrong)
    with pytest.raises(NodeError, match=r"task_policy: .*this is a safety_critic model"):
        policy(tmp_path, model=ZOO / "critic.onnx")


@pytest.mark.parametrize("suffix", [".json", ".yaml"])
def test_a_contract_may_lie_in_a_file(tmp_path: Path, suffix: str) -> None:
    def bare(model: Any, contract: dict[str, Any]) -> None:
        contract.clear()

    path = changed(TRAINED, tmp_path / "bare.onnx", bare)
    model = onnx.load(path)
    del model.metadata_props[:]
    onnx.save(model, path)
    keys = ("names", "units")
    said = {f"{side}_{key}": "plant" for side in ("observation", "action") for key in keys}
    said |= {"action_low": "plant", "action_high": "plant"}
    contract = tmp_path / f"contract{suffix}"
    contract.write_text(json.dumps(said))  # JSON is YAML too
    ours, theirs = policy(tmp_path, model=TRAINED), policy(tmp_path, path, contract=str(contract))
    np.testing.assert_allclose(ours.step(3).action, theirs.step(3).action, atol=1e-6)
    for text, message in (("[1]", "holds a list"), ("{", "neither JSON nor YAML")):
        contract.write_text(text)
        with pytest.raises(NodeError, match=message):
            policy(tmp_path, path, contract=str(contract))
    with pytest.raises(NodeError, match="cannot be read"):
        policy(tmp_path, path, contract=str(tmp_path / "none.json"))


def test_a_swap_in_lockstep_follows_virtual_time(tmp_path: Path) -> None:
    bench = Bench(
        TaskPolicy,
        TaskPolicyConfig(model=str(NOVICE), budget_ms=50, watch=str(tmp_path)),
        tmp_path,
        interface=INTERFACE,
        realtime=False,
    )
    assert bench.executor.events[0][0] == "not watching" and not bench.executor.jobs
