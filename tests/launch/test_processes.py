"""Nodes that share a process: what a launch file may say, and what becomes of it in a run."""

# ruff: noqa: E501  messages stand whole, as a person sees them

from __future__ import annotations

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from launch_helpers import QUICK, fake_plan, processes_of

from safetypilot.launch import attach, runtime_dir
from safetypilot.launch.graph import Graph, LaunchFileError, load
from safetypilot.launch.plan import NodePlan, Plan, Restart, Step
from safetypilot.launch.progress import Run
from safetypilot.launch.run import carry_out
from safetypilot.launch.shared import Shared
from safetypilot.launch.stepwise import Stepwise
from safetypilot.launch.supervisor import Supervisor
from safetypilot.nodes.kernel import messages
from safetypilot.nodes.kernel.testing import INTERFACE
from safetypilot.nodes.kernel.transport import Endpoints, Tap
from safetypilot.nodes.kernel.wire import Codec

pytestmark = pytest.mark.integration
FILE = """\
name: chain
env: maze
rate: 50
nodes:
  plant: {type: "graph_fakes:Plant", process: control}
  policy: {type: "graph_fakes:Policy", process: control}
  judge: {type: "graph_fakes:Judge"JUDGE}
  chooser: {type: "graph_fakes:Chooser", process: control}
"""


def graph(tmp_path: Path, judge: str = "", **more: Any) -> Graph:
    file = tmp_path / "f.yaml"
    file.write_text(FILE.replace("JUDGE", f", {judge}" if judge else ""))
    return load(file, **more)


def test_a_process_of_its_own_is_the_default(tmp_path: Path) -> None:
    made = graph(tmp_path)
    assert [node.process for node in made.nodes] == ["control", "control", "", "control"]
    assert Graph.from_dict(json.loads(json.dumps(made.to_dict()))) == made
    described = made.plan().describe()["nodes"]
    assert {name: node["process"] for name, node in described.items()} == {
        "plant": "control", "policy": "control", "judge": "judge", "chooser": "control",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("judge", "said"),
    [
        ("process: control, cpus: [0]",
         "7:47: nodes of process 'control' differ in cpus: 'plant' has [], 'judge' has [0]; say the same for both"),
        ("process: control, nice: 3",
         "7:47: nodes of process 'control' differ in nice: 'plant' has 0, 'judge' has 3; say the same for both"),
        ("process: control, restart: never",
         "7:47: nodes of process 'control' differ in restart: 'plant' has on-failure, 'judge' has never; say the same for both"),
        ("process: control, realtime: {policy: fifo}",
         "7:47: nodes of process 'control' differ in realtime: 'plant' has none, 'judge' has {'policy': 'fifo'}; say the same for both"),
        ("process: policy", "7:47: process 'policy' has the name of a node; call it otherwise"),
        ("process: 'a b'", "7:47: nodes.judge.process should have only letters"),
        ("proces: control", "7:38: unknown key 'proces' in nodes.judge; did you mean 'process'?"),
    ],
)  # fmt: skip
def test_what_cannot_be_shared_is_refused(tmp_path: Path, judge: str, said: str) -> None:
    with pytest.raises(LaunchFileError) as caught:
        graph(tmp_path, judge)
    assert str(caught.value).startswith(f"{tmp_path / 'f.yaml'}:{said}")


def test_the_learner_stays_alone(tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(
        f"name: f\ninclude: [{Path(__file__).parents[2]}/launch/configs/maze.yaml]\n"
        "nodes: {learner: {process: p, nice: 0}, arbiter: {process: p, nice: 0}}\n"
    )
    with pytest.raises(LaunchFileError, match="a learner cannot share a process: it computes"):
        load(file, ["learner=on"], check_files=False)


def test_priorities_may_differ_where_nodes_share(tmp_path: Path) -> None:
    made = graph(tmp_path, "process: control, realtime: {priority: 5}")
    assert made.node("judge").realtime == {"priority": 5}


def test_readers_within_the_process_need_neither_board_nor_pipe(tmp_path: Path) -> None:
    plan = fake_plan()
    together = replace(plan, nodes=tuple(replace(n, process="one") for n in plan.nodes))
    for made, apart in ((plan, True), (together, False)):
        specs = {node.name: made.spec(node, tmp_path, tmp_path, 1) for node in made.nodes}
        shared = Shared(made, specs)
        plant, pilot = (shared.equip(node) for node in made.nodes)
        assert bool(plant.bells["observation"]) is apart
        assert pilot.places == ({"observation": 0} if apart else {})
        assert (plant.bell == pilot.bell) is not apart
        shared.close()


def fly(tmp_path: Path, show: Any = lambda run: None, restart: Restart = QUICK, **plan: Any) -> Run:
    made = fake_plan(restart=restart, **plan)
    run = Run(together(made), tmp_path)
    Supervisor(run, show).run()
    return run


def together(plan: Plan) -> Plan:
    restart = plan.nodes[1].restart
    nodes = (replace(node, process="control", restart=restart) for node in plan.nodes)
    return replace(plan, nodes=tuple(nodes))


def test_nodes_of_one_process_fly_as_they_would_apart(tmp_path: Path, runtime_base: Path) -> None:
    pids: set[int] = set()

    def look(run: Run) -> None:
        pids.update(row["pid"] for row in run.rows().values() if row["pid"])

    run = fly(tmp_path, look)
    assert (run.tally.episodes, run.failure, run.tally.total.missed) == (5, "", 0)
    assert len(pids) == 1
    assert [log.name for log in (tmp_path / "logs").iterdir()] == ["control.log"]
    assert processes_of(runtime_base) == []
    assert set(run.rows()) == {"plant", "pilot"}


def test_a_process_that_dies_comes_back_whole(tmp_path: Path) -> None:
    killed: list[int] = []

    def kill_once(run: Run) -> None:
        if run.tally.episodes == 2 and not killed:
            killed.append(run.rows()["plant"]["pid"])
            os.kill(killed[0], signal.SIGKILL)

    run = fly(tmp_path, kill_once, episodes=6)
    assert (run.failure, run.tally.episodes) == ("", 6)
    (death,) = run.deaths
    assert (death.node, death.how) == ("control", "was killed by SIGKILL")
    assert [row["generation"] for row in run.rows().values()] == [1, 1]


def test_a_node_that_crashes_takes_its_process_with_it_and_is_named(tmp_path: Path) -> None:
    run = fly(tmp_path, fail="crash", episodes=500, restart=Restart(first_s=0.02, limit=1))
    assert "exited with code 1 after 1 restarts, its limit" in run.failure
    assert run.deaths[0].last_lines[-1] == "RuntimeError: a bug at observation 4"


def test_requests_reach_each_node_of_a_process(tmp_path: Path) -> None:
    answers: dict[str, Any] = {}

    def ask(run: Run) -> None:
        if run.tally.episodes >= 3 and not answers:
            found = attach.asker(runtime_dir.find(run.run_id).path)
            answers.update({name: found(name, "status", {}) for name in ("plant", "pilot")})
            answers["estop"] = found("pilot", "estop", {})

    script = (Step("pilot", "swap", {"path": "second"}, after_episodes=1),)
    run = fly(tmp_path, ask, script=script, episodes=20)
    assert run.failure == ""
    assert answers["plant"]["pid"] == answers["pilot"]["pid"]
    assert answers["plant"]["inputs"]["command"]["received"] > 0
    assert answers["pilot"]["node"]["model"] == "second"
    assert answers["estop"] == {"estop": True}


def test_observers_see_what_passes_in_memory(tmp_path: Path) -> None:
    decode = Codec(messages.Command, INTERFACE.dims).decode
    taps: list[Tap] = []
    seen: list[int] = []

    def look(run: Run) -> None:
        if not taps and run.run_id:
            taps.append(Tap(Endpoints(runtime_dir.find(run.run_id).path), "command"))
        while taps and (frame := taps[0].receive(0)):
            seen.append(decode(frame).seq)
        if len(seen) > 20:
            run.interrupted = "SIGINT"

    fly(tmp_path, look, episodes=2000)
    assert seen == list(range(seen[0], seen[0] + len(seen)))
    taps[0].close()


def test_readers_in_other_processes_are_served_too(tmp_path: Path) -> None:
    plan = fake_plan()
    plant, pilot = plan.nodes
    second = NodePlan("second", "fake_nodes:Pilot", {}, ("observation",), ("other",),
                      {"command": "other"})  # fmt: skip
    shared = tuple(replace(node, process="control") for node in (plant, pilot))
    run = Run(replace(plan, nodes=(*shared, second), episodes=10), tmp_path)
    Supervisor(run).run()
    assert (run.tally.episodes, run.failure) == (10, "")
    rows = run.rows()
    assert rows["second"]["inputs"]["observation"]["received"] >= 40
    assert rows["second"]["pid"] is None or rows["second"]["pid"] != rows["plant"]["pid"]


def test_in_lockstep_processes_change_nothing(tmp_path: Path) -> None:
    traces = set()
    for number, made in enumerate((fake_plan(), together(fake_plan()))):
        run = Run(replace(made, clock="lockstep", episodes=4), tmp_path / str(number))
        Stepwise(run, in_process=number == 0).run()
        assert run.failure == ""
        traces.add(run.trace_sha256)
    assert len(traces) == 1


def test_the_shielded_graph_flies_in_one_process(tmp_path: Path) -> None:
    made = load("navigation1", ["population=8", "horizon=2"], episodes=2, seed=3).plan()
    nodes = tuple(
        replace(n, process="" if n.name == "recovery_planner" else "control", cpus=(), nice=0)
        for n in made.nodes
    )
    summary = carry_out(Run(replace(made, nodes=nodes), tmp_path))
    assert summary["exit_code"] == 0
    assert summary["episodes"] == 2
    assert summary["lost_messages"] == {}
    assert np.isfinite(summary["latency_us"]["p50"])
