"""DDS: samples as bytes, types as data. The only file that imports cyclonedds.

    POINT = Struct("demo.msg.dds_.Point_", (("x", "float32"), ("y", "float32")))
    bus = Bus(domain=1)                     # loopback, unless an interface is named
    writer, reader = bus.writer("rt/point", POINT), bus.reader("rt/point", POINT)
    writer.write(HEADER + pack("<2f", 1, 2))
    for data, sender in reader.take(): ...  # waits for nothing
    bus.close()

A sample is its CDR with the 4 bytes of its encoding before it. Packing them with `struct` costs a
few us; the objects of the binding cost a hundred times as much.
"""

from __future__ import annotations

import hashlib
import importlib
from dataclasses import dataclass
from time import monotonic_ns, sleep
from typing import Any, NamedTuple

from safetypilot.bridge.contract import DriverError
from safetypilot.bridge.protocols import dds_network

HEADER = b"\x00\x01\x00\x00"  # CDR version 1, little-endian
_ANY = 0x7F  # of all sample, view and instance states
_ERRORS = 3  # are printed; no warning for each packet of garbage, which fills disks and pipes
_POLL_S = 0.0002  # a sleep, unlike Cyclone's own waiting, lets signal handlers run


@dataclass(frozen=True, slots=True)
class Struct:
    """A final type without keys: its name, with dots, and its fields in order."""

    name: str
    fields: tuple[tuple[str, Kind], ...]


@dataclass(frozen=True, slots=True)
class Array:
    """So many of a kind."""

    kind: Kind
    size: int


@dataclass(frozen=True, slots=True)
class Sequence:
    """Any number of a kind."""

    kind: Kind


# "octet", "bool", "string", "int16", "uint32", "float64", ... "octet" and "uint8" look the same on
# the wire, but a peer on Cyclone 0.10 dies of types that say "uint8".
Kind = str | Struct | Array | Sequence


class Sample(NamedTuple):
    """What came: CDR with its header, and which writer sent it."""

    data: bytes
    writer: int


def digests(struct: Struct) -> tuple[str, str]:
    """SHA-256 of what peers are told of a type: type information and type map.

    Raises:
        DriverError: cyclonedds is not installed.
    """
    idl = _idl(struct, _import("cyclonedds.idl"), {}).__idl__
    idl.populate()
    idl.fill_type_data()
    information, type_map = idl._xt_bytedata
    return hashlib.sha256(information).hexdigest(), hashlib.sha256(type_map).hexdigest()


class Bus:
    """A domain, as seen from one interface; a process opens a domain once at a time."""

    def __init__(self, domain: int, interface: str = dds_network.LOOPBACK) -> None:
        """Open it.

        Args:
            domain: 0 to 230; robots are on 0.
            interface: "lo", or the network interface that the robot is on. Nothing is received from
                any other; peers on this host are only found on "lo".

        Raises:
            DriverError: cyclonedds is not installed, there is no such interface, or the domain is
                already open in this process.
        """
        dds_network.check(domain, interface)
        self._module = _import("cyclonedds")
        self._domain_id, self._interface = domain, interface
        self._idl_types: dict[str, Any] = {}
        self._topics: dict[str, Any] = {}
        self._entities: list[Any] = []
        domains = _import("cyclonedds.domain")
        config = dds_network.configuration(interface)
        self._entities.append(self._make(domains.Domain, domain, config))
        _import("cyclonedds.internal").DDS._dll_handle.dds_set_log_mask(_ERRORS)
        try:
            dds_network.confine(domain, interface)
            self._participant = self._make(domains.DomainParticipant, domain)
        except DriverError:
            self.close()
            raise
        self._entities.append(self._participant)

    def writer(
        self, topic: str, struct: Struct, *, reliable: bool = True, transient_local: bool = False
    ) -> Writer:
        """A writer that keeps one sample at most and waits for nobody."""
        pub = _import("cyclonedds.pub")
        qos = _qos(reliable, transient_local, depth=1)
        entity = self._make(pub.DataWriter, self._participant, self._topic(topic, struct), qos)
        self._entities.append(entity)
        return Writer(entity, topic)

    def reader(
        self,
        topic: str,
        struct: Struct,
        *,
        depth: int = 1,
        reliable: bool = False,
        transient_local: bool = False,
        others_only: bool = False,
    ) -> Reader:
        """A reader that keeps the newest `depth` samples; if told so, not those from this bus."""
        sub = _import("cyclonedds.sub")
        qos = _qos(reliable, transient_local, depth, others_only)
        entity = self._make(sub.DataReader, self._participant, self._topic(topic, struct), qos)
        self._entities.append(entity)
        return Reader(entity, topic, depth)

    def close(self) -> None:
        """Leaves the domain; writers and readers are of no use any more."""
        self._topics.clear()
        self._participant = None
        for entity in reversed(self._entities):
            # The binding deletes an entity with its last reference, but cycles hold some of them.
            if entity._entities.pop(entity._ref, None) is not None:
                entity._delete(entity._ref)
        self._entities.clear()

    def _topic(self, name: str, struct: Struct) -> Any:
        if name not in self._topics:
            idl = _idl(struct, _import("cyclonedds.idl"), self._idl_types)
            made = self._make(_import("cyclonedds.topic").Topic, self._participant, name, idl)
            self._topics[name] = made
            self._entities.append(made)
        return self._topics[name]

    def _make(self, kind: Any, *arguments: Any) -> Any:
        """An entity of Cyclone.

        Raises:
            DriverError: it could not be made.
        """
        try:
            return kind(*arguments)
        except self._module.core.DDSException as error:
            raise DriverError(
                f"DDS domain {self._domain_id} on {self._interface} cannot be opened (code "
                f"{error.code}); a process can do so once at a time, and 25 of them fit on a host"
            ) from error


class Writer:
    """The one way to send on a topic.

    Attributes:
        readers: how many readers there are at the other end.
    """

    def __init__(self, entity: Any, topic: str) -> None:
        self._entity, self._ref, self.topic = entity, entity._ref, topic
        self._write = _import("cyclonedds._clayer").ddspy_write

    @property
    def readers(self) -> int:
        return len(self._entity.get_matched_subscriptions())

    def write(self, sample: bytes) -> None:
        """Hands a sample to the network, from any thread; waits for nothing.

        Raises:
            DriverError: it is not of the topic's type, or the bus is closed.
        """
        code = self._write(self._ref, sample)
        if code < 0:
            raise DriverError(
                f"{self.topic}: DDS refused a sample of {len(sample)} bytes (code {code}); its "
                "bytes do not fit its type, or the domain has been closed"
            )


class Reader:
    """What comes in on a topic.

    Attributes:
        writers: how many writers there are at the other end.
    """

    def __init__(self, entity: Any, topic: str, depth: int) -> None:
        self._entity, self._ref, self.topic, self._depth = entity, entity._ref, topic, depth
        self._take = _import("cyclonedds._clayer").ddspy_take

    @property
    def writers(self) -> int:
        return len(self._entity.get_matched_publications())

    def take(self) -> list[Sample]:
        """All that has come and was not taken yet, the oldest first.

        Raises:
            DriverError: the bus is closed.
        """
        taken = self._take(self._ref, _ANY, self._depth)
        if not taken:
            return []
        if type(taken) is int:
            raise DriverError(f"{self.topic}: DDS gives nothing any more (code {taken})")
        return [Sample(data, info.publication_handle) for data, info in taken if info.valid_data]

    def wait(self, deadline_ns: int) -> list[Sample]:
        """As `take`, but waits until something has come, at most until the deadline.

        Args:
            deadline_ns: CLOCK_MONOTONIC.
        """
        while True:
            samples = self.take()
            left_s = (deadline_ns - monotonic_ns()) * 1e-9
            if samples or left_s <= 0:
                return samples
            sleep(min(left_s, _POLL_S))


def _import(name: str) -> Any:
    """A module of cyclonedds.

    Raises:
        DriverError: it is not installed.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise DriverError(
            f"this driver speaks DDS, and {error}: pip install 'safetypilot[dds]'"
        ) from error


def _qos(reliable: bool, transient_local: bool, depth: int, others_only: bool = False) -> Any:
    policy = _import("cyclonedds.qos").Policy
    policies = [
        policy.Reliability.Reliable(0) if reliable else policy.Reliability.BestEffort,
        policy.Durability.TransientLocal if transient_local else policy.Durability.Volatile,
        policy.History.KeepLast(depth),
    ]
    if others_only:
        policies.append(policy.IgnoreLocal.Participant)
    return _import("cyclonedds.qos").Qos(*policies)


def _idl(struct: Struct, idl: Any, made: dict[str, Any]) -> Any:
    """The binding's class of a type, and of all that it is made of."""
    if struct.name not in made:
        fields = {name: _kind(kind, idl, made) for name, kind in struct.fields}
        short = struct.name.rpartition(".")[2]
        built = idl.make_idl_struct(short, struct.name, fields, dataclassify=False)
        annotations = _import("cyclonedds.idl.annotations")
        made[struct.name] = annotations.autoid("sequential")(annotations.final(built))
    return made[struct.name]


def _kind(kind: Kind, idl: Any, made: dict[str, Any]) -> Any:
    if isinstance(kind, Struct):
        return _idl(kind, idl, made)
    types = _import("cyclonedds.idl.types")
    if isinstance(kind, Array):
        return types.array[_kind(kind.kind, idl, made), kind.size]
    if isinstance(kind, Sequence):
        return types.sequence[_kind(kind.kind, idl, made)]
    plain = {"octet": types.byte, "string": str, "bool": bool}
    return plain[kind] if kind in plain else getattr(types, kind)
