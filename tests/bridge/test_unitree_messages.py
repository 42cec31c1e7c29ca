"""Unitree's messages against the vendor's own: digests, checksums, layouts; and round trips."""

from __future__ import annotations

import struct
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("cyclonedds")

from safetypilot.bridge.contract import DriverError
from safetypilot.bridge.protocols import dds, unitree, unitree_types
from safetypilot.bridge.protocols.unitree import (
    BUTTONS,
    GO,
    HG,
    LOW_LEVEL,
    NO_POSITION,
    NO_VELOCITY,
    Commands,
    Family,
    Remote,
    State,
    States,
)
from safetypilot.bridge.protocols.unitree_crc import checksum
from safetypilot.bridge.protocols.unitree_image import Corrupted, Image
from safetypilot.bridge.protocols.unitree_robots import G1, GO2

FAMILIES = pytest.mark.parametrize("family", [GO, HG], ids=["go", "hg"])
STRUCTS = (GO.command, GO.state, HG.command, HG.state)
single = st.floats(width=32, allow_nan=False, allow_infinity=False)


def bitwise(image: bytes) -> int:
    """The checksum as the vendor's loop computes it."""
    crc = 0xFFFFFFFF
    for (word,) in struct.iter_unpack("<I", image[:-4]):
        for bit in range(31, -1, -1):
            top = crc >> 31
            crc = crc << 1 & 0xFFFFFFFF
            if top ^ (word >> bit & 1):
                crc ^= 0x04C11DB7
    return crc


def vector(*, joints: int) -> st.SearchStrategy[tuple[float, ...]]:
    return st.lists(single, min_size=joints, max_size=joints).map(tuple)


def number_of(sample: bytes) -> str:
    return sample[-4:][::-1].hex()


# Types.


@pytest.mark.parametrize("struct_", STRUCTS, ids=lambda each: each.name)
def test_a_robot_is_told_the_types_that_it_knows(struct_: dds.Struct) -> None:
    unitree_types.check_digests(struct_)


def test_types_that_a_robot_does_not_know_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(unitree_types.DIGESTS, GO.command.name, ("000000000000", "a6c7b8e2dd75"))
    with pytest.raises(DriverError, match=r"cc8f6612e08e/a6c7b8e2dd75.*nothing was sent"):
        unitree_types.check_digests(GO.command)


def test_octets_are_told_as_octets() -> None:
    """As uint8 they crash a peer on Cyclone 0.10; the digest sees the difference."""
    fields = tuple((name, "uint8" if kind == "octet" else kind) for name, kind in GO.command.fields)
    assert dds.digests(dds.Struct(GO.command.name, fields)) != dds.digests(GO.command)


# Layouts.


@pytest.mark.parametrize(
    ("struct_", "size", "offsets"),
    [
        (GO.command, 812, {
            "sn": 4, "version": 12, "bandwidth": 20, "motor_cmd": 24, "motor_cmd.q": 28,
            "motor_cmd.reserve": 48, "bms_cmd": 744, "wireless_remote": 748, "led": 788, "fan": 800,
            "gpio": 802, "reserve": 804, "crc": 808,
        }),
        (GO.state, 1180, {
            "imu_state": 24, "imu_state.temperature": 76, "motor_state": 80,
            "motor_state.temperature": 112, "motor_state.lost": 116, "motor_state.reserve": 120,
            "bms_state": 1040, "foot_force": 1084, "foot_force_est": 1092, "tick": 1100,
            "wireless_remote": 1104, "bit_flag": 1144, "adc_reel": 1148, "temperature_ntc1": 1152,
            "power_v": 1156, "power_a": 1160, "fan_frequency": 1164, "reserve": 1172, "crc": 1176,
        }),
        (HG.command, 1004, {"mode_machine": 1, "motor_cmd": 4, "reserve": 984, "crc": 1000}),
        (HG.state, 2092, {
            "mode_pr": 8, "tick": 12, "imu_state": 16, "imu_state.temperature": 68,
            "motor_state": 72, "motor_state.temperature": 92, "motor_state.vol": 96,
            "motor_state.sensor": 100, "motor_state.motorstate": 108, "motor_state.reserve": 112,
            "wireless_remote": 2032, "reserve": 2072, "crc": 2088,
        }),
    ],
    ids=["go command", "go state", "hg command", "hg state"],
)  # fmt: skip
def test_fields_are_where_the_vendor_has_them(
    struct_: dds.Struct, size: int, offsets: dict[str, int]
) -> None:
    image = Image(struct_)
    assert image.size == size
    assert {name: image.offsets[name] for name in offsets} == offsets


def test_motors_take_as_many_bytes_as_the_vendor_s() -> None:
    shapes = (Image(each).strides for each in STRUCTS)
    strides = [shape.get("motor_cmd", shape.get("motor_state")) for shape in shapes]
    assert strides == [36, 48, 28, 56]


@pytest.mark.parametrize("struct_", STRUCTS, ids=lambda each: each.name)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_samples_are_what_the_binding_makes_of_them(
    struct_: dds.Struct, data: st.DataObject
) -> None:
    """A second way to the same bytes: Cyclone's own serialiser, with numbers in every field."""
    numbers = data.draw(st.binary(min_size=1, max_size=64))
    fill = iter(range(10**9))

    def value(kind: dds.Kind) -> Any:
        if isinstance(kind, dds.Struct):
            return idl(kind)(**{name: value(inner) for name, inner in kind.fields})
        if isinstance(kind, dds.Array):
            return [value(kind.kind) for _ in range(kind.size)]
        byte = numbers[next(fill) % len(numbers)]
        return float(byte) if kind == "float32" else byte

    from cyclonedds import idl as idl_module  # the binding makes plain classes of our types

    made: dict[str, Any] = {}

    def idl(kind: dds.Struct) -> Any:
        from dataclasses import dataclass

        plain = dds._idl(kind, idl_module, made)
        return plain if hasattr(plain, "__dataclass_fields__") else dataclass(plain)

    sample = value(struct_).serialize()
    image = Image(struct_)
    assert image.to_cdr(image.from_cdr(sample)) == sample


@pytest.mark.parametrize("struct_", STRUCTS, ids=lambda each: each.name)
def test_what_is_between_the_fields_does_not_count(struct_: dds.Struct) -> None:
    image = Image(struct_)
    blank = image.to_cdr(bytes(image.size))
    noisy = dds.HEADER + b"\xff" * (len(blank) - len(dds.HEADER))
    kept = image.blank(image.from_cdr(noisy))
    fields = {offset for offset in range(image.size) if kept[offset]}
    assert fields == set(range(image.size)) - padding(struct_)


def test_a_checksum_is_over_zeros_between_the_fields() -> None:
    commands = Commands(GO, 12)
    sample = bytearray(commands.pack(*((0.5,) * 12,) * 5))
    sample[4 + 23] = 0xAA  # behind the first motor's mode
    assert commands.unpack(bytes(sample)).kp == (0.5,) * 12


def padding(struct_: dds.Struct) -> set[int]:
    """Bytes of the C structure between its fields, counted by hand."""
    motors, stride = {
        GO.command.name: (24, 36), GO.state.name: (80, 48),
        HG.command.name: (4, 28), HG.state.name: (72, 56),
    }[struct_.name]  # fmt: skip
    slots = 20 if struct_ in (GO.command, GO.state) else 35
    gaps = {motors + stride * slot + byte for slot in range(slots) for byte in (1, 2, 3)}
    if struct_ == GO.command:
        return gaps | {22, 23, 803}
    if struct_ == HG.command:
        return gaps | {2, 3}
    if struct_ == HG.state:
        return gaps | {10, 11, 70, 71}
    gaps |= {motors + stride * slot + byte for slot in range(slots) for byte in (33, 34, 35)}
    return gaps | {22, 23, 77, 78, 79, 1145, 1146, 1147, 1154, 1155}


# Checksums.


def test_reference_checksums() -> None:
    """Computed with the vendor's compiled routine."""
    assert checksum(bytes(812)) == 0x4B5A4880
    assert checksum(bytes(1004)) == 0xFE172F9F
    zeros = (0.0,) * 20
    commands = Commands(GO, 20)
    assert number_of(commands.pack(*(zeros,) * 5)) == "57ecf19d"
    half, one, stiff = ((each,) * 12 + (0.0,) * 8 for each in (0.5, 1.0, 20.0))
    assert number_of(commands.pack(half, zeros, one, stiff, half)) == "f6f76f07"
    humanoid = Commands(HG, 35)
    humanoid.use_machine(5)
    assert number_of(humanoid.pack(*((0.0,) * 35,) * 5)) == "77176f39"


@given(words=st.integers(1, 60), data=st.data())
@settings(max_examples=60, deadline=None)
def test_the_fast_checksum_is_the_loop_s(words: int, data: st.DataObject) -> None:
    image = data.draw(st.binary(min_size=4 * words, max_size=4 * words))
    assert checksum(image) == bitwise(image)


# Commands.


@given(numbers=st.lists(vector(joints=12), min_size=5, max_size=5))
@settings(max_examples=50, deadline=None)
def test_a_command_arrives_as_it_was_meant(numbers: list[tuple[float, ...]]) -> None:
    commands = Commands(GO, 12)
    told = commands.unpack(commands.pack(*numbers))
    assert (told.header, told.modes) == (LOW_LEVEL, (1,) * 12)
    assert list(told[2:]) == numbers


def test_slots_without_a_motor_are_told_nothing() -> None:
    everything = Commands(GO, 20)
    told = everything.unpack(Commands(GO, 12).pack(*((1.0,) * 12,) * 5))
    assert told.modes == (1,) * 20
    unused = [numbers[12:] for numbers in told[2:]]
    assert unused[:2] == [(NO_POSITION,) * 8, (NO_VELOCITY,) * 8]
    assert unused[2:] == [(0.0,) * 8] * 3
    humanoid = Commands(HG, 35).unpack(Commands(HG, 29).pack(*((1.0,) * 29,) * 5))
    assert humanoid.modes == (1,) * 29 + (0,) * 6
    assert all(numbers[29:] == (0.0,) * 6 for numbers in humanoid[2:])


@FAMILIES
def test_effort_alone_leaves_no_other_term(family: Family) -> None:
    joints = 12 if family is GO else 29
    commands = Commands(family, joints)
    effort = tuple(map(float, range(joints)))
    told = commands.unpack(commands.pack_effort(effort))
    assert told.effort == effort
    assert not any(told.kp) and not any(told.kd)
    assert told.position == ((NO_POSITION if family is GO else 0.0),) * joints


def test_a_humanoid_s_machine_is_repeated() -> None:
    commands = Commands(HG, 29)
    commands.use_machine(5)
    assert commands.unpack(commands.pack(*((0.0,) * 29,) * 5)).header == bytes((0, 5))


@given(data=st.data())
@settings(max_examples=100, deadline=None)
def test_one_wrong_bit_is_seen(data: st.DataObject) -> None:
    commands = Commands(GO, 12)
    sample = bytearray(commands.pack(*((0.5,) * 12,) * 5))
    field = data.draw(st.sampled_from([4, 20, 26, 28, 44, 300, 740, len(sample) - 1]))
    sample[field] ^= 1 << data.draw(st.integers(0, 7))
    with pytest.raises(Corrupted, match="crc"):
        commands.unpack(bytes(sample))


@given(noise=st.binary(max_size=1300))
@settings(max_examples=200, deadline=None)
@FAMILIES
def test_noise_is_nothing(family: Family, noise: bytes) -> None:
    for reader in (Commands(family, 12), States(family, 12)):
        for sample in (noise, dds.HEADER + noise, noise.ljust(reader.shape.size, b"\0")):
            with pytest.raises(Corrupted):
                reader.unpack(sample)


# States.


def states(joints: int, family: Family) -> st.SearchStrategy[State]:
    go = family is GO
    return st.builds(
        State,
        tick_ms=st.integers(0, 2**32 - 1),
        modes=st.lists(st.integers(0, 255), min_size=joints, max_size=joints).map(tuple),
        position=vector(joints=joints),
        velocity=vector(joints=joints),
        effort=vector(joints=joints),
        errors=st.just(() if go else (0,) * joints),
        orientation=vector(joints=4),
        gyroscope=vector(joints=3),
        accelerometer=vector(joints=3),
        rpy=vector(joints=3),
        foot_force=st.lists(st.integers(-(2**15), 2**15 - 1), min_size=4, max_size=4).map(
            lambda feet: tuple(map(float, feet)) if go else ()
        ),
        remote=st.binary(min_size=40, max_size=40),
        machine=st.just(0) if go else st.integers(0, 255),
        placed=st.integers(0, 2**32 - 1) if go else st.just(0),
    )


@FAMILIES
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_a_state_arrives_as_it_was_meant(family: Family, data: st.DataObject) -> None:
    codec = States(family, 12 if family is GO else 29)
    state = data.draw(states(12 if family is GO else 29, family))
    assert codec.unpack(codec.pack(state)) == state


@pytest.mark.parametrize(
    ("family", "serial"), [(GO, "0100000002000000"), (HG, "not told")], ids=["go", "hg"]
)
def test_a_state_names_the_robot(family: Family, serial: str) -> None:
    codec = States(family, 2)
    codec.set_identity(0x0000000200000001, (3, 4))
    none = (0.0, 0.0)
    imu = ((1.0, 0.0, 0.0, 0.0), *((0.0,) * 3,) * 3)
    feet = (0.0,) * 4 if family is GO else ()
    sample = codec.pack(State(1, (1, 1), none, none, none, (), *imu, feet, bytes(40), 0))
    assert codec.identity(sample) == (serial, "3.4")


@given(sticks=vector(joints=4), keys=st.integers(0, 2**16 - 1).map(lambda keys: keys & ~0xC0))
def test_the_remote_controller(sticks: tuple[float, ...], keys: int) -> None:
    remote = Remote(*sticks, keys)
    assert unitree.read_remote(unitree.make_remote(remote)) == remote
    assert remote.pressed() == tuple(
        name for bit, name in enumerate(BUTTONS) if name and keys & 1 << bit
    )


def test_buttons_and_sticks_are_where_the_vendor_has_them() -> None:
    data = bytearray(40)
    data[2], data[3] = 0b100000, 0b00000010  # L2; B
    struct.pack_into("<f", data, 4, 0.1)
    struct.pack_into("<f", data, 8, 0.2)
    struct.pack_into("<f", data, 12, 0.3)
    struct.pack_into("<f", data, 20, 0.4)
    remote = unitree.read_remote(bytes(data))
    assert remote.pressed() == ("L2", "B")
    assert (remote.lx, remote.rx, remote.ry, remote.ly) == pytest.approx((0.1, 0.2, 0.3, 0.4))


# Joints.


def test_joints_are_in_the_order_of_the_motors() -> None:
    assert [joint.name for joint in GO2.joints] == [
        f"{leg}_{part}_joint"
        for leg in ("FR", "FL", "RR", "RL")
        for part in ("hip", "thigh", "calf")
    ]
    names = [joint.name for joint in G1.joints]
    assert len(names) == 29
    assert {names.index(f"{name}_joint"): name for name in (
        "left_hip_pitch", "left_knee", "left_ankle_roll", "right_hip_pitch", "waist_yaw",
        "waist_pitch", "left_shoulder_pitch", "left_elbow", "right_shoulder_pitch",
        "right_wrist_yaw",
    )} == {
        0: "left_hip_pitch", 3: "left_knee", 5: "left_ankle_roll", 6: "right_hip_pitch",
        12: "waist_yaw", 14: "waist_pitch", 15: "left_shoulder_pitch", 18: "left_elbow",
        22: "right_shoulder_pitch", 28: "right_wrist_yaw",
    }  # fmt: skip


def test_limits_are_the_vendor_s() -> None:
    go2 = {joint.name: joint for joint in GO2.joints}
    assert (go2["RR_thigh_joint"].low, go2["RR_thigh_joint"].high) == (-0.5236, 4.5379)
    assert (go2["FL_thigh_joint"].low, go2["FL_thigh_joint"].high) == (-1.5708, 3.4907)
    assert (go2["FR_calf_joint"].effort, go2["FR_hip_joint"].effort) == (45.43, 23.7)
    g1 = {joint.name: joint for joint in G1.joints}
    assert (g1["right_hip_roll_joint"].low, g1["right_hip_roll_joint"].high) == (-2.9671, 0.5236)
    assert (g1["right_elbow_joint"].low, g1["right_elbow_joint"].high) == (-1.0472, 2.0944)
