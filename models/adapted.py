"""Runs a network of another maker as if it were one of ours: the plant's names, order and units.

What the maker's own deployment code does around the network (pick, normalise, scale, clip, feed
back) is done here, in buffers made once. Letters: B rows, O and A sizes on the plant's side, o and
a on the network's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from safetypilot.models.contract import Contract
from safetypilot.models.errors import ModelError
from safetypilot.models.session import Array, Bound, Model

PREVIOUS, RAW = "previous_action", "raw_action"  # a pair of recurrent state, made here


@dataclass(frozen=True)
class Around:
    """What stands between the plant and a network.

    Attributes:
        tensors: this project's tensor name -> the file's, all that are used.
        pick: for each network input, which of the plant's values it is, (o,); -1: none of them.
        shift: added to what is picked, (o,).
        gain: multiplies the sum, (o,).
        clip: the product stays within plus and minus this.
        feedback: network inputs that take the network's own last output, (a,); None: no such.
        order: for each of the plant's actions, which output of the network it is, (A,).
        scale: multiplies the output, (a,).
        offset: added to the product, (a,).
        low: the sum is clipped to this, (A,); None: it is not clipped.
        high: and to this, (A,).
    """

    tensors: Mapping[str, str]
    pick: NDArray[np.intp]
    shift: Array | None = None
    gain: Array | None = None
    clip: float | None = None
    feedback: NDArray[np.intp] | None = None
    order: NDArray[np.intp] | None = None
    scale: Array | None = None
    offset: Array | None = None
    low: Array | None = None
    high: Array | None = None
    states: tuple[tuple[str, str], ...] = field(default=())


class Adapted(Model):
    """A network of another maker, with its contract in the plant's words."""

    def __init__(
        self, path: Path, contract: Contract, sha256: str, session: Any, around: Around
    ) -> None:
        """Wrap a session as `around` says."""
        super().__init__(path, contract, sha256, session)
        self._around = around
        self.tensors = around.tensors
        theirs = {value.name: value.shape for value in session.get_inputs()}
        self._their_shapes: dict[str, list[int | str | None]] = theirs
        rows = _rows(theirs[around.tensors["observation"]])
        self.input_shapes = {"observation": [rows, contract.observation_size]}
        if contract.kind == "safety_critic":
            self.input_shapes["action"] = [rows, contract.action_size]
        self.input_shapes |= {name: theirs[name] for name, _ in around.states}
        outputs = {value.name: value.shape for value in session.get_outputs()}
        answer = "risk" if contract.kind == "safety_critic" else "action"
        self.output_shapes = {answer: [rows] + [contract.action_size] * (answer == "action")}
        self.output_shapes |= {name: outputs[name] for _, name in around.states}
        if around.feedback is not None:
            self.input_shapes[PREVIOUS] = [rows, len(around.feedback)]
            self.output_shapes[RAW] = [rows, len(around.feedback)]

    def bind(self, **shapes: tuple[int, ...]) -> Bound:
        """Fixed buffers for the given input shapes, on the plant's side."""
        self._check_names(set(shapes))
        size = self.contract.observation_size
        if len(shapes["observation"]) != 2 or shapes["observation"][1] != size:
            raise ModelError(
                f"{self.path.name} cannot run with an observation of shape "
                f"{shapes['observation']}, it wants (B, {size})"
            )
        return self._guard(lambda: _Surrounded(self._session, shapes, self))

    def their_shape(self, name: str, rows: int) -> tuple[int, ...]:
        """Of one of the file's own inputs, with open sizes filled in: the first is the rows."""
        sizes: list[int] = []
        for size in self._their_shapes[name]:
            known = [s for s in sizes if s != 1]
            sizes.append(size if isinstance(size, int) else 1 if known else rows)
        return tuple(sizes)


def _rows(shape: list[int | str | None]) -> int | str | None:
    """How many rows a network takes at once; a name where that is open."""
    return 1 if len(shape) < 2 else shape[0]


class _Surrounded(Bound):
    """Buffers on the plant's side around buffers on the network's."""

    def __init__(self, session: Any, shapes: Mapping[str, tuple[int, ...]], model: Adapted) -> None:
        around = model._around
        rows = shapes["observation"][0]
        names = around.tensors
        zeros: dict[str, Array] = {}
        for ours in ("observation", "action"):
            if ours in model.input_shapes:
                shape = model.their_shape(names[ours], rows)
                zeros[ours] = np.zeros(shape, np.float32)
        zeros |= {name: np.zeros(shapes[name], np.float32) for name, _ in around.states}
        answer = "risk" if "risk" in model.output_shapes else "action"
        wanted = [names[answer], *(name for _, name in around.states)]
        super().__init__(session, zeros, names, wanted)
        self._around, self._answer = around, answer
        self._fed = self.inputs["observation"].reshape(rows, -1)  # (B, o), a view
        self._given = self.outputs[answer].reshape(rows, -1)  # (B, a), a view
        self._plant = np.zeros((rows, model.contract.observation_size), np.float32)
        self.inputs = {**self.inputs, "observation": self._plant}
        size = model.contract.action_size
        self._action = np.zeros((rows, size), np.float32)
        if "action" in model.input_shapes:
            self._judged = self.inputs["action"].reshape(rows, -1)
            self.inputs["action"] = self._action
        ours_out = self._given[:, 0] if answer == "risk" else self._action
        self.outputs = {**self.outputs, answer: ours_out}
        if around.feedback is not None:
            self._previous = np.zeros((rows, len(around.feedback)), np.float32)
            self.inputs[PREVIOUS], self.outputs[RAW] = self._previous, self._given
        self._known = np.maximum(around.pick, 0)
        if self._fed.shape[1] != len(self._known):
            raise ModelError(f"observation size {self._fed.shape[1]}, not {len(self._known)}")
        wide = len(around.order) if around.order is not None else size
        if answer == "action" and self._given.shape[1] != wide:
            raise ModelError(f"{self._given.shape[1]} outputs for {wide} actions")
        self.run()  # sizes what is left, and warms up
        for array in self.inputs.values():
            array.fill(0.0)

    def run(self) -> None:
        """Evaluate `inputs` into `outputs`."""
        around, fed = self._around, self._fed
        np.take(self._plant, self._known, axis=1, out=fed, mode="clip")
        if around.shift is not None:
            fed += around.shift
        if around.gain is not None:
            fed *= around.gain
        if around.clip is not None:
            np.clip(fed, -around.clip, around.clip, out=fed)
        if around.feedback is not None:
            fed[:, around.feedback] = self._previous
        if self._answer == "risk":
            given = self._judged
            given[...] = self._action if around.order is None else self._action[:, around.order]
            super().run()
            return
        super().run()
        action = self._given if around.scale is None else self._given * around.scale
        if around.offset is not None:
            action = action + around.offset
        if around.order is not None:
            action = action[:, around.order]
        if around.low is not None and around.high is not None:
            action = np.clip(action, around.low, around.high)
        self._action[...] = action


def size_of(shape: list[int | str | None]) -> int | None:
    """How many values a row of such an input holds; None where that is left open."""
    if not shape or not isinstance(shape[-1], int):
        return None
    return math.prod(size for size in shape[1:] or shape if isinstance(size, int))
