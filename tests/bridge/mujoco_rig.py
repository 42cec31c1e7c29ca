"""A model of two links, as the tests of the MuJoCo device and driver have it."""

from __future__ import annotations

from pathlib import Path
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
