"""Films: who is in control is in the picture; files are whole or absent."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageColor
from training_runs import ZOO, call

from safetypilot.envs import geometry, registry
from safetypilot.launch import evaluation, scenes, trained, video
from safetypilot.launch.cli_common import InputError
from safetypilot.launch.picture import COLOURS
from safetypilot.models.contract import image_shape

NAN = float("nan")


class Reel:
    """A writer that keeps its frames."""

    def __init__(self) -> None:
        self.frames: list[np.ndarray[Any, Any]] = []

    def add(self, frame: Any) -> None:
        self.frames.append(np.asarray(frame))

    def close(self) -> None:
        pass

    def discard(self) -> None:
        pass


def record(**changes: Any) -> SimpleNamespace:
    values = {
        "episode": 0, "step": 0, "observation": np.array([-0.2, 0.0], np.float32),
        "executed": np.array([0.1, 0.0]), "risk": 0.1, "source": 0, "reward": -1.0, "cost": 0.0,
        "info": {},
    }  # fmt: skip
    return SimpleNamespace(**{**values, **changes})


def watched(ended: bool = False, truncated: bool = False, at: tuple[float, float] = (0, 0)) -> Any:
    return SimpleNamespace(ended=ended, truncated=truncated, observation=np.array(at))


def film(state: Any, eps: float = 0.15, episodes: int = 5) -> tuple[video.Film, Reel]:
    reel = Reel()
    return video.Film(reel, scenes.PlanScene(geometry.MAZE), state, 10.0, eps, episodes), reel


def colour(name: str) -> tuple[int, ...]:
    return ImageColor.getrgb(name)


@pytest.mark.parametrize("source", range(4))
def test_the_border_has_the_colour_of_whoever_is_in_control(source: int) -> None:
    movie, reel = film(watched())
    movie.on_step(record(source=source))
    frame = reel.frames[0]
    for row, column in ((4, 4), (300, 3), (300, -3)):
        assert tuple(frame[row, column]) == colour(COLOURS[source])
    height, width, _ = frame.shape
    assert height % 2 == 0 and width % 2 == 0


@pytest.mark.parametrize(
    ("changes", "state", "expected"),
    [
        ({"cost": 1.0, "info": {"success": True}}, watched(ended=True), "violation"),
        ({"info": {"success": True}}, watched(ended=True), "goal"),
        ({}, watched(ended=True, truncated=True), "time is up"),
        ({}, watched(ended=True), "end"),
    ],
)
def test_the_end_of_an_episode_is_shown_for_a_while(
    changes: dict[str, Any], state: Any, expected: str
) -> None:
    movie, reel = film(state)
    movie.on_step(record(**changes))
    assert len(reel.frames) == 1 + 8  # 0.8 s at 10 frames a second
    assert tuple(reel.frames[-1][4, 4]) == colour(video._OUTCOMES[expected])


def test_later_episodes_are_not_filmed() -> None:
    movie, reel = film(watched(), episodes=2)
    for episode in range(4):
        movie.on_step(record(episode=episode))
    assert len(reel.frames) == 2


def bar_end(frame: np.ndarray[Any, Any]) -> tuple[float, tuple[int, ...]]:
    """Share of the risk bar that is filled, and its colour."""
    row = frame[-30, 105:438]  # between the word and the number
    filled = (row != colour("#dddddd")).any(axis=1) & (row != colour("#222222")).any(axis=1)
    return filled.mean(), tuple(row[2]) if filled[2] else ()


def test_the_bar_shows_the_risk_and_turns_beyond_the_threshold() -> None:
    movie, reel = film(watched(), eps=0.5)
    for risk in (0.3, 0.8, NAN):
        movie.on_step(record(risk=risk))
    (low, blue), (high, orange), (none, _) = (bar_end(frame) for frame in reel.frames)
    assert low == pytest.approx(0.3, abs=0.06) and high == pytest.approx(0.8, abs=0.06)
    assert none < 0.03  # the threshold's own line
    assert (blue, orange) == (colour(COLOURS[0]), colour(COLOURS[1]))


def test_the_plan_shows_walls_goal_way_and_robot() -> None:
    scene = scenes.PlanScene(geometry.MAZE)
    scene.start()
    scene.draw(record(observation=np.array([-0.2, 0.0])), None)
    picture = np.asarray(scene.draw(record(observation=np.array([0.0, 0.0]), source=1), None))
    assert picture.shape == (480, 480, 3)

    def at(x: float, y: float) -> tuple[int, ...]:
        return tuple(picture[round((0.3 - y) * 800), round((x + 0.3) * 800)])

    assert at(0.1, -0.2) == colour("#3d3d3d")  # wall
    assert at(0.26, 0.01) == colour("#9fd9c4")  # goal
    assert at(-0.15, 0.0) == colour(COLOURS[0])  # the way, flown by the task policy
    assert at(0.0, 0.01) == colour(COLOURS[1])  # the robot, now in recovery
    assert at(-0.2, 0.2) == colour("#f4f4f0")  # floor
    scene.start()
    assert tuple(np.asarray(scene.draw(record(), None))[240, 120]) == colour("#f4f4f0")


def test_flat_worlds_get_some_height() -> None:
    picture = scenes.PlanScene(geometry.NAVIGATION1).draw(record(), None)
    assert picture.size == (480, 144)


def test_pixels_are_enlarged_as_they_are() -> None:
    image = np.zeros((4, 6, 3), np.uint8)
    image[1, 2] = (10, 200, 30)
    scene = scenes.PixelScene((4, 6, 3))
    flat = record(observation=image.ravel().astype(np.float32))
    for picture in (scene.draw(flat, None), scene.draw(record(), image)):
        pixels = np.asarray(picture)
        assert pixels.shape == (320, 480, 3)
        assert (pixels[80:160, 160:240] == (10, 200, 30)).all()
        assert pixels.sum() == 80 * 80 * 240
    grey = scenes.PixelScene((2, 2, 1)).draw(record(observation=np.full(4, 7.0)), None)
    assert (np.asarray(grey) == 7).all()


def test_signals_of_a_world_that_cannot_be_drawn() -> None:
    scene = scenes.SignalScene([-2.0] * 12, [2.0] * 12, 0.2)
    for episode in range(2):
        scene.start()
        for step in range(70):
            changes = {"risk": NAN if step < 5 else step / 70, "reward": 3.0, "source": step % 2}
            one = record(episode=episode, step=step, executed=np.full(12, 0.5), **changes)
            picture = scene.draw(one, None)
        scene.draw(one, np.zeros(3))
        assert len(scene._rows) == 70
    assert picture.size == (480, 360)
    colours = {tuple(pixel) for pixel in np.asarray(picture).reshape(-1, 3)}
    assert colour("#fbe3b5") in colours  # steps that were not the task policy's


def test_watched_remembers_the_last_answer() -> None:
    answers = [("o1", {}), ("o2", 1.0, False, False, {}), ("o3", 1.0, False, True, {})]
    inner = SimpleNamespace(
        reset=lambda **_: answers[0], step=lambda action: answers[action], spec="kept"
    )
    env = scenes.Watched(inner)
    assert env.spec == "kept"
    assert env.reset(seed=1) == answers[0]
    assert env.observation == "o1"
    env.step(1)
    assert (env.observation, env.ended) == ("o2", False)
    env.step(2)
    assert (env.observation, env.ended, env.truncated) == ("o3", True, True)
    env.reset()
    assert not env.ended


def test_names_are_checked_before_the_flight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="make it first"):
        video.check_name(tmp_path / "nowhere" / "x.gif")
    monkeypatch.setattr(video, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="gif needs nothing more"):
        video.check_name(tmp_path / "x.mp4")
    video.check_name(tmp_path / "x.gif")


@pytest.mark.parametrize("ending", ["mp4", "gif"])
def test_files_are_whole_or_absent(tmp_path: Path, ending: str) -> None:
    if ending == "mp4":
        pytest.importorskip("imageio_ffmpeg")
    path = tmp_path / f"film.{ending}"
    frames = [Image.new("RGB", (64, 48), name) for name in ("red", "#0072B2", "white")]
    for finish in ("discard", "close"):
        writer = video.writer(path, 10.0)
        for frame in frames:
            writer.add(frame)
        assert not path.exists()
        getattr(writer, finish)()
        assert [p.name for p in tmp_path.iterdir()] == ([path.name] if finish == "close" else [])
    if ending == "gif":
        with Image.open(path) as film:
            assert film.n_frames == 3
            assert film.info["duration"] == 100
            film.seek(1)
            assert film.convert("RGB").getpixel((5, 5)) == colour("#0072B2")
    else:
        assert path.read_bytes()[4:8] == b"ftyp"


def test_a_flight_that_fails_leaves_no_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    request = evaluation.Request(episodes=1, video=tmp_path / "film.gif")
    flight = evaluation.prepare(trained.find(ZOO / "maze"), request)

    def fail(record: Any) -> None:
        raise RuntimeError("the robot fell over")

    with pytest.raises(RuntimeError, match="fell over"):
        evaluation.fly(flight, fail)
    assert list(tmp_path.iterdir()) == []


def test_where_nothing_renders_the_signals_are_shown_and_it_is_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    failing = "import sys; sys.exit('gl.Error: no GL context')"
    monkeypatch.setattr(evaluation, "_RENDER", failing)
    monkeypatch.setenv("MUJOCO_GL", "egl")
    flight = unrendered("Pendulum-v1")
    flight.env.close()
    assert isinstance(flight.scene, scenes.SignalScene)
    (note,) = flight.notes
    assert note.startswith("Pendulum-v1 cannot be rendered here (no GL context); the video shows")
    monkeypatch.setattr(evaluation, "_RENDER", "import os; os.abort()")  # as a driver may
    assert evaluation._cannot_render("Pendulum-v1")


def unrendered(name: str) -> evaluation.Flight:
    """A flight in an environment that is neither planar nor made of pixels, with its scene."""
    interface = SimpleNamespace(**registry.describe(name))
    config = SimpleNamespace(recovery="none", eps=0.2, cost="info")
    flight = evaluation.Flight(evaluation.Request(), name, None, {}, config, interface, {})
    evaluation._set_scene(flight)
    return flight


def test_image_shapes() -> None:
    assert image_shape(["image[48,64,3]"]) == (48, 64, 3)
    assert image_shape(["x", "y"]) is None
    assert image_shape(["ranges[12]"]) is None


def test_the_evaluation_is_filmed(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    run = tmp_path / "models"
    shutil.copytree(ZOO / "maze", run)
    words = ("--episodes", "2", "--film", "1", "--policy", "novice", "--no-shield", "--json")
    done = call("evaluate", tmp_path, "--video", tmp_path / "film.gif", *words)
    assert done.exit_code == 0, done.output
    figures = json.loads(done.stdout)
    assert figures["video"] == str(tmp_path / "film.gif")
    with Image.open(tmp_path / "film.gif") as movie:
        assert 8 < movie.n_frames < figures["steps"] + 9
