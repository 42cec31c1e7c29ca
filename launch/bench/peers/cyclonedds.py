"""The four-hop graph on Eclipse Cyclone DDS, the middleware under ROS 2: loopback, no multicast."""

import os
from dataclasses import dataclass
from functools import cache
from typing import Any

from safetypilot.launch.bench import contest
from safetypilot.launch.bench.course import HOPS, Course
from safetypilot.launch.bench.frames import TOPIC_OF, Work

MODULE = "safetypilot.launch.bench.peers.cyclonedds"
_ORDER = ("plant", *HOPS)
# A participant that misses the others' first call must not wait for the next for 30 s.
_CONFIG = """
<CycloneDDS><Domain>
  <General>
    <Interfaces><NetworkInterface address="127.0.0.1" multicast="false"/></Interfaces>
    <AllowMulticast>false</AllowMulticast>
  </General>
  <Discovery>
    <ParticipantIndex>auto</ParticipantIndex>
    <MaxAutoParticipantIndex>16</MaxAutoParticipantIndex>
    <Peers><Peer address="127.0.0.1"/></Peers>
    <SPDPInterval>2s</SPDPInterval>
  </Discovery>
  <Tracing><Verbosity>severe</Verbosity><OutputFile>stderr</OutputFile></Tracing>
</Domain></CycloneDDS>
"""


@cache
def data_type(topic: str, size: int) -> Any:
    """A topic's type: an array of bytes, which the Python binding moves without a loop.

    The binding reads the annotation itself, so this file cannot postpone annotations.
    """
    from cyclonedds.idl import IdlStruct
    from cyclonedds.idl.types import array, uint8

    @dataclass
    class Frame(IdlStruct, typename=f"safetypilot.bench.{topic}"):  # type: ignore
        data: array[uint8, size]

    return Frame


class Ends:
    """A writer and a reader, best effort, the newest sample only: a control loop's settings."""

    def __init__(self, course: Course, role: str = "plant") -> None:
        os.environ["CYCLONEDDS_URI"] = _CONFIG
        from cyclonedds.core import InstanceState, ReadCondition, SampleState, ViewState, WaitSet
        from cyclonedds.domain import DomainParticipant
        from cyclonedds.pub import DataWriter
        from cyclonedds.qos import Policy, Qos
        from cyclonedds.sub import DataReader
        from cyclonedds.topic import Topic

        written, read = (TOPIC_OF[_ORDER[_ORDER.index(role) - back]] for back in (0, 1))
        self._type = data_type(written, course.sizes[written])
        participant = DomainParticipant(course.ports[0] % 200)
        qos = Qos(Policy.Reliability.BestEffort, Policy.History.KeepLast(1))
        self._writer = DataWriter(
            participant, Topic(participant, written, self._type, qos=qos), qos=qos
        )
        other = data_type(read, course.sizes[read])
        self._reader = DataReader(participant, Topic(participant, read, other, qos=qos), qos=qos)
        self._waitset = WaitSet(participant)
        self._waitset.attach(
            ReadCondition(self._reader, ViewState.Any | InstanceState.Alive | SampleState.NotRead)
        )

    def send(self, frame: bytes) -> None:
        self._writer.write(self._type(frame))

    def receive(self, timeout_s: float) -> bytes | None:
        if not self._waitset.wait(int(timeout_s * 1e9)):
            return None
        samples = self._reader.take()
        return bytes(samples[0].data) if samples else None

    def close(self) -> None:
        """The process's end does it."""


def hop(course: Course, role: str, do: Work) -> None:
    contest.serve(Ends(course, role), do)


if __name__ == "__main__":
    contest.main(MODULE, Ends, hop)
