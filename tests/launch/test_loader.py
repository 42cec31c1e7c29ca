"""Reading YAML: values, marks, and what is refused."""

# ruff: noqa: E501  messages stand whole, as a person sees them

from __future__ import annotations

from math import inf, isnan
from pathlib import Path

import pytest

from safetypilot.launch import loader
from safetypilot.launch.loader import LaunchFileError, Mark, Problem, parse


def problems(text: str) -> list[str]:
    with pytest.raises(LaunchFileError) as caught:
        parse(text, "f.yaml")
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("on", "on"), ("off", "off"), ("yes", "yes"), ("No", "No"), ("y", "y"),
        ("true", True), ("False", False), ("'true'", "true"), ("~", None), ("null", None),
        ("", None), ("012", 12), ("0o17", 15), ("0xff", 255), ("1:30", "1:30"),
        ("2001-12-14", "2001-12-14"), ("1e3", 1000.0), ("-.5", -0.5), ("1_000", "1_000"),
        (".inf", inf), ("-.INF", -inf), ("'5'", "5"), ('"5"', "5"), ("=", "="), ("${rate}", "${rate}"),
        ("1.2.3", "1.2.3"), ("9" * 401, inf),
    ],
)  # fmt: skip
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    assert parse(f"a: {text}", "f.yaml").values == {"a": value}


def test_not_a_number_is_read_as_one() -> None:
    value = parse("a: .nan", "f.yaml").values["a"]
    assert isinstance(value, float) and isnan(value)


def test_keys_are_always_text() -> None:
    text = "on: 1\n5: 2\ntrue: 3\n~: 4\n"
    assert parse(text, "f.yaml").values == {"on": 1, "5": 2, "true": 3, "~": 4}


def test_marks_of_keys_and_values() -> None:
    document = parse("nodes:\n  arbiter: {type: arbiter,\n    cpus: [0, 1]}\n", "f.yaml")
    assert document.at(("nodes", "arbiter"), key=True) == Mark("f.yaml", 2, 3)
    assert document.at(("nodes", "arbiter", "type")) == Mark("f.yaml", 2, 19)
    assert document.at(("nodes", "arbiter", "cpus", 1)) == Mark("f.yaml", 3, 15)
    assert document.at(("nodes", "arbiter", "absent", 7)) == Mark("f.yaml", 2, 12)
    assert document.at(("nowhere",)) == Mark("f.yaml", 1, 1)


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("a: 1\nb: 2\na: 3\n", ["f.yaml:3:1: duplicate key 'a'; it is also on line 1"]),
        ("x: {a: 1,\n  a: 2}", ["f.yaml:2:3: duplicate key 'a' in x; it is also on line 1"]),
        ("a: 1\n  b: 2", ["f.yaml:2:4: not YAML: mapping values are not allowed here"]),
        ("a: [1, 2", ["f.yaml:1:9: not YAML: while parsing a flow sequence, expected ',' or ']', but got '<stream end>'"]),
        ("a: &x {<<: *x}", ["f.yaml:1:8: YAML merge keys are not supported; use include:"]),
        ("? [a, b]\n: 1", ["f.yaml:1:3: a key must be plain text; quote it if it has braces"]),
        ("{a: 1}: 1", ["f.yaml:1:1: a key must be plain text; quote it if it has braces"]),
        ("[1, 2]", ["f.yaml:1:1: a launch file is a mapping of keys to values; got [1, 2]"]),
        ("just text", ["f.yaml:1:1: a launch file is a mapping of keys to values; got 'just text'"]),
        ("a: !!python/name:os.system ''", ["f.yaml:1:4: tag '!!python/name:os.system' is not allowed; write the plain value"]),
        ("a: !env HOME\nb: !x [1]\n", ["f.yaml:1:4: tag '!env' is not allowed; write the plain value",
                                       "f.yaml:2:4: tag '!x' is not allowed; write the plain value"]),
        ("a: 1\n---\nb: 2\n", ["f.yaml:2:1: not YAML: expected a single document in the stream, but found another document"]),
        ("a: {b: ${c}}", ["f.yaml:1:9: not YAML: while parsing a flow mapping, expected ',' or '}', but got '{'; between { and } write it in quotes: \"${name}\""]),
        ("a: *nowhere", ["f.yaml:1:4: not YAML: found undefined alias 'nowhere'"]),
        ("a: \x07", ["f.yaml:1:1: not YAML: special characters are not allowed"]),
    ],
)  # fmt: skip
def test_what_is_refused(text: str, wanted: list[str]) -> None:
    assert problems(text) == wanted


def test_an_empty_file_is_an_empty_mapping() -> None:
    assert parse("# nothing\n", "f.yaml").values == {}


@pytest.mark.parametrize(
    "text",
    ["[" * 500, "a: &a [*a]", "a: " + "[" * 80 + "]" * 80, "a: &a {b: *a}",
     "a: &a [1,1,1,1,1,1,1,1]\n" + "".join(
         f"{n}: &{n} [{','.join(['*' + p] * 8)}]\n" for p, n in zip("abcdef", "bcdefg", strict=True))],
)  # fmt: skip
def test_depth_and_size_are_bounded(text: str) -> None:
    assert any("too" in problem for problem in problems(text))


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    cases = {
        "missing.yaml": (None, "cannot be read: No such file or directory"),
        "latin.yaml": (b"a: 1\nb: \xe9\n", "is not UTF-8 text; save it as UTF-8"),
        "huge.yaml": (b"#" * (loader.MAX_BYTES + 1), "is larger than"),
    }
    for name, (content, wanted) in cases.items():
        if content is not None:
            (tmp_path / name).write_bytes(content)
        with pytest.raises(LaunchFileError, match=wanted):
            loader.read(tmp_path / name)
    (tmp_path / "bom.yaml").write_bytes(b"\xef\xbb\xbfa: 1\n")
    assert loader.read(tmp_path / "bom.yaml").values == {"a": 1}


def test_problems_are_unique_and_sorted_the_command_line_first() -> None:
    given = [
        Problem(Mark("f.yaml", 10, 1), "c"),
        Problem(Mark("f.yaml", 9, 1), "b"),
        Problem(Mark("rate=0"), "a", "mend"),
        Problem(Mark("f.yaml", 10, 1), "c"),
    ]
    error = LaunchFileError(given)
    assert str(error) == "rate=0: a; mend\nf.yaml:9:1: b\nf.yaml:10:1: c"
    assert error.to_dict()["problems"][0] == {
        "file": "rate=0", "line": 0, "column": 0, "message": "a", "mend": "mend",
    }  # fmt: skip


def test_lone_surrogates_can_be_printed() -> None:
    document = parse('a: "\\ud800"', "f.yaml")
    text = str(Problem(document.mark, str(document.values["a"])))
    assert text.encode("utf-8")


def test_overlay_merges_mappings_and_replaces_the_rest() -> None:
    base = parse("a: {b: 1, c: [1, 2, 3], d: {e: 1}}\nf: {g: 1}\n", "base.yaml")
    top = parse("a:\n  c: [9]\n  d: {h: 2}\nf: 5\ni: 6\n", "top.yaml")
    merged = loader.overlay(base, top)
    assert merged.values == {"a": {"b": 1, "c": [9], "d": {"e": 1, "h": 2}}, "f": 5, "i": 6}
    assert merged.at(("a", "b")) == Mark("base.yaml", 1, 8)
    assert merged.at(("a", "c", 0)) == Mark("top.yaml", 2, 7)
    assert merged.at(("a", "c", 1)).file == "top.yaml"
    assert merged.at(("f", "g")) == Mark("top.yaml", 4, 4)
    assert base.values["a"] == {"b": 1, "c": [1, 2, 3], "d": {"e": 1}}
