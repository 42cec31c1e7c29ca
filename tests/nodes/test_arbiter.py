"""The arbiter node: when it decides, what it does with late, early and missing answers, arming."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from safetypilot.nodes.arbiter import Arbiter, ArbiterConfig
from safetypilot.nodes.kernel import messages
from safetypilot.nodes.kernel.errors import NodeError, RequestRefused
from safetypilot.nodes.kernel.testing import Bench
from safetypilot.policies.shield import Reason, Source

PERIOD = 20_000_000
MS = 1_000_000
SAFE, RISKY = 0.05, 0.9


class Flight:
    """Feeds an arbiter one step after the other."""

    def __init__(self, tmp_path: Path, armed: bool = True, **config: Any) -> None:
        self.bench = Bench(Arbiter, ArbiterConfig(**({"eps": 0.2} | config)), tmp_path)
        self.seq = -1
        if armed:
            for _ in range(4):
                self.step()
            assert self.status["armed"]

    @property
    def status(self) -> dict[str, Any]:
        return self.bench.node.status()

    @property
    def commands(self) -> list[messages.Command]:
        return self.bench.executor.of("command")

    def observe(self) -> None:
        self.bench.pass_time(PERIOD - self.bench.now_ns % PERIOD)
        self.seq += 1
        self.stamp = self.bench.now_ns
        values = np.zeros(2, np.float32)
        self.bench.send(
            "observation",
            messages.Observation(self.seq, self.stamp, self.stamp, 0, self.seq, values),
        )

    def propose(self, seq: int | None = None, proposal_id: int | None = None) -> None:
        seq = self.seq if seq is None else seq
        proposal_id = seq + 100 if proposal_id is None else proposal_id
        action = np.array([0.1, 0.0], np.float32)
        self.bench.send(
            "proposal", messages.Proposal(seq, self.stamp, self.stamp, proposal_id, action, "p@1")
        )

    def judge(self, risk: float, seq: int | None = None, proposal_id: int | None = None) -> None:
        seq = self.seq if seq is None else seq
        proposal_id = seq + 100 if proposal_id is None else proposal_id
        self.bench.send(
            "risk", messages.Risk(seq, self.stamp, self.stamp, proposal_id, risk, "c@1")
        )

    def plan(self, seq: int | None = None, length: int = 4) -> None:
        seq = self.seq if seq is None else seq
        plan = np.full((length, 2), -0.05, np.float32)
        plan[:, 1] = np.arange(length) / 100
        risks = np.zeros(length, np.float32)
        self.bench.send(
            "recovery", messages.Recovery(seq, self.stamp, self.stamp, plan, risks, 1, "r@1")
        )

    def step(self, risk: float = SAFE) -> messages.Command:
        self.observe()
        self.propose()
        self.plan()
        self.judge(risk)
        return self.commands[-1]


def test_an_approved_proposal_goes_out_at_once_without_waiting_for_the_planner(
    tmp_path: Path,
) -> None:
    flight = Flight(tmp_path)
    flight.observe()
    flight.propose()
    assert flight.commands[-1].seq == flight.seq - 1
    flight.judge(SAFE)
    command = flight.commands[-1]
    assert (command.seq, command.source, command.sent_ns) == (flight.seq, Source.TASK, flight.stamp)
    assert command.proposal_id == flight.seq + 100 and command.model == "p@1"
    assert command.action.tolist() == pytest.approx([0.1, 0.0])


def test_a_risky_proposal_is_replaced_by_the_recovery_action(tmp_path: Path) -> None:
    flight = Flight(tmp_path)
    command = flight.step(RISKY)
    assert (command.source, command.reason) == (Source.RECOVERY, Reason.RISK_TOO_HIGH)
    assert command.action.tolist() == pytest.approx([-0.05, 0.0])
    assert command.proposed.tolist() == pytest.approx([0.1, 0.0])


def test_it_waits_for_a_recovery_only_until_its_deadline(tmp_path: Path) -> None:
    flight = Flight(tmp_path, deadline=0.5)
    flight.observe()
    flight.propose()
    flight.judge(RISKY)
    count = len(flight.commands)
    flight.bench.pass_time(PERIOD // 2 - 1)
    assert len(flight.commands) == count
    flight.bench.pass_time(1)
    command = flight.commands[-1]
    assert command.sent_ns == flight.stamp + PERIOD // 2
    assert command.source == Source.TAIL  # of the plan that came for the step before
    assert command.action.tolist() == pytest.approx([-0.05, 0.01])


def test_a_plan_that_comes_after_the_approved_command_still_leaves_its_tail(
    tmp_path: Path,
) -> None:
    flight = Flight(tmp_path)
    flight.observe()
    flight.propose()
    flight.judge(SAFE)
    flight.bench.pass_time(5 * MS)
    flight.plan(length=3)
    flight.observe()  # and now everything else falls silent
    flight.bench.pass_time(PERIOD - MS)
    assert flight.commands[-1].source == Source.TAIL
    flight.observe()
    flight.bench.pass_time(PERIOD - MS)
    assert flight.commands[-1].source == Source.TAIL
    flight.observe()
    flight.bench.pass_time(PERIOD - MS)
    assert flight.commands[-1].source == Source.FAILSAFE


@pytest.mark.parametrize("dead", ["policy", "critic"])
def test_a_dead_policy_or_critic_means_recovery_within_the_step(tmp_path: Path, dead: str) -> None:
    flight = Flight(tmp_path)
    flight.observe()
    if dead == "critic":
        flight.propose()
    flight.plan()
    flight.bench.pass_time(PERIOD - MS)
    command = flight.commands[-1]
    assert command.seq == flight.seq and command.source == Source.RECOVERY
    missing = Reason.PROPOSAL_MISSING if dead == "policy" else Reason.RISK_MISSING
    assert command.reason == missing


def test_a_risk_for_another_proposal_is_no_approval(tmp_path: Path) -> None:
    flight = Flight(tmp_path)
    flight.observe()
    flight.propose()
    flight.plan()
    flight.judge(SAFE, proposal_id=1)
    assert flight.commands[-1].source == Source.RECOVERY


def test_late_answers_are_counted_and_never_used(tmp_path: Path) -> None:
    flight = Flight(tmp_path)
    flight.observe()
    flight.bench.pass_time(PERIOD - MS)  # decided without them
    count = len(flight.commands)
    flight.propose()
    flight.judge(SAFE)
    assert len(flight.commands) == count
    assert flight.status["late"] == {"proposal": 1, "risk": 1}
    flight.observe()
    flight.judge(SAFE, seq=flight.seq - 1)
    assert flight.status["late"]["risk"] == 2


def test_answers_that_overtake_their_observation_are_used_for_it(tmp_path: Path) -> None:
    flight = Flight(tmp_path)
    flight.bench.pass_time(PERIOD - flight.bench.now_ns % PERIOD)
    flight.seq += 1
    flight.stamp = flight.bench.now_ns
    flight.propose()
    flight.judge(SAFE)
    assert flight.commands[-1].seq == flight.seq - 1
    values = np.zeros(2, np.float32)
    stamp = flight.stamp
    flight.bench.send(
        "observation", messages.Observation(flight.seq, stamp, stamp, 0, flight.seq, values)
    )
    flight.bench.pass_time(PERIOD)
    command = next(c for c in flight.commands if c.seq == flight.seq)
    assert command.source == Source.TASK


def test_it_is_not_armed_until_every_input_came_in_time_for_some_steps(tmp_path: Path) -> None:
    flight = Flight(tmp_path, armed=False, arm_steps=3)
    for _ in range(2):
        assert flight.step().source == Source.FAILSAFE
    flight.observe()  # a gap begins the count anew
    flight.bench.pass_time(PERIOD - MS)
    for _ in range(3):
        command = flight.step()
        assert (command.source, command.reason) == (Source.FAILSAFE, Reason.NOT_ARMED)
    assert flight.step().source == Source.TASK


def test_it_says_once_what_keeps_it_from_arming(tmp_path: Path) -> None:
    flight = Flight(tmp_path, armed=False)
    for _ in range(2 * 3_000 * MS // PERIOD):
        flight.observe()
        flight.propose()
        flight.judge(SAFE)
        flight.bench.pass_time(PERIOD - 1)  # its deadline comes, the plan does not
    told = [data for kind, data in flight.bench.executor.events if kind == "not armed"]
    assert [one["absent"].partition(";")[0] for one in told] == ["recovery in 100 % of the steps"]
    assert "rate" in told[0]["absent"]


def test_arming_by_hand_is_refused_until_the_inputs_are_complete(tmp_path: Path) -> None:
    flight = Flight(tmp_path, armed=False, arm="manual", arm_steps=3)
    with pytest.raises(RequestRefused, match="complete for 0 steps"):
        flight.bench.ask("arm")
    for _ in range(5):
        assert flight.step().source == Source.FAILSAFE
    flight.bench.ask("arm")
    assert flight.step().source == Source.TASK
    flight.bench.ask("disarm")
    assert flight.step().source == Source.FAILSAFE


def test_the_estop_latches_in_a_file_that_a_restarted_arbiter_obeys(tmp_path: Path) -> None:
    flight = Flight(tmp_path)
    flight.bench.ask("estop", reason="test")
    assert flight.step().estop and flight.commands[-1].source == Source.FAILSAFE
    assert json.loads((tmp_path / "estop").read_text())["reason"] == "test"
    again = Flight(tmp_path, armed=False)
    for _ in range(6):
        command = again.step()
        assert command.source == Source.FAILSAFE and command.reason == Reason.ESTOP
    again.bench.ask("reset")
    assert not (tmp_path / "estop").exists()
    assert again.step().source == Source.TASK


def test_with_the_shield_off_the_policy_flies_bare_but_not_stale(tmp_path: Path) -> None:
    flight = Flight(tmp_path, shield=False)
    assert flight.step(RISKY).source == Source.TASK
    flight.observe()
    flight.bench.pass_time(PERIOD - MS)
    assert flight.commands[-1].source != Source.TASK


def test_every_decision_is_published_with_the_ages_of_what_it_saw(tmp_path: Path) -> None:
    flight = Flight(tmp_path)
    flight.observe()
    flight.propose()
    flight.bench.pass_time(2 * MS)
    flight.plan()
    flight.judge(RISKY)
    decision = flight.bench.last("decision")
    assert decision.seq == flight.seq and decision.source == Source.RECOVERY
    assert decision.risk_age_ns == 2 * MS and decision.eps == 0.2
    assert "task_policy=p@1" in decision.models and "safety_critic=c@1" in decision.models
    assert len(flight.bench.executor.of("decision")) == len(flight.commands)


@pytest.mark.parametrize(
    "config", [{"eps": 1.5}, {"eps": -1.0}, {"deadline": 0.0}, {"validity": -1.0}, {"arm": "never"}]
)
def test_a_config_that_cannot_hold_is_refused_before_anything_starts(
    config: dict[str, Any],
) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(config))} is"):
        ArbiterConfig(**({"eps": 0.2} | config))


def test_rules_that_the_shield_refuses_are_an_error_of_the_node(tmp_path: Path) -> None:
    with pytest.raises(NodeError, match="eps_exit"):
        Flight(tmp_path, armed=False, eps_exit=0.9)


def test_an_unknown_request_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(RequestRefused, match="knows estop, reset, arm, disarm"):
        Flight(tmp_path).bench.ask("dance")


def test_without_shield_critic_and_recovery_it_wakes_itself_and_decides_early(
    tmp_path: Path,
) -> None:
    flight = Flight(tmp_path, armed=False, shield=False)
    for _ in range(6):
        flight.observe()
        flight.propose()
        flight.bench.pass_time(PERIOD - MS)
    assert flight.status["armed"] and len(flight.commands) == 6
    last = flight.commands[-1]
    assert last.source == Source.TASK and last.reason == Reason.SHIELD_OFF
    assert last.sent_ns - last.stamp_ns <= 0.4 * PERIOD
