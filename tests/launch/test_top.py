"""What `top` makes of the nodes' own words."""

from __future__ import annotations

from safetypilot.launch import top

STATUS = {
    "inputs": {"risk": {"drops": {"not finite": 2}}, "observation": {"drops": {}}},
    "outputs": {"decision": {"learner.dropped": 3, "learner.waiting": 9}},
    "node": {"refused": {"expired": 1}, "dropped_by": {"disk failed": 7}},
}


def test_losses_are_named_by_cause() -> None:
    assert top.drops(STATUS) == {
        "risk: not finite": 2,
        "decision to learner: not taken": 3,
        "refused: expired": 1,
        "dropped: disk failed": 7,
    }


def test_models_of_one_slot_and_of_several() -> None:
    assert top.models({"model": "a@1"}) == {"model": "a@1"}
    assert top.models({"models": {"dynamics": "d@2"}}) == {"dynamics": "d@2"}
    assert top.models({}) == {}


def test_swaps_are_mentioned_when_there_is_something_to_say() -> None:
    assert top.swap_state({"swap": {"state": "none"}}) == ""
    assert top.swap_state({"swap": {"state": "shadow"}}) == "shadow"
    slots = {"dynamics": {"swap": {"state": "staged"}}, "encoder": {"swap": {"state": "none"}}}
    assert top.swap_state({"swaps": slots}) == "dynamics staged"
    assert top.swap_state({}) == ""


def test_a_process_that_holds_several_nodes_is_counted_once() -> None:
    row = {"state": "active", "pid": 7, "cpu_percent": 40.0}
    figures = {"run": "r", "rate_hz": 50.0, "estop": True,
               "nodes": {"a": row, "b": row, "c": {"state": "no answer"}}}  # fmt: skip
    text = top.text(figures)
    assert "CPU in all: 40 %" in text and "E-STOPPED" in text and "no answer" in text
