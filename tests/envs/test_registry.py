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
    env = registry.make_flat(name)
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
        "import sys; from safetypilot.envs import registry, geometry;"
        "[registry.describe(name) for name in registry.IDS];"
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
        (gymnasium.spaces.Box(-1, 1, (2,)), gymnasium.spaces.MultiDiscrete([2, 2]), "action space"),
        (gymnasium.spaces.Box(-1, 1, (2,)), gymnasium.spaces.Box(-1, 1, (2, 2)), "action space"),
        (gymnasium.spaces.Box(-1, 1, (2,)), gymnasium.spaces.Box(-np.inf, 1, (2,)), "infinite"),
        (gymnasium.spaces.Dict({}), gymnasium.spaces.Box(-1, 1, (2,)), "observation space"),
        (gymnasium.spaces.Box(0, 1, (8, 8)), gymnasium.spaces.Box(-1, 1, (2,)), "one dimension"),
        (
            gymnasium.spaces.Box(0, 255, (3, 64, 64), np.uint8),  # channels first
            gymnasium.spaces.Box(-1, 1, (2,)),
            r"an image \(height, width, channels\)",
        ),
    ],
)
def test_spaces_we_cannot_carry_are_refused(observation, action, complaint):
    with pytest.raises(registry.UnsupportedEnvironmentError, match=complaint):
        registry.describe_spaces(observation, action, "Somebody/Else-v0")


def test_a_discrete_environment_is_described_by_preferences():
    description = registry.describe("CartPole-v1")
    assert description["action_names"] == ["choice_0", "choice_1"]
    assert description["action_units"] == ["", ""]
    assert (description["action_low"], description["action_high"]) == ([0.0, 0.0], [1.0, 1.0])
    assert description["failsafe"] == [0.0, 0.0]


def test_an_image_is_one_name_for_all_its_values():
    image = gymnasium.spaces.Box(0, 255, (48, 64, 3), np.uint8)
    description = registry.describe_spaces(image, gymnasium.spaces.Box(-1, 1, (2,)), "Some-v0")
    assert description["observation_names"] == ["image[48,64,3]"]
    assert description["observation_units"] == [""]
    assert description["observation_size"] == 48 * 64 * 3


def test_flat_images_are_rows_of_float32_with_their_values():
    flat, env = registry.make_flat("image-maze"), registry.make("image-maze")
    options = {"position": (0.0, 0.1)}
    seen, pixels = flat.reset(options=options)[0], env.reset(options=options)[0]
    assert seen.dtype == np.float32
    np.testing.assert_array_equal(seen, pixels.ravel())
    seen, _, _, _, info = flat.step(np.zeros(2, np.float32))
    assert flat.observation_space.contains(seen)
    assert info["cost"] == 0.0


def test_flat_state_environments_are_left_as_they_are():
    assert type(registry.make_flat("maze")) is type(registry.make("maze"))


def test_flat_observations_are_float32():
    observation, _ = registry.make_flat("Hopper-v5").reset(seed=0)
    assert observation.dtype == np.float32


def test_what_cannot_be_carried_cannot_be_made_flat():
    with pytest.raises(registry.UnsupportedEnvironmentError, match=r"Taxi-v4: the observation"):
        registry.make_flat("Taxi-v4")


@pytest.mark.parametrize(
    ("name", "suggestion"),
    [
        ("mase", "maze"),
        ("image_maze", "image-maze"),
        ("hopper-no-bonu", "hopper-no-bonus"),
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
