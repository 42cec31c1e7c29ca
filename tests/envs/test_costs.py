"""The named cost functions."""

import numpy as np
import pytest

from safetypilot.envs import costs

ZERO = np.zeros(2)


@pytest.mark.parametrize(
    ("name", "terminated", "info", "expected"),
    [
        ("info", False, {"cost": 1.0}, 1.0),
        ("info", True, {"cost": 0.0}, 0.0),
        ("info", False, {"cost": 2.5}, 1.0),
        ("termination", True, {}, 1.0),
        ("termination", False, {"cost": 1.0}, 0.0),
        ("none", True, {"cost": 1.0}, 0.0),
    ],
)
def test_cost(name, terminated, info, expected):
    assert costs.cost_function(name)(ZERO, ZERO, ZERO, terminated, info) == expected


def test_a_missing_cost_names_the_environment():
    cost = costs.cost_function("info", "Hopper-v5")
    with pytest.raises(costs.MissingCostError) as caught:
        cost(ZERO, ZERO, ZERO, False, {"x_velocity": 1.0})
    assert str(caught.value).startswith('Hopper-v5 reports no info["cost"], only x_velocity;')


def test_unknown_cost_gets_a_suggestion():
    with pytest.raises(ValueError, match=r"Did you mean termination\? Known: info, termination"):
        costs.cost_function("terminations")
