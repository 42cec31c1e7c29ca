"""The plant trusts nobody: what it applies, what it refuses, and what it does in silence."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safetypilot.envs import registry
from safetypilot.nodes.kernel import messages
from safetypilot.nodes.kernel.errors import NodeError, RequestRefused
from safetypilot.nodes.kernel.interface import Interface
from safetypilot.nodes.kernel.testing import Bench
from safetypilot.nodes.kernel.wire import Codec
from safetypilot.nodes.plant import FAILSAFE
from safetypilot.nodes.simulator import Simulator, SimulatorConfig

PERIOD = 20_000_000


def bench(tmp_path: Path, seed: int = 0, **config: Any) -> Bench:
    description = registry.describe("navigation1")
    description = {key: description[key] for key in Interface.__dataclass_fields__}
    return Bench(
        Simulator,
        SimulatorConfig(env="navigation1", **config),
        tmp_path,
        interface=Interface.from_dict(description),
        seed=seed,
    )


def command(observation: messages.Observation, **changes: Any) -> messages.Command:
    fields = {
        "seq": observation.seq,
        "stamp_ns": observation.stamp_ns,
        "sent_ns": observation.stamp_ns,
        "action": np.array([0.5, 0.1], np.float32),
        "source": 0,
        "reason": 0,
        "proposal_id": 7,
        "proposed": np.array([0.5, 0.1], np.float32),
        "risk": 0.0,
        "valid_until_ns": observation.stamp_ns + PERIOD,
        "estop": False,
        "model": "m@1",
    }
    return messages.Command(**(fields | changes))


def begin(b: Bench) -> messages.Observation:
    b.pass_time(0)
    observation: messages.Observation = b.last("observation")
    return observation


def test_a_command_for_the_observation_is_executed_once_and_the_next_comes_on_the_tick(
    tmp_path: Path,
) -> None:
    b = bench(tmp_path)
    first = begin(b)
    b.pass_time(1_000_000)
    b.send("command", command(first))
    b.send("command", command(first))
    transition = b.last("transition")
    assert np.allclose(transition.executed, [0.5, 0.1]) and transition.source == 0
    assert len(b.executor.of("transition")) == 1
    assert b.node.status()["refused"] == {"duplicate or late": 1}
    b.pass_time(PERIOD)
    second = b.last("observation")
    assert second.seq == first.seq + 1
    assert second.stamp_ns == first.stamp_ns + PERIOD
    assert np.array_equal(second.values, transition.next_observation)


def test_silence_means_failsafe_once_per_period_and_a_counted_miss(tmp_path: Path) -> None:
    b = bench(tmp_path)
    begin(b)
    b.pass_time(10 * PERIOD - 1)
    transitions = b.executor.of("transition")
    assert len(transitions) == 10
    assert all(t.source == FAILSAFE and not t.executed.any() for t in transitions)
    assert b.node.status()["missed_deadlines"] == 10


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"seq": -1}, "duplicate or late"),
        ({"seq": 99}, "unknown observation"),
        ({"stamp_ns": 5}, "wrong stamp"),
        ({"valid_until_ns": 0}, "expired"),
        ({"source": 9}, "unknown source"),
        ({"action": np.array([1.01, 0], np.float32)}, "outside limits"),
        ({"action": np.array([0, -1.01], np.float32)}, "outside limits"),
    ],
)
def test_commands_that_break_a_rule_are_refused_and_counted(
    tmp_path: Path, changes: dict[str, Any], refusal: str
) -> None:
    b = bench(tmp_path)
    b.send("command", command(begin(b), **changes))
    assert b.executor.of("transition") == []
    assert b.node.status()["refused"] == {refusal: 1}


@given(
    steps=st.lists(
        st.tuples(
            st.integers(-2, 2),
            st.integers(0, 2 * PERIOD),
            st.floats(-3, 3, width=32),
            st.integers(-1, 5),
        ),
        max_size=12,
    )
)
@settings(max_examples=60, deadline=None)
def test_no_step_breaks_an_invariant_whatever_arrives(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[int, int, float, int]]
) -> None:
    b = bench(tmp_path_factory.getbasetemp())
    begin(b)
    for shift, wait, value, source in steps:
        b.pass_time(wait)
        latest = b.last("observation")
        action = np.full(2, value, np.float32)
        b.send("command", command(latest, seq=latest.seq + shift, action=action, source=source))
    for transition in b.executor.of("transition"):
        assert np.abs(transition.executed).max() <= 1.0 + 1e-5
        assert 0 <= transition.source <= FAILSAFE
        if transition.source == FAILSAFE and np.isnan(transition.proposed).all():
            assert not transition.executed.any()
    seqs = [transition.seq for transition in b.executor.of("transition")]
    assert seqs == sorted(set(seqs))


def test_an_estop_holds_whatever_the_arbiter_says_until_reset(tmp_path: Path) -> None:
    b = bench(tmp_path)
    first = begin(b)
    assert b.ask("estop", reason="test") == {"estop": True}
    b.send("command", command(first))
    assert not b.last("transition").executed.any()
    b.ask("reset")
    b.pass_time(PERIOD)
    b.send("command", command(b.last("observation")))
    assert b.last("transition").executed.any()
    with pytest.raises(RequestRefused, match="knows estop, reset and epoch"):
        b.ask("dance")


def test_the_latch_file_of_the_run_is_seen_at_the_start(tmp_path: Path) -> None:
    (tmp_path / "estop").write_text("{}")
    b = bench(tmp_path)
    b.send("command", command(begin(b)))
    assert not b.last("transition").executed.any()


def test_an_episode_ends_in_a_report_with_everything_per_step(tmp_path: Path) -> None:
    b = bench(tmp_path)
    begin(b)
    while not b.executor.of("episode"):
        b.send("command", command(b.last("observation"), action=np.float32([0, 1])))
        b.pass_time(PERIOD)
    report = b.last("episode")
    assert report.violation and not report.success
    assert report.steps == len(report.sources) == len(report.observations) > 3
    assert report.models == "m@1" and report.missed == 0
    assert b.last("observation").episode == report.episode + 1
    assert b.last("observation").step == 0
    last = b.executor.of("transition")[-1]
    assert last.terminated and not last.truncated and last.cost == 1.0


def test_a_late_plant_never_catches_up_in_a_burst(tmp_path: Path) -> None:
    b = bench(tmp_path)
    begin(b)
    b.clock.advance_to(b.now_ns + 10 * PERIOD)  # the machine froze
    b.pass_time(0)
    b.pass_time(PERIOD // 2)
    assert len(b.executor.of("observation")) <= 3
    assert b.node.status()["overruns"] == 1


def test_the_same_seed_gives_the_same_world(tmp_path: Path) -> None:
    def fly(seed: int) -> list[Any]:
        b = bench(tmp_path, seed=seed)
        begin(b)
        b.pass_time(5 * PERIOD)
        return [o.values.tolist() for o in b.executor.of("observation")]

    assert fly(3) == fly(3) != fly(4)


def test_an_unknown_environment_or_cost_is_an_error_of_the_node(tmp_path: Path) -> None:
    interface = Interface.from_dict(
        {k: v for k, v in registry.describe("maze").items() if k in Interface.__dataclass_fields__}
    )
    for config in (SimulatorConfig(env="mase"), SimulatorConfig(env="maze", cost="inof")):
        with pytest.raises(NodeError):
            Bench(Simulator, config, tmp_path, interface=interface)


class Painting(gymnasium.Env[Any, Any]):
    """Two grey pixels in three colours and a choice of three; ends after four steps."""

    observation_space = gymnasium.spaces.Box(0, 255, (1, 2, 3), np.uint8)
    action_space = gymnasium.spaces.Discrete(3)

    def reset(self, **_: Any) -> tuple[Any, dict[str, Any]]:
        self.chosen: list[int] = []
        return np.zeros((1, 2, 3), np.uint8), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.chosen.append(int(action))
        pixels = np.arange(250, 256, dtype=np.uint8).reshape(1, 2, 3)
        return pixels, float(action), False, len(self.chosen) == 4, {"cost": 0.0}


def test_an_image_is_published_as_a_row_and_a_choice_is_the_largest_preference(
    tmp_path: Path,
) -> None:
    gymnasium.register("tests/Painting-v0", entry_point=Painting, disable_env_checker=True)
    description = registry.describe("tests/Painting-v0")
    kept = {key: description[key] for key in Interface.__dataclass_fields__}
    interface = Interface.from_dict(kept)
    assert interface.observation_names == ("image[1,2,3]",) and interface.observation_size == 6
    b = Bench(
        Simulator, SimulatorConfig(env="tests/Painting-v0"), tmp_path, interface=interface, seed=0
    )
    preferences = np.float32([0.1, 0.2, 0.9])
    begin(b)
    while not b.executor.of("episode"):
        b.send(
            "command",
            command(b.last("observation"), action=preferences, proposed=preferences),
        )
        b.pass_time(PERIOD)
    transition = b.executor.of("transition")[1]
    assert transition.observation.dtype == np.float32
    assert transition.observation.tolist() == [250, 251, 252, 253, 254, 255]
    assert transition.reward == 2.0 and np.array_equal(transition.executed, preferences)
    assert b.last("episode").observations.shape == (0, 6) and b.last("episode").steps == 4
    codec = Codec(messages.Transition, interface.dims)
    assert codec.decode(codec.encode(transition)).observation.tolist()[0] == 250.0


def test_an_epoch_that_was_handed_out_is_in_force_from_the_next_observation_on(
    tmp_path: Path,
) -> None:
    b = bench(tmp_path)
    assert begin(b).epoch == 0
    with pytest.raises(RequestRefused, match="one that this plant has handed out"):
        b.ask("epoch", epoch=1)
    assert b.ask("epoch") == {"epoch": 0, "new": 1, "seq": 1}  # handed out, not in force
    assert b.ask("epoch", epoch=1) == {"epoch": 1, "new": 1, "seq": 1}
    b.send("command", command(b.last("observation")))
    b.pass_time(PERIOD)
    assert (b.last("observation").seq, b.last("observation").epoch) == (1, 1)
    for wrong in (2, -1, "1", True):
        with pytest.raises(RequestRefused):
            b.ask("epoch", epoch=wrong)


def fly_maze(tmp_path: Path, rate: float, control_rate: float | None) -> list[messages.Transition]:
    """Three control steps of the maze, each with one action, at a rate of observations."""
    kept = {k: registry.describe("maze")[k] for k in Interface.__dataclass_fields__}
    b = Bench(
        Simulator,
        SimulatorConfig(env="maze", control_rate=control_rate),
        tmp_path,
        interface=Interface.from_dict(kept),
        period_ns=round(1e9 / rate),
        seed=3,
    )
    parts = round(rate / (control_rate or rate))
    b.pass_time(0)
    for control_step in range(3):
        for _ in range(parts):
            observation = b.last("observation")
            assert b.node.status()["steps"] == len(b.executor.of("transition"))
            action = np.float32([0.1 - 0.05 * control_step, 0.02 * control_step])
            b.send("command", command(observation, action=action, source=0))
            b.pass_time(round(1e9 / rate))
    assert b.node.status()["step_seconds"] == pytest.approx(1.0 / parts)
    return b.executor.of("transition")


def test_a_control_step_in_parts_comes_to_the_same_with_the_action_held(tmp_path: Path) -> None:
    whole = fly_maze(tmp_path, 50.0, None)
    parts = fly_maze(tmp_path, 500.0, 50.0)
    assert len(whole) == 3 and len(parts) == 30
    for number, one in enumerate(whole):
        group = parts[10 * number : 10 * number + 10]
        assert np.array_equal(group[0].observation, one.observation)
        assert np.array_equal(group[-1].next_observation, one.next_observation)
        assert group[-1].reward == one.reward and group[-1].cost == one.cost
        assert all(part.reward == part.cost == 0.0 and not part.success for part in group[:-1])
        assert [part.step for part in group] == list(range(10 * number, 10 * number + 10))
        moved = [part.next_observation.tolist() for part in group]
        assert len({tuple(place) for place in moved}) == 10


def test_an_episode_in_parts_ends_with_a_control_step(tmp_path: Path) -> None:
    kept = {k: registry.describe("maze")[k] for k in Interface.__dataclass_fields__}
    b = Bench(
        Simulator,
        SimulatorConfig(env="maze", control_rate=50.0, options={"position": (-0.25, 0.2)}),
        tmp_path,
        interface=Interface.from_dict(kept),
        period_ns=4_000_000,
    )
    b.pass_time(0)
    while not b.executor.of("episode"):
        north = np.float32([0.0, 0.1])
        b.send("command", command(b.last("observation"), action=north))
        b.pass_time(4_000_000)
    report, last = b.last("episode"), b.executor.of("transition")[-1]
    assert report.violation and report.steps % 5 == 0 and report.steps == last.step + 1
    assert last.terminated and last.cost == 1.0
    assert b.last("observation").step == 0 and b.last("observation").episode == 1


@pytest.mark.parametrize(
    ("env", "control_rate", "message"),
    [
        ("maze", 30.0, "control_rate is 30 Hz; the graph's rate of 50 Hz is no whole multiple"),
        ("maze", 100.0, "control_rate is 100 Hz"),
        ("maze", 50 / 7, "500 physics steps, which cannot be done in 7 equal parts"),
        ("navigation1", 25.0, "cannot be divided"),
    ],
)
def test_a_control_rate_that_cannot_be_is_an_error_of_the_node(
    tmp_path: Path, env: str, control_rate: float, message: str
) -> None:
    kept = {k: registry.describe(env)[k] for k in Interface.__dataclass_fields__}
    config = SimulatorConfig(env=env, control_rate=control_rate)
    with pytest.raises(NodeError, match=message):
        Bench(Simulator, config, tmp_path, interface=Interface.from_dict(kept))
    with pytest.raises(ValueError, match="control_rate is 0"):
        SimulatorConfig(env=env, control_rate=0.0)
