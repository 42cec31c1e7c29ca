"""What `load` says about launch files that are wrong: the place, the value and the mend."""

# ruff: noqa: E501  messages stand whole, as a person sees them

from __future__ import annotations

import os
from pathlib import Path
from textwrap import dedent

import pytest

from safetypilot.launch.graph import Graph, LaunchFileError, load

BASE = """\
name: base
env: maze
rate: 50
nodes:
  plant: {type: "graph_fakes:Plant"}
  pilot: {type: "graph_fakes:Pilot"}
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(text: str, name: str = "f.yaml") -> Path:
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(dedent(text))
    return path


def problems(text: str, arguments: list[str] | None = None, sets: list[str] | None = None) -> str:
    with pytest.raises(LaunchFileError) as caught:
        load(write(text), arguments or [], sets or [])
    return str(caught.value)


def fly(text: str, arguments: list[str] | None = None, sets: list[str] | None = None) -> Graph:
    return load(write(text), arguments or [], sets or [])


def test_the_smallest_launch_file() -> None:
    graph = fly(BASE)
    assert (graph.name, graph.env, graph.rate, graph.clock) == (
        "base", "safetypilot/Maze-v0", 50.0, "realtime",
    )  # fmt: skip
    assert (graph.episodes, graph.duration, graph.seed, graph.warnings) == (None, None, 0, ())
    assert graph.period_ns == 20_000_000
    assert graph.node("pilot").config["gain"] == 1.0
    assert graph.topic("observation").readers == ("pilot",)


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (("rate: 50", "rate: -5"), "f.yaml:3:7: rate should be greater than 0, got -5"),
        (("rate: 50", "rate: true"), "f.yaml:3:7: rate should be a number, got true"),
        (("rate: 50", "rate: .nan"), "f.yaml:3:7: rate should be a finite number, got nan"),
        (("rate: 50", "rate: fast"), "f.yaml:3:7: rate should be a number, got 'fast'"),
        (("rate: 50", "rat: 50"),
         "f.yaml:1:1: missing key 'rate'\nf.yaml:3:1: unknown key 'rat'; did you mean 'rate'?"),
        (("rate: 50", "rate: 50\nclock: realtme"),
         "f.yaml:4:8: clock should be 'realtime' or 'lockstep', got 'realtme'"),
        (("rate: 50", "rate: 50\nepisodes: 2.5"),
         "f.yaml:4:11: episodes should be a whole number, got 2.5"),
        (("rate: 50", "rate: 50\nepisodes: 0"),
         "f.yaml:4:11: episodes should be greater than or equal to 1, got 0"),
        (("name: base", "name: ba se"),
         ("f.yaml:1:7: name should have only letters, digits and underscores (a launch file's name "
         "also -), got 'ba se'")),
        (("env: maze", "env: maz"), "f.yaml:2:6: unknown environment 'maz'. Did you mean maze"),
        (("  pilot:", "  pi-lot:"),
         ("f.yaml:6:3: 'pi-lot' is not a name in nodes; use letters, digits and underscores, "
         "beginning with a letter")),
        (('"graph_fakes:Pilot"', '"graph_fakes:Pilott"'),
         "f.yaml:6:17: node type 'graph_fakes:Pilott': module 'graph_fakes' has no 'Pilott'"),
        (('"graph_fakes:Pilot"', "arbitre"),
         "f.yaml:6:17: unknown node type 'arbitre'; did you mean 'arbiter'?"),
        (('"graph_fakes:Pilot"', '"no_such.module:X"'),
         ("f.yaml:6:17: node type 'no_such.module:X': ModuleNotFoundError: No module named "
         "'no_such'; it must be installed or on PYTHONPATH")),
        (('"graph_fakes:Pilot"', '"graph_fakes:NotANode"'),
         ("f.yaml:6:17: node type 'graph_fakes:NotANode' is not a node; it needs inputs, outputs "
         "and a Config dataclass; see nodes/kernel/node.py")),
        (('"graph_fakes:Pilot"', '"graph_fakes:BadConfig"'), "f.yaml:6:17: node type "),
        (('"graph_fakes:Pilot"', '"graph_fakes:Unknowable"'),
         "f.yaml:6:17: graph_fakes.Unresolvable: "),
        (('"graph_fakes:Pilot"', '"graph_fakes:Pilot", restart: on-failur'),
         ("f.yaml:6:47: nodes.pilot.restart.policy should be 'never', 'on-failure' or 'always', "
         "got 'on-failur'; did you mean 'on-failure'?")),
        (('"graph_fakes:Pilot"', '"graph_fakes:Pilot", restart: {backof: 1}'),
         "f.yaml:6:48: unknown key 'backof' in nodes.pilot.restart; did you mean 'backoff'?"),
        (('"graph_fakes:Pilot"', '"graph_fakes:Pilot", restart: {backoff: 9}'),
         "f.yaml:6:47: nodes.pilot.restart backoff_max 5.0 is below backoff 9.0"),
        (('"graph_fakes:Pilot"', '"graph_fakes:Pilot", when: maybe'),
         "f.yaml:6:44: nodes.pilot.when should be on or off, got 'maybe'"),
        (('"graph_fakes:Pilot"', '"graph_fakes:Pilot", cpus: [0, -1]'),
         "f.yaml:6:48: nodes.pilot.cpus[1] should be greater than or equal to 0, got -1"),
        (('"graph_fakes:Pilot"', '"graph_fakes:Pilot", nice: -21'),
         "f.yaml:6:44: nodes.pilot.nice should be greater than or equal to -20, got -21"),
        (('{type: "graph_fakes:Pilot"}', "5"), "f.yaml:6:10: nodes.pilot should be a mapping, got 5"),
        (('{type: "graph_fakes:Pilot"}', "{tpye: x}"),
         ("f.yaml:6:3: missing key 'type' in nodes.pilot\n"
         "f.yaml:6:11: unknown key 'tpye' in nodes.pilot; did you mean 'type'?")),
    ],
)  # fmt: skip
def test_values_that_are_wrong(change: tuple[str, str], wanted: str) -> None:
    assert problems(BASE.replace(*change)).startswith(wanted)


@pytest.mark.parametrize(
    ("config", "wanted"),
    [
        ("gian: 1", "6:47: unknown key 'gian' in nodes.pilot.config; did you mean 'gain'?"),
        ("zzz: 1", ("6:47: unknown key 'zzz' in nodes.pilot.config; known: model, gain, low, high, "
                   "count, shield, note, sizes, inner, limit")),
        ("gain: high", "6:53: nodes.pilot.config.gain should be a number, got 'high'"),
        ("gain: true", "6:53: nodes.pilot.config.gain should be a number, got true"),
        ("count: 1.5", "6:54: nodes.pilot.config.count should be a whole number, got 1.5"),
        ("gain: .inf", "6:53: nodes.pilot.config.gain should be a finite number, got inf"),
        ("shield: mabe", "6:55: nodes.pilot.config.shield should be on or off, got 'mabe'"),
        ("note: 5", "6:53: nodes.pilot.config.note should be text, got 5"),
        ("sizes: [1, x]", "6:58: nodes.pilot.config.sizes[1] should be a whole number, got 'x'"),
        ("sizes: 5", "6:54: nodes.pilot.config.sizes should be a list, got 5"),
        ("inner: {deep: 1}", "6:55: unknown key 'deep' in nodes.pilot.config.inner; did you mean 'depth'?"),
        ("low: 5", "6:46: nodes.pilot.config low 5.0 is above high 1.0"),
        ("model: zoo/none.onnx", "6:54: there is no file "),
    ],
)  # fmt: skip
def test_configs_that_are_wrong(config: str, wanted: str) -> None:
    text = BASE.replace('"graph_fakes:Pilot"', f'"graph_fakes:Pilot", config: {{{config}}}')
    assert problems(text).startswith(f"f.yaml:{wanted}")


def test_a_missing_config_key_is_said_at_the_node() -> None:
    text = BASE + '  student: {type: "graph_fakes:Student"}\n'
    assert problems(text) == "f.yaml:7:3: missing key 'model' in nodes.student.config"


def test_env_is_named_once_for_all_who_need_it() -> None:
    graph = fly(BASE + '  student: {type: "graph_fakes:Student", config: {model: m}}\n')
    assert graph.node("student").config == {"model": "m", "env": "safetypilot/Maze-v0"}


def test_many_problems_are_said_at_once() -> None:
    text = """\
        name: base
        env: maz
        rate: 50
        arguments: {a: {default: 1, minimum: 0}}
        nodes:
          plant: {type: "graph_fakes:Plant", config: {x: 1}}
          pilot: {type: "graph_fakes:Pilott", nice: "${b}"}
        """
    found = problems(text, ["a=-1", "c=2"], ["pliot.x=1", "pilot"])
    for wanted in ("a=-1: ", "c=2: ", "--set pliot.x=1: ", "--set pilot: ", "f.yaml:7:45: unknown argument '${b}'",
                   "f.yaml:7:45: nodes.pilot.nice"):  # fmt: skip
        assert wanted in found
    text = text.replace("${b}", "${a}")
    assert problems(text).count("\n") == 2  # env, unknown key x, unknown class


@pytest.mark.parametrize(
    ("sets", "wanted"),
    [
        ("pilot.gian=1", "unknown key 'gian' in nodes.pilot.config; did you mean 'gain'?"),
        ("pliot.gain=1", "there is no node 'pliot'; did you mean 'pilot'?"),
        ("pilot.gain=x", "nodes.pilot.config.gain should be a number, got 'x'"),
        ("pilot.shield=2", "nodes.pilot.config.shield should be on or off, got 2"),
        ("pilot=2", "a setting is given as node.key=value"),
        ("pilot.gain", "a setting is given as node.key=value"),
        ("pilot..x=1", "a setting is given as node.key=value"),
        ("pilot.gain.x=1", "nodes.pilot.config.gain should be a number, got {'x': 1}"),
        ("pilot.model=x.onnx", "there is no file x.onnx"),
    ],
)
def test_settings_that_are_wrong(sets: str, wanted: str) -> None:
    assert problems(BASE, sets=[sets]).startswith(f"--set {sets}: {wanted}")


def test_settings_reach_the_config_typed() -> None:
    words = [
        "pilot.shield=off",
        "pilot.gain=2",
        "pilot.sizes=[4]",
        "pilot.note=5",
        "pilot.inner.depth=3",
    ]
    with pytest.raises(LaunchFileError, match="sizes should be a list"):
        fly(BASE, sets=words)
    words[2] = "pilot.limit=7"
    config = fly(BASE, sets=words).node("pilot").config
    assert config["shield"] is False
    assert (config["gain"], config["note"], config["inner"]["depth"], config["limit"]) == (
        2.0,
        "5",
        3,
        7,
    )
    assert fly(BASE, sets=["pilot.limit=null"]).node("pilot").config["limit"] is None


def test_files_are_found_from_where_they_are_named() -> None:
    for folder in (".", "sub"):
        write("", f"{folder}/m.onnx")
    text = BASE.replace('"graph_fakes:Pilot"', '"graph_fakes:Pilot", config: {model: m.onnx}')
    path = write(text, "sub/f.yaml")
    assert load(path).node("pilot").config["model"] == os.path.abspath("sub/m.onnx")
    by_hand = load(path, sets=["pilot.model=m.onnx"])
    assert by_hand.node("pilot").config["model"] == os.path.abspath("m.onnx")


def test_models_need_not_exist_where_nothing_is_started() -> None:
    text = BASE.replace('"graph_fakes:Pilot"', '"graph_fakes:Pilot", config: {model: m.onnx}')
    assert load(write(text), check_files=False).node("pilot").config["model"].endswith("m.onnx")


def test_stop_conditions_of_the_command_line_replace_those_of_the_file() -> None:
    path = write(BASE + "episodes: 5\nduration: 60\n")
    assert (load(path).episodes, load(path).duration) == (5, 60.0)
    assert (load(path, episodes=9).episodes, load(path, episodes=9).duration) == (9, None)
    graph = load(path, duration=1.5, clock="lockstep", seed=3)
    assert (graph.episodes, graph.duration, graph.clock, graph.seed) == (None, 1.5, "lockstep", 3)
    with pytest.raises(LaunchFileError, match=r"^--clock lokstep: clock should be 'realtime' or"):
        load(path, clock="lokstep")


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("mase", "mase: no launch file is called 'mase'; did you mean 'maze'?"),
        ("sub/ff.yaml", "sub/ff.yaml: there is no such launch file; did you mean 'f.yaml'?"),
        ("", "launch: no launch file is named; one of "),
        ("a\0b", "a"),
    ],
)
def test_launch_files_that_do_not_exist(name: str, wanted: str) -> None:
    write(BASE, "sub/f.yaml")
    with pytest.raises(LaunchFileError) as caught:
        load(name)
    assert str(caught.value).startswith(wanted)
