"""The benchmark's arithmetic: percentiles, witnesses, frames, pacing, comparison, tables."""

from __future__ import annotations

import json
import queue
import threading
from dataclasses import replace
from pathlib import Path
from time import sleep
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from safetypilot.launch.bench import comparison, frames, report
from safetypilot.launch.bench.contestants import NAMES, PEERS, Cell, Contestant, Ground
from safetypilot.launch.bench.course import Course
from safetypilot.launch.bench.plant import GraphError, Plant, Progress
from safetypilot.launch.bench.samples import Samples, figures
from safetypilot.launch.bench.stack import StepTally
from safetypilot.launch.bench.swap_flight import Diary
from safetypilot.launch.bench.witness import explained, stalls_of
from safetypilot.launch.cli import app
from safetypilot.launch.cli_common import InputError
from safetypilot.models.runtime import load
from safetypilot.nodes.kernel import messages
from safetypilot.nodes.kernel.messages import EpisodeReport
from safetypilot.nodes.kernel.wire import Codec
from safetypilot.policies.critic import SafetyCritic
from safetypilot.policies.task import TaskPolicy

PERIOD = 10_000_000
latencies = st.lists(st.floats(1.0, 1e6) | st.just(float("nan")), min_size=1, max_size=300)


def samples(latency: Any, missed: Any = None, start: int = 10**12, period: int = PERIOD) -> Samples:
    values = np.array(latency, float)
    late = np.isnan(values) if missed is None else np.array(missed, bool)
    return Samples(values, start + period * np.arange(len(values)), late)


@pytest.fixture
def course(tmp_path: Path) -> Course:
    ground = Ground.of(Cell(rate_hz=200))
    made = ground.course(Contestant("test", "", ""), 20, str(tmp_path), [])
    return replace(made, warmup=0)


# Percentiles.


@given(latencies)
def test_percentiles_are_ordered_and_silence_counts_as_late(values: list[float]) -> None:
    found = figures(np.array(values), 0)
    known = [found[key] for key in ("p50_us", "p99_us", "p999_us", "max_us")]
    present = [value for value in known if value is not None]
    assert present == sorted(present)
    assert found["n"] == len(values)
    assert found["never_answered"] == int(np.isnan(values).sum())
    if found["never_answered"]:
        assert found["max_us"] is None
    if found["never_answered"] > len(values) / 2:
        assert found["p50_us"] is None


@pytest.mark.parametrize(
    "count, known",
    [(99, ["p50_us"]), (100, ["p50_us", "p99_us"]), (9999, ["p50_us", "p99_us"]),
     (10_000, ["p50_us", "p99_us", "p999_us"])],
)  # fmt: skip
def test_no_percentile_that_the_sample_does_not_support(count: int, known: list[str]) -> None:
    found = figures(np.arange(1.0, count + 1), 0)
    assert [key for key in ("p50_us", "p99_us", "p999_us") if found[key] is not None] == known


def test_samples_survive_a_file(tmp_path: Path) -> None:
    before = samples([1.0, float("nan"), 3.0])
    before.facts, before.overruns = {"sources": {"task": 2}, "name": "x"}, 4
    before.save(tmp_path / "samples.npz")
    after = Samples.read(tmp_path / "samples.npz")
    np.testing.assert_array_equal(after.latency_us, before.latency_us)
    np.testing.assert_array_equal(after.missed, [False, True, False])
    assert (after.facts, after.overruns) == (before.facts, 4)


# Witnesses.


def stall(at_ns: int, length_ns: int) -> np.ndarray[Any, Any]:
    return np.array([[at_ns, at_ns + length_ns]])


def test_only_a_stall_as_long_as_what_was_missing_explains_a_miss() -> None:
    seen = samples([500.0] * 9 + [float("nan")])  # ordinary steps: 0.5 ms of 10
    at = int(seen.stamp_ns[-1])
    assert explained(seen, stall(at, 9_600_000), PERIOD) == 1
    assert explained(seen, stall(at, 9_000_000), PERIOD) == 0  # the step would still have fitted
    assert explained(seen, stall(at - 9_600_000, 9_600_000), PERIOD) == 0  # before the step
    assert explained(seen, stall(at + PERIOD, 9_600_000), PERIOD) == 0  # after its deadline
    assert explained(seen, stalls_of([]), PERIOD) == 0
    halves = np.vstack([stall(at, 4_900_000), stall(at + 5_000_000, 4_700_000)])
    assert explained(seen, halves, PERIOD) == 1
    twice = np.vstack([stall(at, 4_900_000), stall(at + 100_000, 4_700_000)])
    assert explained(seen, twice, PERIOD) == 0  # two witnesses of the same


@given(
    st.lists(st.booleans(), min_size=1, max_size=40),
    st.lists(st.tuples(st.integers(0, 40), st.integers(0, 4 * PERIOD)), max_size=10),
)
def test_never_more_explained_than_missed(missed: list[bool], spans: list[tuple[int, int]]) -> None:
    seen = samples([100.0] * len(missed), missed)
    stalls = np.array([[10**12 + PERIOD * step, 10**12 + PERIOD * step + length]
                       for step, length in spans]).reshape(-1, 2)  # fmt: skip
    assert 0 <= explained(seen, stalls, PERIOD) <= sum(missed)


def test_stalls_are_what_the_timers_saw() -> None:
    timer = Samples(np.array([2000.0]), np.array([5_000_000]), np.array([True]))
    other = Samples(np.array([1000.0]), np.array([1_000_000]), np.array([True]))
    assert stalls_of([timer, other]).tolist() == [[1_000_000, 2_000_000], [5_000_000, 7_000_000]]


# Frames.


def test_frames_are_as_long_as_the_stacks_messages(course: Course) -> None:
    dims = course.dims
    values = np.zeros(dims["O"], np.float32)
    real = messages.Observation(1000, 1 << 50, 1 << 50, 1000, 1000, values)
    size = len(Codec(messages.Observation, dims).encode(real))
    assert abs(course.sizes["observation"] - size) <= 4
    assert course.sizes["command"] > course.sizes["observation"]


def test_the_hops_infer_what_the_stacks_nodes_infer(course: Course) -> None:
    policy, critic = (load(course.models[name]) for name in ("policy", "critic"))
    observation = np.linspace(-0.2, 0.3, course.dims["O"], dtype=np.float32)
    frame = frames.Frame(course.sizes["observation"], course.dims)
    frame.observation[:] = observation
    frame.stamp(7, 1234)
    passed = frame.to_bytes()
    for role in ("policy", "critic"):
        passed = frames.work(role, course)(passed)
    action = TaskPolicy(policy).act(observation)
    risk = SafetyCritic(critic).risk(observation, action)
    for eps, wanted in ((risk + 0.01, action), (risk - 0.01, np.zeros_like(action))):
        command = frames.work("arbiter", replace(course, eps=eps))(passed)
        at = frames.HEAD.size + 4 * course.dims["O"]
        found = np.frombuffer(command, "<f4", len(action), at)
        np.testing.assert_allclose(found, wanted, atol=1e-6)
        assert frames.HEAD.unpack_from(command) == (7, 1234)
        assert len(command) == course.sizes["command"]


# The plant of the bare graphs.


class Loop:
    """Answers observations in a thread, by the rule that a test gives: a real graph of one hop."""

    def __init__(self, answer: Any) -> None:
        self._inbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._outbox: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._answer = answer
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self) -> None:
        while frame := self._inbox.get():
            for reply in self._answer(frames.HEAD.unpack_from(frame)[0], frame):
                self._outbox.put(reply)

    def send(self, frame: bytes) -> None:
        self._inbox.put(frame)

    def receive(self, timeout_s: float) -> bytes | None:
        try:
            return self._outbox.get(timeout=timeout_s)
        except queue.Empty:
            return None

    def close(self) -> None:
        self._inbox.put(b"")


def test_every_command_is_matched_with_its_observation(course: Course) -> None:
    def rule(seq: int, frame: bytes) -> list[bytes]:
        if seq == 5:
            return []  # never
        if seq == 9:
            sleep(0.008)  # later than the period of 5 ms
        return [frame, frame]  # twice: the second is of no use

    loop = Loop(rule)
    seen = Plant(course).fly(loop)
    loop.close()
    assert len(seen) == 20
    assert seen.missed[5] and np.isnan(seen.latency_us[5])
    assert seen.missed[9] and seen.latency_us[9] > 5000  # late, and yet known
    assert np.isfinite(np.delete(seen.latency_us, 5)).all()
    assert (np.diff(seen.stamp_ns) > 0).all()


def test_a_graph_that_does_not_answer_is_said_to(
    course: Course, monkeypatch: pytest.MonkeyPatch
) -> None:
    from safetypilot.launch.bench import plant

    monkeypatch.setattr(plant, "UP_PATIENCE_S", 0.2)
    with pytest.raises(GraphError, match=r"has not answered within 0\.2 s"):
        Plant(course).fly(Loop(lambda seq, frame: []))


def test_a_plant_that_is_asked_to_stop_keeps_what_it_has(course: Course) -> None:
    page = Progress(course)

    def rule(seq: int, frame: bytes) -> list[bytes]:
        if seq == 3:
            page.ask_to_stop()
        return [frame]

    seen = Plant(course).fly(Loop(rule))
    assert 3 <= len(seen) <= 5


# The stack's own reports.


def episode(last_ns: int, latency: list[float]) -> EpisodeReport:
    steps = len(latency)
    return EpisodeReport(
        1, last_ns, last_ns, 0, steps, True, False, 0.0, 0, "m", np.zeros((steps, 2), np.float32),
        np.zeros(steps, np.uint8), np.array(latency, np.float32), 0,
    )  # fmt: skip


def test_stamps_of_steps_follow_from_those_of_episodes() -> None:
    tally = StepTally(PERIOD)
    tally.add(episode(3 * PERIOD, [1.0, 2.0, 3.0]))
    tally.add(episode(6 * PERIOD, [4.0, float("nan"), 6.0]))  # in step with the first
    tally.add(episode(11 * PERIOD, [7.0, 8.0]))  # three periods were lost within or before it
    assert np.concatenate(tally.stamps).tolist() == [n * PERIOD for n in (1, 2, 3, 4, 5, 6, 10, 11)]
    assert [int(slack[0]) for slack in tally.slack] == [0, 0, 3 * PERIOD]
    assert tally.steps == 8


def decision(seq: int, models: str) -> Any:
    ages = (0, 0, 0, 0)
    return messages.Decision(seq, seq, seq, 0, 0, 0, 0, 0.1, 0.3, *ages, models)


def test_the_diary_of_a_swap_notes_changes_gaps_and_mixtures() -> None:
    diary = Diary()
    for seq, models in (
        (1, "task_policy=a, safety_critic=c"),
        (2, "task_policy=a, safety_critic=c"),
        (4, "task_policy=b, safety_critic=c"),
        (5, "safety_critic=c"),
        (6, "task_policy=a"),
    ):
        diary.hear(decision(seq, models))
    assert [change[:2] for change in diary.changes] == [(1, "a"), (4, "b"), (6, "a")]
    assert (diary.steps, diary.lost, diary.mixed) == (5, 1, 1)
    assert diary.first("a", 3) == (6, 6)
    assert diary.first("c", 0) is None


# Comparison.


def result(p50: list[float], name: str = "shielded", missed: int = 0) -> dict[str, Any]:
    blocks = [{"p50_us": value, "p99_us": 2 * value, "p999_us": None, "n": 2000,
               "missed_deadlines": missed} for value in p50]  # fmt: skip
    entry = {**figures(np.array(p50), 0), "missed_deadlines": missed * len(p50),
             "missed_unexplained": missed * len(p50), "missed_explained": 0,
             "blocks": blocks}  # fmt: skip
    cell = {"rate_hz": 500.0, "load": True, "realtime": True, "graph": "/x/bench.yaml",
            "affinity": "same", "title": "500 Hz"}  # fmt: skip
    return {"benchmark": "latency", "cell": cell, name: entry, "peers": {}, "ratios": {},
            "host": {"cpu": "one", "kernel": "6"}}  # fmt: skip


OLD = [100.0, 101.0, 102.0, 103.0, 104.0]


@pytest.mark.parametrize(
    "new, verdict",
    [
        ([120.0, 121.0, 122.0, 123.0, 124.0], "slower"),
        ([80.0, 81.0, 82.0, 83.0, 84.0], "faster"),
        ([99.0, 101.0, 103.0, 105.0, 200.0], "within the noise"),
        ([104.1, 104.2, 104.3, 104.4, 104.5], "within the noise"),  # above all, by less than 3 %
        ([300.0, 300.0], "too few blocks"),
    ],
)
def test_a_change_counts_beyond_the_noise_of_the_blocks(new: list[float], verdict: str) -> None:
    found = comparison.compare(result(OLD), result(new))
    assert {row["verdict"] for row in found["rows"]} == {verdict}
    assert bool(found["regressions"]) == (verdict == "slower")


def test_others_that_became_slower_are_no_regression_of_ours() -> None:
    slow = [value * 2 for value in OLD]
    found = comparison.compare(result(OLD, "bare_ring"), result(slow, "bare_ring"))
    assert {row["verdict"] for row in found["rows"]} == {"slower"}
    assert not found["regressions"]


def test_deadlines_missed_in_every_block_are_a_regression() -> None:
    found = comparison.compare(result(OLD), result(OLD, missed=3))
    assert found["regressions"] == ["500 Hz: shielded missed"]


def test_compare_on_the_command_line(tmp_path: Path) -> None:
    for name, values in (("old", OLD), ("new", [value * 1.5 for value in OLD])):
        (tmp_path / f"{name}.json").write_text(json.dumps(result(values)))
    old, new = (str(tmp_path / f"{name}.json") for name in ("old", "new"))
    worse = CliRunner().invoke(app, ["bench", "compare", old, new])
    assert worse.exit_code == 1 and "REGRESSION: 500 Hz: shielded p50" in worse.output
    assert CliRunner().invoke(app, ["bench", "compare", new, old]).exit_code == 0
    again = CliRunner().invoke(app, ["bench", "compare", old, old, "--json"])
    assert again.exit_code == 0 and json.loads(again.output)["same_host"] is True


def test_a_file_that_is_no_result_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    for text in ("{}", "[1]", "not json"):
        file.write_text(text)
        with pytest.raises(InputError, match=r"other\.json"):
            comparison.read(file)
    with pytest.raises(InputError, match="No such file"):
        comparison.read(tmp_path / "none.json")


# Who takes part.


@pytest.mark.parametrize(
    "words, wanted",
    [
        ([], NAMES),
        (["--no-peers"], tuple(name for name in NAMES if name not in PEERS)),
        (["--peer", "zenoh"], (*(name for name in NAMES if name not in PEERS), "zenoh")),
        (["--only", "bare_ring"], ("bare_ring",)),
    ],
)
def test_contestants_are_chosen_by_name(words: list[str], wanted: tuple[str, ...]) -> None:
    from safetypilot.launch.cli_bench_latency import _chosen

    values = {key: words[1:] if words and words[0] == key else [] for key in ("--peer", "--only")}
    chosen = _chosen("--no-peers" not in words, values["--peer"], values["--only"])
    assert set(chosen) == set(wanted)


@pytest.mark.parametrize(
    "words, hint",
    [(["--peer", "zeno"], "did you mean 'zenoh'"), (["--only", "bare"], "bare_ring"),
     (["--witness", "bth"], "both"), (["--graph", "mase"], "maze")],
)  # fmt: skip
def test_a_wrong_word_is_answered_with_the_nearest(words: list[str], hint: str) -> None:
    done = CliRunner().invoke(app, ["bench", "latency", "--steps", "20", *words])
    assert done.exit_code == 2 and hint in done.output


def test_the_launch_files_schedule_is_everybodys() -> None:
    ground = Ground.of(Cell(realtime=True))
    assert ground.schedule["policy"] == "fifo" and ground.schedule["cpus"] == [0]
    assert "policy" not in Ground.of(Cell(realtime=False)).schedule
    assert len(Ground.of(Cell(affinity="free")).schedule["cpus"]) >= 1


def test_the_table_says_why_somebody_is_missing() -> None:
    empty = {**figures(np.zeros(0), 0), "unavailable": "not installed: pip install ray"}
    found = result(OLD) | {
        "peers": {"ray": empty},
        "witness": {"cpus": {}},
        "scheduling": {"refused": ["refused: SCHED_FIFO: not permitted"]},
        "interrupted": True,
        "host": {"cpu": "one", "cpus": 2, "system": "s", "governor": "g", "load_average": (1, 2)},
    }
    text = report.markdown(found)
    assert "not installed: pip install ray" in text
    assert "Not granted: SCHED_FIFO: not permitted" in text and "Stopped by Ctrl-C" in text
