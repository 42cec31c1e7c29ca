"""Small graphs of fake nodes, and a look at processes, for the tests of the launch layer."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from safetypilot.launch.plan import NodePlan, Plan, Restart
from safetypilot.nodes.kernel.testing import INTERFACE

HERE = Path(__file__).parent
FAKE = HERE / "fake.yaml"
QUICK = Restart(first_s=0.05)


def fake_plan(fail: str = "", restart: Restart = QUICK, **changes: Any) -> Plan:
    """A plant and a pilot at 100 Hz; an episode takes 50 ms."""
    nodes = (
        NodePlan("plant", "fake_nodes:Plant", {}, ("command",), ("observation", "episode")),
        NodePlan("pilot", "fake_nodes:Pilot", {"fail": fail}, ("observation",), ("command",),
                 restart=restart),
    )  # fmt: skip
    values = {"name": "fake", "env": "none", "interface": INTERFACE.to_dict(), "seed": 1,
              "period_ns": 10_000_000, "nodes": nodes, "episodes": 5}  # fmt: skip
    return Plan(**{**values, **changes})


def processes_of(runtime: Path) -> list[psutil.Process]:
    """Every living process whose command line names this runtime directory."""
    found = []
    for process in psutil.process_iter():
        try:
            words = process.cmdline()
            if process.status() != psutil.STATUS_ZOMBIE and any(str(runtime) in w for w in words):
                found.append(process)
        except psutil.Error:
            continue
    return [process for process in found if process.pid != os.getpid()]


def wait_until(condition: Callable[[], Any], timeout_s: float = 30.0) -> Any:
    """The condition's value once it is true; fails the test if that takes too long."""
    end = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > end:
            pytest.fail(f"waited {timeout_s} s in vain")
        time.sleep(0.02)
    return value


def launcher(*words: str) -> list[str]:
    """The command line of `safetypilot`, for a process of its own."""
    return [sys.executable, "-P", "-m", "safetypilot.launch.cli", *words]
