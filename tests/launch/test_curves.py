"""Curves of training runs: reading, formulas, grouping, and what a broken run is told."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from training_runs import write_lines, write_outcomes, write_run

from safetypilot.launch import curve_groups, curves
from safetypilot.launch.cli_common import InputError

NAN = float("nan")


def groups_of(
    *directories: Path, **options: int
) -> tuple[dict[str, curve_groups.Group], list[str]]:
    found = curves.find(directories)
    groups, notes = curve_groups.group(found.runs, **options)
    return {group.label: group for group in groups}, found.notes + notes


def test_the_ratio_is_of_counts_so_far() -> None:
    success = np.array([[1.0, 0, 1, 1], [0, 0, 0, 0]])
    violation = np.array([[0.0, 1, 0, 0], [1, 0, 1, 0]])
    expected = [[2, 1, 3 / 2, 4 / 2], [1 / 2, 1 / 2, 1 / 3, 1 / 3]]
    np.testing.assert_allclose(curves.ratio(success, violation), expected)


def test_the_standard_error_is_the_population_std_over_root_n() -> None:
    values = np.array([[1.0, 5.0], [3.0, 5.0], [8.0, 5.0]])
    mean, error = curves.mean_and_error(values)
    np.testing.assert_allclose(mean, [4, 5])
    np.testing.assert_allclose(error, [np.std([1, 3, 8]) / 3**0.5, 0])


def test_missing_values_do_not_count() -> None:
    mean, error = curves.mean_and_error(np.array([[1.0, NAN], [NAN, NAN], [3.0, NAN]]))
    np.testing.assert_allclose(mean, [2, NAN])
    np.testing.assert_allclose(error, [1 / 2**0.5, NAN])


def test_only_violating_episodes_are_masked_and_not_those_after_them() -> None:
    """The original masked everything from the first violation on (defect 17)."""
    total = np.array([1.0, 100, 3, NAN, 5])
    violation = np.array([0.0, 1, 0, 0, 0])
    smooth = curves.smooth_return(total, violation, window=2)
    np.testing.assert_allclose(smooth, [1, 1, 3, 3, 5])
    np.testing.assert_array_equal(total[1], 100)  # the original changed its argument


def test_the_moving_average_agrees_with_a_loop() -> None:
    rng = np.random.default_rng(0)
    total, violation = rng.normal(size=(3, 350)), (rng.random((3, 350)) < 0.4).astype(float)
    violation[0, :7] = 1
    smooth = curves.smooth_return(total, violation)
    for seed in range(3):
        for end in range(350):
            start = max(0, end - 99)
            kept = total[seed, start : end + 1][violation[seed, start : end + 1] == 0]
            expected = kept.mean() if len(kept) else NAN
            np.testing.assert_allclose(smooth[seed, end], expected, atol=1e-9)


def test_runs_are_found_at_any_depth_once(tmp_path: Path) -> None:
    for seed in (2, 0, 1):
        write_run(tmp_path / "a" / "maze" / f"seed-{seed}", seed=seed, episodes=20)
    (tmp_path / "a" / "maze" / "summary.json").write_text(json.dumps({"runs": []}))
    found, notes = groups_of(tmp_path, tmp_path / "a")
    assert [run.seed for run in found["recovery-rl"].runs] == [0, 1, 2]
    assert notes == []


def test_a_run_is_known_by_its_short_name(tmp_path: Path) -> None:
    write_run(tmp_path / "0", env="safetypilot/Maze-v0", seed=0)
    write_run(tmp_path / "1", env="maze", seed=1)
    write_run(tmp_path / "2", env="Ant-v5", seed=0)
    found = curves.find([tmp_path])
    groups, _ = curve_groups.group(found.runs)
    assert [(group.env, group.seeds) for group in groups] == [("Ant-v5", 1), ("maze", 2)]


def test_seeds_are_cut_at_the_shortest_and_it_is_said(tmp_path: Path) -> None:
    for seed, episodes in enumerate((30, 20, 25)):
        write_run(tmp_path / str(seed), seed=seed, episodes=episodes)
    found, notes = groups_of(tmp_path)
    assert found["recovery-rl"].values("ratio").shape == (3, 20)
    assert len(notes) == 1
    assert "20 to 30 episodes; all are cut at 20" in notes[0]
    assert str(tmp_path / "1") in notes[0]


def test_only_the_first_episodes_if_asked(tmp_path: Path) -> None:
    write_run(tmp_path / "0", seed=0, episodes=30)
    write_run(tmp_path / "1", seed=1, episodes=25)
    found, notes = groups_of(tmp_path, episodes=10)
    assert found["recovery-rl"].episodes == 10
    assert notes == []
    found, notes = groups_of(tmp_path / "0", episodes=100)
    assert found["recovery-rl"].episodes == 30
    assert notes == ["maze, recovery-rl: 30 episodes, 100 were asked for"]


def test_final_figures(tmp_path: Path) -> None:
    write_outcomes(tmp_path / "0", "ssV-s", seed=0)
    write_outcomes(tmp_path / "1", "vVsvs", seed=1)
    write_outcomes(tmp_path / "2", "sssss", seed=2)
    found, _ = groups_of(tmp_path)
    group = found["recovery-rl"]
    ratios = [4 / 2, 3 / 4, 6]
    assert group.final("ratio") == {
        "mean": pytest.approx(np.mean(ratios)),
        "standard_error": pytest.approx(np.std(ratios) / 3**0.5),
        "median": pytest.approx(2),
        "seeds": pytest.approx(ratios),
    }
    assert group.final("success")["seeds"] == [3, 2, 5]
    assert group.final("violation")["seeds"] == [1, 3, 0]
    share = group.recovering_share()  # of the seeds that violated: 1 of 1, and 1 of 3
    assert share == {
        "mean": pytest.approx(2 / 3),
        "standard_error": pytest.approx(1 / 3 / 2**0.5),
        "seeds": 2,
    }
    json.dumps(group.describe(), allow_nan=False)


def test_a_return_that_never_was_is_null(tmp_path: Path) -> None:
    write_outcomes(tmp_path, "vv")
    found, _ = groups_of(tmp_path)
    assert found["recovery-rl"].final("reward")["mean"] is None
    assert found["recovery-rl"].recovering_share() == {
        "mean": 0.0, "standard_error": 0.0, "seeds": 1,
    }  # fmt: skip


def test_presets_are_told_apart_where_there_are_several(tmp_path: Path) -> None:
    write_run(tmp_path / "0", algorithm="lr", preset="published")
    write_run(tmp_path / "1", algorithm="lr", preset="repaired")
    write_run(tmp_path / "2", algorithm="sac", preset="repaired")
    found, _ = groups_of(tmp_path)
    assert set(found) == {"lr (published)", "lr (repaired)", "sac"}


def test_ablations_are_told_apart_by_the_setting_that_differs(tmp_path: Path) -> None:
    usual = {"gamma": 0.9, "relabel": True, "online": True, "episodes": 100}
    for seed in range(2):
        write_run(tmp_path / f"u{seed}", seed=seed, settings={**usual, "episodes": 50 + seed})
        write_run(tmp_path / f"r{seed}", seed=seed, settings={**usual, "relabel": False})
        write_run(tmp_path / f"o{seed}", seed=seed, settings={**usual, "online": False})
    found, _ = groups_of(tmp_path)
    assert {label: group.seeds for label, group in found.items()} == {
        "recovery-rl": 2,
        "recovery-rl relabel=false": 2,
        "recovery-rl online=false": 2,
    }


def test_two_variants_of_equal_weight_both_say_what_they_are(tmp_path: Path) -> None:
    write_run(tmp_path / "0", settings={"eps": 0.1})
    write_run(tmp_path / "1", settings={"eps": 0.25})
    found, _ = groups_of(tmp_path)
    assert set(found) == {"recovery-rl eps=0.1", "recovery-rl eps=0.25"}


def test_many_differences_are_cut_short_and_stay_apart(tmp_path: Path) -> None:
    for i in range(3):
        write_run(tmp_path / str(i), settings={"a": 1 + (i > 0), "b": 1 + (i > 0), "z": i})
    found, _ = groups_of(tmp_path)
    assert len(found) == 3


def test_labels_name_groups(tmp_path: Path) -> None:
    write_run(tmp_path / "x" / "0", seed=0, settings={"a": 1})
    write_run(tmp_path / "x" / "1", seed=1, settings={"a": 2})
    write_run(tmp_path / "y", seed=0)
    found = curves.find([tmp_path], [("mine", tmp_path / "x")])
    groups, _ = curve_groups.group(found.runs)
    assert {group.label: group.seeds for group in groups} == {"mine": 2, "recovery-rl": 1}


def test_a_seed_that_counts_twice_is_told(tmp_path: Path) -> None:
    write_run(tmp_path / "0", seed=3)
    write_run(tmp_path / "1", seed=3)
    _, notes = groups_of(tmp_path)
    assert len(notes) == 1
    assert "seed 3 counts more than once" in notes[0]


def test_no_run_says_what_a_run_is(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"metrics\.jsonl and summary\.json"):
        curves.find([tmp_path])
    with pytest.raises(InputError, match="there is no directory"):
        curves.find([tmp_path / "nowhere"])


def test_a_run_that_has_not_ended_is_left_out_and_told(tmp_path: Path) -> None:
    write_run(tmp_path / "done")
    write_run(tmp_path / "under way")
    (tmp_path / "under way" / "summary.json").unlink()
    _, notes = groups_of(tmp_path)
    assert len(notes) == 1
    assert "it has not ended yet" in notes[0]
    with pytest.raises(InputError, match=r"no run to show; .*under way"):
        curves.find([tmp_path / "under way"])


def test_a_run_without_an_episode_is_left_out(tmp_path: Path) -> None:
    write_run(tmp_path / "0", seed=0)
    write_outcomes(tmp_path / "1", "", seed=1)
    found, notes = groups_of(tmp_path)
    assert found["recovery-rl"].seeds == 1
    assert "no episode in it" in notes[0]


def entry(episode: object = 1, **values: object) -> str:
    return json.dumps({
        "episode": episode, "episode/success": 1, "episode/violation": 0, "episode/return": -1.0,
        **values,
    })  # fmt: skip


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('{"episode": 2,', r"metrics\.jsonl:2: .*one JSON object a line"),
        ("[1, 2]", r"metrics\.jsonl:2: not an object"),
        (entry(3), r"metrics\.jsonl:2: episode 3, wanted 2"),
        (entry(1), r"metrics\.jsonl:2: episode 1, wanted 2"),
        (entry(2, **{"episode/success": 0.5}), r":2: episode/success is 0\.5, wanted 0 or 1"),
        (entry(2, **{"episode/violation": "no"}), r":2: episode/violation is 'no'"),
        (entry(2, **{"episode/return": None}), r":2: episode/return is None, wanted a number"),
    ],
)
def test_a_broken_line_is_named(tmp_path: Path, line: str, expected: str) -> None:
    facts = {"env": "maze", "algorithm": "sac", "seed": 0}
    write_lines(tmp_path, [entry(), line, entry(3)], facts)
    with pytest.raises(InputError, match=expected):
        curves.find([tmp_path])


def test_half_a_last_line_is_left_out_and_told(tmp_path: Path) -> None:
    write_lines(tmp_path, [entry()], {"env": "maze", "algorithm": "sac", "seed": 0})
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"episode": 2, "epis')
    found = curves.find([tmp_path])
    assert found.runs[0].episodes == 1
    assert "only half written" in found.notes[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [("{", "is not JSON"), ("[]", "says nothing about env, algorithm, seed"),
     ('{"env": "maze", "seed": 1}', "says nothing about algorithm")],
)  # fmt: skip
def test_a_broken_summary_is_named(tmp_path: Path, text: str, expected: str) -> None:
    write_run(tmp_path)
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(InputError, match=rf"summary\.json {expected}"):
        curves.find([tmp_path])


def test_a_binary_file_is_no_metrics_file(tmp_path: Path) -> None:
    write_run(tmp_path)
    (tmp_path / "metrics.jsonl").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(InputError, match="is not text"):
        curves.find([tmp_path])
