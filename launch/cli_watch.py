"""Verbs that look into a running graph, without touching it: echo, hz, latency, top."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from math import isnan
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any

import typer

from safetypilot.launch.cli_common import InputError, Json, RunName, choose, print_json, print_line

if TYPE_CHECKING:
    from safetypilot.launch.runtime_dir import Running

TopicName = Annotated[str, typer.Argument(help="A topic; see `safetypilot topics`.")]
Every = Annotated[float, typer.Option(min=0.1, help="Seconds between two showings.")]
Count = Annotated[int | None, typer.Option("-n", "--count", min=1, help="Stop after so many.")]


def register(app: typer.Typer) -> None:
    app.command(epilog="Example: safetypilot echo command -n 5")(echo)
    app.command(epilog="Example: safetypilot hz observation -n 3")(hz)
    app.command(epilog="Example: safetypilot latency -n 1 --every 10 --json")(latency)
    app.command(epilog="Example: safetypilot top --once")(top)


def echo(topic: TopicName, count: Count = None, run: RunName = None, json: Json = False) -> None:
    """Print the messages of a topic as they pass; --json prints one object per line."""
    heard = 0
    for message, _ in _listen(topic, run):
        if message is None:
            continue
        print_json(as_json(message), line=True) if json else print_line(as_text(message))
        heard += 1
        if heard == count:
            return
    _end_of_run(count)


def hz(topic: TopicName, count: Count = None, run: RunName = None, json: Json = False) -> None:
    """Measure the rate of a topic; a line per second, `-n` lines."""
    arrivals: list[float] = []
    last_seq, lost, lines, next_line = None, 0, 0, monotonic() + 1.0
    for message, now in _listen(topic, run):
        if message is not None:
            arrivals.append(now)
            if last_seq is not None and message.seq > last_seq + 1:
                lost += message.seq - last_seq - 1
            last_seq = message.seq
        if now < next_line:
            continue
        figures = rate(arrivals) | {"topic": topic, "missing": lost}
        print_json(figures, line=True) if json else print_line(_rate_text(figures))
        arrivals, lost, next_line, lines = arrivals[-1:], 0, now + 1.0, lines + 1
        if lines == count:
            return
    _end_of_run(count)


def latency(
    every: Every = 1.0, count: Count = None, run: RunName = None, json: Json = False
) -> None:
    """Show where the time of a step goes, hop by hop, and how old data are when they are used.

    In us, since it began to listen; redrawn in place on a terminal. It only listens to what the
    plant and the planner publish anyway. A percentile is shown once the sample supports it.
    """
    from safetypilot.launch import latency as measured
    from safetypilot.launch import redraw, runtime_dir

    found = _in_real_time(runtime_dir.find(run))
    listener, breakdown = measured.Listener(found), measured.Breakdown()

    def look() -> bool:
        breakdown.add(listener.take())
        return runtime_dir.alive(found.path)

    try:
        whole = redraw.repeat(
            lambda: {"run": found.run_id, **breakdown.figures()},
            measured.text,
            every_s=every,
            count=count,
            json=json,
            look=look,
        )
    finally:
        listener.close()
    if not whole:
        _end_of_run(count)


def top(
    once: Annotated[bool, typer.Option("--once", help="One look, then end; as -n 1.")] = False,
    every: Every = 1.0,
    count: Count = None,
    run: RunName = None,
    json: Json = False,
) -> None:
    """Show what each node costs and how it fares: rate, CPU, memory, losses, models, swaps.

    CPU in per cent of one core, between two looks. Nodes are asked over their control channel,
    which they answer between two steps.
    """
    from safetypilot.launch import redraw, runtime_dir
    from safetypilot.launch import top as looked

    found = _in_real_time(runtime_dir.find(run))
    view = looked.Top(found)
    whole = redraw.repeat(
        view.look,
        looked.text,
        every_s=every,
        count=1 if once else count,
        json=json,
        look=lambda: runtime_dir.alive(found.path),
    )
    if not whole:
        _end_of_run(1 if once else count)


def _in_real_time(found: Running) -> Running:
    if found.graph["clock"] == "lockstep":
        raise InputError(f"{found.run_id} runs in lockstep: there is nothing to hear or to time")
    return found


def _decoder(graph: dict[str, Any], topic: str) -> Any:
    from safetypilot.nodes.kernel.interface import Interface
    from safetypilot.nodes.kernel.topics import TOPICS
    from safetypilot.nodes.kernel.wire import Codec

    message = TOPICS[graph["topics"][topic]["type"]].message
    return Codec(message, Interface.from_dict(graph["interface"]).dims).decode


def _listen(topic: str, run: str | None) -> Iterator[tuple[Any, float]]:
    """Messages with their time of arrival; (None, now) at least ten times a second; ends with the
    run."""
    from safetypilot.launch import runtime_dir
    from safetypilot.nodes.kernel.transport import Endpoints, Tap
    from safetypilot.nodes.kernel.wire import WireError

    found = runtime_dir.find(run)
    choose("topic", topic, found.graph["topics"])
    decode = _decoder(found.graph, topic)
    tap, looked = Tap(Endpoints(found.path), topic), monotonic()
    try:
        while True:
            frame, now = tap.receive(0.1), monotonic()
            if frame is None or now - looked > 1.0:
                looked = now
                if not runtime_dir.alive(found.path):
                    return
            try:
                yield (None if frame is None else decode(frame)), now
            except WireError as error:
                print_line(f"refused: {error}")
    finally:
        tap.close()


def _end_of_run(count: int | None) -> None:
    typer.echo("the run has ended", err=True)
    if count is not None:
        raise typer.Exit(1)


def rate(arrivals: list[float]) -> dict[str, Any]:
    """Rate in Hz and period in ms over these arrivals."""
    periods = [1e3 * (b - a) for a, b in pairwise(arrivals)]
    if not periods:
        return {"rate_hz": 0.0, "n": len(arrivals), "period_ms": None}
    mean = sum(periods) / len(periods)
    spread = (sum((p - mean) ** 2 for p in periods) / len(periods)) ** 0.5
    return {
        "rate_hz": round(1e3 / mean, 2),
        "n": len(arrivals),
        "period_ms": {
            "mean": round(mean, 3),
            "min": round(min(periods), 3),
            "max": round(max(periods), 3),
            "std": round(spread, 3),
        },
    }


def _rate_text(figures: dict[str, Any]) -> str:
    period = figures["period_ms"]
    if period is None:
        return f"{figures['topic']}: nothing comes"
    return (
        f"{figures['topic']}: {figures['rate_hz']:.2f} Hz, period {period['mean']:.2f} ms "
        f"(min {period['min']:.2f}, max {period['max']:.2f}, std {period['std']:.2f}), "
        f"missing {figures['missing']}"
    )


def as_json(message: Any) -> dict[str, Any]:
    """The message's fields; arrays as lists, NaN as null."""
    return {name: _plain(value) for name, value in zip(message._fields, message, strict=True)}


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return _stamps(value)
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and isnan(value) else value


def _stamps(chain: bytes) -> dict[str, int]:
    """The stamps of a chain by name, as far as they are set."""
    from safetypilot.nodes.kernel import trace

    return {name: at for name, at in trace.unpack(chain)._asdict().items() if at}


def as_text(message: Any) -> str:
    """The message on one line; long arrays by shape and range."""
    fields = zip(message._fields, message, strict=True)
    return "  ".join(
        f"{name} {_name(name, value) or _short(value)}"
        for name, value in fields
        if name not in ("stamp_ns", "chain") and not name.endswith("taken_ns")
    )


def _name(field: str, value: Any) -> str:
    """What people call a code of the shield; empty where the field is none."""
    from safetypilot.policies.shield import Reason, Source

    kind = {"source": Source, "alternative": Source, "reason": Reason, "recovery_reason": Reason}
    try:
        return kind[field](value).name
    except (KeyError, ValueError):
        return ""


def _short(value: Any) -> str:
    if not hasattr(value, "shape"):
        return f"{value:.4g}" if isinstance(value, float) else str(value)
    if value.size <= 12:
        return str(_rounded(value.tolist()))
    shape = "x".join(map(str, value.shape))
    return f"[{shape}: {value.min():.4g}..{value.max():.4g}]"


def _rounded(value: Any) -> Any:
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.4g}") if isinstance(value, float) else value
