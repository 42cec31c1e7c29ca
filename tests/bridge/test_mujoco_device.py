"""The MuJoCo device without its process: its physics, its rules, its imperfections."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mujoco_rig import MOTORS, SERVOS, two_links

from safetypilot.bridge.contract import DriverError, Mode, Setpoint, Vector
from safetypilot.bridge.devices.common import EventLog, Push
from safetypilot.bridge.devices.imperfections import Chance, Delay
from safetypilot.bridge.devices.mujoco_control import Control
from safetypilot.bridge.devices.mujoco_options import MujocoOptions
from safetypilot.bridge.devices.mujoco_robot import load
from safetypilot.bridge.devices.mujoco_world import World
from safetypilot.bridge.protocols.mujoco import Cause, Refused, Status

MS = 1_000_000


@pytest.fixture
def write(tmp_path: Path) -> Any:
    return partial(two_links, tmp_path)


# Physics.


def make(options: MujocoOptions, lead: float = 1.0) -> World:
    world = World(load(options))
    world.stay(load(options).modes[0])
    world.lead = lead
    return world


def run(world: World, seconds: float, step_s: float = 0.001) -> tuple[Vector, Vector]:
    world.step(round(seconds / step_s))
    position, velocity, *_ = world.measure()
    return position, velocity


def test_the_default_servo_of_the_maze_is_quick_and_does_not_overshoot() -> None:
    options = MujocoOptions(actuation="position", time_factor=50, rate_hz=50)
    world = make(options)
    for wanted in (0.0247, 0.05, 0.02):
        start = world.measure()[0][0]
        world.command(Setpoint(Mode.POSITION, (wanted, 0.0)))
        furthest, way = 0.0, wanted - start
        for _ in range(250):  # half a second
            world.step(1)
            furthest = max(furthest, (world.measure()[0][0] - start) / way)
        assert 0.985 < (world.measure()[0][0] - start) / way <= furthest < 1.0005
        world.step(250)


@settings(deadline=None)
@given(command=st.tuples(*[st.floats(-0.5, 0.5)] * 4), gains=st.tuples(*[st.floats(0, 0.5)] * 4))
def test_pd_makes_the_effort_that_its_formula_says(
    command: tuple[float, ...], gains: tuple[float, ...]
) -> None:
    world = make(MujocoOptions(actuation="pd", start=0.1, timestep_s=1e-6))
    position, velocity, effort = command[:2], command[2:], (0.01, -0.02)
    kp, kd = gains[:2], gains[2:]
    world.command(Setpoint(Mode.PD, position, velocity, effort, kp, kd))
    world.step(1)
    made = world.measure()[2]
    for joint in range(2):
        wanted = kp[joint] * (position[joint] - 0.1) + kd[joint] * velocity[joint] + effort[joint]
        assert made[joint] == pytest.approx(max(-0.15, min(0.15, wanted)), abs=1e-6)


@pytest.mark.parametrize("actuation", ["effort", "model"])
def test_an_effort_is_what_the_joint_gets(write: Any, actuation: str) -> None:
    world = make(write(actuation=actuation, start={"elbow": 1.0}))
    world.command(Setpoint(Mode.EFFORT, effort=(0.5, -0.25)))
    world.step(1)
    assert world.measure()[2] == pytest.approx((0.5, -0.25))
    world.command(Setpoint(Mode.EFFORT, effort=(100.0, -100.0)))
    world.step(1)
    assert world.measure()[2] == pytest.approx((6.0, -4.0))


@pytest.mark.parametrize(
    ("actuators", "actuation"), [(MOTORS, "position"), (SERVOS, "position"), (SERVOS, "model")]
)
def test_a_position_is_reached(write: Any, actuators: str, actuation: str) -> None:
    world = make(write(actuators, actuation=actuation))
    world.command(Setpoint(Mode.POSITION, (0.4, -0.3)))
    position, velocity = run(world, 5.0)
    assert position == pytest.approx((0.4, -0.3), abs=2e-3)
    assert velocity == pytest.approx((0.0, 0.0), abs=2e-3)


def test_a_velocity_is_kept(write: Any) -> None:
    world = make(write(actuation="velocity", kd=2.0, joints=["elbow"]))
    world.command(Setpoint(Mode.VELOCITY, velocity=(0.7,)))
    assert run(world, 2.0)[1] == pytest.approx((0.7,), abs=0.05)


def test_damping_stops_and_holding_stays_and_off_lets_go(write: Any) -> None:
    ends = {}
    for failsafe in ("damp", "hold", "let_go"):
        world = make(write(actuation="effort", joints=["elbow"]))
        world.command(Setpoint(Mode.EFFORT, effort=(0.02,)))
        start, speed = run(world, 0.1)
        getattr(world, failsafe)()
        world.lead = 0.0
        ends[failsafe] = (*run(world, 1.0)[0], *run(world, 0.001)[1], start[0], speed[0])
    assert abs(ends["damp"][1]) < 0.01 * ends["damp"][3]
    assert ends["hold"][0] == pytest.approx(ends["hold"][2], abs=1e-2)
    assert ends["hold"][1] == pytest.approx(0.0, abs=1e-2)
    assert ends["let_go"][1] > 0.5 * ends["let_go"][3]


def test_a_payload_is_felt(write: Any) -> None:
    moved = []
    for options in ({}, {"payload_kg": 2.0, "payload_body": "lower"}):
        world = make(write(actuation="effort", **options))
        world.command(Setpoint(Mode.EFFORT, effort=(0.1, 0.0)))
        moved.append(run(world, 0.2)[0][0])
    assert 0 < moved[1] < 0.85 * moved[0]


def test_a_push_moves_the_robot_while_it_lasts(write: Any) -> None:
    robot = load(write(joints=["shoulder"]))
    world = World(robot, [Push(0.1, "lower", (0.0, 1.0, 0.0), 0.05)])
    world.step(100)
    assert world.measure()[1] == pytest.approx((0.0,), abs=1e-9)
    world.step(50)
    pushed = world.measure()[1][0]
    assert pushed > 0.01
    world.step(50)
    assert world.measure()[1][0] == pytest.approx(pushed, rel=0.2)


def test_touching_is_counted_even_between_two_looks(write: Any) -> None:
    world = make(write(actuation="position", obstacles="wall", start={"elbow": 1.2}, damping=0.01))
    world.step(10)
    assert world.touches == 0
    world.command(Setpoint(Mode.POSITION, (1.2, 1.0)))  # into the wall
    world.step(1500)
    touches = world.touches
    assert touches > 0
    world.place((0.0, 0.0), Mode.POSITION, False)
    world.step(100)
    assert world.touches == touches
    world.place((0.0, 0.8), Mode.POSITION, False)
    assert world.touches == touches + 1


def test_what_cannot_be_integrated_is_noticed(
    write: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # MuJoCo leaves a log
    world = make(write(actuation="pd", kd=1e9, effort=1e9))
    world.command(Setpoint(Mode.PD, (0, 0), (0, 0), (0, 0), (1e12, 1e12), (0, 0)))
    world.place((0.1, 0.1), Mode.PD, False)
    assert not world.diverged
    world.command(Setpoint(Mode.PD, (0, 0), (0, 0), (0, 0), (1e12, 1e12), (0, 0)))
    for _ in range(100):
        world.step(7)
    assert world.diverged
    world.place((0.1, 0.1), Mode.PD, False)
    assert not world.diverged and world.measure()[0] == (0.1, 0.1)


# Rules.

WATCHDOG_NS = 100 * MS


@pytest.fixture
def control(write: Any) -> Control:
    options = write(actuation="position", start={"elbow": 0.3})
    return Control(World(load(options)), Mode.POSITION, EventLog(None), 0.1, ramp_steps=10)


def arm(control: Control, now_ns: int = 0) -> None:
    control.arm("position", now_ns)
    control.advance(10)
    assert control.status is Status.ACTIVE


@settings(deadline=None)
@given(gaps=st.lists(st.integers(0, 200 * MS), min_size=1, max_size=30))
def test_silence_beyond_the_timeout_damps_and_nothing_shorter_does(gaps: list[int]) -> None:
    options = MujocoOptions(actuation="position")
    control = Control(World(load(options)), Mode.POSITION, EventLog(None), 0.1, ramp_steps=1)
    control.arm("position", 0)
    now = 0
    for gap in gaps:
        control.watch(now + gap)
        if gap > WATCHDOG_NS:
            assert (control.status, control.cause) == (Status.DAMPING, Cause.SILENCE)
            with pytest.raises(Refused, match="not active"):
                control.feed(Mode.POSITION, now + gap)
            with pytest.raises(DriverError, match=r"silence.*reset"):
                control.arm("position", now + gap)
            return
        assert control.cause is Cause.NONE
        now += gap
        control.feed(Mode.POSITION, now)


def test_what_is_damped_stays_so_until_a_reset(control: Control) -> None:
    arm(control)
    control.watch(WATCHDOG_NS + 1)
    control.obey(Setpoint(Mode.POSITION, (1.0, 1.0)), 7, 0)
    control.release("off")
    control.advance(2000)
    assert control.status is Status.DAMPING and control.acknowledged == 0
    control.damp(Cause.ESTOP)
    assert control.cause is Cause.ESTOP  # the stronger cause is told
    control.damp(Cause.SILENCE)
    assert control.cause is Cause.ESTOP
    control.reset("damping")
    assert (control.status, control.cause) == (Status.DAMPING, Cause.NONE)
    arm(control, 10 * WATCHDOG_NS)


def push(write: Any) -> tuple[Control, World]:
    """A robot whose commander pushes, and which moves."""
    world = World(load(write(actuation="effort", joints=["elbow"])))
    control = Control(world, Mode.EFFORT, EventLog(None), 0.1, ramp_steps=40)
    control.arm("effort", 0)
    control.advance(40)
    control.obey(Setpoint(Mode.EFFORT, effort=(0.02,)), 1, 0)
    control.advance(100)
    return control, world


@pytest.mark.parametrize("cause", [Cause.SILENCE, Cause.ESTOP])
def test_who_is_damped_stops_whatever_was_commanded(write: Any, cause: Cause) -> None:
    control, world = push(write)
    speed = world.measure()[1][0]
    assert speed > 0.1
    if cause is Cause.SILENCE:
        control.watch(WATCHDOG_NS + 1)
    else:
        control.damp(cause)
    assert control.cause is cause
    control.advance(500)
    assert abs(world.measure()[1][0]) < 0.01 * speed


@pytest.mark.parametrize(("rest", "shrinks"), [("damping", 0.7), ("off", 0.7), ("hold", 0.3)])
def test_on_the_way_down_it_is_braked_already(write: Any, rest: str, shrinks: float) -> None:
    control, world = push(write)
    control.obey(Setpoint(Mode.EFFORT, effort=(0.0,)), 2, 0)
    speed = world.measure()[1][0]
    control.release(rest)
    control.advance(30)
    assert control.status is Status.RELEASING
    assert abs(world.measure()[1][0]) < shrinks * speed


def test_the_watchdog_can_be_seen_to_act_without_torque(control: Control) -> None:
    control.rehearse(0)
    control.watch(WATCHDOG_NS)
    assert control.status is Status.OFF
    control.watch(WATCHDOG_NS + 1)
    assert (control.status, control.cause) == (Status.DAMPING, Cause.SILENCE)
    with pytest.raises(DriverError, match="not rehearsed"):
        control.rehearse(0)
    control.reset("off")
    control.watch(10**12)
    assert (control.status, control.cause) == (Status.OFF, Cause.NONE)
    arm(control)
    with pytest.raises(DriverError, match="not rehearsed"):
        control.rehearse(0)


@pytest.mark.parametrize("rest", ["damping", "hold", "off"])
def test_gains_rise_and_fall_over_the_ramp(write: Any, rest: str) -> None:
    world = World(load(write(actuation="position")))
    control = Control(world, Mode.POSITION, EventLog(None), 0.1, ramp_steps=10)
    control.arm("position", 0)
    shares = [world.lead]
    for _ in range(10):
        control.advance(1)
        shares.append(world.lead)
    assert shares == pytest.approx([step / 10 for step in range(11)])
    control.release(rest)
    assert control.status is Status.RELEASING and world.lead == 1.0
    control.watch(10**12)  # nobody has to command any more
    for _ in range(10):
        control.advance(1)
        shares.append(world.lead)
    assert shares[11:] == pytest.approx([1 - step / 10 for step in range(1, 11)])
    wanted = {"damping": Status.DAMPING, "hold": Status.HOLDING, "off": Status.OFF}[rest]
    assert (control.status, control.cause) == (wanted, Cause.NONE)


def test_taking_over_and_giving_back_move_nothing(write: Any) -> None:
    """With the weight of gravity on the joint that is held: no step anywhere on the way."""
    options = write(actuation="position")
    text = Path(options.model).read_text().replace('axis="0 0 1"', 'axis="0 1 0"')
    Path(options.model).write_text(text)
    world = World(load(replace(options, kp=100.0, kd=1.0, rest="hold")))
    control = Control(world, Mode.POSITION, EventLog(None), 0.1, ramp_steps=100)
    control.release("hold")
    control.advance(3000)
    places = [world.measure()[0][0]]

    def go(steps: int) -> None:
        for _ in range(steps):
            control.advance(1)
            places.append(world.measure()[0][0])

    control.arm("position", 0)
    go(1000)
    control.release("hold")
    go(1000)
    assert control.status is Status.HOLDING
    assert max(abs(its - places[0]) for its in places) < 0.02
    assert max(abs(b - a) for a, b in pairwise(places)) < 1e-4


def test_placing_keeps_the_state_and_forgets_what_was_wanted(control: Control) -> None:
    arm(control)
    control.obey(Setpoint(Mode.POSITION, (1.0, 1.0)), 1, 0)
    control.advance(50)
    control.place((-0.4, 0.2))
    assert control.status is Status.ACTIVE
    control.advance(1000)
    assert control._world.measure()[0] == pytest.approx((-0.4, 0.2), abs=1e-6)
    control.release("hold")
    control.advance(10)
    control.place((0.1, 0.1))
    control.advance(1000)
    assert control._world.measure()[0] == pytest.approx((0.1, 0.1), abs=1e-6)


def test_a_commander_may_do_only_what_it_may(control: Control) -> None:
    with pytest.raises(Refused, match="not active"):
        control.feed(Mode.POSITION, 0)
    with pytest.raises(DriverError, match="mode is position"):
        control.arm("effort", 0)
    arm(control)
    with pytest.raises(DriverError, match="active already"):
        control.arm("position", 0)
    with pytest.raises(Refused, match="mode"):
        control.feed(Mode.EFFORT, 0)
    with pytest.raises(DriverError, match="one of off, damping, hold"):
        control.release("drop")
    with pytest.raises(DriverError, match="damped or off"):
        control.reset("hold")


# Imperfections.


def test_things_come_later_and_in_order() -> None:
    delay: Delay[str] = Delay(0.005)
    delay.put("a", 0)
    delay.put("b", MS)
    assert delay.due_ns == 5 * MS and delay.take(5 * MS - 1) is None
    assert delay.take(5 * MS) == (5 * MS, "a")
    assert delay.take(9 * MS) == (6 * MS, "b")
    assert delay.take(9 * MS) is None and delay.due_ns is None
    delay.put("c", 0)
    delay.clear()
    assert delay.take(10**12) is None


def test_losses_and_noise_are_as_asked_and_the_same_for_a_seed() -> None:
    def play(seed: int) -> tuple[list[bool], list[Vector]]:
        chance = Chance(0.25, 0.01, 0.1, seed)
        lost = [chance.loses() for _ in range(4000)]
        assert chance.lost == sum(lost)
        return lost, [chance.blur((1.0,), (2.0,))[0] + chance.blur((1.0,), (2.0,))[1]
                      for _ in range(2000)]  # fmt: skip

    lost, seen = play(3)
    assert sum(lost) / 4000 == pytest.approx(0.25, abs=0.03)
    for column, (mean, deviation) in enumerate([(1.0, 0.01), (2.0, 0.1)]):
        values = [row[column] for row in seen]
        assert sum(values) / 2000 == pytest.approx(mean, abs=deviation / 5)
        spread = math.sqrt(sum((value - mean) ** 2 for value in values) / 2000)
        assert spread == pytest.approx(deviation, rel=0.1)
    assert play(3) == (lost, seen) != play(4)
    perfect = Chance(0.0, 0.0, 0.0, 0)
    assert not any(perfect.loses() for _ in range(1000))
    assert perfect.blur((1.0,), (2.0,)) == ((1.0,), (2.0,))
