"""Environments that know no cost are given one, or refused before anything is written."""

import json

import numpy as np
import pytest
from ledge import TINY, WORLD, Ledge, tiny

from safetypilot.envs import costs
from safetypilot.policies.learn import trainer
from safetypilot.policies.learn.config import _CHOICES
from safetypilot.policies.learn.errors import LearnError
from safetypilot.policies.learn.world import World


class Costless(Ledge):
    """Falls, and says nothing of what it cost."""

    closed = 0

    def step(self, action):
        return *super().step(action)[:4], {}

    def close(self):
        Costless.closed += 1


COSTLESS = World(lambda env: Costless(), WORLD.describe, WORLD.offline_data)
SETTINGS = {"offline": "false", "positive_fraction": "0"}


def walk(env):
    """Push left to the end: costs, and whether it terminated."""
    env.reset(seed=0)
    found, ended = [], False
    while not ended:
        _, _, terminated, truncated, info = env.step(np.array([-1.0]))
        found.append(info["cost"])
        ended = terminated or truncated
    return found, terminated


def test_the_settings_are_the_functions():
    assert set(_CHOICES["cost"]) == set(costs.COSTS)


def test_what_an_environment_reports_is_left_alone():
    envs = WORLD.environments("ledge", "info", 3)
    assert [type(env) for env in envs] == [Ledge] * 3
    found, terminated = walk(envs[0])
    assert terminated
    assert found[-1] == 1.0


@pytest.mark.parametrize(("cost", "last"), [("termination", 1.0), ("none", 0.0)])
def test_costs_by_name(cost, last):
    (env,) = COSTLESS.environments("ledge", cost, 1)
    found, terminated = walk(env)
    assert terminated
    assert found == [0.0] * (len(found) - 1) + [last]


def test_no_cost_is_refused_before_anything_is_written(tmp_path):
    Costless.closed = 0
    message = r'ledge reports no info\["cost"\].*--cost termination if .*, or --cost none'
    with pytest.raises(LearnError, match=message):
        tiny(tmp_path / "run", 1, world=COSTLESS)
    assert not (tmp_path / "run").exists()
    assert Costless.closed == 2


def test_an_unknown_cost_is_refused(tmp_path):
    with pytest.raises(LearnError, match="cost is 'terminal'; choose one of info, termination"):
        tiny(tmp_path / "run", 1, settings={"cost": "terminal"})
    assert not (tmp_path / "run").exists()


def test_violations_are_counted_and_the_choice_outlasts_a_resumption(tmp_path):
    settings = SETTINGS | {"cost": "termination"}
    (first,) = tiny(tmp_path, 8, algorithm="lr", settings=settings, world=COSTLESS)
    assert first["settings"]["cost"] == "termination"
    assert first["violations"] > 0  # the goal terminates as well here
    (second,) = tiny(tmp_path, 12, algorithm="lr", resume=tmp_path, world=COSTLESS)
    assert second["episodes"] == 12
    assert second["settings"]["cost"] == "termination"
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    counted = sum(json.loads(line).get("episode/violation", 0) for line in lines)
    assert counted == second["violations"] >= first["violations"]
    assert second["evaluation"]["trained_alone"]["violations"] > 0


def test_without_costs_nothing_is_a_violation(tmp_path):
    request = trainer.Request("sac", "ledge", settings=TINY | {"cost": "none"}, episodes=3)
    (summary,) = trainer.train(request, tmp_path, world=COSTLESS)
    assert summary["violations"] == 0
    assert summary["episodes"] == 3
