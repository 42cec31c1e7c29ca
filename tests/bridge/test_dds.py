"""DDS by raw samples: types as data, one interface only, and nothing left behind."""

from __future__ import annotations

import os
import shutil
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest

pytest.importorskip("cyclonedds")

from unitree_rig import PATIENCE_S, free_domain, soon

from safetypilot.bridge.contract import DriverError
from safetypilot.bridge.protocols import dds_network
from safetypilot.bridge.protocols.dds import (
    HEADER,
    Array,
    Bus,
    Sequence,
    Struct,
    digests,
)

POINT = Struct("test.msg.dds_.Point_", (("x", "float32"), ("y", "float32")))
LISTS = Struct(
    "test.msg.dds_.Lists_",
    (("names", Sequence("string")), ("points", Array(POINT, 2)), ("on", "bool"), ("id", "int64")),
)


def point(x: float, y: float = 0.0) -> bytes:
    return HEADER + struct.pack("<2f", x, y)


@pytest.fixture
def bus() -> Iterator[Bus]:
    made = Bus(free_domain())
    yield made
    made.close()


def test_samples_arrive_as_they_were_sent(bus: Bus) -> None:
    writer, reader = bus.writer("rt/point", POINT), bus.reader("rt/point", POINT)
    assert (writer.readers, reader.writers) == (1, 1)
    assert reader.take() == []
    writer.write(point(1.0, 2.0))
    (sample,) = reader.wait(soon())
    assert sample.data == point(1.0, 2.0)
    assert reader.take() == []


def test_every_kind_of_field(bus: Bus) -> None:
    """By hand, as the binding would write it."""
    names = struct.pack("<II2s2xI4s", 2, 2, b"a\0", 4, b"bcd\0")
    body = names + struct.pack("<4f", 1, 2, 3, 4) + b"\1"
    body += bytes(-len(body) % 8) + struct.pack("<q", -5)
    writer, reader = bus.writer("rt/lists", LISTS), bus.reader("rt/lists", LISTS)
    writer.write(HEADER + body)
    (sample,) = reader.wait(soon())
    assert sample.data == HEADER + body


def test_what_is_not_of_the_type_is_not_sent(bus: Bus) -> None:
    writer, reader = bus.writer("rt/point", POINT), bus.reader("rt/point", POINT)
    for sample in (b"", HEADER, point(1.0)[:-1], point(1.0)[:-4]):
        with pytest.raises(DriverError, match=f"refused a sample of {len(sample)} bytes"):
            writer.write(sample)
    assert reader.take() == []


def test_a_reader_keeps_as_many_as_it_was_told(bus: Bus) -> None:
    writer = bus.writer("rt/point", POINT)
    newest, four = bus.reader("rt/point", POINT), bus.reader("rt/point", POINT, depth=4)
    for x in range(10):
        writer.write(point(x))
    assert [sample.data for sample in newest.take()] == [point(9)]
    assert [sample.data for sample in four.take()] == [point(x) for x in range(6, 10)]


def test_a_reader_tells_writers_apart_and_may_not_hear_its_own(bus: Bus) -> None:
    first, second = bus.writer("rt/point", POINT), bus.writer("rt/point", POINT)
    reader = bus.reader("rt/point", POINT, depth=4)
    deaf = bus.reader("rt/point", POINT, depth=4, others_only=True)
    for writer in (first, second, first):
        writer.write(point(1.0))
    senders = [sample.writer for sample in reader.take()]
    assert senders[0] == senders[2] != senders[1]
    assert deaf.take() == []


def test_waiting_ends_with_the_deadline(bus: Bus) -> None:
    reader = bus.reader("rt/point", POINT)
    assert reader.wait(soon(0.01)) == []
    assert reader.wait(0) == []


def test_a_domain_is_opened_again_and_nothing_is_left(bus: Bus) -> None:
    domain = free_domain()

    def opened() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))

    before = None
    for _ in range(5):
        again = Bus(domain)
        again.writer("rt/point", POINT).write(point(1.0))
        again.reader("rt/lists", LISTS)
        with pytest.raises(DriverError, match="once at a time"):
            Bus(domain)
        again.close()
        again.close()
        before = before or opened()
    assert opened() == before


def test_a_closed_bus_says_so() -> None:
    bus = Bus(free_domain())
    writer, reader = bus.writer("rt/point", POINT), bus.reader("rt/point", POINT)
    bus.close()
    with pytest.raises(DriverError, match="closed"):
        writer.write(point(1.0))
    with pytest.raises(DriverError, match="nothing any more"):
        reader.take()


@pytest.mark.parametrize("domain", [-1, 231, 10**9])
def test_domains_that_there_are_not(domain: int) -> None:
    with pytest.raises(DriverError, match="it goes from 0 to 230"):
        Bus(domain)


@pytest.mark.parametrize("interface", ["", "nope", "lo<", "../lo", "a" * 20])
def test_interfaces_that_there_are_not(interface: str) -> None:
    with pytest.raises(DriverError, match=r"there is no network interface .* there are .*lo"):
        Bus(5, interface)


def test_the_order_of_fields_is_part_of_the_type() -> None:
    turned = Struct(POINT.name, POINT.fields[::-1])
    assert digests(turned) != digests(POINT) == digests(Struct(POINT.name, POINT.fields))


def test_cyclonedds_is_missing() -> None:
    code = """
import sys
sys.modules["cyclonedds"] = None
from safetypilot.bridge.protocols.dds import Bus
try:
    Bus(3)
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, text=True, timeout=PATIENCE_S
    )
    assert done.stdout.startswith("DriverError")
    assert "pip install 'safetypilot[dds]'" in done.stdout


# Who can reach it.


def test_where_a_socket_cannot_be_confined_the_domain_is_not_opened(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    domain = free_domain()
    with monkeypatch.context() as patched:
        patched.delattr(socket, "SO_BINDTODEVICE")
        with pytest.raises(DriverError, match="listen on every network interface"):
            Bus(domain)
    Bus(domain).close()  # it was closed again


def test_other_sockets_are_left_alone(bus: Bus) -> None:
    """Only those of the domain are confined, not whatever else this process has."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("0.0.0.0", 0))
        dds_network.confine(free_domain(), "lo")
        assert other.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16).strip(b"\0") == b""


needs_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None, reason="makes network namespaces"
)


class Networks:
    """Two hosts with two cables between them, as network namespaces: a is 10.9.N.1, b 10.9.N.2."""

    def __init__(self) -> None:
        self.a, self.b = (f"sp-{os.getpid()}-{side}" for side in "ab")
        for name in (self.a, self.b):
            _ip("netns", "add", name)
            _ip("-n", name, "link", "set", "lo", "up")
        for cable in "12":
            _ip("-n", self.a, "link", "add", f"c{cable}", "type", "veth",
                "peer", "name", f"c{cable}", "netns", self.b)  # fmt: skip
            for number, name in enumerate((self.a, self.b), 1):
                _ip("-n", name, "addr", "add", f"10.9.{cable}.{number}/24", "dev", f"c{cable}")
                _ip("-n", name, "link", "set", f"c{cable}", "up")

    def run(self, name: str, code: str, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-P", "-c", code, *arguments]
        return subprocess.Popen(
            ["ip", "netns", "exec", name, *command],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip

    def close(self) -> None:
        for name in (self.a, self.b):
            with suppress(subprocess.CalledProcessError):
                _ip("netns", "del", name)


def _ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True, capture_output=True)


LISTENER = """
import sys
from safetypilot.bridge.protocols.dds import Bus
bus = Bus(7, sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
"""
# A port that nobody listens on answers with an ICMP error, which a connected socket is told.
PROBE = """
import socket, sys, time
for address in sys.argv[1:]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 7410 + 250 * 7))
        probe.settimeout(1.0)
        heard = True
        for _ in range(3):
            try:
                probe.send(b"RTPS")
                time.sleep(0.1)
            except ConnectionRefusedError:
                heard = False
        print(address, "listens" if heard else "refuses", flush=True)
"""


@needs_root
@pytest.mark.integration
@pytest.mark.parametrize(
    ("interface", "heard"),
    [("lo", ["refuses", "refuses"]), ("c1", ["listens", "refuses"])],
)
def test_only_the_named_interface_is_listened_on(interface: str, heard: list[str]) -> None:
    networks = Networks()
    processes: list[subprocess.Popen[str]] = []

    def run(*arguments: Any) -> subprocess.Popen[str]:
        processes.append(networks.run(*arguments))
        return processes[-1]

    try:
        listener = run(networks.a, LISTENER, interface)
        assert listener.stdout is not None
        assert listener.stdout.readline() == "ready\n"
        addresses = ["10.9.1.1", "10.9.2.1"]
        said = run(networks.b, PROBE, *addresses).communicate(timeout=PATIENCE_S)[0]
        assert said.splitlines() == [
            f"{address} {what}" for address, what in zip(addresses, heard, strict=True)
        ]
        here = run(networks.a, PROBE, "127.0.0.1").communicate(timeout=PATIENCE_S)[0]
        assert here == f"127.0.0.1 {'listens' if interface == 'lo' else 'refuses'}\n"
    finally:
        for process in processes:
            process.kill()
            process.communicate()
        networks.close()


ROBOT = """
import sys
from safetypilot.bridge.devices import quadruped
sys.exit(quadruped.main(sys.argv[1:]))
"""
# The robot's own motion service: it commands the motors until it is told to let go.
SERVICE = """
import json, sys
from safetypilot.bridge.protocols import unitree_api as api, unitree_types as types
from safetypilot.bridge.protocols.dds import Bus
bus = Bus(7, "c1")
reader = bus.reader(api.REQUEST_TOPIC, types.REQUEST, depth=4)
writer = bus.writer(api.RESPONSE_TOPIC, types.RESPONSE)
print("ready", flush=True)
name = "normal"
while True:
    for sample in reader.wait(2**62):
        request = api.unpack_request(sample.data)
        if request.api == api.RELEASE_MODE:
            name = ""
            print("released", flush=True)
        data = json.dumps({"form": "0", "name": name})
        writer.write(api.pack_response(api.Response(request.id, request.api, 0, data)))
"""
DRIVER = """
import sys
from time import monotonic_ns
from safetypilot.bridge import registry
from safetypilot.bridge.contract import DriverError, Mode, Setpoint
options = {"domain": 7, "interface": "c1", "connect_s": 60, "ramp_s": 0.1}
driver = registry.create("unitree", options)
print(driver.connect()["model"], driver.description.simulated, flush=True)
driver.configure({})
print(repr(driver.check_watchdog()), flush=True)
try:
    driver.activate(Mode.PD)
except DriverError as error:
    print(error, flush=True)
else:
    zeros = (0.0,) * 12
    driver.write(Setpoint(Mode.PD, *(zeros,) * 5), monotonic_ns() + 10**9)
    driver.deactivate()
    print("active", flush=True)
driver.close()
"""


@needs_root
@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.parametrize(
    ("start", "said"),
    [("lying", "active"), ("standing", "the robot stands, and would fall")],
)
def test_a_robot_on_a_cable_is_found_and_taken_over(start: str, said: str) -> None:
    """As a real one: another host, its own interface, multicast, and its own motion service."""
    networks = Networks()
    robot = networks.run(networks.b, ROBOT, "--domain", "7", "--interface", "c1", "--start", start)
    service = networks.run(networks.b, SERVICE)
    try:
        assert robot.stdout is not None
        assert service.stdout is not None
        assert '"ready": true' in robot.stdout.readline()
        assert service.stdout.readline() == "ready\n"
        driver = networks.run(networks.a, DRIVER)
        lines = driver.communicate(timeout=120)[0].splitlines()
        assert lines[:2] == ["go2 False", "''"]
        assert lines[2].startswith(said)
        service.kill()
        assert service.communicate()[0] == ("released\n" if said == "active" else "")
    finally:
        for process in (robot, service):
            process.kill()
            process.communicate()
        networks.close()
