"""The recovery planner behind an encoder: it encodes once, and then never sees an image."""

import math
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from safetypilot.models.contract import observation_size
from safetypilot.models.images import latent_name
from safetypilot.policies.planning import PlannerConfig
from safetypilot.policies.recovery import RecoveryConfig, RecoveryPlanner

Array = NDArray[np.float32]

SIDE, WALL = 12, 0.9
CONFIG = RecoveryConfig(PlannerConfig(horizon=3, population=40, elites=5))


def image(x: float, y: float) -> Array:
    """A dot at (x, y) of [-1, 1]^2, as a flat row."""
    grid = np.linspace(-1, 1, SIDE)
    bright = np.exp(-(np.square(grid[:, None] - y) + np.square(grid[None] - x)) / 0.05)
    return np.asarray(255 * bright, np.float32).ravel()


class Eye:
    """Finds the dot."""

    def __init__(self, size: int = 2) -> None:
        self.size = size
        self.calls: list[tuple[int, ...]] = []

    def run(self, **inputs: Array) -> dict[str, Array]:
        (observation,) = inputs.values()
        self.calls.append(observation.shape)
        weight = observation.reshape(-1, SIDE, SIDE) + 1e-9
        grid = np.linspace(-1, 1, SIDE)
        total = weight.sum(axis=(1, 2))
        x, y = (weight.sum(axis=1) @ grid) / total, (weight.sum(axis=2) @ grid) / total
        return {"latent": np.stack((x, y), axis=1).astype(np.float32)[:, : self.size]}


class Moves:
    members = 1

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def run(self, **inputs: Array) -> dict[str, Array]:
        self.shapes.append(inputs["observation"].shape)
        return {"next_observation": inputs["observation"] + inputs["action"][..., :2]}


class Wall:
    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def run(self, **inputs: Array) -> dict[str, Array]:
        self.shapes.append(inputs["observation"].shape)
        there = np.abs(inputs["observation"] + inputs["action"]).max(axis=1)
        return {"risk": (1 / (1 + np.exp((WALL - there) / 0.02))).astype(np.float32)}


def planner(eye: Eye, config: RecoveryConfig = CONFIG, **parts: Any) -> RecoveryPlanner:
    dynamics, critic = parts.get("dynamics", Moves()), parts.get("critic", Wall())
    return RecoveryPlanner(config, dynamics, critic, [-0.2, -0.2], [0.2, 0.2], encoder=eye)


@pytest.mark.parametrize("config", [CONFIG, RecoveryConfig.published_visual(3)])
@pytest.mark.parametrize("axis, side", [(0, -1), (0, 1), (1, -1), (1, 1)])
def test_moves_away_from_a_wall_that_it_sees(config: RecoveryConfig, axis: int, side: int) -> None:
    eye = Eye()
    place = [0.0, 0.0]
    place[axis] = 0.8 * side
    latent = eye.run(observation=image(*place)[None])["latent"][0]
    eye.calls.clear()
    plan = planner(eye, config).plan(image(*place), 0)
    assert plan.risks.max() < 0.1
    assert np.abs(latent + np.cumsum(plan.actions, axis=0)).max() < WALL
    assert eye.calls == [(1, SIDE * SIDE)]


def test_latents_are_rolled_once_per_net_whatever_the_particles() -> None:
    moves = Moves()
    planner(Eye(), RecoveryConfig(CONFIG.planner, particles=20), dynamics=moves).plan(
        image(0, 0), 0
    )
    assert {shape[::2] for shape in moves.shapes} == {(1, 2)}
    assert max(shape[1] for shape in moves.shapes) == 40


def test_an_encoder_that_gives_nan_leaves_no_vetted_plan() -> None:
    class Blind(Eye):
        def run(self, **inputs: Array) -> dict[str, Array]:
            return {"latent": np.full((1, 2), math.nan, np.float32)}

    plan = planner(Blind()).plan(image(0, 0), 0)
    assert np.isnan(plan.risks).all() and plan.iterations == 0


def test_warming_up_asks_every_shape_and_leaves_the_flying_encoder_alone() -> None:
    eye = Eye()
    flying = planner(eye)
    flying.plan(image(0, 0), 0)
    eye.calls.clear()
    moves, wall = Moves(), Wall()
    flying.warm_up(SIDE * SIDE, dynamics=moves, critic=wall)
    assert not eye.calls
    warmed = set(moves.shapes), set(wall.shapes)
    moves.shapes.clear()
    wall.shapes.clear()
    flying.swap(dynamics=moves, critic=wall)
    flying.plan(image(0, 0), 1)
    assert (set(moves.shapes), set(wall.shapes)) == warmed
    fresh = Eye()
    flying.warm_up(SIDE * SIDE, encoder=fresh, dynamics=Moves(), critic=Wall())
    assert fresh.calls == [(1, SIDE * SIDE)] and len(eye.calls) == 1


def test_a_new_encoder_comes_with_all_that_reads_it() -> None:
    flying = planner(Eye())
    with pytest.raises(ValueError, match="own latents"):
        flying.swap(encoder=Eye(), critic=Wall())
    fresh = Eye()
    flying.swap(encoder=fresh, dynamics=Moves(), critic=Wall())
    flying.plan(image(0, 0), 0)
    assert len(fresh.calls) == 1


def test_a_latent_is_named_after_its_encoder() -> None:
    name = latent_name("0123456789abcdef", 32)
    assert name == "latent-01234567[32]" and observation_size((name,)) == 32
    assert latent_name("f" * 64, 32) != name
