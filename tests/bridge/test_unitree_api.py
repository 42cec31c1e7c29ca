"""Requests to a robot's own motion service: their bytes, and how it is told to let go."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip("cyclonedds")

from safetypilot.bridge.contract import DriverError
from safetypilot.bridge.protocols import dds, unitree_types
from safetypilot.bridge.protocols.dds import Sample
from safetypilot.bridge.protocols.unitree_api import (
    CHECK_MODE,
    RELEASE_MODE,
    MotionService,
    Request,
    Response,
    pack_request,
    pack_response,
    unpack_request,
    unpack_response,
)

int64 = st.integers(-(2**63), 2**63 - 1)
text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40)
LATER = 2**62


def bindings(*structs: dds.Struct) -> dict[str, Any]:
    """Classes of the DDS binding, by the names of the types."""
    from cyclonedds import idl

    made: dict[str, Any] = {}
    for struct in structs:
        dds._idl(struct, idl, made)
    return {name: dataclass(plain) for name, plain in made.items()}


@given(number=int64, api=int64, parameter=text)
@settings(max_examples=50, deadline=None)
def test_requests_are_what_the_binding_makes_of_them(number: int, api: int, parameter: str) -> None:
    kinds = bindings(unitree_types.REQUEST)

    def make(name: str, *values: Any) -> Any:
        return kinds[f"unitree_api.msg.dds_.{name}_"](*values)

    header = make(
        "RequestHeader",
        make("RequestIdentity", number, api),
        make("RequestLease", 0),
        make("RequestPolicy", 0, False),
    )
    sample = make("Request", header, parameter, []).serialize()
    request = Request(number, api, parameter)
    assert pack_request(request) == sample.ljust(-(-len(sample) // 4) * 4, b"\0")
    assert unpack_request(sample) == request


@given(number=int64, api=int64, code=st.integers(-(2**31), 2**31 - 1), data=text)
@settings(max_examples=50, deadline=None)
def test_responses_are_read_as_the_binding_writes_them(
    number: int, api: int, code: int, data: str
) -> None:
    kinds = bindings(unitree_types.RESPONSE)

    def make(name: str, *values: Any) -> Any:
        return kinds[f"unitree_api.msg.dds_.{name}_"](*values)

    header = make(
        "ResponseHeader", make("RequestIdentity", number, api), make("ResponseStatus", code)
    )
    sample = make("Response", header, data, []).serialize()
    response = Response(number, api, code, data)
    assert unpack_response(sample) == response
    assert unpack_response(pack_response(response)) == response


@given(noise=st.binary(max_size=80))
@settings(max_examples=200, deadline=None)
def test_noise_is_no_response(noise: bytes) -> None:
    for sample in (noise, dds.HEADER + noise):
        try:
            unpack_response(sample)
        except ValueError:
            continue
        assert len(sample) >= 29


class Robot:
    """A motion service, both ends of its topics; answers at once."""

    readers = writers = 1

    def __init__(self, *modes: str, code: int = 0) -> None:
        self.modes, self.code = list(modes), code
        self.asked: list[int] = []
        self.answers: list[Sample] = []

    def write(self, sample: bytes) -> None:
        request = unpack_request(sample)
        self.asked.append(request.api)
        data = "{}"
        if request.api == CHECK_MODE:
            data = json.dumps({"form": "0", "name": self.modes[0]})
        elif len(self.modes) > 1:
            self.modes.pop(0)
        for number in (request.id - 1, request.id):  # somebody else's answer first
            answer = Response(number, request.api, self.code, data)
            self.answers.append(Sample(pack_response(answer), 1))

    def wait(self, deadline_ns: int) -> list[Sample]:
        answers, self.answers = self.answers, []
        return answers


def service(robot: Robot) -> MotionService:
    return MotionService(robot, robot)  # type: ignore[arg-type]


def test_it_lets_go_of_one_mode_after_the_other() -> None:
    robot, warned = Robot("ai", "normal", ""), []
    assert service(robot).release(LATER, lambda: warned.append(True)) == "ai"
    assert robot.asked == [CHECK_MODE, RELEASE_MODE, CHECK_MODE, RELEASE_MODE, CHECK_MODE]
    assert warned == [True]


def test_a_robot_that_is_free_is_left_alone() -> None:
    robot, warned = Robot(""), []
    assert service(robot).release(LATER, lambda: warned.append(True)) == ""
    assert robot.asked == [CHECK_MODE]
    assert warned == []


def test_a_robot_that_would_fall_is_not_released() -> None:
    robot = Robot("normal", "")

    def standing() -> None:
        raise DriverError("it stands")

    with pytest.raises(DriverError, match="it stands"):
        service(robot).release(LATER, standing)
    assert robot.asked == [CHECK_MODE]


def test_a_mode_that_does_not_let_go() -> None:
    with pytest.raises(DriverError, match="'normal' does not let go"):
        service(Robot("normal")).release(0, lambda: None)


def test_a_service_that_refuses() -> None:
    with pytest.raises(DriverError, match="refused 1001: 7"):
        service(Robot("normal", code=7)).release(LATER, lambda: None)


def test_a_service_that_talks_nonsense() -> None:
    robot = Robot("")
    robot.write = lambda sample: robot.answers.append(  # type: ignore[method-assign]
        Sample(pack_response(Response(unpack_request(sample).id, CHECK_MODE, 0, "[]")), 1)
    )
    with pytest.raises(DriverError, match="not its mode"):
        service(robot).release(LATER, lambda: None)


def test_a_service_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("safetypilot.bridge.protocols.unitree_api._ANSWER_NS", 1_000_000)
    robot = Robot("")
    robot.write = lambda sample: None  # type: ignore[method-assign]
    with pytest.raises(DriverError, match="did not answer 1001"):
        service(robot).release(LATER, lambda: None)


def test_there_is_no_service(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("safetypilot.bridge.protocols.unitree_api._DISCOVER_NS", 1_000_000)
    robot = Robot("")
    robot.writers = 0
    with pytest.raises(DriverError, match=r"does not answer.*interface"):
        service(robot).release(LATER, lambda: None)
