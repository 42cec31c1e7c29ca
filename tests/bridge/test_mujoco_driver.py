"""The MuJoCo driver against its device: a real process, a real socket, a real clock."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import monotonic_ns, sleep
from typing import Any

import pytest
from mujoco_rig import Machine, soon, two_links

from safetypilot.bridge.contract import DriverError, Mode, Setpoint, Vector
from safetypilot.bridge.devices.mujoco_door import Door
from safetypilot.bridge.devices.mujoco_options import MujocoOptions
from safetypilot.bridge.drivers.mujoco import MujocoDriver
from safetypilot.bridge.protocols.mujoco import CommandCodec, Head, Kind, message

pytestmark = pytest.mark.integration

WATCHDOG_S = 1.0
# A watchdog that a busy machine does not set off.
MAZE = MujocoOptions(
    actuation="position", rate_hz=250, obstacles="wall", time_factor=5, watchdog_s=WATCHDOG_S
)
CLIENT = """
import sys, time
from safetypilot.bridge.contract import Mode, Setpoint
from safetypilot.bridge.drivers import mujoco, mujoco_link
mujoco_link._END_AFTER_S = 0.5
driver = mujoco.MujocoDriver(mujoco.MujocoOptions(actuation="position", address=sys.argv[1],
                                                  rate_hz=250, obstacles="wall", time_factor=5,
                                                  watchdog_s=1.0))
driver.connect(), driver.configure({}), driver.activate(Mode.POSITION)
print(driver._link.identity and driver._child and driver._child._process.pid or 0, flush=True)
while True:
    driver.read(time.monotonic_ns() + 10**8)
    driver.write(Setpoint(Mode.POSITION, (0.05, 0.05)), time.monotonic_ns() + 10**8)
"""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    made = Machine(tmp_path_factory.mktemp("device"), MAZE)
    yield made
    assert made.end() == 0
    assert made.events()[-1]["event"] == "ended"


@pytest.fixture
def driver(machine: Machine) -> Iterator[MujocoDriver]:
    made = fresh(machine)
    made.place((0.0, 0.0))
    yield made
    made.close()


def fresh(machine: Machine, **options: Any) -> MujocoDriver:
    """Connected; whatever the device did before, it is damped and unlatched now."""
    made = MujocoDriver(replace(machine.options, **options))
    made.connect()
    made.estop("tidy")
    made.reset()
    made.configure({})
    return made


def hold(driver: MujocoDriver, position: Vector) -> None:
    driver.write(Setpoint(Mode.POSITION, position), soon())


# What it says of itself.


def test_it_can_be_described_while_nothing_runs() -> None:
    description = MujocoDriver(MAZE).description
    assert [joint.name for joint in description.joints] == ["slide_x", "slide_y"]
    assert description.modes == (Mode.POSITION,) and description.simulated
    assert (description.rate_hz, description.time_factor, description.watchdog_s) == (
        250,
        5,
        WATCHDOG_S,
    )
    assert description.sensors == {"contact": "1"}
    assert MujocoDriver().description.modes == (Mode.EFFORT,)


def test_it_says_who_it_is_and_what_is_in_effect(driver: MujocoDriver) -> None:
    effective = driver.configure({})
    assert effective["joints"] == ["slide_x", "slide_y"] and effective["watchdog_s"] == WATCHDOG_S
    driver.close()
    identity = driver.connect()
    assert identity["model"] == "maze" and identity["serial"].startswith("mujoco-")
    with pytest.raises(DriverError, match="connected already"):
        driver.connect()


@pytest.mark.parametrize(
    "change", [{"time_factor": 1.0}, {"watchdog_s": 0.5}, {"joints": ("slide_y",)}, {"kp": 3.0}]
)
def test_a_device_that_is_not_as_declared_is_refused(
    machine: Machine, change: dict[str, Any]
) -> None:
    other = MujocoDriver(replace(machine.options, **change))
    with pytest.raises(DriverError, match="same options"):
        other.connect()
    other.close()


def test_nobody_there_is_an_error_that_says_where(tmp_path: Path) -> None:
    driver = MujocoDriver(replace(MAZE, address=str(tmp_path / "device")))
    with pytest.raises(DriverError, match=r"no MuJoCo device answers at .*device"):
        driver.connect()
    driver.close()
    with pytest.raises(DriverError, match="not connected"):
        driver.read(0)


# Reading.


def test_a_state_is_new_once(driver: MujocoDriver) -> None:
    seen = [driver.read(soon()) for _ in range(50)]
    assert all(b.seq > a.seq and b.device_ns >= a.device_ns for a, b in zip(seen, seen[1:]))  # noqa: B905, RUF007
    assert all(its.fresh for its in seen)
    old = [driver.read(0) for _ in range(2000)]  # faster than states come
    repeated = [its for its in old if not its.fresh]
    assert len(repeated) > 1000
    assert all(b.fresh == (b.seq != a.seq) for a, b in zip([seen[-1], *old], old))  # noqa: B905


def test_it_waits_no_longer_than_asked(driver: MujocoDriver, machine: Machine) -> None:
    os.kill(machine.process.pid, signal.SIGSTOP)
    try:
        while driver.read(0).fresh:  # what was on its way
            pass
        start = monotonic_ns()
        assert not driver.read(start + 50_000_000).fresh
        assert monotonic_ns() - start >= 50_000_000
        assert not driver.read(start).fresh
    finally:
        os.kill(machine.process.pid, signal.SIGCONT)
    assert driver.read(soon()).fresh


def test_a_reader_that_slept_gets_the_newest(driver: MujocoDriver) -> None:
    before = driver.read(soon())
    sleep(0.2)
    slept_ns = monotonic_ns()
    after = driver.read(soon())
    assert after.fresh and after.seq - before.seq > 5
    assert after.received_ns >= slept_ns and driver._connected().newest is driver._seen
    assert not {"crc", "duplicate", "reordered", "foreign"} & set(driver.counters)


def test_the_devices_clock_runs_at_its_own_rate(driver: MujocoDriver) -> None:
    first = driver.read(soon())
    sleep(0.3)
    last = driver.read(soon())
    passed = (last.device_ns - first.device_ns) / (last.received_ns - first.received_ns)
    assert 0.3 < passed < 6.0  # less than 5 where the machine stood still


# Commanding.


def test_it_goes_where_it_is_told(driver: MujocoDriver) -> None:
    start = driver.activate(Mode.POSITION)
    assert start.position == pytest.approx((0.0, 0.0), abs=1e-6)
    for _ in range(100):
        hold(driver, (0.02, -0.03))
        measured = driver.read(soon())
    assert measured.position == pytest.approx((0.02, -0.03), abs=1e-3)
    assert 0 <= driver.delay_ns
    driver.deactivate()
    assert driver.read(soon()).faults == ()


@pytest.mark.parametrize(
    ("setpoint", "said"),
    [
        (Setpoint(Mode.POSITION, (float("nan"), 0.0)), "position is 2"),
        (Setpoint(Mode.POSITION, (float("inf"), 0.0)), "position is 2"),
        (Setpoint(Mode.POSITION, (1e308, 1e308)), "position is 2"),
        (Setpoint(Mode.POSITION, (0.0,)), "position is 2"),
        (Setpoint(Mode.POSITION), "position is 2"),
        (Setpoint(Mode.POSITION, ("a", "b")), "not all numbers"),  # type: ignore[arg-type]
        (Setpoint(Mode.EFFORT, effort=(0.0, 0.0)), "position is active"),
    ],
)
def test_what_cannot_be_vetted_does_not_go_out(
    driver: MujocoDriver, setpoint: Setpoint, said: str
) -> None:
    with pytest.raises(DriverError, match="not active"):
        driver.write(setpoint, soon())
    driver.activate(Mode.POSITION)
    with pytest.raises(DriverError, match=said):
        driver.write(setpoint, soon())
    with pytest.raises(DriverError, match="deadline"):
        driver.write(Setpoint(Mode.POSITION, (0.0, 0.0)), monotonic_ns() - 1)
    hold(driver, (0.0, 0.0))


def test_numbers_that_the_mode_does_not_name_count_for_nothing(driver: MujocoDriver) -> None:
    driver.activate(Mode.POSITION)
    nan = (float("nan"),)
    driver.write(Setpoint(Mode.POSITION, (0.0, 0.0), nan, nan, nan, nan), soon())
    sleep(0.01)
    assert driver.read(soon()).faults == ()


def test_only_modes_that_it_has_are_activated(driver: MujocoDriver) -> None:
    with pytest.raises(DriverError, match="no mode"):
        driver.activate(Mode.EFFORT)


def test_what_is_read_after_placing_was_measured_after_it(driver: MujocoDriver) -> None:
    driver.activate(Mode.POSITION)
    generator = random.Random(1)
    for _ in range(40):
        for _ in range(generator.randrange(3)):
            hold(driver, (0.03, 0.03))
            driver.read(0)
        place = (generator.uniform(-0.05, 0.05), generator.uniform(-0.05, 0.05))
        driver.place(place)
        hold(driver, place)
        measured = driver.read(0)
        assert measured.fresh and measured.position == pytest.approx(place, abs=1e-9)


def test_placing_out_of_range_is_refused(driver: MujocoDriver) -> None:
    for place in ((0.4, 0.0), (float("nan"), 0.0), (0.0,)):
        with pytest.raises(DriverError, match="placed at"):
            driver.place(place)
    assert driver.read(soon()).fresh


def test_a_touch_between_two_reads_is_told_once(driver: MujocoDriver, machine: Machine) -> None:
    driver.place((0.2, 0.0))
    driver.activate(Mode.POSITION)
    assert driver.read(soon()).sensors == {"contact": (0.0,)}
    for _ in range(60):
        hold(driver, (0.3, 0.0))  # the eastern wall
        sleep(0.002)
    for _ in range(60):
        hold(driver, (0.2, 0.0))
        sleep(0.002)
    assert driver.read(0).sensors == {"contact": (1.0,)}
    hold(driver, (0.2, 0.0))
    assert driver.read(soon()).sensors == {"contact": (0.0,)}
    assert machine.events("contact")
    driver.place((0.277, 0.0))
    assert driver.read(0).sensors == {"contact": (1.0,)}
    driver.place((0.0, 0.0))
    assert driver.read(0).sensors == {"contact": (0.0,)}


# Stopping.


def test_the_devices_watchdog_is_seen_to_act(driver: MujocoDriver, machine: Machine) -> None:
    assert "damped by itself" in driver.check_watchdog()
    event = machine.events("damping")[-1]
    assert event["cause"] == "silence" and event["silence_s"] >= event["timeout_s"] == WATCHDOG_S
    assert driver.read(soon()).faults == ()
    driver.activate(Mode.POSITION)
    with pytest.raises(DriverError, match="not rehearsed"):
        driver._connected().ask(Kind.REHEARSE)
    hold(driver, (0.0, 0.0))


def test_silence_damps_and_only_a_reset_helps(driver: MujocoDriver, machine: Machine) -> None:
    driver.activate(Mode.POSITION)
    damped = len(machine.events("damping"))
    event = machine.wait_for("damping", damped + 1)
    assert event["cause"] == "silence" and event["silence_s"] >= WATCHDOG_S
    while not (measured := driver.read(soon())).faults:
        pass
    assert "no command in time" in measured.faults[0]
    with pytest.raises(DriverError, match="reset it first"):
        hold(driver, (0.0, 0.0))
    with pytest.raises(DriverError, match="reset it first"):
        driver.activate(Mode.POSITION)
    driver.reset()
    assert machine.events("recovered")
    driver.activate(Mode.POSITION)
    hold(driver, (0.0, 0.0))


def test_an_estop_comes_through_while_a_read_waits(driver: MujocoDriver, machine: Machine) -> None:
    """From a signal's handler, and from a thread."""
    before = signal.signal(signal.SIGUSR1, lambda *_: driver.estop("button"))
    try:
        for send in (
            lambda: os.kill(os.getpid(), signal.SIGUSR1),
            lambda: driver.estop("thread"),
        ):
            driver.activate(Mode.POSITION)
            stops = len(machine.events("damping"))
            timer = threading.Timer(0.02, send)
            timer.start()
            while not driver.read(soon()).faults:
                driver.read(soon(0.001))
            timer.join()
            assert machine.events("damping")[stops]["cause"] == "estop"
            driver.estop("again")
            with pytest.raises(DriverError, match="e-stopped"):
                hold(driver, (0.0, 0.0))
            with pytest.raises(DriverError, match="e-stopped"):
                driver.activate(Mode.POSITION)
            driver.reset()
            assert driver.read(soon()).faults == ()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_an_estop_goes_out_later_if_the_device_took_nothing(
    driver: MujocoDriver, machine: Machine
) -> None:
    driver.activate(Mode.POSITION)
    os.kill(machine.process.pid, signal.SIGSTOP)
    try:
        with pytest.raises(DriverError, match="takes no packets"):
            while True:
                hold(driver, (0.0, 0.0))
        driver.estop("frozen")
        with pytest.raises(DriverError, match="e-stopped"):  # although the device does not say so
            hold(driver, (0.0, 0.0))
    finally:
        os.kill(machine.process.pid, signal.SIGCONT)
    stops = len(machine.events("damping"))
    while not driver.read(soon()).faults:
        pass
    assert machine.wait_for("damping", stops + 1)
    while machine.events("damping")[-1]["cause"] != "estop":
        driver.read(soon(0.01))


def test_an_estop_before_a_connection_is_forgotten_by_the_next(machine: Machine) -> None:
    fresh(machine).close()
    driver = MujocoDriver(machine.options)
    driver.estop("nobody there")
    driver.close()
    driver.connect()
    driver.configure({})
    driver.activate(Mode.POSITION)
    driver.close()
    driver.close()


@pytest.mark.parametrize("rest", ["damping", "hold"])
def test_what_it_leaves_behind_needs_nobody(machine: Machine, rest: str) -> None:
    driver = fresh(machine, rest=rest)
    driver.place((0.01, 0.02))
    driver.activate(Mode.POSITION)
    stops = len(machine.events("damping"))
    driver.deactivate()
    sleep(WATCHDOG_S + 0.2)  # longer than the watchdog's time
    measured = driver.read(soon())
    assert measured.faults == () and len(machine.events("damping")) == stops
    assert measured.position == pytest.approx((0.01, 0.02), abs=1e-3)
    assert bool(driver.check_watchdog()) == (rest == "damping")
    driver.close()


# Who may command.


def connect(machine: Machine) -> socket.socket:
    raw = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    raw.settimeout(20.0)
    raw.connect(machine.options.address)
    return raw


def test_there_is_one_commander(driver: MujocoDriver, machine: Machine) -> None:
    driver.activate(Mode.POSITION)
    other = MujocoDriver(machine.options)
    with pytest.raises(DriverError, match=f"another client, process {os.getpid()}, has the device"):
        other.connect()
    other.close()
    hold(driver, (0.0, 0.0))
    assert driver.read(soon()).faults == ()


def test_an_estop_counts_although_its_sender_is_gone(machine: Machine) -> None:
    driver = fresh(machine)
    driver.activate(Mode.POSITION)
    stops = len(machine.events("damping"))
    os.kill(machine.process.pid, signal.SIGSTOP)
    driver.estop("the last word")
    link = driver._connected()
    link.close()  # with states that nobody has read
    os.kill(machine.process.pid, signal.SIGCONT)
    assert machine.wait_for("damping", stops + 1)["cause"] == "estop"
    driver._mode = None
    driver.close()


def refused(machine: Machine) -> dict[str, Any]:
    """Causes so far, by their first events."""
    return {event["cause"]: event for event in machine.events("refused")}


def test_strangers_are_shown_out_and_the_commander_goes_on(
    driver: MujocoDriver, machine: Machine
) -> None:
    driver.activate(Mode.POSITION)
    codec, generator = CommandCodec(2), random.Random(5)
    session = driver._connected().inlet.session
    setpoint = Setpoint(Mode.POSITION, (0.2, 0.2))
    packets = [bytes(codec.pack(session, 10**9, monotonic_ns(), setpoint))]
    packets += [message(Head(Kind.ESTOP, 0, 0, session, 0, 0)), b"x"]
    packets += [generator.randbytes(generator.randrange(1, 900)) for _ in range(10)]
    for packet in packets:
        with connect(machine) as raw:
            raw.send(packet)
            assert raw.recv(100) == b""
        hold(driver, (0.0, 0.0))
    measured = driver.read(soon())
    assert measured.position == pytest.approx((0.0, 0.0), abs=1e-3) and not measured.faults
    assert "stranger" in refused(machine)


def test_the_commanders_bad_packets_are_counted_and_harmless(tmp_path: Path) -> None:
    machine = Machine(tmp_path, MAZE)
    driver = MujocoDriver(machine.options)
    driver.connect()
    driver.configure({})
    driver.activate(Mode.POSITION)
    link, codec = driver._connected(), CommandCodec(2)
    session, seq = link.inlet.session, link._seq + 100
    good = Setpoint(Mode.POSITION, (0.2, 0.2))

    def pack(
        setpoint: Setpoint = good, its: int = 0, age_ns: int = 0, session: int = session
    ) -> bytes:
        return bytes(codec.pack(session, seq + its, monotonic_ns() - age_ns, setpoint))

    bad = bytearray(pack(its=1))
    bad[40] ^= 1
    three = Setpoint(Mode.POSITION, (0.2, 0.2, 0.2))
    longer = bytes(CommandCodec(3).pack(session, seq + 2, monotonic_ns(), three))
    packets = {
        "crc": bytes(bad),
        "length": longer,
        "not finite": pack(Setpoint(Mode.POSITION, (float("nan"), 0.0)), 3),
        "mode": pack(Setpoint(Mode.EFFORT, effort=(1.0, 1.0)), 4),
        "late": pack(its=5, age_ns=10**10),
        "session": pack(its=6, session=session + 1),
        "sequence": pack(its=5),
        "magic": b"JUNK" + pack(its=7)[4:],
        "kind": message(Head(99, 0, 0, session, seq + 8, 0), {}),
        "body": message(Head(Kind.ARM, 0, 0, session, seq + 9, 0)),
    }
    for packet in packets.values():
        link._socket.send(packet)
    link._socket.send(b"")  # looks like an end and is none
    link._seq = seq + 50
    hold(driver, (0.0, 0.0))
    measured = driver.read(soon())
    assert measured.position == pytest.approx((0.0, 0.0), abs=1e-3)
    driver.close()
    assert machine.end() == 0
    counted = machine.events("ended")[0]["refused"]
    assert counted == dict.fromkeys(packets, 1) | {"length": 2}
    assert set(refused(machine)) == set(packets)


def test_a_folder_that_is_open_to_others_is_no_place_for_a_socket(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    for folder, mode, said in ((tmp_path, 0o755, "open to others"), (deep, 0o700, "shorter")):
        folder.mkdir(exist_ok=True)
        folder.chmod(mode)
        with pytest.raises(DriverError, match=said):
            Door(folder / "device", None)
    with pytest.raises(DriverError, match="cannot listen"):
        Door(tmp_path / "nowhere" / "device", None)
    tmp_path.chmod(0o700)
    door = Door(tmp_path / "device", None)
    with pytest.raises(DriverError, match="cannot listen"):
        Door(tmp_path / "device", None)
    door.close()
    assert not list(tmp_path.glob("device"))


# Deaths.


@pytest.mark.parametrize("death", [signal.SIGKILL, signal.SIGSTOP])
def test_a_client_that_dies_or_freezes_leaves_a_damped_device(
    machine: Machine, death: signal.Signals
) -> None:
    fresh(machine).close()
    damped = len(machine.events("damping"))
    client = subprocess.Popen(
        [sys.executable, "-P", "-c", CLIENT, machine.options.address], stdout=subprocess.PIPE
    )
    try:
        assert client.stdout is not None and client.stdout.readline()
        sleep(0.05)
        killed_ns = monotonic_ns()
        os.kill(client.pid, death)
        event = machine.wait_for("damping", damped + 1)
    finally:
        client.kill()
        client.communicate()
    assert event["cause"] == "silence" and event["timeout_s"] == WATCHDOG_S
    assert event["silence_s"] >= WATCHDOG_S
    assert killed_ns < event["at_ns"]
    driver = MujocoDriver(machine.options)
    driver.connect()
    driver.configure({})
    with pytest.raises(DriverError, match="reset it first"):
        driver.activate(Mode.POSITION)
    assert "not provoked" in driver.check_watchdog()
    driver.reset()
    driver.activate(Mode.POSITION)
    driver.close()


def test_who_closes_while_active_gives_the_device_back(machine: Machine) -> None:
    driver = fresh(machine)
    driver.place((0.0, 0.0))
    for _ in range(3):
        driver.activate(Mode.POSITION)
        stops = len(machine.events("damping"))
        driver.close()
        driver.connect()
        driver.configure({})
    assert len(machine.events("damping")) == stops and driver.read(soon()).faults == ()
    driver.close()


def test_calls_have_an_order(machine: Machine) -> None:
    driver = MujocoDriver(machine.options)
    driver.connect()
    for call in (driver.check_watchdog, lambda: driver.activate(Mode.POSITION)):
        with pytest.raises(DriverError, match="not configured"):
            call()
    driver.estop("tidy")
    driver.reset()
    driver.configure({})
    driver.activate(Mode.POSITION)
    for call in (
        driver.check_watchdog,
        lambda: driver.activate(Mode.POSITION),
        lambda: driver.configure({}),
    ):
        with pytest.raises(DriverError, match="deactivate it first"):
            call()
    hold(driver, (0.0, 0.0))
    driver.close()


def is_alive(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


def test_a_device_of_its_own_ends_soon_after_its_client(tmp_path: Path) -> None:
    client = subprocess.Popen([sys.executable, "-P", "-c", CLIENT, ""], stdout=subprocess.PIPE)
    assert client.stdout is not None
    device = int(client.stdout.readline())
    assert is_alive(device)
    client.kill()
    client.communicate()
    until = soon(20.0)
    while is_alive(device) and monotonic_ns() < until:
        sleep(0.01)
    assert not is_alive(device)


def test_a_device_of_its_own_ends_with_close(tmp_path: Path) -> None:
    events = tmp_path / "events"
    driver = MujocoDriver(replace(MAZE, events=str(events)))
    driver.connect()
    assert driver._child is not None
    pid, folder = driver._child._process.pid, Path(driver._child.address).parent
    assert folder.stat().st_mode & 0o077 == 0
    driver.configure({})
    driver.activate(Mode.POSITION)
    driver.close()
    assert not is_alive(pid) and not folder.exists()
    assert '"ended"' in events.read_text()
    driver.connect()
    driver.close()


def test_a_device_that_cannot_start_says_why(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text("[{}]")
    driver = MujocoDriver(replace(MAZE, disturb=str(tmp_path / "p.json")))
    with pytest.raises(DriverError, match=r"did not start: .*p\.json"):
        driver.connect()
    driver.close()


def test_a_device_that_dies_is_an_error_at_once(tmp_path: Path) -> None:
    machine = Machine(tmp_path, MAZE)
    driver = MujocoDriver(machine.options)
    driver.connect()
    driver.configure({})
    driver.activate(Mode.POSITION)
    machine.process.kill()
    machine.process.communicate()
    with pytest.raises(DriverError, match=r"gone|broke"):
        while True:
            driver.read(soon())
    with pytest.raises(DriverError):
        hold(driver, (0.0, 0.0))
    with pytest.raises(DriverError):
        driver.deactivate()
    driver.estop("gone")
    driver.close()


# Imperfections, and other robots.


def test_an_imperfect_robot_is_late_noisy_and_loses_things(tmp_path: Path) -> None:
    options = two_links(
        tmp_path, actuation="position", latency_s=0.02, sensor_latency_s=0.01, seed=4,
        noise_position=0.01, noise_velocity=0.1, drop_rate=0.2, watchdog_s=5.0,
    )  # fmt: skip
    driver = MujocoDriver(options)
    driver.connect()
    driver.configure({})
    driver.activate(Mode.POSITION)
    here = driver.read(soon()).position
    seen = []
    for _ in range(200):
        hold(driver, here)
        seen.append(driver.read(soon()))
    assert driver.delay_ns >= 20_000_000
    assert all(its.received_ns - driver._connected().newest.head.stamp_ns for its in seen)
    gaps = [b.seq - a.seq for a, b in zip(seen, seen[1:])]  # noqa: B905, RUF007
    assert any(gap > 1 for gap in gaps) and driver.counters["lost"] > 10
    spread = [its.position[0] for its in seen]
    assert 0.02 < max(spread) - min(spread) < 0.2
    hold(driver, (1.5, 1.5))
    driver.place((0.1, 0.1))
    assert driver.read(0).fresh  # not one of those that were on their way
    placed_ns = driver.read(0).device_ns
    while (measured := driver.read(soon())).device_ns < placed_ns + 100_000_000:
        assert measured.position == pytest.approx((0.1, 0.1), abs=0.08)  # nor was the command
    driver.close()


def test_twelve_joints_with_sensors_at_a_thousand_hertz() -> None:
    options = MujocoOptions(
        model="quadruped.xml", actuation="pd", keyframe="standing", timestep_s=0.001,
        rate_hz=1000, watchdog_s=5.0,
    )  # fmt: skip
    driver = MujocoDriver(options)
    assert set(driver.description.sensors) >= {"orientation", "gyroscope"}
    driver.connect()
    driver.configure({})
    start = driver.activate(Mode.PD)
    zeros, kp, kd = (0.0,) * 12, (40.0,) * 12, (1.0,) * 12
    standing = Setpoint(Mode.PD, (0.0, 0.9, -1.8) * 4, zeros, zeros, kp, kd)
    driver.place(standing.position)
    for _ in range(1000):
        driver.write(standing, soon())
        measured = driver.read(soon())
    assert measured.position == pytest.approx(standing.position, abs=0.3)
    assert len(measured.sensors["orientation"]) == 4
    assert abs(measured.sensors["orientation"][0]) > 0.95  # upright
    assert measured.seq - start.seq >= 1000
    driver.deactivate()
    driver.close()
