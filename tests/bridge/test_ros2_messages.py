"""Messages of ROS 2, byte by byte: computed by hand, and compared with Cyclone's own serialiser."""

from __future__ import annotations

import struct
from math import inf, nan
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from safetypilot.bridge.contract import DriverError
from safetypilot.bridge.protocols import dds, ros2
from safetypilot.bridge.protocols.cdr import CdrError, CdrReader, CdrWriter

NAMES = ("hip", "knee")


def test_a_multi_array_with_a_layout_by_hand() -> None:
    sample = bytes.fromhex(
        "00010000"          # plain CDR, version 1, little-endian; no options
        "01000000"          # 0: one dimension
        "07000000"          # 4: its label has 7 characters, with the 0 at its end
        "6a6f696e747300"    # 8: "joints"
        "00"                # 15: so that the next number is at 16
        "03000000"          # 16: size
        "03000000"          # 20: stride
        "00000000"          # 24: data_offset
        "03000000"          # 28: three numbers; 32 is a multiple of 8
        "000000000000f03f"  # 32: 1.0
        "00000000000004c0"  # 40: -2.5
        "0000000000000000"  # 48: 0.0
    )  # fmt: skip
    assert ros2.read_commands(sample) == (1.0, -2.5, 0.0)


def test_commands_by_hand() -> None:
    sample = bytes.fromhex(
        "00010000"
        "00000000"          # 0: no dimensions
        "00000000"          # 4: data_offset
        "02000000"          # 8: two numbers
        "00000000"          # 12: so that the numbers are at 16
        "000000000000e03f"  # 16: 0.5
        "00000000000000c0"  # 24: -2.0
    )  # fmt: skip
    assert ros2.Commands(2).write((0.5, -2.0)) == sample
    assert ros2.read_commands(sample) == (0.5, -2.0)


JOINT_STATE = bytes.fromhex(
    "00010000"
    "01000000 02000000"  # 0: stamp, 1 s and 2 ns
    "05000000"             # 8: frame_id has 5 characters
    "6261736500 000000"  # 12: "base"; the next number is at 20
    "02000000"             # 20: two names
    "05000000"             # 24
    "6b6e656500 000000"  # 28: "knee"
    "04000000"             # 36
    "68697000"             # 40: "hip"
    "02000000"             # 44: two positions; 48 is a multiple of 8
    "000000000000f03f"     # 48: 1.0
    "0000000000000040"     # 56: 2.0
    "00000000"             # 64: no velocities, and nothing is aligned for them
    "02000000"             # 68: two efforts; 72 is a multiple of 8
    "0000000000000840"     # 72: 3.0
    "0000000000001040"     # 80: 4.0
)  # fmt: skip


def test_a_joint_state_by_hand_is_read_by_name() -> None:
    found = ros2.JointStates(NAMES).read(JOINT_STATE)
    assert found == (1_000_000_002, (2.0, 1.0), (), (4.0, 3.0))
    assert ros2.JointStates(("knee",)).read(JOINT_STATE).position == (1.0,)


def test_a_trajectory_by_hand() -> None:
    sample = bytes.fromhex(
        "00010000"
        "00000000 00000000"  # 0: stamp: at once
        "01000000 00000000"  # 8: frame_id is empty: only its 0; the next number is at 16
        "01000000"             # 16: one name
        "02000000 61000000"  # 20: "a"; the next number is at 28
        "01000000"             # 28: one point
        "01000000 00000000"  # 32: one position, at 40
        "000000000000e03f"     # 40: 0.5
        "00000000"             # 48: no velocities,
        "00000000"             # 52: accelerations,
        "00000000"             # 56: efforts
        "01000000 80b2e60e"  # 60: after 1 s and 250,000,000 ns
    )  # fmt: skip
    assert ros2.Trajectories(("a",), 1.25).write((0.5,)) == sample
    point = ros2.Point((0.5,), (), (), (), 1_250_000_000)
    assert ros2.read_trajectory(sample) == (0, ("a",), (point,))


# Against the binding of Cyclone DDS, whose serialiser was written by others.

numbers = st.floats(allow_nan=False, allow_infinity=False)
doubles = st.lists(numbers, max_size=5)
names = st.lists(st.text("abcdefgh_é", max_size=9), max_size=5, unique=True)


def made(struct_: dds.Struct, made_: dict[str, Any]) -> Any:
    """The binding's classes of a type."""
    return dds._idl(struct_, dds._import("cyclonedds.idl"), made_)


def filled(kind: Any, **values: Any) -> Any:
    message = kind.__new__(kind)
    for name, value in values.items():
        setattr(message, name, value)
    return message


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**31 - 1), st.integers(0, 999_999_999), names, doubles, doubles, doubles)
def test_joint_states_are_what_cyclone_makes_of_them(
    sec: int, nanosec: int, joints: list[str], p: list[float], v: list[float], e: list[float]
) -> None:
    pytest.importorskip("cyclonedds")
    kinds: dict[str, Any] = {}
    whole = made(ros2.JOINT_STATE, kinds)
    time = filled(kinds[ros2.TIME.name], sec=sec, nanosec=nanosec)
    header = filled(kinds[ros2.HEADER.name], stamp=time, frame_id="")
    theirs = filled(whole, header=header, name=joints, position=p, velocity=v, effort=e).serialize()
    ours = ros2.joint_state(sec * 10**9 + nanosec, tuple(joints), tuple(p), tuple(v), tuple(e))
    assert ours == theirs[: len(ours)] and not any(theirs[len(ours) :])  # it may pad the end
    if joints and len(p) == len(joints) and {len(v), len(e)} <= {0, len(joints)}:
        found = ros2.JointStates(tuple(joints)).read(theirs)
        assert found == (sec * 10**9 + nanosec, tuple(p), tuple(v), tuple(e))


@settings(max_examples=60, deadline=None)
@given(names, doubles)
def test_multi_arrays_are_what_cyclone_makes_of_them(labels: list[str], data: list[float]) -> None:
    pytest.importorskip("cyclonedds")
    kinds: dict[str, Any] = {}
    whole = made(ros2.FLOAT64_MULTI_ARRAY, kinds)
    dims = [filled(kinds[ros2.DIMENSION.name], label=s, size=3, stride=7) for s in labels]
    layout = filled(kinds[ros2.LAYOUT.name], dim=dims, data_offset=9)
    theirs = filled(whole, layout=layout, data=data).serialize()
    assert ros2.read_commands(theirs) == tuple(data)
    layout = filled(kinds[ros2.LAYOUT.name], dim=[], data_offset=0)
    theirs = filled(whole, layout=layout, data=data).serialize()
    ours = ros2.Commands(len(data)).write(tuple(data))
    assert ours[: len(theirs)] == theirs and not any(ours[len(theirs) :])


@settings(max_examples=60, deadline=None)
@given(names.filter(bool), st.data(), st.integers(0, 10**10))
def test_trajectories_are_what_cyclone_makes_of_them(
    joints: list[str], data: st.DataObject, after_ns: int
) -> None:
    pytest.importorskip("cyclonedds")
    position = data.draw(st.lists(numbers, min_size=len(joints), max_size=len(joints)))
    velocity = data.draw(doubles)
    kinds: dict[str, Any] = {}
    whole = made(ros2.JOINT_TRAJECTORY, kinds)
    sec, nanosec = divmod(after_ns, 10**9)
    after = filled(kinds[ros2.DURATION.name], sec=sec, nanosec=nanosec)
    stamp = filled(kinds[ros2.TIME.name], sec=0, nanosec=0)
    header = filled(kinds[ros2.HEADER.name], stamp=stamp, frame_id="")

    def message(*velocities: list[float]) -> bytes:
        points = [
            filled(kinds[ros2.POINT.name], positions=position, velocities=each, accelerations=[],
                   effort=[], time_from_start=after) for each in velocities
        ]  # fmt: skip
        whole_message = filled(whole, header=header, joint_names=joints, points=points)
        return bytes(whole_message.serialize())

    ours = ros2.Trajectories(tuple(joints), after_ns / 1e9).write(tuple(position))
    assert ours == message([])
    read = ros2.read_trajectory(message(velocity, []))
    assert [point.velocities for point in read.points] == [tuple(velocity), ()]
    assert read.joints == tuple(joints) and read.points[0].at_ns == after_ns


# Types: what peers compare.


@pytest.mark.parametrize(("kind", "minimal", "complete"), [
    (ros2.JOINT_STATE, "1a19d37e467221c9e0b7fec17267", "23d58e12509dc1052cb7a79e165d"),
    (ros2.FLOAT64_MULTI_ARRAY, "428a445bf0b56f22badb28ce5298", "221a61ba23e7254cde73ef162024"),
    (ros2.JOINT_TRAJECTORY, "85539acf0b02b381990778571c5d", "758bf244f55f174ac16c85822466"),
])  # fmt: skip
def test_types_are_those_that_rmw_cyclonedds_builds(
    kind: dds.Struct, minimal: str, complete: str
) -> None:
    """Equivalence hashes as its dyntype.cpp makes them, by the same calls of libddsc 11.0.1."""
    pytest.importorskip("cyclonedds")
    idl = made(kind, {}).__idl__
    idl.populate()
    idl.fill_type_data()
    information, _ = idl._xt_data
    assert bytes(information.minimal.typeid_with_size.type_id.value).hex() == minimal
    assert bytes(information.complete.typeid_with_size.type_id.value).hex() == complete


def test_names() -> None:
    assert ros2.topic("/joint_states") == "rt/joint_states"
    assert ros2.topic("/arm_1/forward/commands") == "rt/arm_1/forward/commands"
    for wrong in ("joint_states", "/", "/a/", "//a", "/1a", "/a b", "", "/a;b"):
        with pytest.raises(DriverError, match="full name"):
            ros2.topic(wrong)
    assert ros2.JOINT_STATE.name == "sensor_msgs.msg.dds_.JointState_"  # :: on the wire


# What is not as it should be.


def state(**changes: Any) -> bytes:
    given: dict[str, Any] = {"names": NAMES, "position": (1.0, 2.0), "velocity": (3.0, 4.0),
                             "effort": (5.0, 6.0), **changes}  # fmt: skip
    return ros2.joint_state(7, *given.values())


def test_the_order_of_joints_may_change_between_messages() -> None:
    reader = ros2.JointStates(NAMES)
    first = reader.read(state())
    turned = {"names": ("knee", "x", "hip"), "position": (2.0, 9.0, 1.0),
              "velocity": (4.0, 9.0, 3.0), "effort": (6.0, 9.0, 5.0)}  # fmt: skip
    assert reader.read(state(**turned)) == first
    assert reader.read(state(**turned)) == first
    assert reader.read(state()) == first


@pytest.mark.parametrize(("changes", "cause"), [
    ({"names": ("hip", "ankle")}, "no knee"),
    ({"names": ("hip", "knee", "knee"), "position": (1.0, 2.0, 3.0)}, "twice"),
    ({"position": (1.0,)}, "lengths"),
    ({"position": ()}, "position"),
    ({"position": (1.0, nan)}, "position"),
    ({"position": (inf, 0.0)}, "position"),
    ({"velocity": (1.0,)}, "lengths"),
    ({"effort": (1.0, 2.0, 3.0)}, "lengths"),
])  # fmt: skip
def test_a_joint_state_that_lacks_something_is_refused_by_cause(
    changes: dict[str, Any], cause: str
) -> None:
    reader = ros2.JointStates(NAMES)
    reader.read(state())
    with pytest.raises(CdrError, match=cause):
        reader.read(state(**changes))
    assert reader.read(state()).position == (1.0, 2.0)


def test_interfaces_that_a_joint_does_not_have_are_told_as_none() -> None:
    found = ros2.JointStates(NAMES).read(state(velocity=(nan, nan), effort=(nan, 1.0)))
    assert found.velocity == () and found.effort == ()


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_a_refusal(noise: bytes) -> None:
    for head in (b"", b"\x00\x01\x00\x00"):
        for read in (ros2.JointStates(NAMES).read, ros2.read_commands, ros2.read_trajectory):
            try:
                read(head + noise)
            except CdrError:
                continue


@given(st.integers(0, len(JOINT_STATE) - 1), st.integers(0, 255))
def test_no_broken_byte_raises_anything_but_a_refusal(at: int, value: int) -> None:
    broken = bytearray(JOINT_STATE)
    broken[at] = value
    try:
        ros2.JointStates(NAMES).read(bytes(broken))
    except CdrError:
        pass


@given(st.integers(0, len(JOINT_STATE) - 1))
def test_what_is_cut_off_is_refused(length: int) -> None:
    with pytest.raises(CdrError):
        ros2.JointStates(NAMES).read(JOINT_STATE[:length])
    with pytest.raises(CdrError, match="too long"):
        ros2.JointStates(NAMES).read(JOINT_STATE + bytes(4))


def test_other_encodings_and_absurd_counts_are_refused() -> None:
    for head in ("0000", "0007", "0003"):  # big-endian, version 2, parameter list
        with pytest.raises(CdrError, match="encoding"):
            ros2.JointStates(NAMES).read(bytes.fromhex(head) + JOINT_STATE[2:])
    many = CdrWriter().time(0, 0).text("").count(2**32 - 1).sample
    with pytest.raises(CdrError, match="too many"):
        ros2.JointStates(NAMES).read(many)
    with pytest.raises(CdrError, match="cut off"):
        CdrReader(CdrWriter().count(2**32 - 1).sample + bytes(64)).doubles()
    with pytest.raises(CdrError, match="text"):
        CdrReader(b"\x00\x01\x00\x00" + struct.pack("<I", 3) + b"abc").text()
    with pytest.raises(CdrError, match="too many"):
        points = CdrWriter().time(0, 0).text("").texts(("a",)).count(10_001)
        ros2.read_trajectory(points.sample)
