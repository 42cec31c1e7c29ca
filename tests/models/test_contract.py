"""What a contract refuses, and what it says."""

import json
from dataclasses import replace

import pytest

from safetypilot.models import contract as contracts
from safetypilot.models.errors import ModelError


def test_json_round_trip(contract):
    assert contracts.from_json(contract.to_json()) == contract


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"observation_names": ("x", "y")}, "observation size 3, the plant has 2"),
        ({"observation_names": ("y", "x", "heading")}, "in another order"),
        ({"observation_units": ("m", "mm", "rad")}, "observation units differ"),
        ({"action_names": ("force_x", "torque")}, "action names differ"),
        ({"action_high": (0.1, 0.3)}, "action_high of 'force_y' is 0.4 in the model and 0.3"),
    ],
)
def test_disagreement_with_the_plant(contract, change, message):
    plant = json.loads(contract.to_json()) | change
    with pytest.raises(ModelError, match=message):
        contracts.check(contract, "task_policy", _Plant(plant))


class _Plant:
    def __init__(self, values):
        self.__dict__.update(values)


def test_rounding_of_limits_is_no_disagreement(contract):
    plant = replace(contract, action_high=(0.10000000149, 0.4000000059))
    contracts.check(contract, "task_policy", plant)


def test_kind_and_rate(contract):
    contracts.check(contract, "task_policy", contract, rate_hz=20.1)
    contracts.check(replace(contract, rate_hz=None), "task_policy", contract, rate_hz=99.0)
    with pytest.raises(ModelError, match="task_policy model, a dynamics was wanted"):
        contracts.check(contract, "dynamics")
    with pytest.raises(ModelError, match="trained at 20 Hz, to be run at 50 Hz"):
        contracts.check(contract, "task_policy", rate_hz=50.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "not JSON"),
        ("[]", "not an object"),
        ("{}", "says nothing about kind, observation_names"),
        ('{"schema": 2}', "says nothing about"),
    ],
)
def test_malformed_metadata(text, message):
    with pytest.raises(ModelError, match=message):
        contracts.from_json(text)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 2}, "schema 2"),
        ({"kind": "oracle"}, "kind 'oracle' is unknown"),
        ({"action_units": ["N"]}, "2 action_names and 1 action_units"),
        ({"action_low": [0.1, "a"]}, "malformed"),
        ({"action_low": [0.5, -0.2]}, "limits action 'force_x' to 0.5 .. 0.1"),
        ({"action_low": 3}, "malformed"),
        ({"rate_hz": -1.0}, "rate_hz"),
    ],
)
def test_contradictions(contract, change, message):
    data = json.loads(contract.to_json()) | change
    with pytest.raises(ModelError, match=message):
        contracts.from_json(json.dumps(data))


def test_supplement_fills_in_and_never_contradicts(contract):
    data = json.loads(contract.to_json())
    low = data.pop("action_low")
    bare = json.dumps(data)
    assert contracts.from_json(bare, {"action_low": low}) == contract
    assert contracts.from_json(contract.to_json(), {"rate_hz": 20}) == contract
    with pytest.raises(ModelError, match="the launch file says"):
        contracts.from_json(contract.to_json(), {"rate_hz": 10})


@pytest.mark.parametrize(
    ("names", "size", "image"),
    [
        (("x", "y"), 2, None),
        (("image[64,48,3]",), 9216, (64, 48, 3)),
        (("image[64,48,3]", "speed"), 9217, None),
        (("scan[180]",), 180, None),
        (("odd[0,3]", "odd[x]"), 2, None),
        ((), 0, None),
    ],
)
def test_a_name_may_stand_for_a_whole_array(names, size, image):
    assert contracts.observation_size(names) == size
    assert contracts.image_shape(names) == image


def test_an_image_of_another_size_is_refused(contract):
    ours = replace(contract, observation_names=("image[4,4,3]",), observation_units=("1",))
    other = replace(ours, observation_names=("image[2,4,3]",))
    assert ours.observation_size == 48
    with pytest.raises(ModelError, match="observation size 48, the plant has 24"):
        contracts.check(ours, "task_policy", other)


def test_models_of_latents_are_compared_with_their_own_encoder(contract):
    eye, other = (replace(contract, kind="encoder", graph_sha256=c * 64) for c in "ab")
    latents = contracts.of_latents(eye, 8)
    assert latents.observation_size == 8 and latents.action_names == contract.action_names
    critic = replace(latents, kind="safety_critic")
    contracts.check(critic, "safety_critic", latents)
    with pytest.raises(ModelError, match="observation names differ"):
        contracts.check(critic, "safety_critic", contracts.of_latents(other, 8))
