"""The benchmark with real processes: every contestant works, and what is left behind is whole."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import psutil
import pytest

from safetypilot.launch.bench import blocks
from safetypilot.launch.bench.contestants import ALL, Cell, Contestant, Ground
from safetypilot.launch.bench.course import Course
from safetypilot.launch.bench.swap import bad_files

pytestmark = pytest.mark.integration

FIGURES = ("p50_us", "p99_us", "p999_us", "max_us", "n", "missed_deadlines")
BENCH = [sys.executable, "-P", "-m", "safetypilot.launch.cli", "bench"]
# Others use this machine meanwhile: 50 Hz leaves everybody time, and no test depends on how much.
CELL = Cell(rate_hz=50, steps=60, blocks=1, warmup_s=0.2)


def bench(*words: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*BENCH, *map(str, words)], capture_output=True, text=True, timeout=timeout, check=False
    )


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_a_cell_with_all_that_need_nothing_installed(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    done = bench("latency", "--rate", 50, "--steps", 80, "--blocks", 1, "--no-peers",
                 "--load", "--out", tmp_path, "--json", file)  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = read(file)
    for name in ("host_jitter", "bare_ring", "shielded", "unshielded", "observed"):
        entry = found[name]
        assert "unavailable" not in entry, entry
        assert set(FIGURES) <= set(entry)
        assert 20 <= entry["n"] <= 80 and entry["p999_us"] is None
        assert len(entry["blocks"]) == 1
        assert entry["missed_explained"] + entry["missed_unexplained"] == entry["missed_deadlines"]
        assert f"{name}_to_bare_ring" in found["ratios"] or name in ("host_jitter", "bare_ring")
    assert found["shielded"]["steps_by_source"]["task"] > 0
    assert found["observed"]["observers"] == ["echo", "record"]
    assert found["peers"] == {} and found["interrupted"] is False
    assert {"cpu", "kernel", "governor", "load_average"} <= set(found["host"])
    assert found["payload_bytes"]["command"] > 0 and "pyzmq" in found["versions"]
    assert "| bare pyzmq ring |" in done.stdout
    assert (tmp_path / "latency.png").stat().st_size > 10_000
    assert (tmp_path / "latency.md").read_text() == done.stdout.rpartition("results in")[0]


@pytest.mark.parametrize("contestant", [each for each in ALL if each.peer], ids=lambda c: c.name)
def test_a_peer_flies_the_graph(contestant: Contestant) -> None:
    if contestant.version is None:
        pytest.skip(f"{contestant.package} is not installed")
    progress: list[int] = []
    samples, _ = blocks.run_block(Ground.of(CELL), contestant, CELL.steps, progress.append)
    assert len(samples) == CELL.steps
    answered = samples.latency_us[~(samples.latency_us != samples.latency_us)]
    assert len(answered) > CELL.steps / 2 and (answered > 0).all()
    assert max(progress) > 0


def test_without_the_package_a_peer_is_left_out_with_a_reason() -> None:
    nobody = Contestant("nobody", "json.tool", "", "no-such-package-of-ours", peer=True)
    with pytest.raises(blocks.Unavailable, match="pip install no-such-package-of-ours"):
        blocks.run_block(Ground.of(CELL), nobody, 20, lambda steps: None)


def test_a_peer_that_fails_is_one_line() -> None:
    broken = Contestant("broken", "json.tool", "")
    with pytest.raises(blocks.Unavailable, match="it ended with code") as error:
        blocks.run_block(Ground.of(CELL), broken, 20, lambda steps: None)
    assert "\n" not in str(error.value)


def test_a_graph_that_cannot_fly_says_why() -> None:
    stack = next(each for each in ALL if each.name == "shielded")
    ground = Ground.of(CELL)
    bad = Contestant("bad", stack.module, "", arguments=("policy=/nothing/there.onnx",))
    with pytest.raises(blocks.Unavailable, match=r"there\.onnx"):
        blocks.run_block(ground, bad, 20, lambda steps: None)


def test_ctrl_c_leaves_what_was_measured(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    running = subprocess.Popen(
        # A background job of a shell ignores Ctrl-C, and hands that down.
        ["env", "--default-signal=INT", *BENCH, "latency", "--rate", "50", "--steps", "100000",
         "--blocks", "1", "--only", "bare_ring", "--out", str(tmp_path), "--json", str(file)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    ring: list[psutil.Process] = []
    end = monotonic() + 30
    while len(ring) < 4 and monotonic() < end:
        sleep(0.2)
        ring = [each for each in psutil.Process(running.pid).children(recursive=True)
                if "bare_ring" in " ".join(each.cmdline())]  # fmt: skip
    sleep(8)  # the warm-up takes a second of it, and on a busy machine starting most
    running.send_signal(signal.SIGINT)
    _, errors = running.communicate(timeout=60)
    assert running.returncode == 130, errors
    assert "Traceback" not in errors
    found = read(file)
    assert found["interrupted"] is True and 0 < found["bare_ring"]["n"] < 100_000
    assert found["bare_ring"]["p50_us"] > 0
    assert len(ring) == 4 and not any(each.is_running() for each in ring)


def test_the_hops_die_with_the_plant(tmp_path: Path) -> None:
    ring = next(each for each in ALL if each.name == "bare_ring")
    course: Course = Ground.of(CELL).course(ring, 10**6, str(tmp_path), [])
    plant = blocks.start(ring.module, course, tmp_path / "log")
    try:
        end = monotonic() + 30
        while not (hops := psutil.Process(plant.pid).children()) or len(hops) < 3:
            assert monotonic() < end, (tmp_path / "log").read_text()
            sleep(0.05)
        sleep(0.5)
        os.kill(plant.pid, signal.SIGKILL)
        plant.wait(5)
        gone, alive = psutil.wait_procs(hops, timeout=5)
        assert len(gone) == 3 and not alive
    finally:
        blocks.end_session(plant)


def test_a_network_of_its_own_has_loopback_and_nothing_else() -> None:
    code = (
        "import socket; from safetypilot.launch.bench.schedule import isolate_network; "
        "print(isolate_network(), [name for _, name in socket.if_nameindex()]); "
        "socket.create_server(('127.0.0.1', 0))"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True
    )
    if done.stdout.startswith("False"):
        pytest.skip("a network namespace is not allowed here")
    assert done.stdout.strip() == "True ['lo']"


def test_swaps_in_flight(tmp_path: Path) -> None:
    file = tmp_path / "swap.json"
    done = bench("swap", "--rate", 50, "--count", 3, "--json", file)
    assert done.returncode == 0, done.stdout + done.stderr
    found = read(file)
    assert found["swaps"] == 3 and len(found["each"]) == 3
    assert all(swap["steps_until_it_acts"] >= 0 for swap in found["each"])
    assert found["decisions"]["mixed"] == 0 and found["decisions"]["heard"] > 50
    assert len(found["refused"]) == 3 and all(each["reason"] for each in found["refused"])
    assert "3 swaps at 50 Hz" in done.stdout


def test_bad_files_are_what_they_are_called(tmp_path: Path) -> None:
    ground = Ground.of(CELL)
    found = dict(bad_files(tmp_path, ground))
    assert len(found) == 8
    assert Path(found["empty"]).read_bytes() == b"" and Path(found["a directory"]).is_dir()
    good = Path(ground.models["policy"]).read_bytes()
    flipped = Path(found["a flipped byte in the middle"]).read_bytes()
    assert len(flipped) == len(good) and flipped != good


def test_jitter_throughput_and_planner(tmp_path: Path) -> None:
    file = tmp_path / "out.json"
    done = bench("jitter", "--rate", 100, "--steps", 50, "--json", file)
    assert done.returncode == 0, done.stderr
    assert read(file)["host_jitter"]["n"] == 50

    done = bench("throughput", "--size", 64, "--size", 65536, "--seconds", 0.1, "--blocks", 1,
                 "--json", file)  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = read(file)
    for kind in ("bare", "stream", "messages"):
        assert {size for size, entry in found[kind].items() if entry["per_second"] > 0} == {
            "64", "65536",
        }  # fmt: skip

    done = bench("planner", "--rate", 10, "--steps", 20, "--graph", "navigation1", "--json", file)
    assert done.returncode == 0, done.stderr
    assert read(file)["whole"]["n"] == 20 and read(file)["whole"]["iterations"] > 0
