"""Late steps: whose doing they are, that they are never made up for in a burst, and the drift."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safetypilot.envs import registry
from safetypilot.nodes.kernel import messages, trace
from safetypilot.nodes.kernel.interface import Interface
from safetypilot.nodes.kernel.testing import Bench
from safetypilot.nodes.late_steps import LateSteps, longest_hop
from safetypilot.nodes.simulator import Simulator, SimulatorConfig

PERIOD = 20_000_000
MS = 1_000_000


def late_command(
    seq: int = 3,
    stamp: int = 0,
    *,
    policy: tuple[int, int] | None = (1, 2),
    critic: tuple[int, int] | None = (3, 4),
    planner: int = 0,
    arbiter: tuple[int, int] = (5, 6),
    held: bool = False,
) -> messages.Command:
    """A command whose answers were taken and sent at these times, in ms after the observation."""

    def at(ms: int) -> int:
        return stamp + ms * MS

    proposal = risk = recovery = None
    action = np.zeros(2, np.float32)
    if policy is not None:
        begun = stamp - PERIOD if held else stamp
        proposal = messages.Proposal(seq, begun, at(policy[1]), 1, action, "p", at(policy[0]))
    if critic is not None and proposal is not None:
        risk = messages.Risk(
            seq, stamp, at(critic[1]), 1, 0.1, "c", at(critic[0]), proposal.taken_ns,
            proposal.sent_ns,
        )  # fmt: skip
    if planner:
        plan = np.zeros((2, 2), np.float32)
        recovery = messages.Recovery(
            seq, stamp, at(planner), plan, np.zeros(2, np.float32), 1, "r", stamp
        )
    chain = trace.of_command(proposal, risk, recovery, at(arbiter[0]))
    return messages.Command(
        seq, stamp, at(arbiter[1]), action, 0, 0, 1, action, 0.1, at(99), False, "p", chain
    )


@pytest.mark.parametrize(
    ("changes", "came", "node", "what", "took"),
    [
        ({"policy": (9, 10), "critic": (11, 12), "arbiter": (13, 14)}, 15,
         "task_policy", "waits for observation", 9),
        ({"policy": (1, 12), "critic": (13, 14), "arbiter": (15, 16)}, 17,
         "task_policy", "works", 11),
        ({"critic": (12, 13), "arbiter": (14, 15)}, 16, "safety_critic", "waits for proposal", 10),
        ({"critic": (3, 12), "arbiter": (13, 14)}, 15, "safety_critic", "works", 9),
        ({"critic": None, "arbiter": (13, 14)}, 15, "arbiter", "waits for risk", 11),
        ({"policy": None, "critic": None, "arbiter": (13, 14)}, 15,
         "arbiter", "waits for proposal", 13),
        ({"planner": 6, "arbiter": (16, 17)}, 18, "arbiter", "waits for recovery", 10),
        ({"arbiter": (5, 15)}, 16, "arbiter", "works", 10),
        ({}, 17, "simulator", "waits for command", 11),
        ({"held": True, "arbiter": (15, 16)}, 17, "arbiter", "waits for observation", 15),
    ],
)  # fmt: skip
def test_the_longest_hop_on_the_way_is_the_cause(
    changes: dict[str, Any], came: int, node: str, what: str, took: int
) -> None:
    cause, took_ns = longest_hop(late_command(stamp=1000 * MS, **changes), (1000 + came) * MS)
    assert (cause.node, cause.what, took_ns) == (node, what, took * MS)


def test_causes_are_counted_and_told_once() -> None:
    late = LateSteps()
    for seq in (1, 2, 5):
        late.missed(seq, 0, 17 * MS)
    assert late.summary()["unexplained"] == 3 and late.news(6) == {}
    late.came(late_command(1, arbiter=(5, 15)), 16 * MS)
    late.came(late_command(1, arbiter=(5, 15)), 16 * MS)  # a second time means nothing
    late.came(late_command(2, arbiter=(5, 25)), 26 * MS)
    late.came(late_command(9, arbiter=(5, 25)), 26 * MS)  # was not missed
    late.overrun(30 * MS, 25 * MS)
    late.overrun(30 * MS, -5 * MS)
    told = late.news(6)
    assert told == {
        "arbiter works": 2,
        "simulator works": 1,
        "simulator waits for its turn to run": 1,
    }
    assert late.news(7) == {}
    assert late.news(99) == {"arbiter never answered": 1}
    summary = late.summary()
    assert (summary["missed"], summary["overruns"], summary["unexplained"]) == (3, 2, 0)
    first = summary["causes"][0]
    assert first == {"node": "arbiter", "what": "works", "steps": 2, "worst_ms": 20.0}


def test_a_command_that_the_plant_itself_took_too_late_explains_its_step() -> None:
    late = LateSteps()
    late.came(late_command(4), 60 * MS)  # expired when the plant's turn came, just before its timer
    late.missed(4, 0, 60 * MS)
    late.missed(5, 0, 80 * MS)
    summary = late.summary()
    assert (summary["missed"], summary["unexplained"]) == (2, 1)
    assert summary["causes"] == [
        {"node": "simulator", "what": "waits for command", "steps": 1, "worst_ms": 54.0}
    ]


def plant(tmp_path: Path) -> Bench:
    kept = {k: registry.describe("navigation1")[k] for k in Interface.__dataclass_fields__}
    interface = Interface.from_dict(kept)
    return Bench(Simulator, SimulatorConfig(env="navigation1"), tmp_path, interface=interface)


def answer(b: Bench) -> None:
    observation = b.last("observation")
    b.send("command", late_command(observation.seq, observation.stamp_ns))


def test_the_plant_says_whom_it_waited_for(tmp_path: Path) -> None:
    b = plant(tmp_path)
    b.pass_time(0)
    first = b.last("observation")
    b.pass_time(18 * MS)
    b.send("command", late_command(first.seq, first.stamp_ns, critic=(3, 15), arbiter=(16, 17)))
    status = b.node.status()
    assert status["late_steps"]["missed"] == status["missed_deadlines"] == 1
    assert status["late_steps"]["causes"] == [
        {"node": "safety_critic", "what": "works", "steps": 1, "worst_ms": 12.0}
    ]
    assert status["refused"] == {"duplicate or late": 1} and status["drift_ms"] == 0.0
    while not b.executor.of("episode"):
        b.pass_time(PERIOD)
    kind, event = b.executor.events[0]
    assert (kind, event["safety_critic works"]) == ("late steps", 1)
    assert event["episode"] == b.last("episode").episode


def test_a_little_late_is_made_up_for_and_leaves_no_drift(tmp_path: Path) -> None:
    b = plant(tmp_path)
    begun = b.now_ns
    b.pass_time(0)
    answer(b)
    b.clock.advance_to(begun + PERIOD + 18 * MS)  # its turn comes 18 ms late
    for _ in range(6):
        b.pass_time(0)
        answer(b)
        assert b.node.next_wake_ns is not None
        b.clock.advance_to(b.node.next_wake_ns)
    stamps = [(o.stamp_ns - begun) / MS for o in b.executor.of("observation")]
    assert stamps == [0, 38, 48, 60, 80, 100, 120]
    status = b.node.status()
    assert status["overruns"] == status["missed_deadlines"] == 0 and status["drift_ms"] == 0.0


def test_a_late_plant_still_gives_the_others_their_time(tmp_path: Path) -> None:
    b = plant(tmp_path)
    b.pass_time(0)
    answer(b)
    b.clock.advance_to(b.now_ns + PERIOD + 15 * MS)
    b.pass_time(0)
    b.pass_time(16 * MS)  # 31 ms after the tick, but within the deadline of the observation
    answer(b)
    assert b.node.status()["missed_deadlines"] == 0


def test_what_cannot_be_made_up_for_is_drift(tmp_path: Path) -> None:
    b = plant(tmp_path)
    b.pass_time(0)
    answer(b)
    b.clock.advance_to(b.now_ns + 5 * PERIOD)
    b.pass_time(0)
    answer(b)
    status = b.node.status()
    assert (status["overruns"], status["drift_ms"]) == (1, 80.0)
    cause = status["late_steps"]["causes"][0]
    assert (cause["what"], cause["worst_ms"]) == ("waits for its turn to run", 80.0)


@settings(max_examples=60, deadline=None)
@given(stalls=st.lists(st.integers(0, 90), min_size=1, max_size=25), answers=st.booleans())
def test_whatever_stalls_it_there_is_no_burst_and_the_drift_is_what_is_missing(
    tmp_path_factory: pytest.TempPathFactory, stalls: list[int], answers: bool
) -> None:
    b = plant(tmp_path_factory.getbasetemp())
    begun = b.now_ns
    for stall in stalls:
        assert b.node.next_wake_ns is not None
        b.clock.advance_to(max(b.now_ns, b.node.next_wake_ns) + stall * MS)
        b.node.on_timer(b.now_ns)
        if answers:
            answer(b)
    stamps = [o.stamp_ns for o in b.executor.of("observation")]
    gaps = np.diff(stamps)
    assert (gaps >= PERIOD // 2).all()
    status = b.node.status()
    behind_ns = stamps[-1] - begun - (len(stamps) - 1) * PERIOD
    assert 0 <= behind_ns - status["drift_ms"] * MS < PERIOD
