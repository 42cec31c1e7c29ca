"""Where an e-stop is kept: one file per device, found again, and refused where it cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from safetypilot.bridge import latch
from safetypilot.bridge.contract import DriverError

ROBOTS = Path(__file__).parents[1] / "nodes" / "robots.py"
IN_MEMORY = f"{ROBOTS}:Robot"


def test_a_device_is_known_by_where_it_is_not_by_how_it_is_tuned(state_home: Path) -> None:
    one = latch.of_device("dynamixel", {"port": "/dev/ttyUSB0"})
    assert one.parent == state_home / "safetypilot"
    assert one.name.startswith("estop-dynamixel-")
    assert latch.of_device("dynamixel", {"port": "/dev/ttyUSB0", "ramp_s": 0.5}) == one
    assert latch.of_device("dynamixel", {"port": "/dev/ttyUSB1"}) != one
    real = {"domain": 0, "interface": "eth0"}
    assert latch.of_device("unitree", real) != latch.of_device("unitree", {**real, "robot": "g1"})


def test_a_driver_that_does_not_say_is_known_by_all_of_its_options() -> None:
    one = latch.of_device(IN_MEMORY, {})
    assert latch.of_device(IN_MEMORY, {"watchdog": False}) != one
    assert latch.of_device(IN_MEMORY, {"watchdog": True}) == one


def test_an_address_that_is_no_option_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(f"{ROBOTS.read_text()}\nRobot.ADDRESS = ('prot',)\n")
    with pytest.raises(DriverError, match="ADDRESS names 'prot'; it is one of watchdog"):
        latch.of_device(f"{file}:Robot", {})


def test_a_driver_file_is_the_same_from_everywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROBOTS.parent)
    one = latch.of_device("robots.py:Robot", {})
    monkeypatch.chdir(tmp_path)
    assert latch.of_device(IN_MEMORY, {}) == one


def test_the_folder_is_the_users_alone(state_home: Path) -> None:
    folder = state_home / "safetypilot"
    folder.mkdir(parents=True)
    folder.chmod(0o777)
    latch.check(latch.of_device("dynamixel", {}))
    assert folder.stat().st_mode & 0o777 == 0o700 and not list(folder.iterdir())


@pytest.mark.parametrize("given", ["", "not/absolute"])
def test_without_a_state_home_it_is_below_the_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", given)
    monkeypatch.setenv("HOME", str(tmp_path))
    file = latch.of_device("dynamixel", {})
    assert file.parent == tmp_path / ".local" / "state" / "safetypilot"


def test_where_nothing_can_be_written_it_says_so(state_home: Path) -> None:
    state_home.write_text("in the way")
    with pytest.raises(DriverError, match=r"state-home.*could not be kept; make it writable"):
        latch.of_device("dynamixel", {})
    with pytest.raises(DriverError, match="could not be kept"):
        latch.check(state_home / "latch")
