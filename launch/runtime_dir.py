"""The private runtime directories of this user's runs: made, found, and cleared when dead.

`<tmp>/safetypilot-<uid>/<run id>/` holds a run's sockets, its `graph.json` and the e-stop latch.
A run is alive for as long as somebody holds the lock on the directory's `lock` file: its supervisor
and, should that be killed, the reaper until it has finished. So neither a reused pid nor a crash
can make a dead run look alive.
"""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GRAPH, LATCH, LOCK = "graph.json", "estop", "lock"
_LONGEST_NAME = 16  # of the graph, in a run id
LONGEST_BASE = 36  # with the run id and a socket's name it must stay below 107 bytes


class RuntimeDirError(Exception):
    """The runtime directory cannot be used, or no running run is meant; says what to do."""


def base_dir() -> Path:
    """The directory above all runs of this user, made if need be.

    Raises:
        RuntimeDirError: it is not a private directory of this user.
    """
    base = Path(tempfile.gettempdir()).resolve() / f"safetypilot-{os.getuid()}"
    try:
        base.mkdir(mode=0o700, exist_ok=True)
        found = base.lstat()
    except OSError as error:
        raise RuntimeDirError(f"{base} cannot be made: {error.strerror}; set TMPDIR") from None
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise RuntimeDirError(f"{base} is not a directory of this user; remove it or set TMPDIR")
    if found.st_mode & 0o077:
        raise RuntimeDirError(f"{base} is open to other users: chmod 700 {base}")
    return base


@dataclass(frozen=True)
class RuntimeDir:
    """The directory of a run that this process owns."""

    path: Path
    run_id: str
    lock: int  # file descriptor; the run is alive while it is held

    @property
    def latch(self) -> Path:
        return self.path / LATCH

    def describe(self, graph: dict[str, Any]) -> None:
        """Writes `graph.json`, by which the command line finds the run."""
        write_json(self.path / GRAPH, {**graph, "run_id": self.run_id, "pid": os.getpid()})

    def remove(self) -> None:
        """Ends the run: nothing of it is left."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.lock)


def create(name: str) -> RuntimeDir:
    """Makes the directory of a new run, after clearing away those of dead ones.

    Raises:
        RuntimeDirError: there is no place for it.
    """
    base = base_dir()
    if len(str(base)) > LONGEST_BASE:
        raise RuntimeDirError(
            f"the path {base} is too long for local sockets; set TMPDIR to a shorter one"
        )
    with _locked(base / ".lock"):
        remove_dead(base)
        stem = "".join(c if c.isalnum() or c in "-_" else "-" for c in name)[:_LONGEST_NAME]
        run_id = f"{stem or 'run'}-{secrets.token_hex(3)}"
        path = base / run_id
        path.mkdir(mode=0o700)
        lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX)
    return RuntimeDir(path, run_id, lock)


def remove_dead(base: Path) -> list[str]:
    """Removes the directories of runs that nobody holds any more; returns their names."""
    removed = []
    for path in sorted(base.iterdir()):
        if path.is_dir() and not path.is_symlink() and not alive(path):
            shutil.rmtree(path, ignore_errors=True)
            removed.append(path.name)
    return removed


def alive(path: Path) -> bool:
    """Whether a supervisor or a reaper still holds the run's lock."""
    try:
        handle = os.open(path / LOCK, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


@dataclass(frozen=True)
class Running:
    """A run of this user that is under way, as others see it."""

    path: Path
    graph: dict[str, Any]

    @property
    def run_id(self) -> str:
        return self.path.name

    @property
    def name(self) -> str:
        return str(self.graph.get("name", ""))

    @property
    def latch(self) -> Path:
        return self.path / LATCH


def running() -> list[Running]:
    """All runs of this user that are under way, oldest first."""
    found = []
    for path in base_dir().iterdir():
        try:
            graph = json.loads((path / GRAPH).read_text())
        except (OSError, ValueError):
            continue
        if isinstance(graph, dict) and alive(path):
            found.append(Running(path, graph))
    return sorted(found, key=lambda run: str(run.graph.get("started", "")))


def find(name: str | None) -> Running:
    """The one running run that is meant.

    Args:
        name: a run id, the start of one, or a graph's name; None if there is only one run.

    Raises:
        RuntimeDirError: none or several fit.
    """
    runs = running()
    if not runs:
        raise RuntimeDirError("nothing is running; start a graph with `safetypilot launch NAME`")
    listed = ", ".join(run.run_id for run in runs)
    if name is None:
        if len(runs) > 1:
            raise RuntimeDirError(f"several runs are under way: {listed}; say which with --run")
        return runs[0]
    fits = [run for run in runs if run.run_id == name] or [
        run for run in runs if run.run_id.startswith(name) or run.name == name
    ]
    if len(fits) != 1:
        problem = "several runs fit" if fits else "no run is called"
        raise RuntimeDirError(f"{problem} {name!r}; running: {listed}")
    return fits[0]


def write_json(path: Path, data: Any) -> None:
    """Writes a JSON file so that a reader finds the old or the new one, never half of it."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    part.write_text(json.dumps(data, indent=2, allow_nan=False, default=str) + "\n")
    part.replace(path)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)
