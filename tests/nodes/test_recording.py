"""Recordings: what was written is read, by others too; bounded, cut off, or with no disk at all."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
from examples import DIMS, example_of, same
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mcap.reader import make_reader

from safetypilot.nodes import recording_schema as schema
from safetypilot.nodes.kernel import messages
from safetypilot.nodes.kernel.errors import NodeError
from safetypilot.nodes.kernel.node import Context
from safetypilot.nodes.kernel.testing import INTERFACE, Bench
from safetypilot.nodes.kernel.transport import Endpoints
from safetypilot.nodes.kernel.wire import codecs
from safetypilot.nodes.recorder import Recorder, RecorderConfig
from safetypilot.nodes.recording import LiveRecording
from safetypilot.nodes.recording_file import Recording, RecordingError, RecordingWriter, Settings

GRAPH = {
    "clock": "lockstep",
    "rate_hz": 50.0,
    "interface": INTERFACE.to_dict(),
    "topics": {
        name: {"type": kind}
        for name, kind in (("observation", "observation"), ("risk", "risk"), ("mine", "proposal"))
    },
}
ENCODE = {message: codec.encode for message, codec in codecs({"O": 2, "A": 2}).items()}


def observation(seq: int) -> messages.Observation:
    return messages.Observation(seq, seq * 10, seq * 10, 0, seq, np.array([seq, 0.5], np.float32))


def write(path: Path, count: int, **changes: Any) -> RecordingWriter:
    """A recording of so many observations and risks."""
    writer = RecordingWriter(Settings(path, **changes), GRAPH)
    for seq in range(count):
        writer.write("observation", ENCODE[messages.Observation](observation(seq)))
        risk = messages.Risk(seq, seq * 10, seq * 10 + 5, seq, 0.25, "m" * 40)
        writer.write("risk", ENCODE[messages.Risk](risk))
    writer.close()
    return writer


@pytest.mark.parametrize("message", messages.SCHEMAS, ids=lambda m: m.__name__)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_every_message_comes_back_from_protobuf(message: type[Any], data: st.DataObject) -> None:
    sent = data.draw(example_of(message))
    decode = schema.decoder(message, schema.schema_bytes(), DIMS)
    assert same(sent, decode(schema.encoder(message)(sent)))


def test_a_recording_with_fewer_fields_is_read_with_their_defaults() -> None:
    """As one made before messages had stamps."""
    old = descriptor_pb2.FileDescriptorProto.FromString(
        schema.file_descriptor().SerializeToString()
    )
    (risk,) = [m for m in old.message_type if m.name == "Risk"]
    del risk.field[6:]
    pool = descriptor_pool.DescriptorPool()
    pool.Add(old)
    make = message_factory.GetMessageClass(pool.FindMessageTypeByName("safetypilot.Risk"))
    recorded = make(seq=4, risk=0.5, model="m").SerializeToString()
    encoded = descriptor_pb2.FileDescriptorSet(file=[old]).SerializeToString()
    read = schema.decoder(messages.Risk, encoded, DIMS)(recorded)
    assert (read.seq, read.risk, read.taken_ns) == (4, 0.5, 0)
    del risk.field[4:]  # the risk itself
    lacking = descriptor_pb2.FileDescriptorSet(file=[old]).SerializeToString()
    with pytest.raises(schema.SchemaError, match="without model, risk"):
        schema.decoder(messages.Risk, lacking, DIMS)


def test_any_mcap_reader_opens_it_by_its_own_schema(tmp_path: Path) -> None:
    write(tmp_path / "a.mcap", 5)
    with (tmp_path / "a.mcap").open("rb") as file:
        reader = make_reader(file)
        found, summary = list(reader.iter_messages()), reader.get_summary()
    assert summary is not None and summary.statistics is not None
    assert summary.statistics.message_count == len(found) == 10
    described, channel, _ = found[0]
    assert described is not None and described.encoding == channel.message_encoding == "protobuf"
    pool = descriptor_pool.DescriptorPool()
    for each in descriptor_pb2.FileDescriptorSet.FromString(described.data).file:
        pool.Add(each)
    make = message_factory.GetMessageClass(pool.FindMessageTypeByName(described.name))
    fields = json_format.MessageToDict(make.FromString(found[-2][2].data))
    assert (channel.topic, fields["seq"], fields["values"]) == ("/observation", "4", [4.0, 0.5])
    assert [m.log_time for _, _, m in found] == sorted(m.log_time for _, _, m in found)


def test_what_was_written_is_read_in_order_with_its_graph(tmp_path: Path) -> None:
    writer = write(tmp_path / "a.mcap", 300)
    recording = Recording(tmp_path / "a.mcap")
    read = list(recording)
    assert writer.messages == len(read) == 600 and not recording.cut_off
    assert recording.graph["interface"] == INTERFACE.to_dict()
    assert [topic for topic, _ in read[:2]] == ["observation", "risk"]
    assert same(read[-2].message, observation(299))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "a.mcap"
    write(path, 2000)
    return path.read_bytes()


@given(share=st.floats(0, 0.999))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_a_recording_that_was_cut_anywhere_is_read_as_far_as_it_goes(
    tmp_path: Path, whole: bytes, share: float
) -> None:
    path = tmp_path / "cut.mcap"
    path.write_bytes(whole[: int(len(whole) * share)])
    try:
        recording = Recording(path)
    except RecordingError:
        assert share < 0.2  # not even the description of the graph is there
        return
    read = list(recording)
    assert recording.cut_off
    assert [m.seq for topic, m in read if topic == "observation"] == list(
        range((len(read) + 1) // 2)
    )


def test_a_killed_writer_loses_no_more_than_its_last_chunk(tmp_path: Path) -> None:
    writer = RecordingWriter(Settings(tmp_path / "a.mcap"), GRAPH)
    for seq in range(3000):
        writer.write("observation", ENCODE[messages.Observation](observation(seq)))
    copy = tmp_path / "as-it-lies-there.mcap"
    copy.write_bytes((tmp_path / "a.mcap").read_bytes())  # never closed
    read = list(Recording(copy))
    assert 3000 - 16 * 1024 // 30 < len(read) == writer.messages < 3000
    writer.close()


def test_files_follow_one_another_and_the_oldest_go(tmp_path: Path) -> None:
    writer = write(tmp_path / "a.mcap", 6000, max_bytes=40_000, keep=3)
    files = sorted(path.name for path in tmp_path.iterdir())
    assert len(files) == 3 and "a.mcap" not in files
    assert all(path.stat().st_size < 70_000 for path in tmp_path.iterdir())
    kept = [m.seq for path in writer.files for topic, m in Recording(path) if topic == "risk"]
    assert kept == list(range(kept[0], 6000))


def test_only_the_topics_asked_for_are_kept_and_gaps_are_counted(tmp_path: Path) -> None:
    writer = RecordingWriter(Settings(tmp_path / "a.mcap", ("observation",)), GRAPH)
    for seq in (0, 1, 5, 6, 2**32):  # four missing; then a restart of the plant
        writer.write("observation", ENCODE[messages.Observation](observation(seq)))
    writer.write("risk", b"not asked for")
    writer.write("observation", b"garbage")
    writer.close()
    assert writer.gaps() == {"observation": 3}
    assert (writer.messages, sum(writer.refused.values())) == (5, 1)
    assert {topic for topic, _ in Recording(tmp_path / "a.mcap")} == {"observation"}


@pytest.mark.parametrize("content", [b"", b"junk" * 100])
def test_other_files_are_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.mcap").write_bytes(content)
    with pytest.raises(RecordingError, match=r"x\.mcap is not an MCAP file"):
        Recording(tmp_path / "x.mcap")


# Live, from sockets.


@pytest.fixture
def endpoints() -> Iterator[Endpoints]:
    """In a directory that is short enough for sockets."""
    with tempfile.TemporaryDirectory(prefix="sp", dir="/tmp") as folder:
        found = Endpoints(folder)
        found.make()
        yield found


def speak(endpoints: Endpoints, until: Any, at_most: int = 20_000) -> int:
    """Publishes observations until the condition holds; how many."""
    context: zmq.Context[Any] = zmq.Context()
    writer = context.socket(zmq.PUB)
    writer.bind(endpoints.topic("observation"))
    try:
        for seq in range(at_most):
            writer.send(ENCODE[messages.Observation](observation(seq)))
            time.sleep(0.0005)
            if until():
                return seq + 1
        pytest.fail("it never came about")
    finally:
        context.destroy(0)


def live(endpoints: Endpoints, path: Path, **changes: Any) -> LiveRecording:
    recording = LiveRecording(Settings(path, **changes), endpoints, GRAPH)
    recording.start()
    return recording


def test_a_live_recording_keeps_what_passes(endpoints: Endpoints, tmp_path: Path) -> None:
    recording = live(endpoints, tmp_path / "a.mcap")
    sent = speak(endpoints, lambda: recording.status()["messages"] > 800)
    assert recording.stop(10)
    status, read = recording.status(), list(Recording(tmp_path / "a.mcap"))
    assert len(read) == status["messages"] <= sent
    assert status["dropped"] == 0 and status["failure"] == ""
    seqs = [message.seq for _, message in read]
    assert status["gaps"].get("observation", 0) == seqs[-1] - seqs[0] + 1 - len(seqs)


def test_a_full_disk_is_said_and_counted(endpoints: Endpoints) -> None:
    recording = live(endpoints, Path("/dev/full"))
    speak(endpoints, lambda: recording.failure and recording.status()["dropped"] > 50)
    assert recording.stop(10)
    status = recording.status()
    assert status["failure"] == "/dev/full: No space left on device"
    assert status["messages"] == 0 and status["dropped_by"]["disk failed"] == status["dropped"]


def test_a_disk_that_hangs_holds_up_nobody(endpoints: Endpoints, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.mcap")  # opening it blocks until somebody reads: nobody does
    recording = live(endpoints, tmp_path / "a.mcap", queue_bytes=20_000)
    speak(endpoints, lambda: recording.status()["dropped_by"].get("disk too slow", 0) > 50)
    assert not recording.stop(0.2)
    reader = os.open(tmp_path / "a.mcap", os.O_RDONLY | os.O_NONBLOCK)  # lets the thread go
    os.close(reader)


# The node.


def test_the_node_in_lockstep_leaves_it_to_the_scheduler(tmp_path: Path) -> None:
    bench = Bench(Recorder, RecorderConfig(), tmp_path, realtime=False)
    assert bench.node.next_wake_ns is None and bench.node.status() == {}
    bench.node.deactivate(bench.now_ns)
    assert not list(tmp_path.iterdir())


def in_a_run(folder: Path, **changes: Any) -> Bench:
    described = GRAPH | {"clock": "realtime"}
    (folder / "graph.json").write_text(json.dumps(described))
    return Bench(Recorder, RecorderConfig(**changes), folder)


def test_the_node_says_once_that_its_disk_has_failed(endpoints: Endpoints) -> None:
    (endpoints.root / "recording.mcap").symlink_to("/dev/full")
    bench = in_a_run(endpoints.root)
    end = time.monotonic() + 10
    while not bench.executor.events and time.monotonic() < end:
        time.sleep(0.01)
        bench.pass_time(600_000_000)
    bench.pass_time(2_000_000_000)
    assert [kind for kind, _ in bench.executor.events] == ["recording failed"]
    bench.node.deactivate(bench.now_ns)
    kind, data = bench.executor.events[-1]
    assert kind == "recorded" and "No space left" in data["failure"]
    bench.node.close()


def test_the_node_names_a_topic_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(NodeError, match="there is no topic 'comand' to record; there are: obs"):
        in_a_run(tmp_path, topics=("comand",))


@pytest.mark.parametrize(
    "values",
    [{"file": "../a.mcap"}, {"file": "a.bag"}, {"max_mb": -1.0}, {"keep": -1}, {"queue_mb": 0.0}],
)
def test_a_config_that_makes_no_sense_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(values))):
        RecorderConfig(**values)


def test_a_restarted_recorder_keeps_what_the_one_before_it_left(endpoints: Endpoints) -> None:
    first = in_a_run(endpoints.root)
    first.node.deactivate(0)
    again = Context(**{
        name: getattr(first.node.context, name) for name in first.node.context.__slots__
    } | {"generation": 1})  # fmt: skip
    second = Recorder(RecorderConfig(), again)
    second.configure()
    second.deactivate(0)
    names = sorted(path.name for path in endpoints.root.glob("*.mcap"))
    assert names == ["recording-restart1.mcap", "recording.mcap"]
