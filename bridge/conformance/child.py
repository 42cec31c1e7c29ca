"""A driver in a process of its own, which holds its device until it is killed."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
from pathlib import Path

from safetypilot.bridge import registry
from safetypilot.bridge.conformance.bench import Bench
from safetypilot.bridge.conformance.session import Session, make_ready, preferred

_WROTE, _SAID = "wrote", "said"  # files
_STAMP = struct.Struct("<q")  # when the last write began, CLOCK_MONOTONIC


def start(bench: Bench, folder: Path) -> subprocess.Popen[bytes]:
    """Starts the process; once the driver is active, it stamps every write into the folder."""
    (folder / _WROTE).write_bytes(bytes(_STAMP.size))
    work = {
        "driver": bench.subject.driver,
        "options": bench.options(),
        "calibration": bench.values,
        "stamps": str(folder / _WROTE),
    }
    with open(folder / _SAID, "wb") as said:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", __name__, json.dumps(work)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said,
        )  # fmt: skip


def wrote_ns(folder: Path) -> int:
    """When the last write began; 0: there was none yet."""
    at_ns: int = _STAMP.unpack((folder / _WROTE).read_bytes())[0]
    return at_ns


def complaint(folder: Path) -> str:
    """The last line that the process had to say."""
    lines = (folder / _SAID).read_text(errors="replace").strip().splitlines()
    return lines[-1] if lines else "it says nothing"


def main() -> None:
    """Holds the device for ever."""
    work = json.loads(sys.argv[1])
    driver = registry.create(work["driver"], work["options"])
    driver.connect()
    make_ready(driver, work["calibration"])
    mode = preferred(driver)
    session = Session(driver, mode, driver.activate(mode))
    file = os.open(work["stamps"], os.O_WRONLY)
    while True:
        session.cycle()
        os.pwrite(file, _STAMP.pack(session.wrote_ns), 0)


if __name__ == "__main__":
    main()
