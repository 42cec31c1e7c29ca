"""What the tests of the MuJoCo device and driver share: a model of two links, and a device."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from time import monotonic, monotonic_ns, sleep
from typing import Any

from safetypilot.bridge.devices.mujoco_options import MujocoOptions

ARM = """<mujoco model="two links">
  <compiler angle="radian"/>
  <option timestep="0.001"/>
  <worldbody>
    <geom name="wall" type="box" pos="0 0.3 0" size="1 0.01 1"/>
    <body name="upper">
      <joint name="shoulder" axis="0 0 1" range="-1 2" limited="true"/>
      <geom type="capsule" fromto="0 0 0 0.2 0 0" size="0.01" mass="1" contype="0" conaffinity="0"/>
      <body name="lower" pos="0.2 0 0">
        <joint name="elbow" axis="0 0 1"/>
        <geom type="capsule" fromto="0 0 0 0.2 0 0" size="0.01" mass="0.5"/>
      </body>
    </body>
  </worldbody>
  <actuator>{actuators}</actuator>
  <sensor>
    <framepos name="tip" objtype="body" objname="lower"/>
    <jointpos joint="elbow"/>
    <jointvel name="spin" joint="elbow"/>
  </sensor>
  <keyframe><key name="bent" qpos="0.5 -0.5"/></keyframe>
</mujoco>"""
MOTORS = """<motor joint="elbow" gear="2" ctrlrange="-3 3" ctrllimited="true"/>
    <motor joint="shoulder" gear="-1" ctrlrange="-9 9" ctrllimited="true" forcerange="-4 4"
           forcelimited="true"/>"""
SERVOS = """<position joint="elbow" kp="20" kv="1" forcerange="-5 5" forcelimited="true"/>
    <position joint="shoulder" kp="40" kv="2" gear="2"/>"""


def two_links(folder: Path, actuators: str = MOTORS, **options: Any) -> MujocoOptions:
    """Options for it; the file goes into the folder."""
    path = folder / "arm.xml"
    path.write_text(ARM.format(actuators=actuators))
    return MujocoOptions(model=str(path), **options)


class Machine:
    """A device that runs by itself, in a process and a private folder of its own.

    Attributes:
        options: for a driver that is to connect to it.
    """

    def __init__(self, folder: Path, options: MujocoOptions, *more: str) -> None:
        self._events = folder / "events"
        command = [
            sys.executable, "-P", "-m", "safetypilot.bridge.devices.mujoco", "--with-parent", *more,
            "--events", str(self._events), "--options", json.dumps(asdict(options)),
        ]  # fmt: skip
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        assert self.process.stdout is not None
        self.ready = json.loads(self.process.stdout.readline())
        self.options = replace(options, address=self.ready["socket"])

    def events(self, *named: str) -> list[dict[str, Any]]:
        """What it has told so far."""
        rows = [json.loads(line) for line in self._events.read_text().splitlines()]
        return [row for row in rows if not named or row["event"] in named]

    def wait_for(self, event: str, count: int = 1) -> dict[str, Any]:
        """The event, which may still be to come."""
        until = monotonic() + 20.0
        while len(found := self.events(event)) < count:
            assert monotonic() < until, f"no {event} in {self.events()}"
            sleep(0.005)
        return found[-1]

    def end(self) -> int:
        """Its exit status."""
        self.process.send_signal(signal.SIGCONT)
        self.process.terminate()
        self.process.communicate(timeout=20)
        return self.process.returncode


def soon(seconds: float = 5.0) -> int:
    """A deadline that no busy machine passes by accident."""
    return monotonic_ns() + round(seconds * 1e9)
