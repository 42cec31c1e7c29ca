"""Arguments, what `${name}` becomes, and includes."""

# ruff: noqa: E501  messages stand whole, as a person sees them

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from safetypilot.launch.graph import Graph, LaunchFileError, load

NODES = """
env: maze
nodes:
  plant: {type: "graph_fakes:Plant"}
  pilot: {type: "graph_fakes:Pilot", config: {%s}}
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def graph(arguments: str, config: str = "", given: Any = (), rate: str = "50") -> Graph:
    """A launch file with these arguments and this config of its pilot."""
    text = f"name: f\nrate: {rate}\narguments: {arguments}" + NODES % config
    Path("f.yaml").write_text(text)
    return load("f.yaml", given)


def problems(*words: Any, **more: Any) -> str:
    with pytest.raises(LaunchFileError) as caught:
        graph(*words, **more)
    return str(caught.value)


def value(spec: str, *given: str) -> Any:
    return graph(f"{{a: {spec}}}", given=given).arguments["a"]


@pytest.mark.parametrize(
    ("spec", "given", "wanted"),
    [
        ("{default: off}", None, False), ("{default: off}", "on", True),
        ("{default: no}", "YES", True), ("{default: true}", "0", False),
        ("{default: off, choices: [on, off]}", "on", True),
        ("{default: 5}", None, 5), ("{default: 5}", "7", 7), ("{default: 5.0}", "7", 7.0),
        ("{default: 5, type: float}", None, 5.0), ("{default: 5, type: str}", "7", "7"),
        ("{default: x}", "7", "7"), ("{default: x}", "a=b", "a=b"), ("{default: x}", "", ""),
        ("{}", None, None), ("{default: ~, type: int}", None, None),
        ("{default: 1, choices: [1, 2]}", "2", 2),
        ("{default: slow, choices: [slow, fast]}", "fast", "fast"),
        ("{required: true, type: int}", "3", 3),
        ("{default: 50, type: float, minimum: 1, maximum: 100}", "100", 100.0),
    ],
)  # fmt: skip
def test_values_have_the_argument_s_type(spec: str, given: str | None, wanted: Any) -> None:
    found = value(spec, *([] if given is None else [f"a={given}"]))
    assert found == wanted and type(found) is type(wanted)


@pytest.mark.parametrize(
    ("spec", "given", "wanted"),
    [
        ("{default: 5}", "x", "a=x: argument 'a' should be a whole number, got 'x'"),
        ("{default: 5}", "1.5", "a=1.5: argument 'a' should be a whole number, got 1.5"),
        ("{default: 5.0}", "nan", "a=nan: argument 'a' should be a number, got 'nan'"),
        ("{default: 5.0}", "inf", "a=inf: argument 'a' should be a number, got 'inf'"),
        ("{default: off}", "maybe", "a=maybe: argument 'a' should be on or off, got 'maybe'"),
        ("{default: 5, minimum: 1}", "0", "a=0: argument 'a' should be at least 1, got 0"),
        ("{default: 5, maximum: 9}", "10", "a=10: argument 'a' should be at most 9, got 10"),
        ("{default: slow, choices: [slow, fast]}", "fats",
         "a=fats: argument 'a' cannot be 'fats'; did you mean 'fast'?"),
        ("{default: 1, choices: [1, 2]}", "3", "a=3: argument 'a' cannot be '3'; one of: 1, 2"),
    ],
)  # fmt: skip
def test_values_that_are_wrong(spec: str, given: str, wanted: str) -> None:
    assert problems(f"{{a: {spec}}}", given=[f"a={given}"]) == wanted


def test_a_wrong_default_is_said_where_it_stands() -> None:
    found = problems("{a: {default: 5, minimum: 9}}")
    assert found == "f.yaml:3:26: argument 'a' should be at least 9, got 5"


def test_a_required_argument_must_be_given() -> None:
    found = problems("{a: {required: true, help: 'a file'}}")
    assert found == "f.yaml:3:16: argument 'a' must be given; add a=...: a file"


def test_unknown_arguments_are_refused_with_the_list() -> None:
    spec = "{policy: {default: x, help: what flies}, rate: {default: 5}, on: {default: on, choices: [on, off]}}"
    found = problems(spec, given=["polcy=y"]).splitlines()
    assert found[0] == "polcy=y: unknown argument 'polcy'; did you mean 'policy'?"
    assert [line.split() for line in found[1:]] == [
        ["policy=x", "what", "flies"], ["rate=5"], ["on=on", "one", "of", "on,", "off"],
    ]  # fmt: skip
    assert problems("{}", given=["a=1"]) == (
        "a=1: unknown argument 'a'; this launch file takes no arguments"
    )


def test_words_that_are_no_arguments() -> None:
    assert problems("{}", given=["novice"]) == "novice: an argument is given as name=value"
    assert "a=2: 'a' is given twice" in problems("{a: {default: 0}}", given=["a=1", "a=2"])


def test_arguments_may_come_as_a_mapping() -> None:
    assert graph("{a: {default: 5}, b: {default: off}}", given={"a": 6, "b": True}).arguments == {
        "a": 6, "b": True,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("spec", "wanted"),
    [
        ("{a: {defualt: 5}}", "f.yaml:3:17: unknown key 'defualt' in arguments.a; did you mean 'default'?"),
        ("{a: 5}", "f.yaml:3:16: arguments.a should be a mapping, got 5"),
        ("{a-b: {default: 5}}", "f.yaml:3:13: 'a-b' is not a name in arguments"),
        ("{a: {type: flaot}}", "f.yaml:3:23: arguments.a.type should be "),
        ("[a]", "f.yaml:3:12: arguments should be a mapping, got ['a']"),
    ],
)  # fmt: skip
def test_declarations_that_are_wrong(spec: str, wanted: str) -> None:
    assert problems(spec).startswith(wanted)


def test_substitution_keeps_the_type_where_it_stands_alone() -> None:
    spec = "{rate: {default: 25}, on: {default: on}, n: {default: 4}}"
    config = "gain: '${rate}', shield: '${on}', note: 'at ${rate} Hz, ${on}', limit: '${n}'"
    made = graph(spec, config, rate="${rate}", given=["rate=30"])
    assert made.rate == 30.0
    assert {key: made.node("pilot").config[key] for key in ("gain", "shield", "note", "limit")} == {
        "gain": 30.0, "shield": True, "note": "at 30 Hz, on", "limit": 4,
    }  # fmt: skip


def test_unknown_substitutions() -> None:
    found = problems("{rate: {default: 1}}", "note: 'x ${rat}'")
    assert found == "f.yaml:7:53: unknown argument '${rat}'; did you mean 'rate'?"


def test_a_value_is_blamed_where_it_is_used() -> None:
    found = problems("{r: {default: fast}}", rate="${r}")
    assert found == "f.yaml:2:7: rate should be a number, got 'fast'"


def test_defaults_may_refer_to_other_arguments_but_not_in_circles() -> None:
    made = graph("{a: {default: '${b}-x'}, b: {default: y}}", given=["b=z"])
    assert made.arguments == {"a": "z-x", "b": "z"}
    found = problems("{a: {default: '${b}'}, b: {default: '${a}'}}")
    assert "the defaults of arguments go in a circle: a -> b -> a" in found


FILES = "{policy: {default: good, aliases: {good: models/good.onnx, bad: models/bad.onnx}}}"


def test_aliases_name_files_beside_the_launch_file_and_words_those_of_the_caller() -> None:
    for name in ("models/good.onnx", "models/bad.onnx", "mine.bin"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).touch()
    for given, wanted in ((), "models/good.onnx"), (["policy=bad"], "models/bad.onnx"), (
        ["policy=mine.bin"], "mine.bin",
    ):  # fmt: skip
        made = graph(FILES, "model: '${policy}'", given=given)
        assert made.node("pilot").config["model"] == os.path.abspath(wanted)


def test_a_missing_model_names_the_argument() -> None:
    assert problems(FILES, "model: '${policy}'", given=["policy=goood"]) == (
        "policy=goood: there is no file goood (argument 'policy'); did you mean 'good'?"
    )
    assert problems(FILES, "model: '${policy}'") == (
        "f.yaml:7:54: there is no file models/good.onnx (argument 'policy')"
    )


def test_zoo_files_are_the_installed_package_s() -> None:
    spec = "{policy: {default: zoo/none/a.onnx, type: file}}"
    with pytest.raises(LaunchFileError, match=r"models/zoo/none/a.onnx"):
        graph(spec, "model: '${policy}'")


def test_a_model_that_is_not_used_need_not_exist() -> None:
    assert graph(FILES).name == "f"


# Includes.


def write(name: str, text: str) -> None:
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_text(text)


BASE = (
    "name: base\nrate: ${rate}\nepisodes: 9\narguments: {rate: {default: 50}, note: {default: n}}"
    + (NODES % "note: '${note}'")
)


def refused(name: str) -> str:
    with pytest.raises(LaunchFileError) as caught:
        load(name)
    return str(caught.value)


def test_an_included_file_is_below_the_including_one() -> None:
    write("sub/base.yaml", BASE)
    write("top.yaml", "include: [sub/base.yaml]\nname: top\nepisodes: null\n"
          "nodes: {pilot: {config: {gain: 3}}}\n")  # fmt: skip
    made = load("top.yaml", ["rate=20"])
    assert (made.name, made.rate, made.episodes) == ("top", 20.0, None)
    assert (made.node("pilot").config["gain"], made.node("pilot").config["note"]) == (3.0, "n")


def test_an_include_may_change_defaults() -> None:
    write("base.yaml", BASE)
    write("top.yaml", "name: top\narguments: {r: {default: 5}}\n"
          "include: [{file: base.yaml, arguments: {rate: '${r}', note: hello}}]\n")  # fmt: skip
    assert load("top.yaml").arguments == {"r": 5, "rate": 5, "note": "hello"}
    assert load("top.yaml", ["rate=7"]).rate == 7.0
    write("top.yaml", "name: top\ninclude: [{file: base.yaml, arguments: {rat: 5}}]\n")
    assert refused("top.yaml") == (
        "top.yaml:2:41: base.yaml takes no argument 'rat'; did you mean 'rate'?"
    )


def test_later_includes_are_over_earlier_ones() -> None:
    write("a.yaml", BASE)
    write("b.yaml", "name: b\nepisodes: 3\nseed: 4\n")
    write("top.yaml", "name: top\ninclude: [a.yaml, b.yaml]\nseed: 5\n")
    made = load("top.yaml")
    assert (made.episodes, made.seed) == (3, 5)


def test_problems_are_said_in_the_file_they_are_in() -> None:
    write("base.yaml", BASE.replace("episodes: 9", "episodes: -9"))
    write("top.yaml", "name: top\ninclude: [base.yaml]\nseed: x\n")
    assert refused("top.yaml") == (
        "base.yaml:3:11: episodes should be greater than or equal to 1, got -9\n"
        "top.yaml:3:7: seed should be a whole number, got 'x'"
    )
    write("base.yaml", "a: [")
    assert refused("top.yaml").startswith("base.yaml:1:5: not YAML")


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("include: [bsae.yaml]", "top.yaml:1:11: there is no file 'bsae.yaml' to include; did you mean 'base.yaml'?"),
        ("include: [top.yaml]", "top.yaml:1:11: includes go in a circle: top.yaml -> top.yaml"),
        ("include: [circle.yaml]", "circle.yaml:1:11: includes go in a circle: top.yaml -> circle.yaml -> top.yaml"),
        ("include: base.yaml", "top.yaml:1:10: include should be a list, got 'base.yaml'"),
        ("include: [{fiel: base.yaml}]", ("top.yaml:1:11: missing key 'file' in include[0]\n"
         "top.yaml:1:12: unknown key 'fiel' in include[0]; did you mean 'file'?")),
    ],
)  # fmt: skip
def test_includes_that_are_wrong(text: str, wanted: str) -> None:
    write("base.yaml", BASE)
    write("circle.yaml", "include: [top.yaml]\n")
    write("top.yaml", text)
    assert refused("top.yaml") == wanted
