"""Requests to the services on board of a Unitree robot, and the one that has to be made: let go.

A robot's own motion service commands the motors as well; two of them fight. So it is released
before the first command, and the robot has to lie, or hang, while that happens.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from time import monotonic_ns
from typing import NamedTuple

from safetypilot.bridge.contract import DriverError
from safetypilot.bridge.protocols.dds import HEADER, Reader, Writer

CHECK_MODE, RELEASE_MODE = 1001, 1003
SERVICE = "motion_switcher"
REQUEST_TOPIC, RESPONSE_TOPIC = f"rt/api/{SERVICE}/request", f"rt/api/{SERVICE}/response"
_REQUEST, _RESPONSE, _LENGTH = struct.Struct("<qqqi?3x"), struct.Struct("<qqi"), struct.Struct("<I")
_ANSWER_NS, _DISCOVER_NS = 1_000_000_000, 3_000_000_000


class Request(NamedTuple):
    id: int
    api: int
    parameter: str


class Response(NamedTuple):
    id: int
    api: int
    code: int
    data: str


def pack_request(request: Request) -> bytes:
    """As a sample of DDS."""
    fixed = _REQUEST.pack(request.id, request.api, 0, 0, False)
    return _sample(fixed, request.parameter)


def pack_response(response: Response) -> bytes:
    """As a sample of DDS."""
    return _sample(_RESPONSE.pack(response.id, response.api, response.code), response.data)


def unpack_request(sample: bytes) -> Request:
    """What a service is asked.

    Raises:
        ValueError: it is no request.
    """
    (number, api, *_), parameter = _parts(_REQUEST, sample)
    return Request(number, api, parameter)


def unpack_response(sample: bytes) -> Response:
    """What a service says.

    Raises:
        ValueError: it is no response.
    """
    (number, api, code), data = _parts(_RESPONSE, sample)
    return Response(number, api, code, data)


class MotionService:
    """The robot's own motion service, as its client sees it."""

    def __init__(self, writer: Writer, reader: Reader) -> None:
        self._writer, self._reader, self._id = writer, reader, monotonic_ns()

    def release(self, deadline_ns: int, may_drop: Callable[[], None]) -> str:
        """Has it let go of the motors; the name of the mode that was active, or "".

        Args:
            may_drop: called before; raises DriverError where the robot would fall.

        Raises:
            DriverError: it did not answer, or did not let go in time.
        """
        self._discover()
        first = name = self._mode()
        if name:
            may_drop()
        while name:
            if monotonic_ns() > deadline_ns:
                raise DriverError(f"the robot's mode {name!r} does not let go of the motors")
            self._call(RELEASE_MODE)
            name = self._mode()
        return first

    def _discover(self) -> None:
        end_ns = monotonic_ns() + _DISCOVER_NS
        while not (self._writer.readers and self._reader.writers):
            if monotonic_ns() > end_ns:
                raise DriverError(
                    "the robot's motion service does not answer, so it cannot be told to let go "
                    "of the motors; is this the robot's own network interface?"
                )
            self._reader.wait(monotonic_ns() + 10_000_000)

    def _mode(self) -> str:
        answer = self._call(CHECK_MODE)
        try:
            return str(json.loads(answer)["name"])
        except (ValueError, TypeError, KeyError):
            raise DriverError(f"the robot's motion service says {answer!r}, not its mode") from None

    def _call(self, api: int) -> str:
        self._id += 1
        self._writer.write(pack_request(Request(self._id, api, "{}")))
        end_ns = monotonic_ns() + _ANSWER_NS
        while monotonic_ns() < end_ns:
            for sample in self._reader.wait(end_ns):
                try:
                    response = unpack_response(sample.data)
                except ValueError:
                    continue
                if (response.id, response.api) != (self._id, api):
                    continue
                if response.code:
                    raise DriverError(f"the robot's motion service refused {api}: {response.code}")
                return response.data
        raise DriverError(f"the robot's motion service did not answer {api} within 1 s")


def _sample(fixed: bytes, text: str) -> bytes:
    data = text.encode() + b"\0"
    padding = bytes(-(len(fixed) + len(data)) % 4)
    body = fixed + _LENGTH.pack(len(data)) + data + padding + _LENGTH.pack(0)
    return HEADER + body


def _parts(layout: struct.Struct, sample: bytes) -> tuple[tuple[int, ...], str]:
    start = len(HEADER) + layout.size
    if sample[:2] != HEADER[:2]:
        raise ValueError("another encoding")
    try:
        (length,) = _LENGTH.unpack_from(sample, start)
        text = sample[start + 4 : start + 4 + length]
        if len(text) != length or text[-1:] != b"\0":
            raise ValueError("cut off")
        return layout.unpack_from(sample, len(HEADER)), text[:-1].decode()
    except (struct.error, UnicodeDecodeError) as error:
        raise ValueError(str(error)) from None
