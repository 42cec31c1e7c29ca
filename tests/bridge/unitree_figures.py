"""What the Unitree driver costs, and how fast DDS is: python tests/bridge/unitree_figures.py

Against the simulated quadruped at 500 Hz, and between two bare processes for the round trip.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import monotonic_ns, perf_counter_ns, sleep, thread_time_ns

from unitree_rig import STANDING, ZEROS, Robot, free_domain, until

from safetypilot.bridge.contract import Mode, Setpoint
from safetypilot.bridge.protocols.dds import Bus
from safetypilot.bridge.protocols.unitree import GO, Commands

STEPS = 5000
ECHO = """
import sys
sys.path.append(sys.argv[2])
from safetypilot.bridge.protocols.dds import Bus
from safetypilot.bridge.protocols.unitree import GO
bus = Bus(int(sys.argv[1]))
reader, writer = bus.reader("there", GO.command), bus.writer("back", GO.command)
print(flush=True)
while True:
    for sample in reader.wait(2**62) if sys.argv[3] == "wait" else reader.take():
        writer.write(sample.data)
"""


def show(name: str, microseconds: Sequence[float]) -> None:
    ordered = sorted(microseconds)
    shares = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}
    figures = [
        f"{label} {ordered[int(share * len(ordered))]:.0f}" for label, share in shares.items()
    ]
    sys.stdout.write(
        f"{name}: {', '.join(figures)}, max {ordered[-1]:.0f} us (n = {len(ordered)})\n"
    )


def costs(folder: Path) -> None:
    """Of reading and writing, while the robot is held."""
    robot = Robot(folder, "--start", "standing")
    driver = robot.driver()
    driver.connect()
    driver.configure({})
    driver.activate(Mode.PD)
    setpoint = Setpoint(Mode.PD, STANDING, ZEROS, ZEROS, (60.0,) * 12, (3.0,) * 12)
    walls: dict[str, list[float]] = {"read": [], "write": []}
    cpus: dict[str, list[float]] = {"read": [], "write": []}
    next_ns, new = monotonic_ns(), 0
    for _ in range(STEPS):
        next_ns += 2_000_000
        sleep(max(0, next_ns - monotonic_ns()) / 1e9)
        for name in ("read", "write"):
            wall, cpu = perf_counter_ns(), thread_time_ns()
            if name == "read":
                new += driver.read(0).fresh
            else:
                driver.write(setpoint, monotonic_ns() + 10**9)
            cpus[name].append((thread_time_ns() - cpu) / 1e3)
            walls[name].append((perf_counter_ns() - wall) / 1e3)
    for name in ("read", "write"):
        show(f"{name}, CPU of the calling thread", cpus[name])
        show(f"{name}, wall", walls[name])
    sys.stdout.write(f"new states: {new} of {STEPS}; counters: {driver.counters}\n")
    driver.close()
    robot.end()
    sys.stdout.write(f"device: {robot.events('ended')[0]}\n")


def round_trip(how: str) -> None:
    """There and back through DDS, 808 bytes each way."""
    domain = free_domain()
    echo = subprocess.Popen(
        [sys.executable, "-P", "-c", ECHO, str(domain), str(Path(__file__).parent), how],
        stdout=subprocess.PIPE,
    )
    assert echo.stdout is not None
    echo.stdout.readline()
    bus = Bus(domain)
    writer, reader = bus.writer("there", GO.command), bus.reader("back", GO.command)
    until(lambda: bool(writer.readers and reader.writers), lambda: "no echo")
    sample = Commands(GO, 12).pack(*(ZEROS,) * 5)
    took, lost = [], 0
    for _ in range(STEPS):
        sent_ns = perf_counter_ns()
        writer.write(sample)
        while not reader.take():
            if perf_counter_ns() - sent_ns > 10**9:
                lost += 1
                break
            if how == "wait":
                sleep(0.00005)
        else:
            took.append((perf_counter_ns() - sent_ns) / 1e3)
        sleep(0.001)
    show(f"round trip, {'sleeping' if how == 'wait' else 'spinning'} ends", took)
    sys.stdout.write(f"lost: {lost}\n")
    echo.kill()
    echo.wait()
    bus.close()


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        costs(Path(folder))
    round_trip("spin")
    round_trip("wait")
