"""Names, descriptions and the ways into Gymnasium."""

import subprocess
import sys

import gymnasium
import numpy as np
import pytest

from safetypilot.envs import registry

KEYS = {
    "observation_names",
    "observation_units",
    "action_names",
    "action_units",
    "action_low",
    "action_high",
    "failsafe",
    "observation_size",
}


def run_python(program: str) -> str:
    """Run a program in a fresh interpreter in which a warning is an error."""
    command = [sys.executable, "-P", "-W", "error", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.parametrize("name", registry.IDS)
def test_short_name_and_id_make_the_same_environment(name):
    for key in (name, registry.IDS[name]):
        env = registry.make(key)
        assert env.spec.id == registry.IDS[name]
        env.close()


@pytest.mark.parametrize("name", registry.IDS)
def test_description_agrees_with_the_spaces(name):
    env = registry.make(name)
    description = registry.describe(name)
    assert set(description) == KEYS
    assert description == registry.describe(registry.IDS[name])
    assert env.observation_space.shape == (description["observation_size"],)
    assert len(description["observation_units"]) == len(description["observation_names"])
    assert len(description["action_units"]) == len(description["action_names"])
    np.testing.assert_array_equal(np.float32(description["action_low"]), env.action_space.low)
    np.testing.assert_array_equal(np.float32(description["action_high"]), env.action_space.high)
    assert env.action_space.contains(np.float32(description["failsafe"]))
    env.close()


def test_describing_ours_loads_no_simulator():
    program = (
        "import sys; from safetypilot.envs import registry, geometry; registry.describe('maze');"
        "print([m for m in ('gymnasium', 'mujoco', 'numpy') if m in sys.modules])"
    )
    assert run_python(program).strip() == "[]"


def test_a_description_is_the_callers_own():
    registry.describe("maze")["failsafe"][0] = 9.0
    assert registry.describe("maze")["failsafe"] == [0.0, 0.0]


def test_foreign_box_environment():
    description = registry.describe("Pendulum-v1")
    assert set(description) == KEYS
    assert description["observation_names"] == ["observation_0", "observation_1", "observation_2"]
    assert (description["action_low"], description["action_high"]) == ([-2.0], [2.0])
    assert description["failsafe"] == [0.0]


def test_foreign_failsafe_stays_inside_the_box():
    box = gymnasium.spaces.Box(0.5, 1.0, (2,))
    description = registry.describe_spaces(box, box, "Somebody/Else-v0")
    assert description["failsafe"] == [0.5, 0.5]


@pytest.mark.parametrize(
    ("observation", "action", "complaint"),
    [
        (gymnasium.spaces.Box(-1, 1, (2,)), gymnasium.spaces.Discrete(2), "action space"),
        (gymnasium.spaces.Box(-1, 1, (2,)), gymnasium.spaces.Box(-np.inf, 1, (2,)), "infinite"),
        (gymnasium.spaces.Dict({}), gymnasium.spaces.Box(-1, 1, (2,)), "observation space"),
        (gymnasium.spaces.Box(0, 1, (8, 8)), gymnasium.spaces.Box(-1, 1, (2,)), "one dimension"),
    ],
)
def test_spaces_we_cannot_carry_are_refused(observation, action, complaint):
    with pytest.raises(registry.UnsupportedEnvironmentError, match=complaint):
        registry.describe_spaces(observation, action, "Somebody/Else-v0")


def test_a_discrete_gymnasium_environment_is_refused():
    with pytest.raises(registry.UnsupportedEnvironmentError, match=r"CartPole-v1: the action"):
        registry.describe("CartPole-v1")


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("mase", "maze"),
        ("navigation3", "navigation2"),
        ("safetypilot/Mase-v0", "safetypilot/Maze-v0"),
        ("Pendulum-v9", "Pendulum-v1"),
        ("nosuchmodule:maze", "maze"),
    ],
)
@pytest.mark.parametrize("function", [registry.make, registry.describe, registry.resolve])
def test_unknown_names_get_suggestions(function, name, suggestion):
    with pytest.raises(ValueError, match=rf"(?s)unknown environment.*{suggestion}") as caught:
        function(name)
    assert "Ours: maze, navigation1, navigation2" in str(caught.value)


def test_registering_twice_does_nothing():
    registry.register()
    before = gymnasium.registry[registry.IDS["maze"]]
    registry.register()
    assert gymnasium.registry[registry.IDS["maze"]] is before


def test_gymnasium_alone_makes_ours():
    """Gymnasium 1.x loads no plugins; the id with a module is its replacement."""
    program = (
        "import gymnasium;"
        "env = gymnasium.make('safetypilot.envs.autoregister:safetypilot/Maze-v0');"
        "env.reset(seed=0); print(env.spec.id); env.close()"
    )
    assert run_python(program).strip() == "safetypilot/Maze-v0"


def test_ours_with_a_module_is_still_ours():
    name = "safetypilot.envs.autoregister:safetypilot/Maze-v0"
    assert registry.describe(name) == registry.describe("maze")
