"""The processes of a run: how they are started, watched and ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from time import monotonic, sleep

from safetypilot.launch import patience, reaper
from safetypilot.nodes.kernel import addresses
from safetypilot.nodes.kernel.node import Spec

_OURS, _GROUP = "safetypilot.nodes.", "safetypilot.nodes.kernel.group"
# A user's node may be anywhere on the search path of the process that checked it.
_RUN_CLASS = (
    "import sys; from importlib import import_module; "
    "from safetypilot.nodes.kernel.process import main; "
    "module, _, name = sys.argv.pop(1).partition(':'); main(getattr(import_module(module), name))"
)
_PASSED_ON = (
    "PATH", "HOME", "XDG_STATE_HOME", "USER", "LANG", "LC_ALL", "TZ", "TMPDIR", "LD_LIBRARY_PATH",
    "VIRTUAL_ENV", "MUJOCO_GL", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE", "PYTHONPYCACHEPREFIX",
    "COVERAGE_PROCESS_START",
)  # fmt: skip
ONE_THREAD = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def environment() -> dict[str, str]:
    """The environment of a node: little of ours, and one thread per numeric library."""
    passed = {name: os.environ[name] for name in _PASSED_ON if name in os.environ}
    return {**passed, **dict.fromkeys(ONE_THREAD, "1"), "PYTHONUNBUFFERED": "1"}


def command(
    specs: Sequence[Spec], files: Sequence[Path], name: str = ""
) -> tuple[list[str], dict[str, str]]:
    """What starts the process of one node, or of several under a name; in which environment."""
    module, _, _ = specs[0].node.partition(":")
    words, env = [str(file) for file in files], environment()
    if not all(spec.node.startswith(_OURS) for spec in specs):
        paths = [path for path in sys.path if path] + [os.getcwd()]
        env["PYTHONPATH"] = os.pathsep.join(paths)
    python = [sys.executable, "-P"]
    if len(specs) > 1:
        return [*python, "-m", _GROUP, name, *words], env
    if module.startswith(_OURS):
        return [*python, "-m", module, *words], env
    return [*python, "-c", _RUN_CLASS, specs[0].node, *words], env


class Reaper:
    """Our line to the process that ends the others should we be killed."""

    def __init__(self, runtime_dir: Path, lock: int) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", reaper.__file__, str(runtime_dir)],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=(lock,),  # the run counts as alive until the reaper is through
            env={},
        )

    def tell(self, line: str) -> None:
        pipe = self._process.stdin
        try:
            os.write(pipe.fileno(), f"{line}\n".encode()) if pipe else None
        except BrokenPipeError:
            return  # somebody killed it; the nodes still watch their parent themselves

    @property
    def pid(self) -> int:
        return self._process.pid

    def dismiss(self) -> None:
        """At an orderly end, when no node is left."""
        self.tell("done")
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


class Child:
    """One process, of one node or of several; a restarted node gets a new one.

    Attributes:
        down_s: for so much longer than others it may take to end.
    """

    def __init__(self, specs: Sequence[Spec], log: Path, keeper: Reaper) -> None:
        self.log = log
        self._keeper = keeper
        self._buried = False
        self.down_s = patience.down_s(specs)
        files = [Path(spec.runtime_dir) / f"{spec.name}.json" for spec in specs]
        for spec, file in zip(specs, files, strict=True):
            file.write_text(json.dumps(asdict(spec)))
        arguments, env = command(specs, files, log.stem)
        fixed = any(spec.realtime.get("fixed_addresses") for spec in specs)
        with log.open("ab") as output, addresses.fix(fixed):
            self._log_start = output.tell()
            self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env=env,
                pass_fds={fd for spec in specs for fd in spec.descriptors},
            )
        keeper.tell(f"+{self.pid} {self.down_s:g}")

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def code(self) -> int | None:
        """None while it runs, else the exit code; -N if signal N ended it."""
        return self._process.poll()

    def send(self, number: int) -> None:
        """A signal to the node and everything it started; no matter if all are gone."""
        reaper.send(self.pid, number)

    def bury(self) -> None:
        """After its end: also what it may have started itself is ended."""
        if self._buried:
            return
        self._buried = True
        self.send(signal.SIGKILL)
        self._keeper.tell(f"-{self.pid}")

    def last_lines(self, count: int = 12) -> list[str]:
        """The end of what this process has written to the node's log."""
        return last_lines(self.log, count, self._log_start)


def last_lines(log: Path, count: int = 12, start: int = 0) -> list[str]:
    """The last lines of a file, however long it is, not looking before byte `start`."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(start, file.tell() - 16_384))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return []
    return [line.rstrip() for line in text.splitlines() if line.strip()][-count:]


def describe_code(code: int) -> str:
    """How a process ended, in words."""
    if code >= 0:
        return f"exited with code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def end_all(
    children: Iterable[Child], term_after_s: float = 1.0, kill_after_s: float = 2.0
) -> None:
    """Waits for processes that were asked to stop; SIGTERM, then SIGKILL to those that do not.

    A bridge that takes its robot down is given the time for it.
    """
    left = list(children)
    start, termed = monotonic(), False
    while left:
        for child in [child for child in left if child.code is not None]:
            child.bury()
            left.remove(child)
        elapsed = monotonic() - start
        if elapsed >= term_after_s and not termed:
            termed = True
            for child in left:
                child.send(signal.SIGTERM)
        for child in left:
            if elapsed >= kill_after_s + child.down_s:
                child.send(signal.SIGKILL)
        if left:
            sleep(0.005)
