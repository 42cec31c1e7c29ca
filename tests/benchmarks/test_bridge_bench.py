"""A cycle of the bridge at its last line: read, limit, write; against a device that runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from time import monotonic_ns
from typing import Any

import pytest

from safetypilot.bridge.drivers.mujoco import MujocoDriver
from safetypilot.bridge.limits import Limiter
from safetypilot.launch.bench import bridge, bridge_loop

SOAK_CYCLES = 60_000  # 10**6 of them: `safetypilot bench bridge --cycles 1000000`
RATE = 1000.0

pytestmark = pytest.mark.integration


@pytest.fixture(params=[2, 12], ids=["maze", "quadruped"])
def driver(request: pytest.FixtureRequest) -> Iterator[MujocoDriver]:
    made = MujocoDriver(replace(bridge_loop._options(RATE, request.param), watchdog_s=60.0))
    made.connect()
    made.configure({})
    made.activate(made.description.modes[0])
    yield made
    made.close()


def test_read_limit_write(benchmark: Any, driver: MujocoDriver) -> None:
    description = driver.description
    limiter = Limiter(description.joints, description.modes[0], 1 / RATE)
    limiter.start(driver.read(monotonic_ns() + 10**9).position, monotonic_ns())
    target = bridge_loop._target(description.modes[0], len(description.joints), 0.5)

    def cycle() -> None:
        now = monotonic_ns()
        measured = driver.read(now)
        limiter.limit(target, measured.position, measured.velocity, now)
        driver.write(limiter.sent, now + 10**9)

    benchmark(cycle)
    assert limiter.sent.position


def test_read(benchmark: Any, driver: MujocoDriver) -> None:
    assert benchmark(driver.read, 0).position


def test_a_short_run_of_the_bench_is_whole() -> None:
    found = bridge.run(rate=200.0, cycles=300, joints=2)
    assert found["cycle"]["n"] == found["cycles"] == 300
    assert found["work"]["p50_us"] < found["cycle"]["p50_us"]
    assert 0 < found["vetting_share"] < 1 and 0 < found["device_share"] < 2
    assert found["missed_unexplained"] <= found["missed_deadlines"]
    with pytest.raises(ValueError, match="joints is 3"):
        bridge.run(joints=3)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("joints", [2, 12])
def test_memory_is_constant(joints: int) -> None:
    found = bridge.run(RATE, SOAK_CYCLES, joints)
    for before, after in (found["rss_bytes"], found["device_rss_bytes"]):
        assert after - before < 2**20
