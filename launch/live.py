"""What a person sees of a run: a live view on a terminal, else plain lines; a table at the end."""

from __future__ import annotations

import os
from collections import deque
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, Any

from safetypilot.launch.plan import BRIDGE
from safetypilot.launch.progress import Run
from safetypilot.launch.tally import Phase

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.table import Table

_REDRAW_S = 0.25
_LINE_S = 1.0  # between two plain lines of progress
_QUIET_S = 10.0  # a plain line is written at least this often
_STATE_STYLE = {"active": "green", "ready": "cyan", "starting": "yellow", "waiting": "red",
                "ended": "red"}  # fmt: skip


class Lines:
    """Plain lines: events as they come, progress at most once per second.

    Args:
        err: write to standard error, which leaves standard output to the JSON.
    """

    def __init__(self, err: bool = False) -> None:
        self._err = err
        self._console: Console | None = None
        self._shown_at = monotonic()
        self._episodes = 0
        self._announced = False

    @property
    def console(self) -> Console:
        if self._console is None:
            from rich.console import Console

            self._console = Console(stderr=self._err, highlight=False, soft_wrap=True)
        return self._console

    def listen(self, entry: dict[str, Any]) -> None:
        """Takes an entry of the journal."""
        self._write(f"{entry['at_s']:8.2f} s  {entry['node']}: {entry['text']}")

    def show(self, run: Run) -> None:
        now = monotonic()
        if run.active_since is not None and not self._announced:
            self._announced = True
            self._write(f"{now - run.started:8.2f} s  {run.plan.name} flies as {run.run_id}")
        since = now - self._shown_at
        news = run.tally.episodes != self._episodes
        if since < _LINE_S or not (news or since > _QUIET_S) or not run.active_s:
            return
        self._shown_at, self._episodes = now, run.tally.episodes
        self._write(f"{now - run.started:8.2f} s  {progress_text(run)}")

    def _write(self, text: str) -> None:
        try:
            self.console.print(text, markup=False)
            self.console.file.flush()
        except (OSError, SystemExit):  # rich leaves the program when its reader has left
            # Nobody listens any more, or the disk is full: no reason to stop flying.
            silence = os.open(os.devnull, os.O_WRONLY)
            os.dup2(silence, self.console.file.fileno())
            os.close(silence)
            self.console.quiet = True

    def close(self) -> None:
        """Nothing is held."""


class Screen:
    """A view of the whole run, redrawn in place a few times per second."""

    def __init__(self) -> None:
        self._live: Any = None
        self._drawn_at = 0.0
        self._last: deque[dict[str, Any]] = deque(maxlen=8)

    @property
    def console(self) -> Console:
        return self._open().console  # type: ignore[no-any-return]

    def _open(self) -> Any:
        if self._live is None:
            from rich.live import Live

            self._live = Live(auto_refresh=False, transient=True)
            self._live.start()
        return self._live

    def listen(self, entry: dict[str, Any]) -> None:
        self._last.append(entry)
        if entry["level"] == "error":  # stays readable above the view
            self._open().console.print(
                f"{entry['node']}: {entry['text']}", markup=False, style="red"
            )

    def show(self, run: Run) -> None:
        now = monotonic()
        if now - self._drawn_at >= _REDRAW_S:
            self._drawn_at = now
            self._open().update(self._view(run), refresh=True)

    def _view(self, run: Run) -> Group:
        from rich.console import Group
        from rich.text import Text

        title = f"{run.plan.name} · {run.plan.clock} · {run.plan.rate_hz:g} Hz · {run.run_id}"
        events = [Text(_event_line(entry), style="dim", overflow="ellipsis", no_wrap=True)
                  for entry in self._last]  # fmt: skip
        return Group(
            Text(title, style="bold"),
            Text(progress_text(run)),
            node_table(run.rows()),
            *events,
            Text("Ctrl-C stops", style="dim italic"),
        )

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()


def _event_line(entry: dict[str, Any]) -> str:
    return f"{entry['at_s']:8.2f} s  {entry['node']}: {str(entry['text']).splitlines()[0]}"


def progress_text(run: Run) -> str:
    """One line on how far the run is and how it goes."""
    total, plan = run.tally.total, run.plan
    of = f"/{plan.episodes}" if plan.episodes is not None else ""
    model = run.tally.phases[-1].model.split("@")[0] if run.tally.phases else ""
    parts = [
        f"episodes {total.episodes}{of}",
        f"successes {total.successes}",
        f"violations {total.violations}",
        f"interventions {share(total)}",
        f"missed {total.missed}",
    ]
    if plan.duration_s is not None:
        parts.insert(0, f"{run.elapsed_s:.0f}/{plan.duration_s:g} s")
    if model:
        parts.append(f"flying {model}")
    return " · ".join(parts)


def share(phase: Phase) -> str:
    """Interventions as a share of all steps."""
    return f"{100 * phase.interventions / phase.steps:.1f} %" if phase.steps else "-"


def node_table(rows: dict[str, dict[str, Any]]) -> Table:
    """One row per node: state, rate, age of what it gets (median, p99), work, memory, restarts."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("node", no_wrap=True)
    table.add_column("state", no_wrap=True)
    for name in ("Hz", "age ms", "p99", "work p99", "MB", "restarts"):
        table.add_column(name, justify="right", no_wrap=True)
    table.add_column("model", overflow="ellipsis", no_wrap=True)
    for name, row in rows.items():
        port: dict[str, Any] = max(
            row["inputs"].values(), key=lambda p: p.get("received", 0), default={}
        )
        age = port.get("age_us", {})
        table.add_row(
            name,
            Text(row["state"], style=_STATE_STYLE.get(row["state"], "")),
            cell(port.get("rate_hz")),
            _ms(age.get("p50")),
            _ms(age.get("p99")),
            _ms(row.get("handler_us", {}).get("p99")),
            cell(row.get("rss_mb")),
            cell(row.get("restarts")),
            str(row["node"].get("model") or "").split("@")[0],
        )
    return table


def cell(value: Any) -> str:
    """A number as a table shows it; a dash where there is none."""
    if value is None:
        return "-"
    return f"{value:.0f}" if isinstance(value, float) else str(value)


def result_table(run: Run) -> Table:
    """The run by phases: before and after each swap of the task policy, and in all."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0), show_edge=False)
    table.add_column("task policy", overflow="fold", min_width=18)
    for name in ("episodes", "success", "violated", "shielded", "p50 ms", "p99 ms", "missed"):
        table.add_column(name, justify="right", no_wrap=True)
    phases = run.tally.phases
    shown = phases if len(phases) <= 8 else phases[:4] + phases[-4:]
    for index, phase in enumerate(shown):
        if len(shown) < len(phases) and index == 4:
            table.add_row(f"... {len(phases) - 8} more ...")
        table.add_row(phase.model.split("@")[0] or "(none acted)", *_figures(phase))
    if len(phases) != 1:
        table.add_section()
        table.add_row("in all", *_figures(run.tally.total))
    return table


def _figures(phase: Phase) -> list[str]:
    latency = phase.latencies.summary()
    counts = [str(phase.episodes), str(phase.successes), str(phase.violations), share(phase)]
    return [*counts, _ms(latency["p50"]), _ms(latency["p99"]), str(phase.missed)]


def _restarts(summary: dict[str, Any]) -> int:
    return sum(summary["restarts"].values())


def _ms(value_us: float | int | None) -> str:
    return "-" if value_us is None else f"{value_us / 1e3:.2f}"


def _late(summary: dict[str, Any]) -> str:
    """`3 steps late, mostly: safety_critic works (4.1 ms)`, and how far time has drifted."""
    late, drift = summary.get("late_steps", {}), summary.get("drift_ms")
    count = int(late.get("missed", 0)) + int(late.get("overruns", 0))
    if not count:
        return ""
    text = f"{count} steps late"
    for cause in late.get("causes", [])[:1]:
        text += f", mostly: {cause['node']} {cause['what']} ({cause['worst_ms']:g} ms at worst)"
    return text + (f"; {drift:g} ms behind the clock" if drift else "")


def conclude(console: Console, run: Run, summary: dict[str, Any], picture: Path | None) -> None:
    """The last words of a run: what came of it, and where to look."""
    console.print(result_table(run))
    style = "bold red" if summary["exit_code"] == 1 else "bold"
    reason = str(summary["exit_reason"]).splitlines()[0]
    console.print(f"{run.plan.name}: {reason}", style=style, markup=False, highlight=False)
    facts = [f"{summary['steps']} steps in {summary['active_s']:.1f} s"]
    robot = any(node.node == BRIDGE for node in run.plan.nodes)  # its time is not simulated
    if summary["real_time_factor"] and not robot:
        facts.append(f"{summary['real_time_factor']:g} simulated seconds per second")
    if late := _late(summary):
        facts.append(late)
    if run.deaths:
        facts.append(f"processes died: {len(run.deaths)}, restarted: {_restarts(summary)}")
    if summary["trace_sha256"]:
        facts.append(f"trace {summary['trace_sha256'][:16]}")
    console.print(", ".join(facts), markup=False, highlight=False)
    names = ["summary.json", picture.name if picture else "", "logs/"]
    console.print(f"{run.run_dir}: {', '.join(n for n in names if n)}", markup=False,
                  highlight=False, soft_wrap=True)  # fmt: skip
