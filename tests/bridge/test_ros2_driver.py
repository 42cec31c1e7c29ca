"""The ROS 2 driver and a bare peer: what it believes, whom it obeys, what goes out, by bytes."""

from __future__ import annotations

import random
import struct
import sys
from collections.abc import Callable, Iterator
from functools import partial
from math import inf, nan
from time import monotonic_ns, sleep, time_ns
from typing import Any

import pytest

pytest.importorskip("cyclonedds")

from ros2_rig import LATER, PATIENCE_S, Peer, driver, free_domain, fresh, soon, until

from safetypilot.bridge.contract import DriverError, Failsafe, Mode, Setpoint
from safetypilot.bridge.drivers.ros2 import Ros2Driver
from safetypilot.bridge.drivers.ros2_options import Ros2Options
from safetypilot.bridge.protocols import ros2
from safetypilot.bridge.protocols.dds import Reader, Sample

HERE: dict[str, Any] = {"names": ["shoulder", "elbow"], "position": [0.1, -0.2],
                        "velocity": [0.0, 0.0], "effort": [1.0, 2.0]}  # fmt: skip
TURNED: dict[str, Any] = {"names": ["elbow", "gripper", "shoulder"], "position": [-0.2, 9.0, 0.1],
                          "velocity": [0.0, 9.0, 0.0], "effort": [2.0, 9.0, 1.0]}  # fmt: skip


@pytest.fixture(scope="module")
def domain() -> int:
    return free_domain()


@pytest.fixture
def peer(domain: int) -> Iterator[Peer]:
    made = Peer(domain, "states", "commands")
    made.repeat(HERE)
    yield made
    made.end()


@pytest.fixture
def opened(domain: int) -> Iterator[Ros2Driver]:
    made = driver(domain)
    yield made
    made.close()


@pytest.fixture
def patient(domain: int) -> Iterator[Ros2Driver]:
    """Silence is nothing to it: a busy machine's states are late."""
    made = driver(domain, silence_s=PATIENCE_S)
    yield made
    made.close()


def active(driver: Ros2Driver) -> Ros2Driver:
    driver.connect()
    driver.configure({})
    driver.activate(Mode.POSITION)
    return driver


def test_joints_come_by_name_and_commands_go_out_in_the_controllers_order(
    peer: Peer, opened: Ros2Driver
) -> None:
    identity = opened.connect()
    assert identity["model"] == "ros2_control" and all(identity.values())
    opened.configure({})
    start = opened.activate(Mode.POSITION)
    assert start.position == (0.1, -0.2) and start.effort == (1.0, 2.0)
    until(lambda: peer.heard)
    encode = ros2.Commands(2).write
    assert peer.heard[0] == encode((0.1, -0.2))  # first of all it is told to stay
    peer.repeat(TURNED)
    for _ in range(5):
        measured = fresh(opened)
        assert measured.position == (0.1, -0.2) and measured.effort == (1.0, 2.0)
        assert measured.faults == ()
    assert measured.device_ns < time_ns() and measured.received_ns < monotonic_ns()
    opened.write(Setpoint(Mode.POSITION, (0.5, 0.25)), LATER)
    until(lambda: peer.heard[-1] == encode((0.5, 0.25)))
    opened.deactivate()
    with pytest.raises(DriverError, match="not active"):
        opened.write(Setpoint(Mode.POSITION, (0.5, 0.25)), LATER)
    assert opened.check_watchdog() == ""


def test_what_may_not_go_out_is_refused_and_an_estop_holds_the_robot_where_it_is(
    peer: Peer, opened: Ros2Driver
) -> None:
    active(opened)
    until(lambda: peer.heard)
    count = len(peer.heard)
    for position in ((float("nan"), 0.0), (0.0, float("inf")), (0.0,), (), (1e12, 0.0)):
        with pytest.raises(DriverError):
            opened.write(Setpoint(Mode.POSITION, position), LATER)
    with pytest.raises(DriverError, match="deadline"):
        opened.write(Setpoint(Mode.POSITION, (0.0, 0.0)), 0)
    with pytest.raises(DriverError, match="effort"):
        opened.write(Setpoint(Mode.EFFORT, effort=(0.0, 0.0)), LATER)
    peer.repeat({**HERE, "position": [0.4, 0.3]})
    while fresh(opened).position != (0.4, 0.3):
        pass
    assert len(peer.heard) == count
    opened.estop("hand")
    opened.estop("again")
    until(lambda: len(peer.heard) > count)
    assert peer.heard[-1] == ros2.Commands(2).write((0.4, 0.3))
    with pytest.raises(DriverError, match="hand"):
        opened.write(Setpoint(Mode.POSITION, (0.0, 0.0)), LATER)
    with pytest.raises(DriverError, match="hand"):
        opened.activate(Mode.POSITION)
    opened.reset()
    with pytest.raises(DriverError, match="configure"):
        opened.activate(Mode.POSITION)


def test_a_joint_that_is_missing_is_a_fault_and_others_are_not_believed(
    peer: Peer, opened: Ros2Driver, domain: int
) -> None:
    active(opened)
    fresh(opened)
    liar = Peer(domain, "states")
    try:
        liar.repeat({**HERE, "position": [9.0, 9.0]})
        until(lambda: fresh(opened).position == (0.1, -0.2) and opened.counters["foreign"] > 3)
    finally:
        liar.end()
    peer.repeat({"names": ["shoulder"], "position": [0.1], "velocity": [0.0]})
    until(lambda: opened.read(soon()).faults)
    told = opened.read(monotonic_ns())
    assert "no elbow" in told.faults[0] and not told.fresh
    assert opened.counters["refused"] > 0
    peer.repeat(HERE)
    until(lambda: not opened.read(soon()).faults)


def test_what_comes_late_or_twice_is_dropped_and_velocities_are_made_up_where_there_are_none(
    peer: Peer, opened: Ros2Driver
) -> None:
    active(opened)
    peer.repeat(None)
    while opened.read(monotonic_ns() + 50_000_000).fresh:
        pass
    last = opened.read(monotonic_ns())
    for stamp in (last.device_ns, last.device_ns - 10**9):
        peer.tell(state={**HERE, "stamp": stamp, "position": [0.9, 0.9]})
    until(lambda: not opened.read(monotonic_ns()).fresh and opened.counters["late"] == 2)
    assert opened.read(monotonic_ns()).position == (0.1, -0.2)
    for velocity in ([], [float("nan")] * 2):
        before = opened.read(monotonic_ns())
        moved = {"names": HERE["names"], "position": [before.position[0] + 0.02, -0.2],
                 "velocity": velocity, "stamp": before.device_ns + 10_000_000}  # fmt: skip
        peer.tell(state=moved)
        found = fresh(opened)
        assert found.velocity == pytest.approx((2.0, 0.0))
        assert found.effort == (0.0, 0.0) and found.seq == before.seq + 1


LIES: dict[str, list[tuple[tuple[str, ...], tuple[float, ...], tuple[float, ...]]]] = {
    "lengths": [
        (("shoulder", "elbow"), (9.0,), ()), (("shoulder", "elbow"), (9.0, 9.0, 9.0), ()),
        (("elbow", "shoulder"), (9.0, 9.0), (9.0,)), (("shoulder", "elbow", "x"), (9.0, 9.0), ()),
        (("shoulder", "elbow"), (9.0,) * 3000, ()),
    ],
    "a joint twice": [
        (("shoulder", "elbow", "elbow"), (9.0, 9.0, -0.2), ()),
        (("shoulder", "shoulder", "elbow"), (9.0, 0.1, 9.0), (0.0, 0.0, 0.0)),
    ],
    "no elbow": [(("shoulder",), (9.0,), ()), (("shoulder", "Elbow"), (9.0, 9.0), (0.0, 0.0)),
                 (("shoulder", "elbow "), (9.0, 9.0), ())],
    "no shoulder": [((), (), ()), ((), (9.0, 9.0), ()), (("", "elbow"), (9.0, 9.0), ())],
    "too many": [(("shoulder", "elbow", *map(str, range(2000))), (9.0,) * 2002, ())],
    "position": [
        (("shoulder", "elbow"), (), (0.0, 0.0)), (("shoulder", "elbow"), (nan, -0.2), ()),
        (("elbow", "shoulder"), (9.0, inf), ()), (("shoulder", "elbow"), (inf, -inf), ()),
    ],
}  # fmt: skip


def lies() -> list[tuple[str, Callable[[int], bytes]]]:
    """States that are none, by what the driver has to say of them, to be stamped."""

    def state(stamp_ns: int, names: Any, position: Any, velocity: Any) -> bytes:
        return ros2.joint_state(stamp_ns, names, position, velocity, ())

    def bent(stamp_ns: int, begin: bytes = b"", end: bytes = b"") -> bytes:
        whole = state(stamp_ns, ("shoulder", "elbow"), (9.0, 9.0), (0.0, 0.0))
        return begin + whole[len(begin) :] + end

    made: list[tuple[str, Callable[[int], bytes]]] = [
        (cause, partial(state, names=names, position=position, velocity=velocity))
        for cause, rows in LIES.items()
        for names, position, velocity in rows
    ]
    made.append(("encoding", partial(bent, begin=b"\0\3")))  # others DDS does not pass on
    made += [("too long", partial(bent, end=end)) for end in (bytes(4), b"\x55" * 1000)]
    return made


def test_states_that_are_none_are_counted_and_told_and_not_one_is_believed(
    peer: Peer, patient: Ros2Driver
) -> None:
    active(patient)
    peer.repeat(None)
    while patient.read(monotonic_ns() + 50_000_000).fresh:
        pass
    until(lambda: peer.heard)
    count = len(peer.heard)
    for turn, (cause, lie) in enumerate(lies()):
        peer.tell(raw=lie(time_ns()).hex())
        while patient.counters["refused"] == turn:
            measured = patient.read(soon())
        assert patient.counters["refused"] == turn + 1
        assert measured.faults == (f"/joint_states: a message with {cause}",)
        assert not measured.fresh and measured.position[0] < 1.0
        # The next sound one is taken again, whatever the order of its joints.
        there = (0.1 + 0.001 * turn, -0.2)
        rows = ("elbow", "shoulder"), there[::-1], (0.0, 0.0), (2.0, 1.0)
        peer.tell(raw=ros2.joint_state(time_ns(), *rows).hex())
        measured = fresh(patient)
        assert measured.position == there and measured.effort == (1.0, 2.0)
        assert measured.faults == ()
    assert patient.counters == {**patient.counters, "foreign": 0, "late": 0}
    assert len(peer.heard) == count, "it commands nothing by itself"
    patient.write(Setpoint(Mode.POSITION, (0.5, 0.25)), LATER)
    until(lambda: peer.heard[-1] == ros2.Commands(2).write((0.5, 0.25)))


def test_states_that_are_none_of_another_publisher_are_not_even_looked_at(
    peer: Peer, patient: Ros2Driver, domain: int
) -> None:
    active(patient)
    liar = Peer(domain, "states")
    try:
        for _, lie in lies():
            before = patient.counters["foreign"]
            while patient.counters["foreign"] == before:  # it may not be known yet
                liar.tell(raw=lie(time_ns()).hex())
                measured = fresh(patient)
                assert measured.position == (0.1, -0.2) and measured.faults == ()
        assert patient.counters["refused"] == 0
    finally:
        liar.end()


class Bent:
    """A reader behind whose every sample comes a mutant of it, by the same writer."""

    def __init__(self, reader: Reader) -> None:
        self.writers = reader.writers
        self._reader, self._chance = reader, random.Random(6)
        self.mutants = 0

    def wait(self, deadline_ns: int) -> list[Sample]:
        samples = self._reader.wait(deadline_ns)
        if samples:
            self.mutants += 1
            samples.append(Sample(self._mutant(samples[-1].data), samples[-1].writer))
        return samples

    def _mutant(self, sample: bytes) -> bytes:
        """Cut, or with an absurd number of names or numbers: DDS itself would not pass it on."""
        chance = self._chance
        data = bytearray(ros2.joint_state(time_ns(), ("elbow", "shoulder"), (9.0, 9.0), (), ()))
        names, numbers = 20, data.index(struct.pack("<d", 9.0)) - 8
        match chance.randrange(3):
            case 0:
                return bytes(data[: chance.randrange(len(data) - 12)])
            case 1:
                at = chance.choice((names, numbers))
            case _:
                at = len(data) - 8
        data[at : at + 4] = struct.pack("<I", chance.choice((3, 1025, 1 << 31, (1 << 32) - 1)))
        return bytes(data)


def test_bytes_that_no_dds_would_pass_on_are_counted_and_not_believed(
    peer: Peer, patient: Ros2Driver
) -> None:
    active(patient)
    link = patient._linked()
    bent = Bent(link._states)
    link._states = bent  # type: ignore[assignment]
    since = patient.counters["refused"]
    for _ in range(300):
        measured = fresh(patient)  # the sound one before the mutant
        assert measured.position == (0.1, -0.2)
    assert bent.mutants > 200  # each with a sound one, but for what had come before
    assert patient.counters["refused"] - since == bent.mutants
    assert patient.counters["late"] == patient.counters["foreign"] == 0
    link._states = bent._reader
    until(lambda: fresh(patient).faults == ())


def test_another_commander_is_a_fault_and_a_controller_that_leaves_is_an_error(
    peer: Peer, opened: Ros2Driver, domain: int
) -> None:
    active(opened)
    rival = Peer(domain, "rival")
    try:
        until(lambda: opened.read(soon()).faults)
        assert "publish /forward_position_controller/commands" in opened.read(soon()).faults[0]
        opened.deactivate()
        with pytest.raises(DriverError, match="1 others publish"):
            opened.activate(Mode.POSITION)
    finally:
        rival.end()
    until(lambda: not opened.read(soon()).faults)
    opened.activate(Mode.POSITION)
    peer.tell(close="commands")
    with pytest.raises(DriverError, match="no controller listens"):
        until(lambda: opened.read(soon()) and False)


def test_a_robot_that_falls_silent_is_told(peer: Peer, domain: int) -> None:
    silent = driver(domain, silence_s=0.2)
    try:
        active(silent)
        peer.repeat(None)
        with pytest.raises(DriverError, match=r"silent for 0\.2 s"):
            until(lambda: silent.read(monotonic_ns() + 10_000_000) and False)
        for call in (silent.reset, silent.deactivate):
            with pytest.raises(DriverError, match="gone silent"):
                call()
    finally:
        silent.close()


@pytest.mark.parametrize(("ends", "state", "told"), [
    ((), None, "/joint_states: nobody publishes it"),
    (("states",), HERE, "no controller listens to /forward_position_controller/commands"),
    pytest.param(("states", "commands"), None, "/joint_states: no message came",
                 marks=pytest.mark.slow),
    pytest.param(("states", "commands"), {**HERE, "names": ["shoulder", "wrist"]}, "no elbow",
                 marks=pytest.mark.slow),
])  # fmt: skip
def test_a_robot_that_is_not_there_is_told_for_what_is_missing(
    domain: int, ends: tuple[str, ...], state: Any, told: str
) -> None:
    peer = Peer(domain, *ends)
    lonely = driver(domain, connect_s=1.5 if ends else 0.3)
    try:
        peer.repeat(state)
        with pytest.raises(DriverError, match=told):
            lonely.connect()
        lonely.close()
    finally:
        peer.end()


def test_what_it_declares_and_refuses_while_nothing_is_connected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for controller in ("position", "velocity", "effort", "trajectory"):
        told = Ros2Driver(Ros2Options(controller=controller)).description
        assert told.watchdog_s is None and len(told.modes) == 1
        assert told.failsafes == (
            (Failsafe.TORQUE_OFF,) if controller == "effort" else (Failsafe.HOLD,)
        )
    assert Ros2Options(controller="velocity").commands_topic == (
        "/forward_velocity_controller/commands"
    )
    cases: list[tuple[dict[str, Any], str]] = [
        ({"controller": "dance"}, "dance"), ({"domain": "0"}, "domain is '0'"),
        ({"rate_hz": 0.0}, "rate_hz"), ({"joints": {}}, "joints"),
        ({"joints": {"a": {"hihg": 1}}}, "hihg"), ({"horizon_s": -1.0}, "horizon_s"),
        ({"watchdog_s": float("inf")}, "watchdog_s"), ({"model": ""}, "model"),
    ]  # fmt: skip
    for options, why in cases:
        with pytest.raises(DriverError, match=why):
            Ros2Driver(Ros2Options(**options))
    for options, why in (({"states": "joint_states"}, "full name"), ({"domain": 999}, "999")):
        with pytest.raises(DriverError, match=why):
            Ros2Driver(Ros2Options(**options)).connect()
    lost = Ros2Driver(Ros2Options())
    lost.close()
    lost.estop("before it is connected")
    for call in (lambda: lost.configure({}), lambda: lost.read(0), lost.deactivate, lost.reset,
                 lost.check_watchdog):  # fmt: skip
        with pytest.raises(DriverError):
            call()
    monkeypatch.setitem(sys.modules, "cyclonedds", None)
    with pytest.raises(DriverError, match=r"safetypilot\[dds\]"):
        lost.connect()


def test_reading_waits_until_its_deadline_and_not_longer(peer: Peer, opened: Ros2Driver) -> None:
    active(opened)
    peer.repeat(None)
    while opened.read(monotonic_ns() + 50_000_000).fresh:
        pass
    deadline_ns = monotonic_ns() + 30_000_000
    assert not opened.read(deadline_ns).fresh
    assert monotonic_ns() >= deadline_ns
    peer.repeat(HERE)
    sleep(0.05)
    assert opened.read(monotonic_ns()).fresh  # what has come does not wait
