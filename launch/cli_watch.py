"""Verbs that listen to a running graph, without touching it: echo, hz, latency."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from math import isnan
from time import monotonic
from typing import Annotated, Any

import typer

from safetypilot.launch.cli_common import Json, RunName, choose, console, print_json, print_line

TopicName = Annotated[str, typer.Argument(help="A topic; see `safetypilot topics`.")]
Count = Annotated[int | None, typer.Option("-n", "--count", min=1, help="Stop after so many.")]


def register(app: typer.Typer) -> None:
    app.command(epilog="Example: safetypilot echo command -n 5")(echo)
    app.command(epilog="Example: safetypilot hz observation -n 3")(hz)
    app.command(epilog="Example: safetypilot latency --duration 10")(latency)


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
    duration: Annotated[float, typer.Option(min=0.1, help="Seconds to listen.")] = 5.0,
    run: RunName = None,
    json: Json = False,
) -> None:
    """Measure how old the observation is when each message derived from it is sent and used."""
    from safetypilot.launch import runtime_dir
    from safetypilot.nodes.kernel.health import Histogram

    found = runtime_dir.find(run)
    sent = {name: Histogram() for name, topic in found.graph["topics"].items()
            if topic["port"] == "latest" and topic["writer"]}  # fmt: skip
    _sample(found, sent, duration)
    figures = {
        "sent_us": {name: histogram.summary() for name, histogram in sent.items()},
        "used_us": _ages_at_use(found),
    }
    if json:
        print_json(figures)
        return
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title="age of the observation behind it, us")
    for column in ("topic", "", "n", "p50", "p99", "p99.9", "max"):
        table.add_column(column, justify="left" if column in ("topic", "") else "right")
    for kind, word in (("sent_us", "sent"), ("used_us", "used by")):
        for name, row in figures[kind].items():
            topic, _, reader = name.partition(" -> ")
            cells = [
                "-" if row[k] is None else f"{row[k]:g}" for k in ("p50", "p99", "p999", "max")
            ]
            table.add_row(topic, f"{word} {reader}".rstrip(), str(row["n"]), *cells)
    console().print(table)


def _sample(found: Any, sent: dict[str, Any], duration: float) -> None:
    from safetypilot.nodes.kernel.transport import Endpoints, Tap
    from safetypilot.nodes.kernel.wire import WireError

    endpoints = Endpoints(found.path)
    taps = {name: (Tap(endpoints, name), _decoder(found.graph, name)) for name in sent}
    end = monotonic() + duration
    while monotonic() < end:
        for name, (tap, decode) in taps.items():
            while (frame := tap.receive(0.002)) is not None and monotonic() < end:
                try:
                    message = decode(frame)
                except WireError:
                    continue
                sent[name].add(message.sent_ns - message.stamp_ns)
    for tap, _ in taps.values():
        tap.close()


def _ages_at_use(found: Any) -> dict[str, dict[str, Any]]:
    """ "topic -> reader": the age at arrival since that reader's start, as it counted itself."""
    from safetypilot.launch.attach import asker
    from safetypilot.nodes.kernel.errors import KernelError

    ask, ages = asker(found.path, 1.0), {}
    for node in found.graph["nodes"]:
        try:
            inputs = ask(node, "status", {})["inputs"]
        except KernelError:
            continue
        for topic, port in inputs.items():
            ages[f"{topic} -> {node}"] = port["age_us"]
    return ages


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
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and isnan(value) else value


def as_text(message: Any) -> str:
    """The message on one line; long arrays by shape and range."""
    fields = zip(message._fields, message, strict=True)
    return "  ".join(
        f"{name} {_name(name, value) or _short(value)}"
        for name, value in fields
        if name != "stamp_ns"
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
