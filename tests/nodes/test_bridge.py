"""The bridge trusts nobody: who may activate, what is sent, and what stops the robot."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import numpy as np
import pytest
from robots import Robot

from safetypilot.bridge.estop import SOCKET, STOP, send
from safetypilot.envs import registry
from safetypilot.envs.maze_body import REACH
from safetypilot.nodes.bridge import Bridge, BridgeConfig
from safetypilot.nodes.bridge_robot import LATCH
from safetypilot.nodes.kernel import messages
from safetypilot.nodes.kernel.errors import NodeError, RequestRefused
from safetypilot.nodes.kernel.interface import Interface
from safetypilot.nodes.kernel.testing import Bench
from safetypilot.nodes.kernel.wire import Codec
from safetypilot.nodes.plant import FAILSAFE

PERIOD = 20_000_000
DRIVER = "robots:Robot"


class Flight:
    """A bridge on the test bench, with its robot."""

    def __init__(self, folder: Path, options: dict[str, Any] | None = None, **config: Any) -> None:
        description = registry.describe("maze")
        interface = {key: description[key] for key in Interface.__dataclass_fields__}
        self.bench = Bench(
            Bridge,
            BridgeConfig(
                env="maze",
                driver=DRIVER,
                options={DRIVER: options or {}},
                **{"supervisor_s": 0.0, **config},
            ),
            folder,
            interface=Interface.from_dict(interface),
        )
        self.robot = Robot.made[-1]
        self.folder = folder

    @property
    def state(self) -> str:
        return str(self.bench.node.status()["bridge"])

    @property
    def causes(self) -> list[str]:
        events = self.bench.executor.events
        return [data["cause"] for kind, data in events if kind == "bridge"]

    def observation(self) -> messages.Observation:
        """The next one, on its tick."""
        before = len(self.bench.executor.of("observation"))
        self.bench.pass_time(PERIOD)
        seen: list[messages.Observation] = self.bench.executor.of("observation")
        assert len(seen) > before, self.causes
        return seen[-1]

    def command(self, x: float = 0.01, y: float = 0.0, **changes: Any) -> messages.Command:
        observation = self.bench.last("observation")
        action = np.array([x, y], np.float32)
        fields = {
            "seq": observation.seq, "stamp_ns": observation.stamp_ns,
            "sent_ns": observation.stamp_ns, "action": action, "source": 0, "reason": 0,
            "proposal_id": 7, "proposed": action, "risk": 0.0,
            "valid_until_ns": observation.stamp_ns + PERIOD, "estop": False, "model": "m@1",
        }  # fmt: skip
        message = messages.Command(**(fields | changes))
        self.bench.send("command", message)
        return message

    def steps(self, number: int, **changes: Any) -> None:
        for _ in range(number):
            self.observation()
            self.command(**changes)

    def rise(self) -> Flight:
        """Activated, with the first step done."""
        self.steps(2)
        assert self.state == "active", self.causes
        return self


@pytest.fixture
def fly(tmp_path: Path) -> Iterator[Any]:
    flights: list[Flight] = []

    def make(options: dict[str, Any] | None = None, **config: Any) -> Flight:
        flights.append(Flight(tmp_path, options, **config))
        return flights[-1]

    yield make
    for flight in flights:
        flight.bench.node.close()


# Before anything moves.


def test_it_is_ready_only_when_what_stops_the_robot_has_been_tested(fly) -> None:
    flight = fly()
    assert flight.state == "configured"
    assert flight.robot.calls == ["connect", "configure", "check_watchdog"]
    told = dict(flight.bench.executor.events)["ready to be armed"]
    wanted = "socket: works; signal: works; watchdog: it bit after 0.1 s"
    assert told == {"device": "robot 7 1", "calibration": "", "tested": wanted}


@pytest.mark.parametrize(("options", "config", "why"), [
    ({"watchdog": False}, {}, "the watchdog slept"),
    ({"time_factor": 25.0}, {}, "of the task is 1 s of the robot, here it would be 0.5"),
    ({"calibration": True}, {}, "robot needs a calibration with zero"),
    ({"colour": 1}, {}, "no option 'colour'"),
    ({}, {"limits": {"slide_x": {"velocity": 0.3}}}, "looser than the driver's 0.2"),
    ({}, {"limits": {"slide_z": {"velocity": 0.1}}}, "no joint 'slide_z'"),
    ({}, {"limits": {"all": {"speed": 0.1}}}, "limits: 'speed' is none; there are acceleration"),
    ({}, {"limits": {"all": {"low": 0.4}}}, "low 0.4 is not below high 0.3"),
    ({}, {"control_rate": 30.0}, "no whole multiple"),
    ({"watchdog": "yes"}, {}, "watchdog is 'yes'; it is true or false"),
    ({"time_factor": "slow"}, {}, "time_factor is 'slow'; it is a number"),
    ({}, {"joystick": "/no/such"}, "e-stop line /no/such"),
    ({}, {"calibration": "/no/such"}, "calibration /no/such"),
])  # fmt: skip
def test_what_cannot_fly_says_so_before_it_starts(
    fly, options: dict[str, Any], config: dict[str, Any], why: str
) -> None:
    with pytest.raises(NodeError, match=why):
        fly(options, **config)
    assert "activate" not in Robot.made[-1].calls


def test_a_task_without_a_body_is_refused(tmp_path: Path) -> None:
    with pytest.raises(NodeError, match="navigation1 cannot be done by a robot; these can: maze"):
        Bench(Bridge, BridgeConfig(env="navigation1", driver=DRIVER), tmp_path)


@pytest.mark.parametrize("config", [
    {"arm": "yes"}, {"deadline": 1.0}, {"wait": 0.9}, {"silence_s": 0.0}, {"ramp_s": -1.0},
    {"command_timeout_s": float("nan")}, {"control_rate": -1.0}, {"cuts": 0}, {"cuts": 101},
])  # fmt: skip
def test_a_config_that_makes_no_sense(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(config))):
        BridgeConfig(env="maze", driver=DRIVER, **config)


def test_the_calibration_must_be_this_robots(fly, tmp_path: Path) -> None:
    path = tmp_path / "c.json"
    path.write_text(json.dumps({"device": {"serial": "8"}, "values": {"zero": [0.1]}}))
    with pytest.raises(NodeError, match="belongs to serial '8', the device here is '7'"):
        fly({"calibration": True}, calibration=str(path))
    path.write_text(json.dumps({"device": {"serial": "7"}, "values": {"zero": [0.1]}}))
    assert fly({"calibration": True}, calibration=str(path)).state == "configured"


# Activation.


def test_a_simulated_robot_flies_with_the_first_approved_command_a_real_one_waits(fly) -> None:
    flight = fly()
    flight.steps(3, source=FAILSAFE)
    assert flight.state == "configured" and not flight.robot.sent
    flight.steps(1)
    assert flight.state == "active" and not flight.robot.sent  # that command knew another place
    flight.steps(1)
    assert flight.robot.sent
    real = fly({"simulated": False})
    real.steps(5)
    assert real.state == "configured"
    real.observation()
    assert real.bench.ask("arm", reason="all clear") == {"state": "active"}
    assert real.causes[-1] == "all clear"


def test_a_robot_that_waits_for_a_person_says_so_once(fly) -> None:
    flight = fly(arm="manual")
    flight.steps(5)
    said = [data for kind, data in flight.bench.executor.events if kind == "waits to be armed"]
    assert said == [{"by": "`safetypilot bridge activate`"}]
    flight.bench.ask("arm")
    flight.steps(2)
    flight.bench.ask("disarm")
    flight.steps(3)
    events = [kind for kind, _ in flight.bench.executor.events]
    assert events.count("waits to be armed") == 2
    assert fly().rise().bench.node.status()["cause"] == "the graph's first command"


def test_what_takes_its_time_while_nothing_flies_is_no_late_step(fly) -> None:
    flight = fly(arm="manual")
    flight.steps(3)
    before, clock = flight.bench.node.status(), flight.bench.clock
    flight.robot.takes = lambda: clock.advance_to(clock.now_ns() + 9 * PERIOD)
    flight.bench.ask("configure")
    flight.steps(2)
    flight.bench.ask("arm")
    flight.steps(5)
    status = flight.bench.node.status()
    assert all(status[key] == before[key] for key in ("missed_deadlines", "overruns", "drift_ms"))
    assert status["bridge"] == "active" and status["steps"] > 2


def test_nobody_activates_while_the_graph_is_silent(fly) -> None:
    flight = fly({"simulated": False})
    flight.observation()
    with pytest.raises(RequestRefused, match="the graph commands nothing yet"):
        flight.bench.ask("arm")


def test_a_restarted_bridge_stands_by(fly) -> None:
    flight = fly(arm="auto")
    object.__setattr__(flight.bench.node.context, "generation", 1)
    flight.bench.node.configure()
    flight.steps(5)
    assert flight.state == "configured"


def test_activation_moves_nothing_and_the_first_step_starts_where_the_robot_is(fly) -> None:
    flight = fly().rise()
    start = flight.robot.sent[0].position
    placed = flight.bench.last("observation").values
    assert len(flight.robot.sent) == 1
    assert start == pytest.approx((placed[1], placed[0] + 0.01 * REACH), abs=1e-6)


# Commands.


def test_joints_are_mapped_by_name_and_setpoints_limited(fly) -> None:
    flight = fly().rise()
    before = flight.robot.position
    flight.observation()
    flight.command(x=0.1, y=-0.05)
    y, x = flight.robot.position
    assert y - before[0] == pytest.approx(-0.05 * REACH, abs=1e-6)
    assert x - before[1] == pytest.approx(0.1 * REACH, abs=1e-6)
    slow = fly(limits={"slide_x": {"velocity": 0.01}}).rise()
    before = slow.robot.position
    slow.observation()
    slow.command(x=0.1)
    assert slow.robot.position[1] - before[1] == pytest.approx(0.01, abs=1e-3)  # of 1 s
    assert slow.bench.node.status()["cuts"] == {"velocity": 1}
    assert slow.bench.last("actuation").cut


@pytest.mark.parametrize(("changes", "why"), [
    ({"seq": 10_000}, "unknown observation"), ({"stamp_ns": 1}, "wrong stamp"),
    ({"valid_until_ns": 1}, "expired"), ({"source": 9}, "unknown source"),
    ({"x": 5.0}, "outside limits"),
])  # fmt: skip
def test_bad_commands_move_nothing(fly, changes: dict[str, Any], why: str) -> None:
    flight = fly().rise()
    flight.observation()
    sent = len(flight.robot.sent)
    flight.command(**changes)
    assert len(flight.robot.sent) == sent
    assert flight.bench.node.status()["refused"] == {why: 1}


def test_silence_of_the_graph_holds_and_then_stops_for_good(fly) -> None:
    flight = fly().rise()
    where, missed = flight.robot.position, flight.bench.node.status()["missed_deadlines"]
    flight.bench.pass_time(PERIOD * 5)
    assert flight.state == "active" and flight.robot.position == pytest.approx(where)
    assert flight.bench.node.status()["missed_deadlines"] - missed == 4
    flight.bench.pass_time(PERIOD * 10)
    assert flight.state == "fault" and flight.causes[-1] == "no command for 0.2 s"
    assert flight.robot.stopped
    flight.steps(5)
    assert flight.state == "fault" and flight.causes[-1] == "no command for 0.2 s"


def test_a_failsafe_command_is_a_word_of_the_graph_too(fly) -> None:
    flight = fly().rise()
    flight.steps(30, x=0.0, source=FAILSAFE)
    assert flight.state == "active"


# The device.


def test_a_silent_device_is_not_observed_and_then_stopped(fly) -> None:
    flight = fly().rise()
    flight.robot.silent = True
    flight.bench.pass_time(PERIOD * 4)
    seen = len(flight.bench.executor.of("observation"))
    flight.bench.pass_time(PERIOD * 10)
    assert len(flight.bench.executor.of("observation")) == seen
    assert flight.state == "fault" and flight.causes[-1] == "the device was silent for 0.1 s"


@pytest.mark.parametrize(("broken", "why"), [
    ("read", "cannot be read: the cable is cut"), ("write", "cannot be commanded: write is broken"),
])  # fmt: skip
def test_a_broken_device_is_a_fault(fly, broken: str, why: str) -> None:
    flight = fly().rise()
    flight.robot.broken = {broken}
    flight.bench.pass_time(PERIOD)
    flight.command()
    assert flight.state == "fault" and flight.causes[-1] == why and flight.robot.stopped


@pytest.mark.parametrize("broken", ["read", "write", "place"])
def test_a_bug_of_the_driver_is_a_fault_too(fly, broken: str) -> None:
    flight = fly().rise()
    flight.robot.broken, flight.robot.error = {broken}, OSError(5, "Input/output error")
    if broken == "place":
        flight.bench.node.robot.place((0.0, 0.0))
    else:
        flight.bench.pass_time(PERIOD)
        flight.command()
    assert flight.state == "fault" and flight.robot.stopped
    assert flight.causes[-1].endswith("OSError: [Errno 5] Input/output error")


def test_a_robot_that_does_not_know_where_it_is_is_not_armed(fly) -> None:
    flight = fly({"simulated": False})
    flight.steps(2)
    flight.robot.position = (float("nan"), 0.0)
    with pytest.raises(RequestRefused, match="cannot be limited: the limiter cannot start"):
        flight.bench.ask("arm")
    assert flight.state == "fault" and flight.robot.stopped


def test_nothing_is_sent_once_it_is_tripped_not_even_by_a_driver_that_cannot_be_stopped(
    fly, monkeypatch
) -> None:
    flight = fly().rise()
    monkeypatch.setattr(flight.robot, "estop", lambda reason: 1 / 0)
    sent = len(flight.robot.sent)
    flight.observation()
    flight.bench.node.robot._life.trip("smoke")  # as the thread of the lines does meanwhile
    flight.command()
    assert len(flight.robot.sent) == sent
    flight.observation()
    assert flight.state == "e-stopped"
    assert "smoke (and the device could not be stopped: ZeroDivisionError" in flight.causes[-1]


def test_what_the_device_complains_of_stops_it(fly) -> None:
    flight = fly().rise()
    flight.robot.faults = ("it is hot",)
    flight.bench.pass_time(PERIOD)
    assert flight.state == "fault" and flight.causes[-1] == "the device says: it is hot"


def test_a_command_that_the_host_held_up_is_not_sent_and_no_fault(fly) -> None:
    flight = fly().rise()
    sent = len(flight.robot.sent)
    drive = flight.bench.node._body.drive

    def slow(*arguments: Any) -> Any:
        flight.bench.clock.advance_to(flight.bench.now_ns + 2 * PERIOD)
        return drive(*arguments)

    flight.bench.node._body.drive = slow
    flight.steps(1)
    assert len(flight.robot.sent) == sent and flight.state == "active"
    assert flight.bench.node.status()["too_late"] == 1


def test_limits_that_cut_too_often_take_it_down(fly) -> None:
    flight = fly(limits={"all": {"velocity": 0.001}}, cuts=5, window=10).rise()
    flight.steps(20, x=0.1)
    assert flight.state == "configured"
    assert flight.causes[-1] == "limits: 5 of 10 commands had to be cut again"
    levels = [d["level"] for kind, d in flight.bench.executor.events if kind == "limits"]
    assert levels == [1, 2]


# Stops.


def test_an_estop_from_outside_stops_before_the_next_tick_and_is_told_at_it(fly) -> None:
    flight = fly().rise()
    send(flight.folder / SOCKET, STOP, "a hand in the way")
    deadline = monotonic() + 10
    while not (flight.folder / LATCH).exists() and monotonic() < deadline:
        sleep(0.005)
    assert flight.robot.stopped and (flight.folder / LATCH).exists()
    flight.observation()
    assert flight.state == "e-stopped" and flight.causes[-1] == "a hand in the way"
    sent = len(flight.robot.sent)
    flight.steps(5)
    assert len(flight.robot.sent) == sent


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_without_the_thread_of_the_estop_lines_nothing_flies(fly, monkeypatch) -> None:
    flight = fly().rise()
    lines = flight.bench.node.robot._lines
    monkeypatch.setattr(lines, "_hear", lambda: sys.exit())
    send(flight.folder / SOCKET, STOP, "nobody hears it")
    deadline = monotonic() + 10
    while not lines.dead and monotonic() < deadline:
        sleep(0.005)
    flight.observation()
    assert flight.state == "fault" and "e-stop lines" in flight.causes[-1]
    flight.bench.ask("reset", reason="did not look")
    flight.observation()
    assert flight.state == "fault"


def test_the_latch_holds_across_restarts_until_somebody_says_why(fly) -> None:
    fly().rise().bench.ask("estop", reason="smoke")
    again = fly()
    assert again.state == "e-stopped" and again.robot.calls == []
    again.bench.pass_time(PERIOD * 3)
    for refused in ("configure", "arm", "disarm"):
        with pytest.raises(RequestRefused, match="while e-stopped"):
            again.steps(0)
            again.bench.node.robot.hear(True, again.bench.now_ns)
            again.bench.ask(refused)
    with pytest.raises(RequestRefused, match="needs a reason"):
        again.bench.ask("reset")
    assert again.bench.ask("reset", reason="it was toast") == {"state": "disconnected"}
    assert again.bench.ask("configure") == {"state": "configured"}


def test_the_latch_of_a_real_robot_outlives_the_run(fly, tmp_path: Path, state_home: Path) -> None:
    real = {"simulated": False}
    fly(real).bench.ask("estop", reason="smoke")
    assert not (tmp_path / LATCH).exists() and len(list(state_home.glob("*/estop-*"))) == 1
    (tmp_path / SOCKET).unlink()
    tmp_path.rename(tmp_path.with_name("gone"))
    tmp_path.mkdir()
    again = fly(real)
    assert again.state == "e-stopped" and again.robot.calls == []
    assert again.bench.ask("reset", reason="it was toast") == {"state": "disconnected"}
    assert not list(state_home.glob("*/*"))
    assert fly(real).state == "configured"


def test_what_was_stopped_before_the_run_does_not_arm_itself(fly, tmp_path: Path) -> None:
    latch = tmp_path / "latch"
    latch.write_text("{}")
    flight = fly(arm="auto", latch=str(latch))
    for request in ("reset", "configure"):
        flight.bench.ask(request, reason="no hand any more")
    flight.steps(3)
    assert flight.state == "configured"
    flight.bench.ask("arm")
    assert flight.state == "active"


def test_the_latch_of_a_simulated_robot_stays_with_the_run(fly, state_home: Path) -> None:
    fly().bench.ask("estop", reason="smoke")
    assert not state_home.exists()


@pytest.mark.parametrize("latch", ["", "{home}/latch"])
def test_where_no_estop_can_be_kept_nothing_starts(fly, state_home: Path, latch: str) -> None:
    state_home.write_text("in the way")
    with pytest.raises(NodeError, match="the e-stop could not be kept"):
        fly({"simulated": False}, latch=latch.format(home=state_home))
    assert Robot.made[-1].calls == []


def test_the_arbiters_latch_counts_too(fly, tmp_path: Path) -> None:
    (tmp_path / "estop").write_text("{}")
    assert fly().state == "e-stopped"


def test_shutting_down_takes_an_active_robot_down_gently(fly) -> None:
    flight = fly().rise()
    flight.bench.node.deactivate(flight.bench.now_ns)
    assert flight.robot.calls[-2:] == ["deactivate", "close"]


def test_without_the_operator_nobody_activates(fly) -> None:
    flight = fly({"simulated": False}, heartbeat_s=0.2)
    flight.steps(3)
    with pytest.raises(RequestRefused, match="heartbeat is missing"):
        flight.bench.ask("arm")


# What is reported.


def test_a_run_to_the_goal_is_an_episode(fly) -> None:
    flight = fly().rise()
    for _ in range(60):
        y, x = flight.robot.position
        through = (x + 0.02, 0.1) if abs(y - 0.1) < 0.02 else (x, 0.1)
        wanted = through if x < 0.16 else (0.25, 0.0)
        step = [(w - p) / REACH for w, p in zip(wanted, (x, y), strict=True)]
        flight.observation()
        flight.command(*np.clip(step, -0.1, 0.1).tolist())
        if flight.bench.executor.of("episode"):
            break
    report = flight.bench.last("episode")
    assert report.success and not report.violation
    made = flight.bench.executor.of("transition")
    assert [t.step for t in made] == list(range(len(made))) and made[-1].success
    for one, following in pairwise(made):
        assert np.array_equal(one.next_observation, following.observation)
    assert "place" in flight.robot.calls


def test_an_episode_that_goes_on_in_place_is_observed_anew(fly) -> None:
    """The body may have another target by then."""
    flight = fly(episode_steps=3)
    body, started = flight.bench.node._body, []
    body.start = started.append
    observe = body.observe
    body.observe = lambda *measured: observe(*measured) + 1000 * len(started)
    flight.rise().steps(8)
    assert len(started) > 2
    for seen in flight.bench.executor.of("transition"):
        assert seen.observation[0] // 1000 == seen.next_observation[0] // 1000


def test_what_was_measured_and_sent_is_published_and_fits_the_wire(fly) -> None:
    flight = fly().rise()
    actuation = flight.bench.last("actuation")
    assert actuation.state == "active" and actuation.measured.shape == (3, 2)
    assert np.isnan(actuation.sent[1:]).all() and np.isfinite(actuation.sent[0]).all()
    codec = Codec(messages.Actuation, flight.bench.node.context.interface.dims)
    assert codec.decode(codec.encode(actuation)).state == "active"


def test_the_preflight_report_is_json(fly) -> None:
    flight = fly()
    flight.observation()
    report = flight.bench.ask("preflight")
    text = json.dumps(report, allow_nan=False)
    assert report["identity"]["model"] == "robot" and '"velocity": 0.2' in text
    assert report["joints"][0]["effort"] is None and report["watchdog_s"] == 0.1


def test_an_episode_that_a_fault_ends_is_reported_and_the_next_begins_anew(fly) -> None:
    flight = fly().rise()
    flight.steps(5)
    flight.robot.faults = ("it is hot",)
    flight.steps(1)
    report = flight.bench.last("episode")
    assert flight.state == "fault" and not report.success and not report.violation
    assert flight.bench.last("transition").truncated
    flight.robot.faults = ()
    for request in ("reset", "configure", "arm"):
        flight.steps(1)
        flight.bench.ask(request, reason="it has cooled down")
    flight.steps(3)
    assert flight.state == "active"
    assert [t.step for t in flight.bench.executor.of("transition")[-2:]] == [0, 1]
    assert flight.bench.last("transition").episode == report.episode + 1
