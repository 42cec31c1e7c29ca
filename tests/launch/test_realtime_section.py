"""The `realtime:` section: merged field by field, switched off whole, and wrong in every way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetypilot.launch.graph import Graph, LaunchFileError, load
from safetypilot.launch.schema import Realtime
from safetypilot.nodes.kernel.schedule import Settings

HEAD = """\
name: chain
env: maze
rate: 50
"""
NODES = """\
nodes:
  plant: {type: "graph_fakes:Plant"}
  policy: {type: "graph_fakes:Policy"OWN}
  judge: {type: "graph_fakes:Judge"}
  chooser: {type: "graph_fakes:Chooser"}
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def graph(whole: str = "", own: str = "", **more: Any) -> Graph:
    section = f"realtime: {whole}\n" if whole else ""
    nodes = NODES.replace("OWN", f", realtime: {own}" if own else "")
    Path("f.yaml").write_text(HEAD + section + nodes)
    return load("f.yaml", **more)


def test_without_a_section_nothing_is_asked_for() -> None:
    assert [node.realtime for node in graph().nodes] == [{}, {}, {}, {}]


def test_a_node_overrides_field_by_field() -> None:
    made = graph("{policy: fifo, priority: 40, gc: off}", "{priority: 50, cpus: [0]}")
    assert made.node("plant").realtime == {"policy": "fifo", "priority": 40, "gc": "off"}
    assert made.node("policy").realtime == {
        "policy": "fifo", "priority": 50, "gc": "off", "cpus": [0],
    }  # fmt: skip


def test_a_section_that_is_off_is_off_for_all() -> None:
    made = graph("{when: off, policy: fifo}", "{priority: 50}")
    assert [node.realtime for node in made.nodes] == [{}, {}, {}, {}]


def test_a_node_may_stay_out_of_it() -> None:
    made = graph("{policy: fifo}", "{when: off}")
    assert (made.node("plant").realtime, made.node("policy").realtime) == ({"policy": "fifo"}, {})


def test_it_reaches_the_process() -> None:
    plan = graph("{policy: fifo, priority: 40, timer_slack_us: 5}").plan()
    spec = plan.spec(plan.nodes[0], Path("r"), Path("t"), 1)
    assert Settings.of(spec.realtime) == Settings("fifo", 40, timer_slack_us=5)


def test_the_shipped_graphs_have_it_behind_an_argument() -> None:
    assert all(node.realtime == {} for node in load("maze", check_files=False).nodes)
    flown = load("maze", ["realtime=on", "learner=on"], check_files=False)
    policies = {node.name: node.realtime.get("policy") for node in flown.nodes}
    assert policies.pop("learner") is None
    assert set(policies.values()) == {"fifo"}
    control = ("simulator", "task_policy", "safety_critic", "arbiter")
    planner = Settings.of(flown.node("recovery_planner").realtime)
    for name in control:
        settings = Settings.of(flown.node(name).realtime)
        assert settings.priority > planner.priority + 1  # also before the planner's I/O thread
        assert (settings.cpus, settings.gc, settings.lock_memory) == ((0,), "off", True)


@pytest.mark.parametrize(
    ("whole", "said"),
    [
        ("{polcy: fifo}", "f.yaml:4:12: unknown key 'polcy' in realtime; did you mean 'policy'?"),
        ("{policy: rr}", "f.yaml:4:20: realtime.policy should be 'fifo' or 'other', got 'rr'"),
        ("{priority: 99}", "f.yaml:4:22: realtime.priority should be less than or equal to 98"),
        ("{gc: sometimes}", "f.yaml:4:16: realtime.gc should be 'off', 'frozen' or 'on'"),
        ("{cpus: [-1]}", "f.yaml:4:19: realtime.cpus[0] should be greater than or equal to 0"),
        ("{lock_memory: 3}", "f.yaml:4:25: realtime.lock_memory should be on or off"),
        ("fifo", "f.yaml:4:11: realtime should be a mapping"),
    ],
)
def test_sections_that_are_wrong(whole: str, said: str) -> None:
    with pytest.raises(LaunchFileError) as caught:
        graph(whole)
    assert str(caught.value).startswith(said)


FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "policy": st.sampled_from(["fifo", "other"]),
    "priority": st.integers(1, 98),
    "cpus": st.lists(st.integers(0, 7), max_size=3),
    "lock_memory": st.booleans(),
    "gc": st.sampled_from(["off", "frozen", "on"]),
    "timer_slack_us": st.integers(0, 1000),
    "rehearse_us": st.integers(0, 1000),
    "fixed_addresses": st.booleans(),
}
sections = st.fixed_dictionaries({}, optional=FIELDS)


@given(sections, sections)
def test_what_a_node_says_wins_and_the_rest_is_the_files(
    whole: dict[str, Any], own: dict[str, Any]
) -> None:
    merged = Realtime(**own).over(Realtime(**whole))
    assert merged == {**whole, **own}
    Settings.of(merged)  # and a process takes all that a launch file may say
