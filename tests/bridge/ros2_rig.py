"""What tests of the ROS 2 driver share: a bare peer that says any joint state, and the device."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from time import monotonic, monotonic_ns, sleep
from typing import Any

from safetypilot.bridge.contract import Measurement
from safetypilot.bridge.devices.common import free_domain
from safetypilot.bridge.drivers.ros2 import Ros2Driver
from safetypilot.bridge.drivers.ros2_options import Ros2Options

PATIENCE_S = 30.0  # a busy machine
LATER = 1 << 62

# Says the state that it was told last every 10 ms, and tells every command that it hears. Lines of
# JSON: {"state": ...} one more, {"again": ...} from now on, {"open": ...}/{"close": ...} its ends,
# {"raw": ...} the bytes of a state in hex, whatever they are.
PEER = """
import json, select, sys, time
from safetypilot.bridge.protocols import ros2
from safetypilot.bridge.protocols.dds import Bus

bus = Bus(int(sys.argv[1]))
COMMANDS = ros2.topic("/forward_position_controller/commands")
ends = {}
again = None

def make(name):
    if name == "states":
        return bus.writer(ros2.topic("/joint_states"), ros2.JOINT_STATE)
    if name == "commands":
        return bus.reader(COMMANDS, ros2.FLOAT64_MULTI_ARRAY, depth=64, reliable=True)
    return bus.writer(COMMANDS, ros2.FLOAT64_MULTI_ARRAY)

def close(name):
    end = ends.pop(name)
    bus._entities.remove(end._entity)
    end._entity._entities.pop(end._entity._ref, None)
    end._entity._delete(end._entity._ref)

def say(state):
    stamp = state.get("stamp", time.time_ns())
    numbers = [tuple(map(float, state.get(k, ()))) for k in ("position", "velocity", "effort")]
    ends["states"].write(ros2.joint_state(stamp, tuple(state["names"]), *numbers))

for name in sys.argv[2:]:
    ends[name] = make(name)
print(json.dumps({"ready": True}), flush=True)
while True:
    if select.select([sys.stdin], [], [], 0.01)[0]:
        line = sys.stdin.readline()
        if not line:
            break
        told = json.loads(line)
        if "open" in told:
            ends[told["open"]] = make(told["open"])
        elif "close" in told:
            close(told["close"])
        elif "state" in told:
            say(told["state"])
        elif "raw" in told:
            ends["states"].write(bytes.fromhex(told["raw"]))
        else:
            again = told["again"]
        print(json.dumps({"done": True}), flush=True)
    elif again:
        say(again)
    if "commands" in ends:
        for sample in ends["commands"].take():
            print(json.dumps({"heard": sample.data.hex()}), flush=True)
bus.close()
"""


class Peer:
    """A process with any of: `states`, `commands`, `rival` (another commander)."""

    def __init__(self, domain: int, *ends: str) -> None:
        command = [sys.executable, "-P", "-c", PEER, str(domain), *ends]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self._heard: list[bytes] = []
        self._again: dict[str, Any] | None = None
        self._expect("ready")

    def tell(self, **what: Any) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(what) + "\n")
        self._process.stdin.flush()
        self._expect("done")

    @property
    def heard(self) -> list[bytes]:
        """All commands so far."""
        self.tell(again=self._again)
        return self._heard

    def repeat(self, state: dict[str, Any] | None) -> None:
        """Says this from now on."""
        self._again = state
        self.tell(again=state)

    def _expect(self, word: str) -> None:
        assert self._process.stdout is not None
        while True:
            line = self._process.stdout.readline()
            assert line, "the peer has ended"
            told = json.loads(line)
            if "heard" in told:
                self._heard.append(bytes.fromhex(told["heard"]))
            elif word in told:
                return

    def end(self) -> None:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(PATIENCE_S)
        self._process.stdout.close()


class Robot:
    """The simulated device, running."""

    def __init__(self, folder: Path, *more: str) -> None:
        self._events = folder / "events.jsonl"
        command = [
            sys.executable, "-P", "-m", "safetypilot.bridge.devices.ros2", "--domain", "free",
            "--events", str(self._events), "--with-parent", *more,
        ]  # fmt: skip
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate()[1].decode()
        self.ready = json.loads(line)

    def events(self, *named: str) -> list[dict[str, Any]]:
        """What it has told so far."""
        rows = [json.loads(line) for line in self._events.read_text().splitlines()]
        return [row for row in rows if not named or row["event"] in named]

    def wait_for(self, event: str, count: int = 1) -> dict[str, Any]:
        until(lambda: len(self.events(event)) >= count)
        return self.events(event)[count - 1]

    def freeze(self) -> None:
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        self.process.send_signal(signal.SIGCONT)

    def end(self) -> int:
        """Its exit status."""
        self.thaw()
        self.process.terminate()
        self.process.communicate(timeout=PATIENCE_S)
        return self.process.returncode

    def driver(self, **options: Any) -> Ros2Driver:
        return driver(self.ready["domain"], **options)


def driver(domain: int, **options: Any) -> Ros2Driver:
    """One for that domain, not connected."""
    return Ros2Driver(Ros2Options(**{"domain": domain, "connect_s": PATIENCE_S, **options}))


def until(condition: Callable[[], Any]) -> None:
    end = monotonic() + PATIENCE_S
    while not condition():
        assert monotonic() < end, "it never came"
        sleep(0.005)


def soon() -> int:
    return monotonic_ns() + round(PATIENCE_S * 1e9)


def fresh(driver: Ros2Driver) -> Measurement:
    while not (measured := driver.read(soon())).fresh:
        pass
    return measured


__all__ = [
    "LATER",
    "PATIENCE_S",
    "Peer",
    "Robot",
    "driver",
    "free_domain",
    "fresh",
    "soon",
    "until",
]
