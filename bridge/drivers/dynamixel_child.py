"""A simulated chain that the driver starts for itself."""

from __future__ import annotations

import json
import os
import select
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from safetypilot.bridge.contract import DriverError
from safetypilot.bridge.drivers.dynamixel_options import DynamixelOptions

_PATIENCE_S = 30.0  # on a busy machine Python alone takes seconds
_END_AFTER_S = 5.0  # it outlives a driver that was killed by so much, and stops the arm meanwhile


class Child:
    """A process of its own, in a session of its own.

    Attributes:
        port: to be opened.
    """

    def __init__(self, options: DynamixelOptions, ids: Sequence[int]) -> None:
        """Start it.

        Raises:
            DriverError: it did not come up.
        """
        command = [
            sys.executable, "-P", "-m", "safetypilot.bridge.devices.dynamixel",
            "--ids", ",".join(map(str, ids)), "--baud", str(options.baud), "--model", options.model,
            "--end-after", str(_END_AFTER_S), *shlex.split(options.device),
        ]  # fmt: skip
        self._said = tempfile.TemporaryFile()  # a pipe might fill up, and block it
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._said,
            start_new_session=True,
        )  # fmt: skip
        # A robot is no part of the machine: it does not share the CPUs that we may be bound to.
        os.sched_setaffinity(self._process.pid, range(os.cpu_count() or 1))
        try:
            self.port = self._wait()
        except BaseException:
            self.end()
            raise

    def _wait(self) -> str:
        out = self._process.stdout
        if out is None or not select.select([out], [], [], _PATIENCE_S)[0]:
            raise DriverError(f"the simulated arm did not start within {_PATIENCE_S:g} s")
        line = out.readline()
        if not line:
            code = self._process.wait(_PATIENCE_S)
            self._said.seek(0)
            last = self._said.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise DriverError(f"the simulated arm did not start: {last or f'exit code {code}'}")
        return str(json.loads(line)["port"])

    def end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._said.close()
