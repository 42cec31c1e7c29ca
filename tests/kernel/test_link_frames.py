"""Stamps of what comes from the other host: in this host's time, and exactly its own at home."""

from __future__ import annotations

from typing import Any

import msgpack
import numpy as np
import pytest
from examples import DIMS, example_of, same
from hypothesis import given, settings
from hypothesis import strategies as st

from safetypilot.nodes.kernel import messages, trace
from safetypilot.nodes.kernel.link_frames import FIELDS, TIMES, Kind, Translator, pack, unpack
from safetypilot.nodes.kernel.messages import SCHEMAS
from safetypilot.nodes.kernel.wire import WireError, codecs

NOW = 2**62
CODECS = codecs(DIMS)
OFFSETS = st.integers(-(2**60), 2**60)
# Whoever adds a time to a message decides here whose clock it is of.
OURS = {
    "Observation": {"stamp_ns", "sent_ns"},
    "Proposal": {"stamp_ns", "sent_ns", "taken_ns"},
    "Risk": {"stamp_ns", "sent_ns", "taken_ns", "proposal_taken_ns", "proposal_sent_ns"},
    "Recovery": {"stamp_ns", "sent_ns", "taken_ns"},
    "Command": {"stamp_ns", "sent_ns", "valid_until_ns"},
    "Decision": {"stamp_ns", "sent_ns"},
    "Transition": {"stamp_ns", "sent_ns"},
    "EpisodeReport": {"stamp_ns", "sent_ns"},
    "Actuation": {"stamp_ns", "sent_ns"},
    "ModelAnnouncement": {"stamp_ns", "sent_ns"},
}
TOPIC = {
    messages.Observation: "observation", messages.Proposal: "proposal", messages.Risk: "risk",
    messages.Recovery: "recovery", messages.Command: "command", messages.Decision: "decision",
    messages.Transition: "transition", messages.EpisodeReport: "episode",
    messages.Actuation: "actuation", messages.ModelAnnouncement: "model",
}  # fmt: skip


def observation(seq: int, stamp_ns: int) -> messages.Observation:
    return messages.Observation(seq, stamp_ns, stamp_ns, 0, 0, np.zeros(3, np.float32))


def proposal(seq: int, stamp_ns: int, sent_ns: int) -> messages.Proposal:
    return messages.Proposal(seq, stamp_ns, sent_ns, 1, np.zeros(2, np.float32), "m", sent_ns - 10)


def test_every_time_of_every_message_has_been_thought_of() -> None:
    assert {message.__name__: set(TIMES[message].names) for message in SCHEMAS} == OURS
    assert set(TOPIC) == set(SCHEMAS)


@pytest.mark.parametrize("kind", list(SCHEMAS), ids=lambda kind: kind.__name__)
@settings(deadline=None)
@given(data=st.data(), offset_ns=OFFSETS)
def test_times_move_and_nothing_else_does(kind: type[Any], data: Any, offset_ns: int) -> None:
    message = data.draw(example_of(kind))
    here = Translator(home=False).here(TOPIC[kind], message, offset_ns, NOW)
    assert same(CODECS[kind].decode(CODECS[kind].encode(here)), here), "it can be sent on"
    for name, before, after in zip(kind._fields, message, here, strict=True):
        if name == "valid_until_ns":
            assert after == before + offset_ns
        elif name in OURS[kind.__name__]:
            assert after == (max(0, min(before + offset_ns, NOW)) if before else 0)
        elif name == "chain":
            stamps = zip(
                np.frombuffer(before, "<i8").tolist(), np.frombuffer(after, "<i8").tolist(),
                strict=True,
            )  # fmt: skip
            assert all(b == (max(0, min(a + offset_ns, NOW)) if a else 0) for a, b in stamps)
        else:
            assert same((before,), (after,)), name


@given(
    stamps=st.lists(st.integers(1, 2**61), min_size=1, max_size=20, unique=True),
    offsets=st.lists(OFFSETS, min_size=2, max_size=2),
)
def test_what_answers_an_observation_comes_home_with_its_very_stamp(
    stamps: list[int], offsets: list[int]
) -> None:
    """Whatever is known of the clocks, and however that changes in between."""
    robot, workstation = Translator(home=True), Translator(home=False)
    for seq, stamp_ns in enumerate(stamps):
        seen = observation(seq, stamp_ns)
        robot.note(seen)
        there = workstation.here("observation", seen, offsets[0], NOW)
        answer = proposal(seq, there.stamp_ns, there.stamp_ns + 100)
        home = robot.here("proposal", answer, offsets[1], NOW)
        assert home.stamp_ns == stamp_ns


def test_all_that_is_of_one_observation_has_one_stamp_on_the_other_host_too() -> None:
    workstation = Translator(home=False)
    stamp_ns = workstation.here("observation", observation(7, 1000), 500, NOW).stamp_ns
    zeros = np.zeros(2, np.float32)
    command = messages.Command(7, 1000, 1100, zeros, 0, 0, 0, zeros, 0.0, 2000, False, "m")
    moved = workstation.here("command", command, 507, NOW)  # the clocks are known better now
    assert (stamp_ns, moved.stamp_ns, moved.sent_ns, moved.valid_until_ns) == (
        1500, 1500, 1607, 2507,
    )  # fmt: skip


def test_an_observation_is_stamped_once_however_often_it_is_looked_at() -> None:
    workstation = Translator(home=False)
    stamps = {
        workstation.here("observation", observation(7, 1000), offset, NOW).stamp_ns
        for offset in (500, 507, 490)
    }
    assert stamps == {1500}


def test_an_answer_to_what_was_never_observed_is_refused_at_home() -> None:
    answer = proposal(9, 1000, 1100)
    with pytest.raises(WireError, match="unknown observation: proposal for observation 9"):
        Translator(home=True).here("proposal", answer, 0, NOW)
    assert Translator(home=False).here("proposal", answer, 5, NOW).stamp_ns == 1005


def test_a_model_has_its_own_time_not_that_of_an_observation() -> None:
    robot = Translator(home=True)
    robot.note(observation(3, 77))
    model = messages.ModelAnnouncement(3, 1000, 1000, "task_policy", "p", "s", "v")
    assert robot.here("model", model, 10, NOW).stamp_ns == 1010


def test_nothing_was_sent_after_it_arrived() -> None:
    """An offset that is wrong by a little must not make a message of the future."""
    moved = Translator(home=False).here("observation", observation(1, 1000), 600, 1200)
    assert (moved.stamp_ns, moved.sent_ns) == (1200, 1200)


def test_only_so_many_observations_are_remembered() -> None:
    robot = Translator(home=True)
    for seq in range(10_000):
        robot.note(observation(seq, seq))
    assert len(robot._stamps) == 4096
    assert robot.here("proposal", proposal(9_999, 1, 2), 0, NOW).stamp_ns == 9_999
    with pytest.raises(WireError):
        robot.here("proposal", proposal(5_000, 1, 2), 0, NOW)


def test_a_chain_keeps_what_never_happened() -> None:
    chain = trace.of_command(None, None, None, 50)
    zeros = np.zeros(2, np.float32)
    command = messages.Command(1, 9, 9, zeros, 0, 0, -1, zeros, 0.0, 9, False, "", chain)
    moved = trace.unpack(Translator(home=False).here("command", command, 7, NOW).chain)
    assert moved.arbiter_taken == 57 and moved.policy_observed == moved.risk_sent == 0


_VALUES = {
    int: st.integers(-(2**63), 2**63 - 1), str: st.text(max_size=20), bytes: st.binary(max_size=20),
    bool: st.booleans(), dict: st.dictionaries(st.text(max_size=5), st.integers(0, 2**40)),
}  # fmt: skip


@given(st.sampled_from(Kind), st.integers(0, 2**62), st.data())
def test_frames_come_back_as_they_went(kind: Kind, session: int, data: Any) -> None:
    fields = [data.draw(_VALUES[wanted]) for wanted in FIELDS[kind]]
    assert unpack(pack(kind, session, *fields)) == (kind, session, fields)


def refuses(frame: bytes) -> bool:
    try:
        kind, session, fields = unpack(frame)
    except WireError as error:
        assert error.cause == "malformed"
        return True
    assert type(session) is int and [type(field) for field in fields] == list(FIELDS[kind])
    return False


@given(st.binary(max_size=200))
def test_garbage_is_refused_and_never_raises(frame: bytes) -> None:
    refuses(frame)


@given(st.sampled_from(Kind), st.data())
def test_fields_of_another_type_or_number_are_refused(kind: Kind, data: Any) -> None:
    fields = [data.draw(_VALUES[wanted]) for wanted in FIELDS[kind]]
    assert refuses(pack(kind, 1, *fields, 5))
    if fields:
        assert refuses(pack(kind, 1, *fields[:-1]))
        at = data.draw(st.integers(0, len(fields) - 1))
        other = data.draw(st.sampled_from([t for t in _VALUES if t is not FIELDS[kind][at]]))
        fields[at] = data.draw(_VALUES[other])
        assert refuses(pack(kind, 1, *fields))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=8,
)


@given(st.lists(_JSON, max_size=9))
def test_frames_of_other_shapes_are_refused_unless_they_are_right(values: list[Any]) -> None:
    refused = refuses(msgpack.packb(values))
    assert refused or len(values) >= 2
