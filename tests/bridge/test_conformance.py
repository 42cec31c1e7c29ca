"""The conformance kit: it passes what is right, and finds what is wrong where it is wrong."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from safetypilot.bridge.conformance import suite

MUTANTS = Path(__file__).with_name("conformance_mutants.py")
NAMES = [suite.name(check) for check in suite.CHECKS]
BY_NAME = dict(zip(NAMES, suite.CHECKS, strict=True))
SKELETON = "safetypilot.bridge.template.skeleton:SkeletonDriver"
# Found by these checks, and by no other.
EXPECTED = dict(
    re.findall(r'^class (\w+)\(\w+\):\n    """\(([\w, ]+)\)', MUTANTS.read_text(), re.M)
)
QUICK = (
    "StepsAtActivation", "StaleAsFresh", "AcceptsNaN", "Forgets", "BlocksPastDeadline",
    "DropsTorque", "Unguarded", "Hoards", "Locks", "SwapsJoints", "ConfigureEnables", "WrongError",
)  # fmt: skip


def subject(kind: str) -> suite.Subject:
    return suite.Subject(f"{MUTANTS}:{kind}")


def failed(outcomes: list[suite.Outcome]) -> dict[str, str]:
    return {one.check: one.seen for one in outcomes if one.verdict is suite.Verdict.FAILED}


# The driver that is the template.


@pytest.fixture(scope="module")
def bench() -> Iterator[suite.Bench]:
    with suite.bench(suite.Subject(SKELETON)) as made:
        yield made


@pytest.mark.integration
@pytest.mark.parametrize("check", suite.CHECKS, ids=suite.name)
def test_the_template_conforms(check: suite.Check, bench: suite.Bench) -> None:
    outcome = suite.run(check, bench)
    if outcome.check == "foreign_calibration":
        assert outcome.verdict is suite.Verdict.SKIPPED
        return
    assert outcome.verdict is suite.Verdict.PASSED, outcome.seen
    assert outcome.seen and outcome.title.endswith(".")


# Drivers that are wrong.


def test_every_check_has_a_mutant() -> None:
    found = {name for names in EXPECTED.values() for name in names.split(", ")}
    assert found <= set(NAMES)
    assert set(NAMES) - found <= {"foreign_calibration", "time_that_stands_moves_nothing"}


@pytest.mark.integration
@pytest.mark.parametrize("kind", QUICK)
def test_what_is_wrong_is_found(kind: str) -> None:
    expected = EXPECTED[kind].split(", ")
    with suite.bench(subject(kind)) as bench:
        outcomes = [suite.run(BY_NAME[name], bench) for name in expected]
    assert set(failed(outcomes)) == set(expected), outcomes


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.parametrize("kind", list(EXPECTED))
def test_what_is_wrong_is_found_and_nothing_else(kind: str) -> None:
    with suite.bench(subject(kind)) as bench:
        outcomes = [suite.run(check, bench) for check in suite.CHECKS]
    assert set(failed(outcomes)) == set(EXPECTED[kind].split(", ")), failed(outcomes)
