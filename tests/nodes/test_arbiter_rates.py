"""The arbiter where policy and planner are slower than the plant: what it holds, how long."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from safetypilot.nodes.arbiter import Arbiter, ArbiterConfig
from safetypilot.nodes.kernel import messages
from safetypilot.nodes.kernel.errors import NodeError
from safetypilot.nodes.kernel.testing import Bench
from safetypilot.policies.shield import Reason, Source

PERIOD = 1_000_000
SAFE, RISKY = 0.05, 0.9
RATES = {"proposal": 4, "risk": 4, "recovery": 10}


class Flight:
    """A fast plant; the policy answers every fourth observation, the planner every tenth."""

    def __init__(
        self,
        tmp_path: Path,
        rates: dict[str, int] | None = None,
        budgets_ns: dict[str, int] | None = None,
        **config: Any,
    ) -> None:
        settings: dict[str, Any] = {"eps": 0.2, "plan_rate": 250.0} | config
        self.bench = Bench(
            Arbiter,
            ArbiterConfig(**settings),
            tmp_path,
            period_ns=PERIOD,
            rates=RATES if rates is None else rates,
            budgets_ns=budgets_ns,
        )
        self.seq = self.step = -1
        self.stamps: dict[int, int] = {}

    @property
    def status(self) -> dict[str, Any]:
        return self.bench.node.status()

    @property
    def commands(self) -> list[messages.Command]:
        return self.bench.executor.of("command")

    def observe(self, values: tuple[float, float] = (0.0, 0.0), reset: bool = False) -> None:
        self.bench.pass_time(PERIOD - self.bench.now_ns % PERIOD)
        self.seq += 1
        self.step = 0 if reset else self.step + 1
        self.stamps[self.seq] = self.bench.now_ns
        array = np.array(values, np.float32)
        now = self.bench.now_ns
        self.bench.send(
            "observation", messages.Observation(self.seq, now, now, 0, self.step, array)
        )

    def propose(self, seq: int, force: float = 0.1) -> None:
        stamp = self.stamps[seq]
        action = np.array([force, 0.0], np.float32)
        self.bench.send("proposal", messages.Proposal(seq, stamp, stamp, seq + 100, action, "p@1"))

    def judge(self, seq: int, risk: float = SAFE) -> None:
        stamp = self.stamps[seq]
        self.bench.send("risk", messages.Risk(seq, stamp, stamp, seq + 100, risk, "c@1"))

    def plan(self, seq: int, length: int = 5) -> None:
        stamp = self.stamps[seq]
        plan = np.zeros((length, 2), np.float32)
        plan[:, 1] = np.arange(length) / 100
        risks = np.zeros(length, np.float32)
        self.bench.send("recovery", messages.Recovery(seq, stamp, stamp, plan, risks, 1, "r@1"))

    def fly(self, count: int, risk: float = SAFE, silent: str = "", **more: Any) -> str:
        """Everybody answers at once; one letter per command: T, R, L (tail) or F."""
        begun = len(self.commands)
        for _ in range(count):
            self.observe(**more)
            if self.step % RATES["recovery"] == 0 and silent != "planner":
                self.plan(self.seq)
            if self.step % RATES["proposal"] == 0 and silent != "policy":
                self.propose(self.seq, 0.01 * (self.seq % 10))
                if silent != "critic":
                    self.judge(self.seq, risk)
            if self.seq != self.commands[-1].seq if self.commands else True:
                self.bench.pass_time(int(0.7 * PERIOD))
        return "".join("TRLF"[c.source] for c in self.commands[begun:])


def armed(tmp_path: Path, **config: Any) -> Flight:
    flight = Flight(tmp_path, **config)
    assert set(flight.fly(4)[:3]) == {"F"} and flight.status["armed"]
    flight.fly(36)  # ends before an observation that both answer
    return flight


def test_between_two_proposals_the_approved_one_is_held_and_goes_out_at_once(
    tmp_path: Path,
) -> None:
    flight = armed(tmp_path)
    flight.observe()
    flight.plan(40)
    flight.propose(40, 0.1)
    flight.judge(40)
    first = flight.commands[-1]
    assert (first.seq, first.source, first.proposal_id) == (40, Source.TASK, 140)
    for seq in (41, 42, 43):
        flight.observe()
        command = flight.commands[-1]
        assert (command.seq, command.source, command.proposal_id) == (seq, Source.TASK, 140)
        assert command.sent_ns == command.stamp_ns == flight.stamps[seq]
        assert command.action.tolist() == pytest.approx([0.1, 0.0])
    decision = flight.bench.last("decision")
    assert decision.proposal_age_ns == decision.risk_age_ns == decision.recovery_age_ns
    assert decision.proposal_age_ns == 3 * PERIOD and decision.observation_age_ns == 0


def test_it_waits_for_a_proposal_that_is_due_until_its_deadline_and_then_holds(
    tmp_path: Path,
) -> None:
    flight = armed(tmp_path, validity=2.0, deadline=0.5)
    flight.observe()
    assert flight.commands[-1].seq == 39
    flight.bench.pass_time(PERIOD // 2)
    assert (flight.commands[-1].seq, flight.commands[-1].source) == (40, Source.TASK)
    assert flight.commands[-1].proposal_id == 136
    flight.propose(40, 0.1)  # late, but within its validity
    flight.judge(40)
    flight.observe()
    assert (flight.commands[-1].seq, flight.commands[-1].proposal_id) == (41, 140)


def test_a_proposal_nobody_has_judged_yet_does_not_take_the_place_of_one_that_flies(
    tmp_path: Path,
) -> None:
    flight = armed(tmp_path, validity=2.0)
    flight.observe()
    flight.bench.pass_time(int(0.7 * PERIOD))
    flight.observe()
    flight.propose(40)
    assert flight.commands[-1].proposal_id == 136
    flight.observe()
    assert (flight.commands[-1].proposal_id, flight.commands[-1].source) == (136, Source.TASK)
    flight.judge(40, RISKY)
    flight.observe()
    command = flight.commands[-1]
    assert (command.proposal_id, command.reason) == (140, Reason.RISK_TOO_HIGH)
    assert command.source != Source.TASK


@pytest.mark.parametrize("silent", ["policy", "critic"])
def test_a_dead_policy_or_critic_means_recovery_once_the_validity_is_over(
    tmp_path: Path, silent: str
) -> None:
    flight = armed(tmp_path)
    assert flight.fly(8, silent=silent) == "RRRRRRRR"
    longer = armed(tmp_path, validity=2.0)
    assert longer.fly(8, silent=silent) == "TTTTRRRR"
    assert longer.commands[-1].reason == Reason.PROPOSAL_OTHER_OBSERVATION


def test_a_dead_planner_leaves_its_plan_to_the_end_in_the_planners_own_steps(
    tmp_path: Path,
) -> None:
    flight = armed(tmp_path)  # rows are 4 observations long
    assert flight.fly(10, RISKY) == "R" * 10
    rows = [round(float(c.action[1]) * 100) for c in flight.commands[-10:]]
    assert rows == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2]
    assert flight.fly(12, RISKY, silent="planner") == "L" * 10 + "F" * 2
    rows = [round(float(c.action[1]) * 100) for c in flight.commands[-12:-2]]
    assert rows == [2, 2, 3, 3, 3, 3, 4, 4, 4, 4]


def test_a_plan_is_never_waited_for_while_there_is_one(tmp_path: Path) -> None:
    flight = armed(tmp_path)
    flight.fly(1, RISKY)
    flight.observe()
    assert (flight.commands[-1].seq, flight.commands[-1].source) == (41, Source.RECOVERY)
    assert flight.commands[-1].sent_ns == flight.stamps[41]


def test_with_nothing_to_fly_it_waits_for_a_plan_until_the_deadline(tmp_path: Path) -> None:
    flight = armed(tmp_path)
    flight.fly(11, RISKY, silent="planner")  # the plan of observation 30 has its last row at 49
    flight.observe(reset=True)
    flight.propose(51)
    flight.judge(51, RISKY)
    assert flight.commands[-1].seq == 50
    flight.bench.pass_time(PERIOD // 4)
    flight.plan(51)
    assert (flight.commands[-1].seq, flight.commands[-1].source) == (51, Source.RECOVERY)


def test_a_planner_at_the_plants_rate_is_waited_for_as_ever(tmp_path: Path) -> None:
    flight = Flight(tmp_path, {"proposal": 4, "risk": 4}, plan_rate=1000.0)
    for _ in range(8):
        flight.observe()
        flight.plan(flight.seq)
        if flight.step % 4 == 0:
            flight.propose(flight.seq)
            flight.judge(flight.seq, RISKY if flight.step else SAFE)
    assert flight.commands[-1].source == Source.RECOVERY
    flight.observe()
    flight.propose(8)
    flight.judge(8, RISKY)
    assert flight.commands[-1].seq == 7
    flight.plan(8)
    assert (flight.commands[-1].seq, flight.commands[-1].source) == (8, Source.RECOVERY)


def test_nothing_is_held_over_the_end_of_an_episode(tmp_path: Path) -> None:
    flight = armed(tmp_path, validity=3.0)
    flight.observe(reset=True)
    flight.bench.pass_time(int(0.7 * PERIOD))
    command = flight.commands[-1]
    assert (command.source, command.reason) == (Source.FAILSAFE, Reason.PROPOSAL_MISSING)
    assert command.proposal_id == -1 and np.isnan(command.proposed).all()


def test_linear_goes_over_evenly_until_the_next_proposal_is_due(tmp_path: Path) -> None:
    flight = armed(tmp_path, between="linear")
    for seq, force in ((40, 0.02), (44, 0.1)):
        for step in range(4):
            flight.observe()
            if step == 0:
                flight.propose(seq, force)
                flight.judge(seq)
    forces = [float(command.action[0]) for command in flight.commands[-4:]]
    assert forces == pytest.approx([0.04, 0.06, 0.08, 0.1])


def test_the_guard_judges_every_observation_and_lets_the_task_return(tmp_path: Path) -> None:
    flight = armed(tmp_path, guard={"y": (-1.0, 1.0)}, guard_margin=0.05)
    assert flight.fly(3) == "TTT"
    flight.observe((0.0, 0.95))
    assert flight.commands[-1].reason == Reason.GUARD_BREACHED
    assert flight.commands[-1].source == Source.RECOVERY
    flight.fly(1)
    flight.observe((9.0, 0.85))
    assert flight.commands[-1].source == Source.TASK
    assert flight.status["reasons"]["GUARD_BREACHED"] == 1


def test_what_is_over_its_budget_does_not_fly_and_is_counted(tmp_path: Path) -> None:
    flight = armed(tmp_path, budgets_ns={"proposal": 2 * PERIOD}, validity=2.0)
    assert flight.fly(4) == "TTTR"
    assert flight.commands[-1].reason == Reason.PROPOSAL_OVER_BUDGET
    assert (
        flight.status["over_budget"]["proposal"] == flight.status["reasons"]["PROPOSAL_OVER_BUDGET"]
    )
    flight = armed(tmp_path, budgets_ns={"recovery": 2 * PERIOD})
    assert flight.fly(5, RISKY) == "RRRLL"
    assert flight.status["over_budget"]["recovery"] >= 2


def test_answers_that_overtake_their_observation_wait_for_it(tmp_path: Path) -> None:
    flight = armed(tmp_path)
    flight.fly(3)
    flight.stamps[44] = flight.stamps[40] + 4 * PERIOD
    flight.propose(44, 0.1)
    flight.judge(44)
    flight.observe()
    assert flight.commands[-1].proposal_id == 140
    flight.observe()
    assert (flight.commands[-1].seq, flight.commands[-1].proposal_id) == (44, 144)


def test_an_answer_that_is_older_than_what_is_held_is_late(tmp_path: Path) -> None:
    flight = armed(tmp_path)
    flight.fly(2)
    flight.plan(38)
    flight.propose(36)
    flight.judge(36)
    assert flight.status["late"] == {"recovery": 1, "proposal": 1, "risk": 1}
    assert flight.fly(2) == "TT" and flight.commands[-1].proposal_id == 140


def test_an_estop_needs_no_answer(tmp_path: Path) -> None:
    flight = armed(tmp_path)
    flight.fly(1)
    flight.bench.ask("estop", reason="test")
    flight.observe()
    assert (flight.commands[-1].seq, flight.commands[-1].reason) == (41, Reason.ESTOP)
    assert flight.commands[-1].sent_ns == flight.stamps[41]


def test_bare_it_holds_too(tmp_path: Path) -> None:
    flight = Flight(tmp_path, {"proposal": 4}, shield=False, plan_rate=None)
    for _ in range(12):
        flight.observe()
        if flight.step % 4 == 0:
            flight.propose(flight.seq)
    assert [c.reason for c in flight.commands[-8:]] == [Reason.SHIELD_OFF] * 8
    assert [c.proposal_id for c in flight.commands[-5:]] == [104, 108, 108, 108, 108]


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"plan_rate": None}, "proposals come for every 4. observation, recovery plans for every"),
        ({"plan_rate": 300.0}, "plan_rate is 300 Hz; the graph's rate of 1000 Hz is no whole"),
        ({"plan_rate": 2000.0}, "plan_rate is 2000 Hz"),
        ({"guard": {"z": (0.0, 1.0)}}, "there is no observation 'z'; there are x, y"),
    ],
)
def test_what_does_not_fit_the_graph_is_an_error_of_the_node(
    tmp_path: Path, config: dict[str, Any], message: str
) -> None:
    with pytest.raises(NodeError, match=message):
        Flight(tmp_path, **config)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"between": "cubic"}, "between is 'cubic'; it can be hold or linear"),
        ({"plan_rate": 0.0}, "plan_rate is 0.0"),
        ({"guard_margin": 0.5}, "guard_margin is 0.5"),
        ({"guard": {"x": (1.0, 1.0)}}, "guard of 'x' is 1.0 to 1.0"),
    ],
)
def test_a_config_that_cannot_hold_is_refused(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ArbiterConfig(**({"eps": 0.2} | config))
