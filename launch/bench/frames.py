"""The frames of the bare graphs: as long as the stack's own messages, and as little in them.

Layout: seq and stamp_ns (int64), observation (O,), action (A,), risk, all little-endian; then zeros
up to the length of the stack's message on that topic. O observation size, A action size.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import numpy as np

from safetypilot.nodes.kernel.messages import Spec, Stamps
from safetypilot.nodes.kernel.topics import TOPICS
from safetypilot.nodes.kernel.wire import Codec

HEAD = struct.Struct("<qq")
TOPIC_OF = {"plant": "observation", "policy": "proposal", "critic": "risk", "arbiter": "command"}
_STAMP_NS = 1 << 50  # as long on the wire as a machine's uptime in ns
_VERSION = "trained@0123456789ab"

Work = Callable[[bytes], bytes]


def message_sizes(dims: Mapping[str, int]) -> dict[str, int]:
    """Bytes on the wire of the stack's messages between plant, policy, critic and arbiter.

    A bare frame carries more than some of them, such as the observation again; then that counts.
    """
    least = HEAD.size + 4 * (dims["O"] + dims["A"] + 1)
    messages = {
        topic: (TOPICS[topic].message, _example(topic, dims)) for topic in TOPIC_OF.values()
    }
    return {
        topic: max(least, len(Codec(kind, dict(dims)).encode(example)))
        for topic, (kind, example) in messages.items()
    }


def _example(topic: str, dims: Mapping[str, int]) -> Any:
    message = TOPICS[topic].message
    hints = get_type_hints(message, include_extras=True)
    return message(*(_value(name, hint, dims) for name, hint in hints.items()))


def _value(name: str, hint: Any, dims: Mapping[str, int]) -> Any:
    """A value of ordinary length for a field."""
    if get_origin(hint) is Annotated:
        base, *extra = get_args(hint)
        for item in extra:
            if isinstance(item, Spec):
                return np.zeros([dims.get(symbol, 1) for symbol in item.shape], item.dtype)
            if isinstance(item, Stamps):
                return bytes(8 * item.number)
        hint = base
    ordinary: dict[Any, Any] = {int: 1000, float: 0.5, bool: False, str: _VERSION, bytes: b""}
    return _STAMP_NS if name.endswith("_ns") else ordinary[hint]


class Frame:
    """A buffer that is filled in place for one topic.

    Attributes:
        observation, action: views into it, (O,) and (A,).
    """

    def __init__(self, size: int, dims: Mapping[str, int]) -> None:
        start, middle = HEAD.size, HEAD.size + 4 * dims["O"]
        end = middle + 4 * dims["A"]
        self._buffer = bytearray(size)
        floats = np.frombuffer(self._buffer, "<f4", dims["O"] + dims["A"] + 1, start)
        self.observation, self.action = floats[: dims["O"]], floats[dims["O"] : -1]
        self.risk = floats[-1:]
        self._copied = end + 4

    def copy(self, frame: bytes) -> None:
        """Takes over everything that another topic's frame says."""
        self._buffer[: self._copied] = frame[: self._copied]

    def stamp(self, seq: int, stamp_ns: int) -> None:
        HEAD.pack_into(self._buffer, 0, seq, stamp_ns)

    def to_bytes(self) -> bytes:
        return bytes(self._buffer)


def work(role: str, course: Any) -> Work:
    """What a hop does to a frame: the same inferences as the stack's node of that name, bare."""
    frame = Frame(course.sizes[TOPIC_OF[role]], course.dims)
    if role == "arbiter":
        return _decide(frame, course.eps)
    from safetypilot.models.runtime import load

    model = load(course.models[role])
    shapes = {name: (1, course.dims[name[0].upper()]) for name in model.input_shapes}
    bound = model.bind(**shapes)
    inputs = [(bound.inputs[name][0], getattr(frame, name)) for name in model.input_shapes]
    result = bound.outputs["action"][0] if role == "policy" else bound.outputs["risk"]
    place = frame.action if role == "policy" else frame.risk

    def infer(received: bytes) -> bytes:
        frame.copy(received)
        for tensor, part in inputs:
            tensor[:] = part
        bound.run()
        place[:] = result
        return frame.to_bytes()

    return infer


def _decide(frame: Frame, eps: float) -> Work:
    def decide(received: bytes) -> bytes:
        frame.copy(received)
        if not frame.risk[0] <= eps:
            frame.action[:] = 0.0
        return frame.to_bytes()

    return decide
