"""Watches a model file or a directory of them, and hands what is new to the node's slots.

A thread looks at the file system a few times per second; the control path is not involved. What
counts is inode, size and times, so a file that is renamed into place is seen like one that is
written. A file is handed over once it has not changed between two looks; should it be half written
even so, staging refuses it, and it is looked at again when it changes.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from time import sleep
from typing import Any

from safetypilot.models.runtime import ModelError, kind_of
from safetypilot.nodes.kernel.node import Context
from safetypilot.nodes.model_slot import FILE_KINDS, ModelSlot

INTERVAL_S = 0.2

Signature = tuple[int, int, int, int]


def watch(context: Context, path: str, slots: Mapping[str, ModelSlot]) -> None:
    """Begins to watch; what is there already is known. In lockstep nothing is watched.

    Args:
        path: a file, or a directory; empty: nothing.
        slots: by the kind of model they hold.
    """
    if not path:
        return
    if not context.realtime:
        context.event("not watching", path=path, reason="in lockstep a run follows its launch file")
        return
    _Watch(context, Path(path), slots).go_on()


class _Watch:
    def __init__(self, context: Context, path: Path, slots: Mapping[str, ModelSlot]) -> None:
        self._context = context
        self._slots = slots
        self._seen = Seen(path)

    def go_on(self) -> None:
        self._context.background(self._wait, self._take, "watch models")

    def _wait(self) -> list[Path]:
        while True:
            sleep(INTERVAL_S)
            if new := self._seen.look():
                return new

    def _take(self, found: Any, now_ns: int) -> None:
        if isinstance(found, Exception):
            self._context.event("not watching", reason=f"{type(found).__name__}: {found}")
            return
        taken: dict[str, Path] = {}
        for path in found:  # oldest first, so the newest of each kind stays
            if kind := self._kind(path):
                taken[kind] = path
        for kind, path in taken.items():
            self._slots[kind].follow(str(path))
        self.go_on()

    def _kind(self, path: Path) -> str:
        """The slot for a file; empty if there is none, or it cannot be told."""
        try:
            kind = kind_of(path)
        except ModelError as error:
            if len(self._slots) == 1 and not self._seen.directory:
                return next(iter(self._slots))  # staging says what is wrong with it
            self._context.event("not taken", path=str(path), reason=str(error))
            return ""
        if not kind:  # from another tool: the node's contract says what it is
            return next(iter(self._slots)) if len(self._slots) == 1 else ""
        return next((slot for slot in self._slots if FILE_KINDS.get(slot, slot) == kind), "")


class Seen:
    """What a file, or the .onnx files of a directory, looked like at the last two looks."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.directory = path.is_dir()
        self._taken = self._stat()
        self._before = dict(self._taken)

    def look(self) -> list[Path]:
        """The files that are new or changed, and at rest since the last look; oldest first."""
        now = self._stat()
        new = [
            (signature, path)
            for path, signature in now.items()
            if signature == self._before.get(path) and signature != self._taken.get(path)
        ]
        self._before = now
        self._taken |= {path: signature for signature, path in new}
        return [path for signature, path in sorted(new, key=lambda item: (item[0][2], item[1]))]

    def _stat(self) -> dict[Path, Signature]:
        found = {}
        for path in self._paths():
            try:
                status = path.stat()
            except OSError:
                continue  # gone, or not yet there
            found[path] = (
                status.st_ino,
                status.st_size,
                status.st_mtime_ns,
                status.st_ctime_ns,
            )
        return found

    def _paths(self) -> list[Path]:
        if not self.directory:
            return [self._path]
        try:
            with os.scandir(self._path) as entries:
                return [Path(e.path) for e in entries if e.name.endswith(".onnx")]
        except OSError:
            return []
