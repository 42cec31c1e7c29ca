"""A bridge has the time that its robot needs to come down; nothing else waits for it."""

from __future__ import annotations

import signal
import subprocess
import sys
from time import monotonic
from typing import Any

import pytest

from safetypilot.launch import children, patience, reaper
from safetypilot.launch.plan import BRIDGE
from safetypilot.nodes.kernel.node import Spec

_SLOW = """
import signal, sys, time
def go_down(*_):
    time.sleep({down_s})
    sys.exit(0)
signal.signal(signal.SIGTERM, go_down)
print("ready", flush=True)
time.sleep(60)
"""


def slow(down_s: float) -> subprocess.Popen[str]:
    """A process that takes so long to end, once it is asked to."""
    code = _SLOW.format(down_s=down_s)
    process = subprocess.Popen(
        [sys.executable, "-c", code], start_new_session=True, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    with process.stdout:
        assert process.stdout.readline() == "ready\n"
    return process


def spec(node: str, **config: Any) -> Spec:
    return Spec("it", node, config, {}, 1, 0, "", "")


@pytest.mark.parametrize(("driver", "options", "down_s"), [
    ("unitree", {}, 10.0), ("unitree", {"ramp_s": 2.5}, 11.5), ("dynamixel", {}, 3.3),
    ("mujoco", {}, 10.0), ("no such driver", {}, 0.0),
])  # fmt: skip
def test_the_driver_says_how_long(driver: str, options: dict[str, Any], down_s: float) -> None:
    config = {"env": "maze", "driver": driver, "options": {driver: options}}
    bridge, other = spec(BRIDGE, **config), spec("safetypilot.nodes.recorder:Recorder")
    assert patience.down_s([other, bridge]) == pytest.approx(down_s)
    assert patience.down_s([other]) == 0.0


def test_the_reaper_lets_a_robot_come_down_and_nobody_else() -> None:
    bridge, other = slow(reaper.GRACE_S + 0.5), slow(reaper.GRACE_S + 0.5)
    reaper.end({bridge.pid: 2.0, other.pid: 0.0})
    assert bridge.wait(5) == 0
    assert other.wait(5) == -signal.SIGKILL


def test_the_reaper_ends_a_bridge_that_does_not() -> None:
    bridge, since = slow(60), monotonic()
    reaper.end({bridge.pid: 0.5})
    assert bridge.wait(5) == -signal.SIGKILL
    assert monotonic() - since > reaper.GRACE_S + 0.5


class Process:
    """What `end_all` needs of a Child."""

    def __init__(self, ends_after_s: float, down_s: float) -> None:
        self._end, self.down_s = monotonic() + ends_after_s, down_s
        self.killed = self.buried = False

    @property
    def code(self) -> int | None:
        return -9 if self.killed else 0 if monotonic() > self._end else None

    def send(self, number: int) -> None:
        self.killed = self.killed or number == signal.SIGKILL

    def bury(self) -> None:
        self.buried = True


def test_the_supervisor_lets_a_robot_come_down_and_nobody_else() -> None:
    bridge, other, dead = Process(0.4, 5.0), Process(0.4, 0.0), Process(60.0, 0.3)
    given: Any = [bridge, other, dead]
    children.end_all(given, 0.1, 0.2)
    assert [process.killed for process in given] == [False, True, True]
    assert all(process.buried for process in given)
