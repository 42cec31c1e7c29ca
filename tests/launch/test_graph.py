"""The graph as a whole: topics, latency, script, and what it is written as."""

# ruff: noqa: E501  messages stand whole, as a person sees them

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from safetypilot.launch import graph as graphs
from safetypilot.launch.files import built_in, compose
from safetypilot.launch.graph import Graph, LaunchFileError, load
from safetypilot.launch.plan import Plan

CHAIN = """\
name: chain
env: maze
rate: 50
nodes:
  plant: {type: "graph_fakes:Plant"}
  policy: {type: "graph_fakes:Policy"}
  judge: {type: "graph_fakes:Judge"}
  chooser: {type: "graph_fakes:Chooser"}
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def graph(text: str, **more: Any) -> Graph:
    Path("f.yaml").write_text(text)
    return load("f.yaml", **more)


def problems(text: str) -> str:
    with pytest.raises(LaunchFileError) as caught:
        graph(text)
    return str(caught.value)


def test_topics_have_one_writer_and_their_readers_in_graph_order() -> None:
    made = graph(CHAIN)
    assert {t.name: (t.writer, t.readers) for t in made.topics} == {
        "observation": ("plant", ("policy", "judge")), "transition": ("plant", ()),
        "proposal": ("policy", ("judge", "chooser")), "risk": ("judge", ("chooser",)),
        "command": ("chooser", ("plant",)),
    }  # fmt: skip
    assert (made.topic("transition").port, made.topic("risk").message) == ("stream", "Risk")


def test_two_writers_are_refused_and_both_named() -> None:
    found = problems(CHAIN + '  second: {type: "graph_fakes:Policy"}\n')
    assert found == (
        "f.yaml:9:3: topic 'proposal' has two writers, nodes 'policy' and 'second'; remove one of "
        "the two, or rename its topic: remap: {second: {proposal: second_proposal}}"
    )


def test_a_remapped_topic_is_another_one() -> None:
    second = CHAIN + '  second: {type: "graph_fakes:Policy"}\nremap: {second: {proposal: other}}\n'
    made = graph(second)
    assert (made.topic("other").type, made.topic("other").writer) == ("proposal", "second")
    assert made.node("second").remap == {"proposal": "other"}
    made = graph(second.replace("remap: {", "remap: {chooser: {proposal: other}, "))
    assert made.topic("other").readers == ("chooser",)
    assert made.plan().spec(made.plan().nodes[3], Path("r"), Path("t"), 1).remap == {
        "proposal": "other"
    }


@pytest.mark.parametrize(
    ("remap", "wanted"),
    [
        ("{chooser: {proposl: x}}", "f.yaml:9:19: node 'chooser' has no topic 'proposl'; did you mean 'proposal'?"),
        ("{choser: {risk: x}}", "f.yaml:9:9: there is no node 'choser'; did you mean 'chooser'?"),
        ("{chooser: {risk: proposal}}",
         "f.yaml:9:25: topic 'proposal' carries Proposal, node 'chooser' needs Risk; remap to another name"),
        ("{chooser: {risk: rsk}}", "f.yaml:9:25: node 'chooser' reads topic 'rsk', which no node writes; did you mean 'risk'?"),
        ("{chooser: {risk: 'a b'}}", "f.yaml:9:25: remap.chooser.risk should have only letters"),
    ],
)  # fmt: skip
def test_remaps_that_are_wrong(remap: str, wanted: str) -> None:
    assert problems(f"{CHAIN}remap: {remap}\n").startswith(wanted)


def test_an_input_without_a_writer_is_refused() -> None:
    without = CHAIN.replace('  judge: {type: "graph_fakes:Judge"}\n', "")
    assert problems(without) == (
        "f.yaml:7:3: node 'chooser' reads topic 'risk', which no node writes; add a node of type "
        "safety_critic"
    )
    off = CHAIN.replace('"graph_fakes:Judge"', '"graph_fakes:Judge", when: off')
    assert problems(off) == (
        "f.yaml:8:3: node 'chooser' reads topic 'risk', which no node writes; node 'judge' would, "
        "but its `when` is off"
    )


def test_a_topic_that_nobody_knows() -> None:
    assert problems(CHAIN + '  odd: {type: "graph_fakes:Stranger"}\n') == (
        "f.yaml:9:15: node 'odd' has the unknown topic 'observatoin'; did you mean 'observation'?"
    )
    found = problems(CHAIN + "topics: {comand: {budget_ms: 5}}\n")
    assert found == "f.yaml:9:10: there is no topic 'comand'; did you mean 'command'?"


def test_when_makes_a_node_optional() -> None:
    text = CHAIN.replace("name: chain", "name: chain\narguments: {train: {default: off}}") + (
        '  student: {type: "graph_fakes:Student", when: "${train}", config: {model: m}}\n'
    )
    assert [node.name for node in graph(text).nodes] == ["plant", "policy", "judge", "chooser"]
    made = graph(text, arguments=["train=on"])
    assert made.node("student").config["model"] == "m"
    assert made.topic("transition").readers == ("student",)
    with pytest.raises(LaunchFileError, match="node 'student' is not in this graph: its `when`"):
        graph(text, sets=["student.model=x"])


@pytest.mark.parametrize(
    ("topics", "wanted"),
    [
        ("command: {budget_ms: 25}",
         ("f.yaml:9:31: a budget of 25 ms for topic 'command' is longer than the control period, "
         "20 ms; lower it, or the rate of 50 Hz")),
        ("command: {budget_ms: 7}",
         ("f.yaml:9:31: of a budget of 7 ms for topic 'command', policy (4) + judge (4) may take "
         "8 ms; raise it, or lower budget_ms of a node on the way")),
        ("proposal: {budget_ms: 3}",
         ("f.yaml:9:32: of a budget of 3 ms for topic 'proposal', policy (4) may take 4 ms; raise "
         "it, or lower budget_ms of a node on the way")),
        ("command: {transport: tcp}", "f.yaml:9:31: topics.command.transport should be 'ipc', got 'tcp'"),
    ],
)  # fmt: skip
def test_latency_budgets(topics: str, wanted: str) -> None:
    assert problems(f"{CHAIN}topics: {{{topics}}}\n") == wanted


def test_budgets_that_fit() -> None:
    made = graph(CHAIN + "topics: {command: {budget_ms: 8}, model: {rate: 1}}\n")
    assert made.topic("command").budget_ms == 8.0


def test_answers_that_come_after_the_arbiter_decided_are_warned_of() -> None:
    sets = ["task_policy.budget_ms=4", "safety_critic.budget_ms=4", "recovery_planner.budget_ms=9",
            "arbiter.deadline=0.65"]  # fmt: skip
    made = load("maze", ["rate=100"], sets, check_files=False)
    assert made.warnings == (
        (
            "recovery: recovery_planner (9) may take 9 ms, but arbiter decides 6.5 ms after the "
            "observation; lower recovery_planner.budget_ms or the rate"
        ),
        (
            "risk: task_policy (4) + safety_critic (4) may take 8 ms, but arbiter decides 6.5 ms after "
            "the observation; lower safety_critic.budget_ms or the rate"
        ),
    )
    assert load("maze", ["rate=100"], sets, clock="lockstep", check_files=False).warnings == ()


def test_cpus_that_are_not_here_are_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1})
    made = graph(CHAIN.replace('"graph_fakes:Judge"', '"graph_fakes:Judge", cpus: [1, 7]'))
    assert made.warnings == ("judge: CPU 7 is not available here (there is 0, 1)",)
    assert made.node("judge").cpus == (1, 7)


def test_the_script() -> None:
    Path("m.onnx").touch()
    made = graph(
        CHAIN
        + "episodes: 20\nscript:\n"
        + "  - {after_episodes: 15, swap: {node: policy, model: m.onnx}}\n"
        + "  - {after_s: 2, request: {node: chooser, request: estop, arguments: {reason: x}}}\n"
        + "  - {after_episodes: 20, request: {node: chooser, request: reset}}\n"
    )
    assert [(s.node, s.request, s.after_episodes, s.after_s) for s in made.script] == [
        ("policy", "swap", 15, None), ("chooser", "estop", None, 2.0), ("chooser", "reset", 20, None),
    ]  # fmt: skip
    assert made.script[0].arguments == {"path": os.path.abspath("m.onnx")}
    assert made.warnings == ("f.yaml:13:5: script[2] never happens: the run ends before it",)


@pytest.mark.parametrize(
    ("step", "wanted"),
    [
        ("{swap: {node: policy, model: m}}", "5: script[0] needs one trigger, after_episodes or after_s"),
        ("{after_s: 1, after_episodes: 1, swap: {node: policy, model: m}}", "5: script[0] needs one trigger"),
        ("{after_s: 1}", "5: script[0] needs one action, swap or request"),
        ("{after_s: 1, swap: {node: plicy, model: m}}", "31: there is no node 'plicy' to swap; did you mean 'policy'?"),
        ("{after_s: 1, swap: {node: policy, model: m.onnx}}", "46: there is no file m.onnx"),
        ("{after_s: 1, request: {node: off, request: x}}", "34: there is no node 'off' to request; its `when` is off"),
        ("{after: 1}", "6: unknown key 'after' in script[0]; did you mean 'after_s'?"),
    ],
)  # fmt: skip
def test_scripts_that_are_wrong(step: str, wanted: str) -> None:
    text = CHAIN + f'  off: {{type: "graph_fakes:Judge", when: off}}\nscript:\n  - {step}\n'
    assert problems(text).splitlines()[-1].startswith(f"f.yaml:11:{wanted}")


def test_a_resolved_launch_file_comes_back_the_same() -> None:
    for name in ("maze", "maze-demo", "navigation1", "navigation2"):
        made = load(name, ["learner=on"], check_files=False)
        assert Graph.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    with pytest.raises(ValueError, match="schema 1 is needed, got 7"):
        Graph.from_dict({"schema": 7})


def test_a_graph_becomes_a_plan() -> None:
    made = load("maze-demo", ["rate=25"], check_files=False)
    plan = made.plan()
    assert isinstance(plan, Plan)
    assert (plan.period_ns, plan.duration_s, plan.episodes) == (40_000_000, 110.0, None)
    assert plan.interface["action_high"] == [0.1, 0.1]
    assert plan.plant == "simulator"
    assert plan.script[0].text == "swap task_policy to trained.onnx"
    assert plan.spec(plan.nodes[1], Path("r"), Path("t"), 1).absent == ["model"]


def test_a_plant_without_a_flat_box_is_refused() -> None:
    made = graph(CHAIN.replace("env: maze", "env: Blackjack-v1"))
    with pytest.raises(LaunchFileError, match=r"f.yaml:1:1: env: Blackjack-v1: the observation"):
        made.plan()


GOLDEN = Path(__file__).parent / "golden_maze.json"


def golden() -> str:
    """The resolved maze: its own words, not the defaults of the node types (see the schema)."""
    made = load("maze", ["learner=on"], check_files=False).to_dict()
    stated = compose(built_in()["maze"]).values["nodes"]
    assert isinstance(stated, dict)
    for name, node in made["nodes"].items():
        keys = {"env", *stated[name].get("config", {})}
        node["config"] = {key: node["config"][key] for key in node["config"] if key in keys}
    text = json.dumps({**made, "warnings": []}, indent=2)
    return text.replace(str(Path(graphs.__file__).parents[1]), "PACKAGE") + "\n"


def test_the_maze_resolves_as_before() -> None:
    """If this was meant to change: python tests/launch/test_graph.py"""
    assert golden() == GOLDEN.read_text()


if __name__ == "__main__":
    GOLDEN.write_text(golden())
