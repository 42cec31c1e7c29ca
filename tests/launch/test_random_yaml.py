"""Whatever stands in a launch file or on the command line, the answer is a graph or a problem."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from safetypilot.launch.graph import Graph, LaunchFileError, load

FOLDER = Path(tempfile.mkdtemp(prefix="random_yaml"))
WORDS = [
    "name", "env", "rate", "clock", "episodes", "duration", "nodes", "topics", "remap", "script",
    "arguments", "include", "type", "when", "config", "restart", "cpus", "nice", "policy", "model",
    "default", "choices", "aliases", "minimum", "required", "file", "after_s", "swap", "node",
    "request", "plant", "pilot", "maze", "f.yaml", "maze.yaml", "graph_fakes:Plant", "CartPole-v1",
    "graph_fakes:Pilot", "arbiter", "${a}", "${b} x", "${", "a", "on", "off", "command", "gain",
    "observation", "simulator", "zoo/x.onnx", "budget_ms", "eps", "~", "a.b:c", "on-failure", "",
]  # fmt: skip
texts = st.sampled_from(WORDS) | st.text(max_size=6)
scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | texts | st.just(10**400)
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=12,
)
GOOD: dict[str, Any] = {
    "name": "f", "env": "maze", "rate": 50, "arguments": {"a": {"default": 5}},
    "nodes": {
        "plant": {"type": "graph_fakes:Plant"},
        "pilot": {"type": "graph_fakes:Pilot", "config": {"gain": "${a}"}},
    },
    "topics": {"command": {"budget_ms": 5}}, "remap": {}, "include": [],
    "script": [{"after_s": 1, "swap": {"node": "pilot", "model": "m"}}],
}  # fmt: skip


def answer(text: bytes, arguments: list[str], sets: list[str]) -> Graph | str:
    path = FOLDER / "f.yaml"
    path.write_bytes(text)
    try:
        graph = load(path, arguments, sets)
    except LaunchFileError as error:
        assert error.problems
        return str(error).encode().decode()
    assert Graph.from_dict(graph.to_dict()) == graph
    return graph


def places(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    children = value.items() if isinstance(value, dict) else []
    children = enumerate(value) if isinstance(value, list) else children
    return [at] + [place for key, child in children for place in places(child, (*at, key))]


PLACES = places(GOOD)


def changed(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    if not place:
        return new
    if isinstance(value, list):
        return [changed(v, place[1:], new) if i == place[0] else v for i, v in enumerate(value)]
    return {k: changed(v, place[1:], new) if k == place[0] else v for k, v in value.items()}


@settings(max_examples=100, deadline=None)
@given(st.sampled_from(PLACES), values, st.sampled_from(PLACES), values)
def test_a_good_file_with_two_values_changed(
    first: tuple[Any, ...], one: Any, second: tuple[Any, ...], two: Any
) -> None:
    made = changed(GOOD, first, one)
    if second in places(made):
        made = changed(made, second, two)
    answer(yaml.safe_dump(made, allow_unicode=True).encode("utf-8", "surrogatepass"), [], [])


@settings(max_examples=100, deadline=None)
@given(values)
def test_any_values(value: Any) -> None:
    answer(yaml.safe_dump(value).encode("utf-8", "surrogatepass"), [], [])


@settings(max_examples=100, deadline=None)
@given(st.text(max_size=80) | st.text(alphabet="{}[]:,-&*!|>'\"%@` \n\tabn<=~?#$.0", max_size=60))
def test_any_text(text: str) -> None:
    answer(text.encode("utf-8", "surrogatepass"), [], [])


@settings(max_examples=50, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes(data: bytes) -> None:
    answer(data, [], [])


@settings(max_examples=100, deadline=None)
@given(st.lists(texts | st.builds("{}={}".format, texts, texts), max_size=3),
       st.lists(st.builds("{}.{}={}".format, texts, texts, texts) | texts, max_size=3))  # fmt: skip
def test_any_command_line(arguments: list[str], sets: list[str]) -> None:
    answer(yaml.safe_dump(GOOD).encode(), arguments, sets)


def test_the_good_one_is_good() -> None:
    assert isinstance(answer(yaml.safe_dump(GOOD).encode(), [], []), Graph)
