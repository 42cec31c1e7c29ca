"""A simulated device that a driver starts for itself."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

from safetypilot.bridge.contract import DriverError

END_AFTER_S = 5.0  # a device should outlive a driver that was killed by so much, and stop by itself
_PATIENCE_S = 30.0  # on a busy machine Python alone takes seconds


class Child:
    """A process of its own, in a session of its own.

    Attributes:
        details: its first line: how to connect to it.
    """

    def __init__(self, module: str, arguments: Sequence[str]) -> None:
        """Start it.

        Args:
            module: of bridge/devices/.

        Raises:
            DriverError: it did not come up.
        """
        self._name = module
        command = [sys.executable, "-P", "-m", f"safetypilot.bridge.devices.{module}", *arguments]
        self._said = tempfile.TemporaryFile()  # a pipe might fill up, and block it
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._said,
            start_new_session=True,
        )  # fmt: skip
        try:
            self.details = self._wait()
        except BaseException:
            self.end()
            raise

    def _wait(self) -> dict[str, Any]:
        out = self._process.stdout
        if out is None or not select.select([out], [], [], _PATIENCE_S)[0]:
            raise DriverError(f"the simulated {self._name} did not start in {_PATIENCE_S:g} s")
        line = out.readline()
        if not line:
            code = self._process.wait(_PATIENCE_S)
            self._said.seek(0)
            last = self._said.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise DriverError(
                f"the simulated {self._name} did not start: {last or f'exit code {code}'}"
            )
        details: dict[str, Any] = json.loads(line)
        return details

    def end(self) -> None:
        """Ends it, whatever it does."""
        self._process.terminate()
        try:
            self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._said.close()
