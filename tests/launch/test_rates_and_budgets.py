"""Rates of single nodes, the guard and latency budgets in a launch file: what is checked."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from safetypilot.launch import budgets, files
from safetypilot.launch.cli import app
from safetypilot.launch.graph import Graph, load
from safetypilot.launch.loader import LaunchFileError

MAZE = files.find_launch_file("maze")


def write(tmp_path: Path, nodes: str = "", rest: str = "", rate: int = 500) -> Path:
    file = tmp_path / "own.yaml"
    lines = ["name: own", f"include: [{{file: {MAZE}, arguments: {{rate: {rate}}}}}]"]
    lines += ["nodes:", *(f"  {line}" for line in nodes.splitlines())] if nodes else []
    file.write_text("\n".join([*lines, *rest.splitlines()]) + "\n")
    return file


def graph(tmp_path: Path, nodes: str = "", rest: str = "", rate: int = 500, **more: Any) -> Graph:
    return load(write(tmp_path, nodes, rest, rate), check_files=False, **more)


def problems(tmp_path: Path, nodes: str = "", rest: str = "", rate: int = 500, **more: Any) -> str:
    with pytest.raises(LaunchFileError) as caught:
        graph(tmp_path, nodes, rest, rate, **more)
    return str(caught.value).replace(f"{tmp_path}/", "")


SLOW = """\
simulator: {config: {control_rate: 50}}
task_policy: {rate: 50}
recovery_planner: {rate: 20}
arbiter: {config: {plan_rate: 50}}"""


def test_a_rate_is_how_many_observations_a_node_leaves_out(tmp_path: Path) -> None:
    made = graph(tmp_path, SLOW)
    assert {node.name: node.every for node in made.nodes} == {
        "simulator": 1, "task_policy": 10, "safety_critic": 10, "recovery_planner": 25,
        "arbiter": 1,
    }  # fmt: skip
    plan = made.plan()
    specs = {n.name: plan.spec(n, tmp_path, tmp_path, 0) for n in plan.nodes}
    assert specs["simulator"].slow == {"observation": [10, 25]}
    assert specs["task_policy"].thinned == ["observation"]
    assert specs["task_policy"].period_ns == 20_000_000
    assert specs["safety_critic"].rates == {"observation": 10, "proposal": 10}
    assert specs["recovery_planner"].rates == {"observation": 25}
    assert specs["arbiter"].rates == {"proposal": 10, "risk": 10, "recovery": 25}
    assert specs["arbiter"].thinned == [] and specs["arbiter"].period_ns == 2_000_000
    assert plan.describe()["nodes"]["recovery_planner"]["rate_hz"] == 20.0
    assert Graph.from_dict(made.to_dict()) == made


def test_the_learner_goes_with_the_policy(tmp_path: Path) -> None:
    made = load(write(tmp_path, SLOW), ["learner=on"], check_files=False)
    assert made.node("learner").every == 10


@pytest.mark.parametrize(
    ("changed", "wanted"),
    [
        (("task_policy: {rate: 50}", "task_policy: {rate: 30}"),
         ("own.yaml:5:23: the rate of node 'task_policy', 30 Hz, does not divide the graph's rate, "
         "500 Hz; take 31.25 Hz (every 16th observation) or 29.4118 Hz (every 17th observation)")),
        (("{rate: 20}", "{rate: 1000}"),
         ("own.yaml:6:28: the rate of node 'recovery_planner', 1000 Hz, does not divide the "
         "graph's rate, 500 Hz; take at most 500 Hz")),
        (("{rate: 20}", "{rate: 400}"),
         ("own.yaml:6:28: the rate of node 'recovery_planner', 400 Hz, does not divide the graph's "
         "rate, 500 Hz; take 500 Hz (every single observation) or 250 Hz (every 2nd observation)")),
        (("arbiter: {", "arbiter: {rate: 50, "),
         ("own.yaml:7:19: node 'arbiter' writes command, which sets the pace of the graph; leave "
         "its rate out, or make it 500")),
        (("simulator: {", "simulator: {rate: 100, "),
         ("own.yaml:4:21: node 'simulator' writes observation, which sets the pace of the graph; "
         "leave its rate out, or make it 500")),
        (("arbiter: {config: {plan_rate: 50}}", "safety_critic: {rate: 100}"),
         ("own.yaml:7:25: node 'safety_critic' goes with 'task_policy', at 50 Hz; leave its rate "
         "out\n")),
        (("arbiter: {config: {plan_rate: 50}}", "arbiter: {config: {between: hold}}"),
         ("'recovery_planner' and 'task_policy' have different rates, so it must be said for how "
         "long each row of a recovery plan is meant; add plan_rate: 50 if a row is one step of "
         "the policy, 20 if it is one of the planner")),
        (("plan_rate: 50", "plan_rate: 75"),
         "own.yaml:7:33: the rate of the rows of a recovery plan, 75 Hz, does not divide"),
        (("control_rate: 50", "control_rate: 125.5"),
         "own.yaml:4:38: the rate of the plant's control steps, 125.5 Hz, does not divide"),
    ],
)  # fmt: skip
def test_rates_that_do_not_fit_are_named_with_their_line(
    tmp_path: Path, changed: tuple[str, str], wanted: str
) -> None:
    nodes = SLOW.replace(*changed)
    assert nodes != SLOW and wanted in problems(tmp_path, nodes) + "\n"


def test_a_control_step_that_cannot_be_divided_is_found_before_anything_starts(
    tmp_path: Path,
) -> None:
    nodes = "simulator: {config: {control_rate: 50}}"
    found = problems(tmp_path, nodes, "env: navigation1")
    assert "own.yaml:4:38: a control step of safetypilot.envs.navigation.Navigation" in found
    found = problems(tmp_path, nodes, rate=350)
    assert "500 physics steps, which cannot be done in 7 equal parts" in found


def test_a_guard_of_something_that_is_not_observed(tmp_path: Path) -> None:
    assert graph(tmp_path, "arbiter: {config: {guard: {x: [-0.2, 0.2]}}}")
    found = problems(tmp_path, "arbiter: {config: {guard: {z: [0, 1]}}}")
    assert "own.yaml:4:30: safetypilot/Maze-v0 observes no 'z'" in found
    found = problems(tmp_path, "arbiter: {config: {guard: {x: [1, 0]}}}")
    assert "guard of 'x' is 1.0 to 0.0; low must be below high" in found


def budget(path: str, limit: float) -> str:
    return f"budgets:\n  {path}: {limit:g}"


@pytest.mark.parametrize("arrow", ["->", "→", "  ->  "])
def test_a_budget_reaches_the_input_that_it_is_about(tmp_path: Path, arrow: str) -> None:
    rest = budget(f"observation{arrow}command", 1.4)
    rest += f"\n  observation{arrow}proposal{arrow}risk{arrow}command: 26"
    rest += f"\n  observation {arrow} risk {arrow} command: 25"
    made = graph(tmp_path, SLOW, rest)
    assert made.node("arbiter").budgets_ms == {"observation": 1.4, "risk": 25.0}
    plan = made.plan()
    node = next(node for node in plan.nodes if node.name == "arbiter")
    spec = plan.spec(node, tmp_path, tmp_path, 0)
    assert spec.budgets_ns == {"observation": 1_400_000, "risk": 25_000_000}
    assert Graph.from_dict(made.to_dict()) == made


@pytest.mark.parametrize(
    ("path", "limit", "wanted"),
    [
        ("observation -> comand", 4, "own.yaml:9:3: there is no topic 'comand'; did you mean"),
        ("observation", 4, "own.yaml:9:3: 'observation' is no path; write it as"),
        ("risk -> command", 4, "own.yaml:9:3: a budget counts from an observation, not from"),
        ("observation -> transition", 4,
         ("own.yaml:9:3: simulator, which writes transition, does not read observation; it reads "
         "command")),
        ("observation -> command", 1.2,
         "own.yaml:9:27: of a budget of 1.2 ms, arbiter may take (its deadline) 1.3 ms; raise it"),
        ("observation -> proposal -> risk", 7.9,
         "own.yaml:9:36: of a budget of 7.9 ms, task_policy (4) + safety_critic (4) may take 8 ms"),
        # 10 observations of 2 ms less one, 4 more until the answer is there, and the deadline.
        ("observation -> proposal -> risk -> command", 19,
         ("own.yaml:9:47: of a budget of 19 ms, risk, which comes with every 10. observation, may "
         "be used at an age of 20 ms")),
        ("observation -> command", 0, "should be greater than 0, got 0"),
    ],
)  # fmt: skip
def test_budgets_that_cannot_be_met_are_named_with_their_line(
    tmp_path: Path, path: str, limit: float, wanted: str
) -> None:
    assert wanted in problems(tmp_path, SLOW, budget(path, limit))


def test_at_one_rate_an_answer_is_as_old_as_the_deadline_lets_it_be(tmp_path: Path) -> None:
    path = "observation -> proposal -> risk -> command"
    assert graph(tmp_path, rest=budget(path, 13), rate=50).node("arbiter").budgets_ms
    assert "may take (its deadline) 13 ms" in problems(tmp_path, rest=budget(path, 12), rate=50)


def summary(folder: Path, worst: dict[tuple[str, str], float], **changes: Any) -> Path:
    """A run's summary, of which only the ages at arrival matter; in ms."""
    folder.mkdir(parents=True)
    nodes: dict[str, Any] = {}
    for (node, topic), age in worst.items():
        row = nodes.setdefault(node, {"inputs": {}})
        row["inputs"][topic] = {"age_us": {"n": 3, "max": age * 1e3}}
    data = {"name": "own", "clock": "realtime", "rate_hz": 50.0, "nodes": nodes} | changes
    (folder / "summary.json").write_text(json.dumps(data))
    return folder


def test_a_budget_must_hold_for_what_was_measured_too(tmp_path: Path) -> None:
    run = summary(
        tmp_path / "runs" / "own-1",
        {("simulator", "command"): 13.5, ("arbiter", "risk"): 7.0, ("arbiter", "proposal"): 2.5},
    )
    measured = budgets.read_measured(run)
    for path, limit, found in (
        ("observation -> command", 13.4, "command came after up to 13.5 ms; measured: "),
        ("observation -> proposal", 4, ""),
        ("observation -> proposal -> risk", 8, ""),
        ("observation -> proposal -> risk -> command", 13.2, ""),
    ):
        rest = budget(path, limit)
        if found:
            text = problems(tmp_path, rest=rest, rate=50, measured=measured)
            assert f"own.yaml:4:27: of a budget of {limit:g} ms, {found}" in text
            assert text.endswith("own-1/summary.json")
        else:
            assert graph(tmp_path, rest=rest, rate=50, measured=measured)


def test_what_is_held_is_as_old_as_the_answer_was_late(tmp_path: Path) -> None:
    path = budget("observation -> proposal -> risk -> command", 26)
    slow = SLOW.replace("{plan_rate: 50}", "{plan_rate: 50, validity: 1.5}")
    quick, late = (
        budgets.Measured("earlier.json", {("arbiter", "risk"): age}) for age in (5.5, 8.5)
    )
    wanted = "every 10. observation, may be used at an age of 27.3 ms"
    assert wanted in problems(tmp_path, slow, path)
    sets = ["task_policy.budget_ms=1", "safety_critic.budget_ms=1"]
    file = write(tmp_path, slow, path)
    load(file, [], sets, check_files=False, measured=quick).node("arbiter")
    with pytest.raises(LaunchFileError, match=r"29\.3 ms; measured: earlier\.json"):
        load(file, [], sets, check_files=False, measured=late)


def test_the_newest_run_of_the_same_graph_is_found(tmp_path: Path) -> None:
    worst = {("simulator", "command"): 9.0}
    runs = tmp_path / "runs"
    for number, changes in enumerate(
        ({}, {"clock": "lockstep"}, {"name": "other"}, {"rate_hz": 100.0}), 1
    ):
        folder = summary(runs / f"own-{number}", worst, **changes)
        os.utime(folder / "summary.json", (number, number))
    (runs / "own-9").mkdir()
    (runs / "own-9" / "summary.json").write_text("{")
    found = budgets.find_measured("own", 50.0, runs)
    assert found is not None and found.source.endswith("own-1/summary.json")
    assert found.ages_ms == worst
    assert budgets.find_measured("another", 50.0, runs) is None


def test_check_reads_what_was_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    file = write(tmp_path, rest=budget("observation -> command", 13.2), rate=50)
    summary(tmp_path / "runs" / "own-1", {("simulator", "command"): 14.0})
    check = ["check", str(file)]
    for words, code in (([], 2), (["--measured", "none"], 0), (["--measured", "runs/own-1"], 2)):
        result = CliRunner().invoke(app, [*check, *words])
        assert result.exit_code == code, (words, result.output, result.exception)
    for wrong in ("runs/nowhere", str(file)):
        result = CliRunner().invoke(app, [*check, "--measured", wrong])
        assert result.exit_code != 0
    with pytest.raises(ValueError, match="in lockstep, in which nothing takes any time"):
        budgets.read_measured(summary(tmp_path / "l", {}, clock="lockstep"))
