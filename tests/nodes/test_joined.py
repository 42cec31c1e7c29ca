"""What a learner gets of a plant that is faster than the policy."""

from __future__ import annotations

import numpy as np
import pytest

from safetypilot.nodes.joined import Joiner
from safetypilot.nodes.kernel.messages import Transition


def part(step: int, *, seq: int | None = None, last: str = "", reward: float = 0.0) -> Transition:
    """One observation's worth; executed and proposed tell it from the others."""
    seq = 100 + step if seq is None else seq
    place = np.float32([step, 0.0])
    return Transition(
        seq, seq, seq, 0, step, place, np.float32([step, step]), np.float32([2 * step, 0.0]),
        step % 4, reward, float(last == "violation"), last == "goal", place + 1,
        last in ("violation", "goal"), last == "time",
    )  # fmt: skip


def join(every: int, parts: list[Transition]) -> list[Transition]:
    joiner = Joiner(every)
    return [whole for whole in map(joiner.take, parts) if whole is not None]


def test_so_many_parts_are_one_step_of_the_policy() -> None:
    one, two = join(5, [part(step, reward=float(step)) for step in range(10)])
    assert (one.step, two.step, one.seq, two.seq) == (0, 1, 104, 109)
    assert two.observation.tolist() == [5, 0] and two.next_observation.tolist() == [10, 1]
    assert two.executed.tolist() == [14, 0] and two.executed.dtype == np.float32
    assert two.proposed.tolist() == [9, 9]
    assert (one.reward, two.reward, two.source, two.cost) == (10.0, 35.0, 3, 0.0)


def test_at_one_rate_nothing_is_changed() -> None:
    parts = [part(step) for step in range(3)]
    assert all(found is given for found, given in zip(join(1, parts), parts, strict=True))


@pytest.mark.parametrize("end", ["violation", "goal", "time"])
def test_the_end_of_an_episode_ends_a_step(end: str) -> None:
    parts = [part(0), part(1, last=end), part(0, seq=102), part(1, seq=103), part(2, seq=104)]
    (short, whole) = join(3, parts)
    assert short.observation.tolist() == [0, 0] and short.next_observation.tolist() == [2, 1]
    assert (short.terminated, short.truncated) == (end != "time", end == "time")
    assert short.cost == float(end == "violation") and short.success == (end == "goal")
    assert whole.seq == 104 and not whole.terminated


def test_a_step_of_which_a_part_was_lost_is_left_out() -> None:
    parts = [part(step) for step in range(12)]
    for lost in range(4, 8):
        kept = [whole.step for whole in join(4, parts[:lost] + parts[lost + 1 :])]
        assert kept == [0, 2], lost
    assert [whole.step for whole in join(4, parts[2:])] == [1, 2]
