"""Passes, fails or skips a test as a check of the conformance kit came out.

A check may only be skipped where a table says so: else a driver could pass by skipping everything.
"""

from __future__ import annotations

from collections.abc import Collection

import pytest

from safetypilot.bridge.conformance import suite

BUSY = "others had the CPU all the time"  # the machine's fault, and no driver's


def judge(check: suite.Check, bench: suite.Bench, may_skip: Collection[str]) -> None:
    """Makes a check.

    Args:
        may_skip: names of the checks that this driver cannot go through.
    """
    outcome = suite.run(check, bench)
    if outcome.verdict is suite.Verdict.SKIPPED:
        if outcome.check not in may_skip and not outcome.seen.startswith(BUSY):
            pytest.fail(f"{outcome.check} was skipped, and must not be: {outcome.seen}")
        pytest.skip(outcome.seen)
    assert outcome.verdict is suite.Verdict.PASSED, outcome.seen
