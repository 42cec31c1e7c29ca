"""What the simulated controllers of ros2_control take, and what they make of it."""

from __future__ import annotations

from math import inf, nan
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from safetypilot.bridge.contract import Mode, Setpoint
from safetypilot.bridge.devices.ros2_controllers import Follow, Forward
from safetypilot.bridge.protocols import ros2
from safetypilot.bridge.protocols.cdr import CdrError, CdrWriter

JOINTS = ("a", "b")
HERE = (0.0, 1.0)
S = 1_000_000_000


def commands(*numbers: float) -> bytes:
    return ros2.Commands(len(numbers)).write(numbers)


@pytest.mark.parametrize("mode", [Mode.POSITION, Mode.VELOCITY, Mode.EFFORT])
def test_a_forward_controller_wants_what_it_was_told_last_for_ever(mode: Mode) -> None:
    controller = Forward(mode, JOINTS)
    assert controller.topic == f"/forward_{mode}_controller/commands"
    assert controller.wants(0) is None
    controller.take(commands(0.5, 2.0), HERE, 0)
    wanted = controller.wants(0)
    assert wanted is not None and getattr(wanted, mode) == (0.5, 2.0) and wanted.mode is mode
    for wrong, cause in (
        (commands(0.5), "length"), (commands(1.0, 2.0, 3.0), "length"),
        (commands(nan, 0.0), "not finite"), (commands(0.0, -inf), "not finite"),
        (b"", "encoding"), (commands(0.5, 2.0)[:-1], "cut off"),
    ):  # fmt: skip
        with pytest.raises(CdrError, match=cause):
            controller.take(wrong, HERE, 0)
    assert controller.wants(10**15) == wanted
    controller.forget()
    assert controller.wants(0) is None


def trajectory(*points: tuple[float, list[float]], **changes: Any) -> bytes:
    """Points at so many seconds."""
    given_: dict[str, Any] = {"stamp": 0, "joints": JOINTS, "velocities": [], **changes}
    writer = CdrWriter().time(given_["stamp"], 0).text("").texts(given_["joints"])
    writer.count(len(points))
    for at_s, positions in points:
        writer.doubles(tuple(positions)).doubles(tuple(given_["velocities"])).doubles(())
        writer.doubles(()).time(*divmod(round(at_s * S), S))
    return writer.sample


def test_a_trajectory_is_followed_in_straight_lines_and_ends_at_its_last_point() -> None:
    controller = Follow(JOINTS)
    assert controller.wants(0) is None
    controller.take(trajectory((1.0, [1.0, 1.0]), (3.0, [1.0, -1.0])), HERE, 100)
    asked = {0.0: HERE, 0.5: (0.5, 1.0), 1.0: (1.0, 1.0), 2.0: (1.0, 0.0), 3.0: (1.0, -1.0),
             99.0: (1.0, -1.0)}  # fmt: skip
    for at_s, position in asked.items():
        wanted = controller.wants(100 + round(at_s * S))
        assert wanted is not None and wanted.position == pytest.approx(position)
    controller.take(trajectory((1.0, [5.0, 6.0]), joints=("b", "a")), (1.0, 0.0), 2 * S)
    assert controller.wants(3 * S) == Setpoint(Mode.POSITION, (6.0, 5.0))  # by name
    controller.forget()
    assert controller.wants(0) is None


@pytest.mark.parametrize(("sample", "cause"), [
    (trajectory(), "empty"),
    (trajectory((1.0, [1.0])), "length"),
    (trajectory((1.0, [1.0, nan])), "not finite"),
    (trajectory((0.0, [1.0, 1.0])), "time"),
    (trajectory((2.0, [1.0, 1.0]), (1.0, [1.0, 1.0])), "time"),
    (trajectory((1.0, [1.0, 1.0]), joints=("a",)), "joints"),
    (trajectory((1.0, [1.0, 1.0]), joints=("a", "c")), "joints"),
    (trajectory((1.0, [1.0, 1.0]), velocities=[0.0]), "length"),
    (trajectory((1.0, [1.0, 1.0]), velocities=[0.0, 1.0]), "moving at its end"),
    (trajectory((1.0, [1.0, 1.0]), velocities=[0.0, inf]), "not finite"),
    (trajectory((1.0, [1.0, 1.0]), stamp=7), "a start"),
])  # fmt: skip
def test_a_trajectory_that_is_none_is_refused_and_the_old_one_goes_on(
    sample: bytes, cause: str
) -> None:
    controller = Follow(JOINTS)
    controller.take(trajectory((1.0, [1.0, 1.0])), HERE, 0)
    with pytest.raises(CdrError, match=cause):
        controller.take(sample, HERE, 0)
    assert controller.wants(S) == Setpoint(Mode.POSITION, (1.0, 1.0))


finite = st.floats(-3.0, 3.0)


@given(st.tuples(finite, finite), st.tuples(finite, finite), st.floats(0.01, 5.0), st.integers(0))
def test_one_point_is_approached_from_where_the_robot_is_and_never_passed(
    here: tuple[float, float], there: tuple[float, float], after_s: float, later_ns: int
) -> None:
    controller = Follow(JOINTS)
    controller.take(ros2.Trajectories(JOINTS, after_s).write(there), here, 0)
    wanted = controller.wants(later_ns)
    assert wanted is not None
    for start, end, now in zip(here, there, wanted.position, strict=True):
        assert min(start, end) - 1e-9 <= now <= max(start, end) + 1e-9
