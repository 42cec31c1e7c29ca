"""What each node of a running graph costs and how it fares, as `safetypilot top` shows it.

Rates, losses and models come from the nodes' own status over the control channel, which a node
answers between two steps; CPU and memory from /proc, which costs the nodes nothing.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import Any

from safetypilot.launch.attach import asker
from safetypilot.launch.runtime_dir import Running
from safetypilot.nodes.kernel.errors import KernelError

_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGESIZE")
_ANSWER_S = 1.0


class Top:
    """Looks at a run again and again; CPU is what was used between two looks."""

    def __init__(self, found: Running) -> None:
        self._found = found
        self._ask = asker(found.path, _ANSWER_S)
        self._cpu: dict[int, tuple[float, float]] = {}  # pid -> (when, CPU seconds)
        self._counted: dict[str, tuple[float, int]] = {}  # node -> (when, messages)
        self.look()

    def look(self) -> dict[str, Any]:
        """Facts of the run and a row per node; JSON-able."""
        graph = self._found.graph
        names = list(graph["nodes"])
        with ThreadPoolExecutor(max_workers=max(len(names), 1)) as pool:
            statuses = dict(zip(names, pool.map(self._status, names), strict=True))
        usage = {pid: self._usage(pid) for pid in {s.get("pid") for s in statuses.values()} if pid}
        return {
            "run": self._found.run_id,
            "name": graph.get("name"),
            "rate_hz": graph.get("rate_hz"),
            "estop": self._found.latch.exists(),
            "nodes": {name: self._row(name, s, usage) for name, s in statuses.items()},
        }

    def _status(self, name: str) -> dict[str, Any]:
        try:
            return self._ask(name, "status", {})
        except KernelError:
            return {}

    def _usage(self, pid: int) -> dict[str, float | None]:
        """CPU in per cent of one core since the last look, and memory."""
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        except (OSError, IndexError, ValueError):
            return {"cpu_percent": None, "rss_mb": None}
        now, used = monotonic(), (int(fields[11]) + int(fields[12])) / _TICKS
        before = self._cpu.get(pid)
        self._cpu[pid] = (now, used)
        percent = None
        if before is not None and now > before[0]:
            percent = round(100 * (used - before[1]) / (now - before[0]), 1)
        return {"cpu_percent": percent, "rss_mb": round(pages * _PAGE / 2**20, 1)}

    def _row(
        self, name: str, status: dict[str, Any], usage: dict[int, dict[str, float | None]]
    ) -> dict[str, Any]:
        if not status:
            return {"state": "no answer"}
        node = status.get("node", {})
        dropped = drops(status)
        return {
            "state": "active" if status.get("active") else "ready",
            "pid": status.get("pid"),
            "restarts": status.get("generation"),
            "rate_hz": self._rate(name, status),
            **usage.get(status.get("pid", 0), {}),
            "work_p99_us": status.get("handler_us", {}).get("p99"),
            "dropped": sum(dropped.values()),
            "dropped_by": dropped,
            "missed_deadlines": node.get("missed_deadlines"),
            "models": models(node),
            "swap": swap_state(node),
            "failure": node.get("failure", ""),
        }

    def _rate(self, name: str, status: dict[str, Any]) -> float | None:
        """Of its busiest input; where it has none, of what it says that it counts."""
        rates = [port.get("rate_hz", 0.0) for port in status.get("inputs", {}).values()]
        if rates:
            return float(max(rates))
        now, count = monotonic(), status.get("node", {}).get("messages")
        if count is None:
            return None
        before = self._counted.get(name)
        self._counted[name] = (now, count)
        return round((count - before[1]) / (now - before[0]), 1) if before else None


def drops(status: dict[str, Any]) -> dict[str, int]:
    """Messages that a node refused or lost, by cause."""
    found: dict[str, int] = {}
    for topic, port in status.get("inputs", {}).items():
        for cause, count in port.get("drops", {}).items():
            found[f"{topic}: {cause}"] = count
    for topic, port in status.get("outputs", {}).items():
        for what, count in port.items():
            if what.endswith(".dropped") and count:
                found[f"{topic} to {what.removesuffix('.dropped')}: not taken"] = count
    node = status.get("node", {})
    for what in ("refused", "dropped_by"):
        if isinstance(node.get(what), dict):
            found.update({f"{what.removesuffix('_by')}: {k}": n for k, n in node[what].items()})
    return found


def models(node: dict[str, Any]) -> dict[str, str]:
    """Versions of the models that a node flies, by kind."""
    if isinstance(node.get("models"), dict):
        return {kind: str(version) for kind, version in node["models"].items()}
    return {"model": str(node["model"])} if node.get("model") else {}


def swap_state(node: dict[str, Any]) -> str:
    """How the swaps of a node's models stand; empty where there is nothing to say."""
    slots = node.get("swaps")
    if isinstance(slots, dict):
        states = {kind: _state(slot) for kind, slot in slots.items()}
        return ", ".join(f"{kind} {state}" for kind, state in states.items() if state)
    return _state(node)


def _state(slot: Any) -> str:
    """Of one slot, as nodes/model_slot.py tells it."""
    swap = slot.get("swap") if isinstance(slot, dict) else None
    state = swap.get("state") if isinstance(swap, dict) else None
    return "" if state in (None, "none") else str(state)


_COLUMNS = (("node", -17), ("state", -9), ("Hz", 7), ("CPU %", 7), ("MB", 7), ("p99 ms", 8),
            ("dropped", 8), ("missed", 7), ("restarts", 9))  # fmt: skip


def text(figures: dict[str, Any]) -> str:
    """The rows as plain lines."""
    stop = "  E-STOPPED" if figures["estop"] else ""
    lines = [f"{figures['run']}: {figures['rate_hz']:g} Hz{stop}", _line([n for n, _ in _COLUMNS])]
    for name, row in figures["nodes"].items():
        work = row.get("work_p99_us")
        cells = [name, row["state"], row.get("rate_hz"), row.get("cpu_percent"),
                 row.get("rss_mb"), None if work is None else f"{work / 1e3:.2f}",
                 row.get("dropped"), row.get("missed_deadlines"), row.get("restarts")]  # fmt: skip
        ends = [version.split("@")[0] for version in row.get("models", {}).values()]
        ends += [f"[{row['swap']}]"] if row.get("swap") else []
        ends += [row["failure"]] if row.get("failure") else []
        lines.append(f"{_line(cells)}  {' '.join(ends)}".rstrip())
    total = [row["cpu_percent"] for row in _by_process(figures) if row.get("cpu_percent")]
    lines.append(f"CPU in all: {sum(total):.0f} % of one core")
    return "\n".join(lines)


def _by_process(figures: dict[str, Any]) -> list[dict[str, Any]]:
    """One row per process: nodes may share one."""
    return list({row.get("pid"): row for row in figures["nodes"].values()}.values())


def _line(cells: list[Any]) -> str:
    line = ""
    for (_, width), cell in zip(_COLUMNS, cells, strict=True):
        shown = "-" if cell is None else f"{cell:.1f}" if isinstance(cell, float) else str(cell)
        line += f"{shown:<{-width}}" if width < 0 else f"{shown:>{width}}"
    return line
