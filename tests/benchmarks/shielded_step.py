"""The shielded step against a bare ring, paced at the real rate, in one run.

    python -m tests.benchmarks.shielded_step [--rate 50] [--seconds 60] [--rounds 3] [--json FILE]

Alternates blocks of (a) a bare four-process pyzmq ring (plant -> policy -> critic -> arbiter ->
plant) that does the same two inferences and nothing else, as the scheduler places it and on one
CPU, and (b) the shipped graph, `safetypilot launch maze`, shield on and off. All measure from the
stamp of an observation to the command's arrival. (c) measures how late a sleep to an absolute
deadline wakes here: the host's own jitter.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

HOPS = ("policy", "critic", "arbiter")


def _hop(root: str, name: str, number: int, model: str) -> None:
    """Receives a frame, runs the model if there is one, sends the frame on."""
    import zmq

    from safetypilot.models.runtime import load

    context = zmq.Context(1)
    inbound, outbound = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
    inbound.connect(f"ipc://{root}/{number}")
    outbound.bind(f"ipc://{root}/{number + 1}")
    if model:
        loaded = load(model)
        shapes = {key: (1, 2) for key in loaded.input_shapes}
        bound = loaded.bind(**shapes)
    while True:
        frame = inbound.recv()
        if frame == b"stop":
            outbound.send(frame)
            context.destroy(500)
            return
        if model:
            bound.inputs["observation"][0] = np.frombuffer(frame, "<f4", 2, 16)
            bound.run()
        outbound.send(frame)


def bare_ring(
    policy: str, critic: str, rate: float, seconds: float, cpus: set[int]
) -> np.ndarray[Any, Any]:
    """Round-trip times of the ring in us, one per period."""
    import zmq

    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)  # the hops inherit it

    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as root:
        context = zmq.Context(1)
        outbound, inbound = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
        outbound.bind(f"ipc://{root}/0")
        models = {"policy": policy, "critic": critic, "arbiter": ""}
        hops = [
            spawn.Process(target=_hop, args=(root, name, number, models[name]))
            for number, name in enumerate(HOPS)
        ]
        for hop in hops:
            hop.start()
        inbound.connect(f"ipc://{root}/{len(HOPS)}")
        payload = np.zeros(12, "<f4").tobytes()
        outbound.send(payload)
        if not inbound.poll(20_000):
            sys.exit("the bare ring did not come up within 20 s")
        inbound.recv()
        times, period, tick = [], 1.0 / rate, time.perf_counter()
        for _ in range(int(seconds * rate)):
            tick += period
            time.sleep(max(0.0, tick - time.perf_counter()))
            sent = time.perf_counter_ns()
            outbound.send(payload)
            inbound.recv()
            times.append((time.perf_counter_ns() - sent) / 1e3)
        outbound.send(b"stop")
        for hop in hops:
            hop.join(5)
        context.destroy(0)
    os.sched_setaffinity(0, before)
    return np.array(times[int(rate) :])


def graph(rate: float, seconds: float, shield: bool) -> dict[str, Any]:
    """The summary of the shipped graph flown for so long."""
    with tempfile.TemporaryDirectory() as out:
        command = [
            sys.executable, "-P", "-m", "safetypilot.launch.cli", "launch", "maze", f"rate={rate}",
            "--clock", "realtime", "--duration", str(seconds), "--seed", "1", "--out", out,
            "--set", f"arbiter.shield={'on' if shield else 'off'}", "--json",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
        summary: dict[str, Any] = json.loads((Path(out) / "summary.json").read_text())
    return summary


def host_jitter(seconds: float) -> np.ndarray[Any, Any]:
    """How late an absolute sleep of 20 ms wakes, in us."""
    late, tick = [], time.perf_counter()
    for _ in range(int(seconds / 0.02)):
        tick += 0.02
        time.sleep(max(0.0, tick - time.perf_counter()))
        late.append((time.perf_counter() - tick) * 1e6)
    return np.array(late)


def percentiles(times: np.ndarray[Any, Any]) -> dict[str, float | int | None]:
    """p50, p99, p99.9 (only where the sample supports it) and max, us."""
    return {
        "n": len(times),
        "p50": round(float(np.percentile(times, 50)), 1),
        "p99": round(float(np.percentile(times, 99)), 1),
        "p999": round(float(np.percentile(times, 99.9)), 1) if len(times) >= 10_000 else None,
        "max": round(float(times.max()), 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--rate", type=float, default=50.0, help="Hz")
    parser.add_argument("--seconds", type=float, default=40.0, help="of each block")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, help="where to write the result")
    options = parser.parse_args()
    import safetypilot.models

    zoo = Path(next(iter(safetypilot.models.__path__))) / "zoo" / "maze"
    policy, critic = str(zoo / "trained.onnx"), str(zoo / "critic.onnx")
    rounds = []
    for number in range(options.rounds):
        anywhere = os.sched_getaffinity(0)
        ring, pinned = (
            percentiles(bare_ring(policy, critic, options.rate, options.seconds, cpus))
            for cpus in (anywhere, {min(anywhere)})
        )
        shielded = graph(options.rate, options.seconds, True)
        bare_policy = graph(options.rate, options.seconds, False)
        entry = {
            "ring_us": ring,
            "ring_on_one_cpu_us": pinned,
            "shielded_us": shielded["latency_us"],
            "shield_off_us": bare_policy["latency_us"],
            "missed": shielded["missed_deadlines"],
            "steps": shielded["steps"],
            "ratio_p50": round(shielded["latency_us"]["p50"] / ring["p50"], 3),
            "ratio_p50_one_cpu": round(shielded["latency_us"]["p50"] / pinned["p50"], 3),
        }
        rounds.append(entry)
        sys.stdout.write(f"round {number + 1}: {json.dumps(entry)}\n")
        sys.stdout.flush()
    ratios = [float(entry["ratio_p50"]) for entry in rounds]
    on_one = [float(entry["ratio_p50_one_cpu"]) for entry in rounds]
    result = {
        "rate_hz": options.rate,
        "rounds": rounds,
        "ratio_p50_median": float(np.median(ratios)),
        "ratio_p50_spread": [min(ratios), max(ratios)],
        "ratio_p50_one_cpu_median": float(np.median(on_one)),
        "ratio_p50_one_cpu_spread": [min(on_one), max(on_one)],
        "host_jitter_us": percentiles(host_jitter(10)),
        "host": platform.platform(),
    }
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    if options.json:
        options.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
