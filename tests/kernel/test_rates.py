"""Who acts on which observations where nodes have rates of their own."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from safetypilot.nodes.kernel import rates
from safetypilot.nodes.kernel.health import InputHealth
from safetypilot.nodes.kernel.node import Input, Spec

ARBITER = (
    Input("observation", wakes=False),
    Input("proposal", wakes=False),
    Input("recovery", paces=False),
    Input("risk"),
)
ALL = {"observation", "proposal", "recovery", "risk"}
CRITIC = (Input("observation", wakes=False), Input("proposal"))


@pytest.mark.parametrize("every", [1, 3, 10])
def test_every_episode_begins_with_an_observation_that_all_answer(every: int) -> None:
    due = [step for step in range(31) if rates.is_due(SimpleNamespace(step=step), every)]
    assert due == list(range(0, 31, every))


def test_a_topic_has_another_name_where_it_is_thinned_out() -> None:
    assert rates.thinned("observation", 1) == "observation"
    assert rates.thinned("observation", 10) == "observation@10"


@pytest.mark.parametrize(
    ("ports", "spaced", "wanted"),
    [
        (ARBITER, {}, {"recovery", "risk"}),
        (ARBITER, {"proposal": 5, "risk": 5, "recovery": 25}, ALL - {"proposal"}),
        (ARBITER, {"recovery": 10}, {"recovery", "risk"}),
        (ARBITER, {"proposal": 9, "risk": 9, "recovery": 9}, ALL - {"proposal"}),
        (ARBITER, {"proposal": 10, "risk": 10}, ALL - {"proposal"}),
        (ARBITER[:2], {}, set()),  # a bare flight, one rate: its own timer wakes it
        (ARBITER[:2], {"proposal": 10}, {"observation", "proposal"}),
        (CRITIC, {"observation": 10, "proposal": 10}, {"proposal"}),
    ],
)  # fmt: skip
def test_a_passive_input_wakes_a_node_whose_other_inputs_come_more_rarely(
    ports: tuple[Input, ...], spaced: dict[str, int], wanted: set[str]
) -> None:
    assert rates.waking(ports, spaced) == wanted


def test_an_input_that_comes_rarely_has_no_gaps_between() -> None:
    health = InputHealth(1000, 2.0, every=10)
    for seq in (0, 10, 20, 23, 33):  # the fourth begins another episode
        health.accept(seq, seq, seq)
    assert health.gaps == 0
    health.accept(63, 63, 63)
    assert health.gaps == 2


def test_a_slow_node_expects_its_inputs_at_their_own_rates() -> None:
    spec = Spec(
        "planner", "m:C", {}, {}, 25_000_000, 0, "", "", every=25, rates={"observation": 25}
    )
    assert spec.input_period_ns("observation") == 25_000_000
    assert spec.input_period_ns("model") == 1_000_000
