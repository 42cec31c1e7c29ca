"""What the simulated quadruped tells of its trunk: the ground truth, where a real one estimates."""

from __future__ import annotations

from struct import Struct as Layout

from safetypilot.bridge.devices.quadruped_world import World
from safetypilot.bridge.protocols.unitree_image import Image
from safetypilot.bridge.protocols.unitree_types import SPORT_MODE_STATE

_STAMP, _THREE, _IMU = Layout("<iI"), Layout("<3f"), Layout("<13f")


class SportStates:
    """Makes samples of `rt/sportmodestate`."""

    def __init__(self) -> None:
        self._shape = Image(SPORT_MODE_STATE)
        self._image = bytearray(self._shape.size)

    def pack(self, world: World, time_ms: int) -> bytes:
        """Where the trunk is, m, and how fast, m/s, in the world."""
        image, at, look = self._image, self._shape.offsets, world.look()
        position, velocity = world.base
        _STAMP.pack_into(image, at["stamp"], time_ms // 1000, time_ms % 1000 * 1_000_000)
        _IMU.pack_into(
            image,
            at["imu_state"],
            *look.orientation,
            *look.gyroscope,
            *look.accelerometer,
            *look.rpy,
        )
        _THREE.pack_into(image, at["position"], *position)
        _THREE.pack_into(image, at["velocity"], *velocity)
        return self._shape.to_cdr(image)
