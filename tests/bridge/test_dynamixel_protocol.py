"""Dynamixel packets: the published ones, the vendor's checksum, and noise on the wire."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetypilot.bridge.protocols import dynamixel as wire
from safetypilot.bridge.protocols.dynamixel import Packet, Receiver, crc16, packet, sync_write
from safetypilot.bridge.protocols.dynamixel_table import MODELS, REGISTERS, TABLE

sdk = pytest.importorskip("dynamixel_sdk")

# Of the e-manual: what is sent, and the bytes.
PUBLISHED = {
    "ping 1": (packet(1, wire.PING), "ff ff fd 00 01 03 00 01 19 4e"),
    "ping all": (packet(wire.BROADCAST, wire.PING), "ff ff fd 00 fe 03 00 01 31 42"),
    "answer to a ping": (
        packet(1, wire.STATUS, b"\0\x06\x04\x26"),
        "ff ff fd 00 01 07 00 55 00 06 04 26 65 5d",
    ),
    "read position": (
        packet(1, wire.READ, b"\x84\0\x04\0"),
        "ff ff fd 00 01 07 00 02 84 00 04 00 1d 15",
    ),
    "write position": (
        packet(1, wire.WRITE, b"\x74\0" + (512).to_bytes(4, "little")),
        "ff ff fd 00 01 09 00 03 74 00 00 02 00 00 ca 89",
    ),
    "register a write": (
        packet(1, wire.REG_WRITE, b"\x68\0" + (200).to_bytes(4, "little")),
        "ff ff fd 00 01 09 00 04 68 00 c8 00 00 00 ae 8e",
    ),
    "action": (packet(1, wire.ACTION), "ff ff fd 00 01 03 00 05 02 ce"),
    "reboot": (packet(1, wire.REBOOT), "ff ff fd 00 01 03 00 08 2f 4e"),
    "sync read": (
        packet(wire.BROADCAST, wire.SYNC_READ, b"\x84\0\x04\0\x01\x02"),
        "ff ff fd 00 fe 09 00 82 84 00 04 00 01 02 ce fa",
    ),
    "sync write": (
        sync_write(116, [(1, (150).to_bytes(4, "little")), (2, (170).to_bytes(4, "little"))]),
        "ff ff fd 00 fe 11 00 83 74 00 04 00 01 96 00 00 00 02 aa 00 00 00 82 87",
    ),
    "bulk read": (
        packet(wire.BROADCAST, wire.BULK_READ, b"\x01\x90\0\x02\0\x02\x92\0\x01\0"),
        "ff ff fd 00 fe 0d 00 92 01 90 00 02 00 02 92 00 01 00 1a 05",
    ),
}

payloads = st.lists(
    st.one_of(
        st.binary(max_size=8), st.sampled_from([b"\xff\xff\xfd", b"\xff", b"\xfd", b"\xfd\xfd"])
    ),
    max_size=12,
).map(b"".join)
packets = st.builds(
    Packet, st.integers(0, wire.LARGEST_ID), st.sampled_from([1, 2, 3, 0x55, 0x83]), payloads
)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_packets(name: str) -> None:
    made, published = PUBLISHED[name]
    assert made.hex(" ") == published


@given(st.binary(max_size=60))
def test_the_checksum_is_the_vendors(data: bytes) -> None:
    assert crc16(data) == sdk.Protocol2PacketHandler().updateCRC(0, data, len(data))


@given(st.lists(packets, max_size=5), st.data())
def test_what_is_sent_arrives_in_any_pieces(sent: list[Packet], data: st.DataObject) -> None:
    stream = b"".join(packet(*each) for each in sent)
    causes: list[str] = []
    receiver, found, at = Receiver(causes.append), [], 0
    while at < len(stream):
        size = data.draw(st.integers(1, len(stream) - at))
        found += receiver.feed(stream[at : at + size], 0)
        at += size
    assert found == sent
    assert not causes


@given(packets)
def test_no_header_is_inside_a_packet(sent: Packet) -> None:
    made = packet(*sent)
    body = made[7:-2]
    at = body.find(wire.HEADER)
    while at >= 0:
        assert body[at + 3] == 0xFD
        at = body.find(wire.HEADER, at + 1)


@given(packets, st.data())
def test_a_flipped_bit_is_noticed(sent: Packet, data: st.DataObject) -> None:
    made = bytearray(packet(*sent))
    bit = data.draw(st.integers(0, 8 * len(made) - 1))
    made[bit // 8] ^= 1 << bit % 8
    causes: list[str] = []
    receiver = Receiver(causes.append)
    assert not receiver.feed(bytes(made), 0)
    # What announces more bytes than come is noticed when it has taken too long.
    found = receiver.feed(packet(7, wire.PING), 30_000_000)
    assert found == [Packet(7, wire.PING, b"")]
    assert causes


@given(st.lists(st.binary(max_size=40), max_size=8))
def test_noise_is_counted_and_a_packet_after_it_found(noise: list[bytes]) -> None:
    causes: Counter[str] = Counter()
    receiver = Receiver(lambda cause: causes.update([cause]))
    for number, each in enumerate(noise):
        receiver.feed(each, number)
    # Noise may end in what looks like the beginning of a packet; that is given up in time.
    found = []
    for number in range(1, 30):
        found += receiver.feed(packet(1, wire.PING), number * 21_000_000)
    assert found.count(Packet(1, wire.PING, b"")) >= 2
    assert set(causes) <= {"noise", "crc", "length", "incomplete"}


def test_the_sdk_as_we_use_it_stuffs_what_it_sends() -> None:
    from safetypilot.bridge.drivers.dynamixel_port import Packets

    class Port:
        is_using = False
        sent = b""

        def clearPort(self) -> None:  # noqa: N802
            pass

        def writePort(self, data: list[int]) -> int:  # noqa: N802
            self.sent = bytes(data)
            return len(data)

    goal = -131073  # ff ff fd ff: 32 turns back, in extended mode
    flat = [1, *goal.to_bytes(4, "little", signed=True)]
    wanted = sync_write(116, [(1, goal.to_bytes(4, "little", signed=True))])
    port = Port()
    Packets().syncWriteTxOnly(port, 116, 4, flat, len(flat))
    assert port.sent == wanted
    sdk.Protocol2PacketHandler().syncWriteTxOnly(port, 116, 4, flat, len(flat))
    assert port.sent != wanted, "the SDK has learned it: the replacement is not needed any more"


@given(payloads)
def test_the_sdk_as_we_use_it_takes_the_stuffing_out(payload: bytes) -> None:
    from safetypilot.bridge.drivers.dynamixel_port import Packets

    received = Packets().removeStuffing(list(packet(1, wire.STATUS, b"\0" + payload)))
    size = (received[5] | received[6] << 8) - 4
    assert bytes(received[9 : 9 + size]) == payload


def test_registers_do_not_overlap() -> None:
    end = 0
    for register in REGISTERS:
        assert register.address >= end
        end = register.address + register.size
        low, high = register.low, register.high
        if low is not None and high is not None:
            assert register.decode(register.encode(low)) == low
            assert register.decode(register.encode(high)) == high
    assert len(TABLE) == len(REGISTERS)
    assert len({model.number for model in MODELS.values()}) == len(MODELS)
