"""The bus of a simulated Dynamixel chain: who answers what, when, and how badly."""

from __future__ import annotations

import pytest
from dynamixel_bench import MS, Chain
from hypothesis import given, settings
from hypothesis import strategies as st

from safetypilot.bridge.devices.dynamixel_bus import Trouble
from safetypilot.bridge.protocols import dynamixel as wire
from safetypilot.bridge.protocols.dynamixel import packet, sync_write
from safetypilot.bridge.protocols.dynamixel_table import (
    CENTRE,
)


def test_groups() -> None:
    chain = Chain()
    rows = [(2, (100).to_bytes(4, "little")), (1, (200).to_bytes(4, "little")), (9, bytes(4))]
    assert chain.send(sync_write(116, rows)) == []
    assert [chain.read("goal_position", motor) for motor in (1, 2)] == [200, 100]
    answers = chain.send(packet(wire.BROADCAST, wire.SYNC_READ, b"\x74\0\x04\0\x02\x09\x01"))
    assert [(number, int.from_bytes(data, "little")) for number, _, data in answers] == [
        (2, 100),
        (1, 200),
    ]
    answers = chain.send(
        packet(wire.BROADCAST, wire.BULK_READ, b"\x01\x90\0\x02\0\x02\x92\0\x01\0")
    )
    assert answers == [(1, 0, b"\x78\0"), (2, 0, b"\x1e")]
    chain.send(
        packet(wire.BROADCAST, wire.BULK_WRITE, b"\x01\x41\0\x01\0\x01\x02\x74\0\x04\0\x07\0\0\0")
    )
    assert (chain.read("led"), chain.read("goal_position", 2)) == (1, 7)


@pytest.mark.parametrize(
    "broken",
    [
        packet(wire.BROADCAST, wire.SYNC_WRITE, b"\x74\0\x04\0\x01\x01\x01"),
        packet(wire.BROADCAST, wire.SYNC_WRITE, b"\x74\0\0\0\x01"),
        packet(wire.BROADCAST, wire.SYNC_READ, b"\x74\0"),
        packet(wire.BROADCAST, wire.BULK_WRITE, b"\x01\x41\0\x02\0\x01"),
        packet(1, wire.SYNC_READ, b"\x74\0\x04\0\x01"),
        packet(1, wire.STATUS, b"\0"),
    ],
)
def test_malformed_groups_are_counted_and_change_nothing(broken: bytes) -> None:
    chain = Chain()
    before = dict(chain.motors[0].values)
    assert chain.send(broken) == []
    assert chain.motors[0].values == before
    assert len(chain.refused) == 1


def test_a_registered_write_waits_for_the_action() -> None:
    chain = Chain()
    goal = b"\x74\0" + (300).to_bytes(4, "little")
    assert chain.send(packet(1, wire.REG_WRITE, goal)) == [(1, 0, b"")]
    assert (chain.read("goal_position"), chain.read("registered_instruction")) == (CENTRE, 1)
    assert chain.send(packet(wire.BROADCAST, wire.ACTION)) == []
    assert (chain.read("goal_position"), chain.read("registered_instruction")) == (300, 0)


def test_status_levels_and_broadcasts() -> None:
    chain = Chain()
    for level, reads, writes in ((1, 1, 0), (0, 0, 0)):
        chain.motors[0].values["status_return_level"] = level
        assert len(chain.send(packet(1, wire.READ, b"\x84\0\x04\0"))) == reads
        assert len(chain.send(packet(1, wire.WRITE, b"\x41\0\x01"))) == writes
        assert len(chain.send(packet(1, wire.PING))) == 1
    assert chain.send(packet(wire.BROADCAST, wire.WRITE, b"\x41\0\x01")) == []
    assert chain.motors[1].values["led"] == 1


def test_answers_come_after_the_return_delay_and_the_time_on_the_wire() -> None:
    chain = Chain(timed=True)  # at 1 Mbaud; a ping is 10 bytes, its answer 14
    chain.bus.receive(packet(1, wire.PING), 0)
    assert chain.bus.next_ns == (10 + 14) * 10_000 + 500_000
    chain.bus.due(MS)
    chain.motors[0].values["return_delay_time"] = 0
    chain.bus.receive(packet(1, wire.PING), 2 * MS)
    assert chain.bus.next_ns == 2 * MS + (10 + 14) * 10_000


@settings(max_examples=40)
@given(st.lists(st.one_of(st.binary(max_size=30), st.just(packet(1, wire.PING))), max_size=20))
def test_noise_changes_nothing(noise: list[bytes]) -> None:
    chain = Chain()
    before = [dict(motor.values) for motor in chain.motors]
    for each in noise:
        chain.send(each, MS)
    assert [dict(motor.values) for motor in chain.motors] == before
    pings = noise.count(packet(1, wire.PING))
    assert chain.bus.counters["received"] <= pings + 1


def test_trouble_is_the_same_for_the_same_seed() -> None:
    def stream(seed: int) -> list[int]:
        chain = Chain(trouble=Trouble(corrupt=0.2, late=0.2, drop=0.2, split=0.2), seed=seed)
        for _ in range(100):
            chain.send(packet(1, wire.PING), 50 * MS)
        return list(chain.bus.counters.values())

    assert stream(1) == stream(1) != stream(2)
    received, answered, *troubles = stream(1)
    assert received == answered == 100
    assert all(10 <= each <= 35 for each in troubles)
