"""Figures of training runs: what is in them, and that the same runs give the same bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from training_runs import write_outcomes, write_run

from safetypilot.launch import curve_groups, curve_plots, curves
from safetypilot.launch.cli_common import InputError


def some_groups(folder: Path, episodes: int = 30) -> list[curve_groups.Group]:
    for env in ("maze", "navigation1"):
        for algorithm in ("recovery-rl", "sac"):
            for seed in range(3):
                write_run(folder / env / algorithm / str(seed), env, algorithm, seed, episodes)
    return curve_groups.group(curves.find([folder]).runs)[0]


@pytest.mark.parametrize("kind", curve_plots.KINDS)
def test_png_and_svg_of_every_kind(tmp_path: Path, kind: str) -> None:
    groups = some_groups(tmp_path / "runs")
    files = curve_plots.draw(kind, groups, tmp_path / "new" / "figure", "A title")
    assert [path.name for path in files] == ["figure.png", "figure.svg"]
    assert files[0].read_bytes().startswith(b"\x89PNG")
    text = files[1].read_text()
    for word in ("A title", "maze", "navigation1", "recovery-rl", "(n=3)"):
        assert word in text
    again = curve_plots.draw(kind, groups, tmp_path / "again", "A title")
    assert [path.read_bytes() for path in files] == [path.read_bytes() for path in again]


def test_a_curve_without_a_value_and_single_seeds_are_drawn(tmp_path: Path) -> None:
    write_outcomes(tmp_path / "0", "vvvv", algorithm="sac")
    groups = curve_groups.group(curves.find([tmp_path]).runs)[0]
    text = curve_plots.draw("reward", groups, tmp_path / "r")[1].read_text()
    assert "nothing to show" in text
    assert "one seed" in text
    write_outcomes(tmp_path / "1", "svss", algorithm="lr")
    groups = curve_groups.group(curves.find([tmp_path]).runs)[0]
    for kind in curve_plots.KINDS:
        curve_plots.draw(kind, groups, tmp_path / kind)


def test_a_ratio_that_grows_much_is_on_a_log_axis(tmp_path: Path) -> None:
    write_outcomes(tmp_path / "a", "s" * 20)
    groups = curve_groups.group(curves.find([tmp_path]).runs)[0]
    text = curve_plots.draw("ratio", groups, tmp_path / "r")[1].read_text()
    assert ">10</text>" in text and ">5</text>" in text and ">20</text>" in text


def test_names_of_figures() -> None:
    expected = [Path("a/b.png"), Path("a/b.svg")]
    for name in ("a/b", "a/b.png", "a/b.svg", "a/b.PNG"):
        assert curve_plots.outputs(Path(name)) == expected
    assert curve_plots.outputs(Path("v1.2"))[0] == Path("v1.2.png")
    with pytest.raises(InputError, match="written as"):
        curve_plots.outputs(Path("a/b.pdf"))


def test_known_algorithms_look_the_same_in_every_figure(tmp_path: Path) -> None:
    groups = some_groups(tmp_path)
    alone = curve_plots.styles([group for group in groups if group.label == "sac"])
    assert alone["sac"] == curve_plots.styles(groups)["sac"]


def test_no_two_of_many_look_alike(tmp_path: Path) -> None:
    for i in range(7):
        write_run(tmp_path / f"u{i}", algorithm=f"mine-{i}", episodes=5)
    for i in range(4):
        write_run(tmp_path / f"v{i}", episodes=5, settings={"eps": i})
    for name in ("sac", "lr", "rspo", "sqrl", "rp", "rcpo", "csc", "safety-editor"):
        write_run(tmp_path / name, algorithm=name, episodes=5)
    groups = curve_groups.group(curves.find([tmp_path]).runs)[0]
    looks = curve_plots.styles(groups)
    assert len(groups) == 19
    assert len({(colour, str(dash)) for colour, dash, _ in looks.values()}) == 19
    variants = {looks[group.label][0] for group in groups if group.algorithm == "recovery-rl"}
    assert variants == {curve_plots.styles(groups)["recovery-rl eps=0"][0]}


@given(st.lists(st.floats(-1, 2), min_size=1, max_size=12), st.floats(0.001, 0.08))
def test_labels_keep_their_order_and_distance(wanted: list[float], gap: float) -> None:
    places = curve_plots.apart(wanted, gap)
    order = np.argsort(wanted, kind="stable")
    assert (np.diff(np.array(places)[order]) >= gap - 1e-9).all()
    assert min(places) >= -1e-9
    assert max(places) <= 1 + 1e-9


def test_labels_with_room_stay_where_they_belong() -> None:
    assert curve_plots.apart([0.9, 0.1, 0.5], 0.1) == pytest.approx([0.9, 0.1, 0.5])
    assert curve_plots.apart([0.5, 0.52], 0.1) == pytest.approx([0.46, 0.56])
