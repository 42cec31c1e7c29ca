"""A driver cannot pass by skipping what it should go through."""

from __future__ import annotations

from typing import Any

import pytest
from conformance_judge import BUSY, judge
from test_conformance_drivers import MAY_SKIP, SUBJECTS

from safetypilot.bridge.conformance import suite


@pytest.mark.parametrize(("verdict", "seen", "may_skip", "result"), [
    (suite.Verdict.PASSED, "well", (), None),
    (suite.Verdict.FAILED, "badly", ("soaks",), AssertionError),
    (suite.Verdict.SKIPPED, "no device", (), pytest.fail.Exception),
    (suite.Verdict.SKIPPED, "no device", ("connect_twice",), pytest.fail.Exception),
    (suite.Verdict.SKIPPED, "no device", ("connect_twice", "soaks"), pytest.skip.Exception),
    (suite.Verdict.SKIPPED, f"{BUSY}; nobody can tell", (), pytest.skip.Exception),
])  # fmt: skip
def test_only_a_foreseen_skip_is_one(
    monkeypatch: pytest.MonkeyPatch, verdict: Any, seen: str, may_skip: Any, result: Any
) -> None:
    outcome = suite.Outcome("soaks", "It soaks.", verdict, seen, 0.0, ())
    monkeypatch.setattr(suite, "run", lambda check, bench: outcome)
    check, bench = suite.CHECKS[0], object()
    if result is None:
        judge(check, bench, may_skip)  # type: ignore[arg-type]
        return
    with pytest.raises(result, match=seen):
        judge(check, bench, may_skip)  # type: ignore[arg-type]


def test_the_table_names_subjects_and_checks_that_there_are() -> None:
    assert set(MAY_SKIP) == set(SUBJECTS)
    known = {suite.name(check) for check in suite.CHECKS}
    for skipped in MAY_SKIP.values():
        assert skipped < known and len(skipped) <= 2
