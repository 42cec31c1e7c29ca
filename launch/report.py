"""What a run leaves behind for scripts: `summary.json`, also of one that failed or was stopped."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from math import isfinite
from pathlib import Path
from typing import Any

from safetypilot.launch.plan import COMMAND
from safetypilot.launch.progress import Run
from safetypilot.launch.runtime_dir import write_json

SCHEMA = 1
_PACKAGES = ("safetypilot", "numpy", "pyzmq", "mujoco", "gymnasium", "onnxruntime")


def exit_code(run: Run) -> int:
    """0 done, 1 the run failed, 128 + the signal's number if a person stopped it (Ctrl-C: 130)."""
    if run.failure or run.script_failures:
        return 1
    return {"SIGHUP": 129, "SIGINT": 130, "SIGTERM": 143}.get(run.interrupted, 0)


def reason(run: Run) -> str:
    """Why the run ended, in words."""
    if run.failure:
        return f"failed: {run.failure}"
    if run.interrupted:
        return f"stopped by {run.interrupted}"
    if run.script_failures:
        return f"failed: script: {'; '.join(run.script_failures)}"
    plan = run.plan
    if plan.episodes is not None and run.tally.episodes >= plan.episodes:
        return f"flew its {plan.episodes} episodes"
    if plan.duration_s is not None and run.elapsed_s >= plan.duration_s:
        return f"flew its {plan.duration_s:g} s"
    if run.over:
        return run.over
    return "nothing was left to run"


def summarise(run: Run, command: list[str] | None = None) -> dict[str, Any]:
    """The figures of a run. The keys of the first block are a contract for scripts."""
    plan, figures = run.plan, run.tally.total.figures()
    rows = run.rows()
    lost = sum(count for causes in run.lost.values() for count in causes.values())
    return {
        "schema": SCHEMA,
        "episodes": figures["episodes"],
        "successes": figures["successes"],
        "violations": figures["violations"],
        "steps": figures["steps"],
        "interventions": figures["interventions"],
        "failsafe_steps": figures["failsafe_steps"],
        "missed_deadlines": figures["missed_deadlines"],
        "dropped": figures["refused_commands"] + lost,
        "latency_us": figures["latency_us"],
        "models": {
            name: row["node"]["model"] for name, row in rows.items() if row["node"].get("model")
        },
        "trace_sha256": run.trace_sha256,
        "exit_code": exit_code(run),
        "exit_reason": reason(run),
        "name": plan.name,
        "env": plan.env,
        "seed": plan.seed,
        "clock": plan.clock,
        "rate_hz": plan.rate_hz,
        "real_time_factor": real_time_factor(run),
        "active_s": round(run.active_s, 3),
        "wall_s": round((run.ended or run.started) - run.started, 3),
        "mean_reward": figures["mean_reward"],
        "late_steps": late_steps(run),
        "drift_ms": drift_ms(run),
        "steps_by_source": figures["steps_by_source"],
        "refused_commands": figures["refused_commands"],
        "lost_messages": {node: causes for node, causes in run.lost.items() if causes},
        "phases": [{"model": phase.model, **phase.figures()} for phase in run.tally.phases],
        "restarts": {name: row["restarts"] for name, row in rows.items() if row["restarts"]},
        "deaths": [death.to_dict() for death in run.deaths],
        "script_failures": run.script_failures,
        "nodes": rows,
        "events": run.journal.entries,
        "command": command if command is not None else sys.argv,
        "versions": versions(),
        "host": {"system": platform.platform(), "cpus": len(os.sched_getaffinity(0))},
    }


def real_time_factor(run: Run) -> float | None:
    """Simulated seconds per second of the wall clock, as flown; None where it is not known."""
    step_s = run.plan.step_s
    for row in run.rows().values():
        step_s = row["node"].get("step_seconds") or step_s
    steps = run.tally.total.steps
    if not step_s or not run.active_s or not steps:
        return None
    return round(steps * step_s / run.active_s, 2)


def late_steps(run: Run) -> dict[str, Any]:
    """Steps without a command in time, and answers that came too late to be used; with causes.

    The plant says what each late step waited for, the arbiter which answers it did without.
    """
    plan, rows = run.plan, run.rows()
    plant = rows.get(plan.plant or "", {}).get("node", {})
    arbiter = rows.get(plan.writer(COMMAND) or "", {}).get("node", {})
    late, worst = arbiter.get("late") or {}, arbiter.get("late_ms") or {}
    return {
        **(plant.get("late_steps") or {"missed": run.tally.total.missed}),
        "late_answers": {
            topic: {"node": plan.writer(topic), "n": count, "worst_ms": worst.get(topic)}
            for topic, count in late.items()
        },
    }


def drift_ms(run: Run) -> float | None:
    """How far simulated time fell behind the run's clock in all; None where nobody says."""
    row = run.rows().get(run.plan.plant or "", {})
    drift = row.get("node", {}).get("drift_ms")
    return drift if isinstance(drift, int | float) else None


def versions(packages: Iterable[str] = _PACKAGES) -> dict[str, str]:
    """What the run was made with: Python, and those of these packages that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def write(run: Run, summary: dict[str, Any]) -> Path:
    """Writes `summary.json` into the run's directory, whole or not at all."""
    path = run.run_dir / "summary.json"
    write_json(path, finite(summary))
    return path


def finite(data: Any) -> Any:
    """The same data with null for numbers that JSON does not know."""
    if isinstance(data, dict):
        return {key: finite(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [finite(value) for value in data]
    return None if isinstance(data, float) and not isfinite(data) else data
