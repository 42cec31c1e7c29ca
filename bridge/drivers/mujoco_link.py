"""The driver's end of the MuJoCo device's wire: starts a device, asks it, sorts what it sends."""

from __future__ import annotations

import json
import os
import select
import socket
import struct
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from time import monotonic_ns
from typing import Any

from safetypilot.bridge.contract import DriverError, Setpoint
from safetypilot.bridge.devices.mujoco_options import MujocoOptions
from safetypilot.bridge.protocols.mujoco import (
    LONGEST,
    CommandCodec,
    Head,
    Kind,
    Refused,
    State,
    StateCodec,
    Status,
    body_of,
    message,
    read_head,
)

PATIENCE_S = 30.0  # for a device to start: on a busy machine Python alone takes seconds
ANSWER_S = 5.0
_END_AFTER_S = 5.0  # a device of ours outlives us by so much


class Child:
    """A device that was started for this driver, as a session of its own.

    It outlives a driver that is killed for long enough to damp, and then ends by itself.

    Attributes:
        address: of its socket.
    """

    def __init__(self, options: MujocoOptions, model: Path) -> None:
        """Start it.

        Raises:
            DriverError: it did not come up.
        """
        told = {**asdict(options), "model": str(model), "address": ""}
        command = [
            sys.executable, "-P", "-m", "safetypilot.bridge.devices.mujoco",
            "--options", json.dumps(told), "--end-after", str(_END_AFTER_S),
        ]  # fmt: skip
        self._said = tempfile.TemporaryFile()  # a pipe might fill up, and block it
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=self._said,
            start_new_session=True,
        )  # fmt: skip
        # A robot is no part of the machine: it does not share the CPUs that we may be bound to.
        os.sched_setaffinity(self._process.pid, range(os.cpu_count() or 1))
        try:
            self.address = self._wait()
        except BaseException:
            self.end()
            raise

    def _wait(self) -> str:
        """The address in the device's first line."""
        out = self._process.stdout
        if out is None or not select.select([out], [], [], PATIENCE_S)[0]:
            raise DriverError(f"the device did not start within {PATIENCE_S:g} s")
        line = out.readline()
        if not line:
            code = self._process.wait(PATIENCE_S)
            self._said.seek(0)
            last = self._said.read().decode(errors="replace").strip().rpartition("\n")[2]
            raise DriverError(f"the device did not start: {last or f'exit code {code}'}")
        return str(json.loads(line)["socket"])

    @property
    def pid(self) -> int:
        return self._process.pid

    def end(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(2.0)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._said.close()


class Inlet:
    """Sorts frames of the device: the newest state is kept, what is not good is counted.

    Attributes:
        state: the newest so far.
        received_ns: when it came.
        session: of this connection; 0: the device has not given one yet.
        answer: what the device said last.
        answered: sequence number of the request that it answers.
        is_after: whether the state is of after that answer.
    """

    def __init__(self, codec: StateCodec, late_ns: int, counters: dict[str, int]) -> None:
        """Begin with nothing.

        Args:
            late_ns: a state that was measured longer ago is dropped.
            counters: cause -> frames that were not taken.
        """
        self._codec, self._late_ns, self._counters = codec, late_ns, counters
        self.state: State | None = None
        self._found: State | None = None  # since the last `conclude`
        self._found_ns = self.received_ns = self.session = self._seq = 0
        self.answer: dict[str, Any] = {}
        self.answered, self.is_after = 0, False

    def take(self, frame: memoryview, now_ns: int) -> None:
        """Looks at what a frame says; `conclude` is to follow the last of them."""
        try:
            head = read_head(frame)
            if head.kind == Kind.ANSWER:
                self._take_answer(head, frame)
            elif head.kind == Kind.STATE:
                self._take_state(head, frame, now_ns)
            else:
                raise Refused("kind")
        except Refused as refusal:
            self._count(refusal.cause)

    def _take_answer(self, head: Head, frame: memoryview) -> None:
        if self.session not in (0, head.session):
            raise Refused("foreign")
        self.answer, self.answered = body_of(frame), head.seq
        self.session, self.is_after, self._found = head.session, False, None

    def _take_state(self, head: Head, frame: memoryview, now_ns: int) -> None:
        if head.session != self.session:
            raise Refused("foreign")
        if head.seq <= self._seq:
            raise Refused("duplicate" if head.seq == self._seq else "reordered")
        state = self._codec.unpack(head, frame)
        if self._seq and head.seq > self._seq + 1:
            self._count("lost", head.seq - self._seq - 1)
        self._seq, self._found, self._found_ns = head.seq, state, now_ns

    def conclude(self) -> None:
        """Keeps the newest of the states that came, unless it is old already."""
        state, self._found = self._found, None
        if state is None:
            return
        if self._found_ns - state.head.stamp_ns > self._late_ns:
            self._count("late")
        else:
            self.state, self.received_ns, self.is_after = state, self._found_ns, True

    def _count(self, cause: str, times: int = 1) -> None:
        self._counters[cause] = self._counters.get(cause, 0) + times


class Link:
    """A connection to a device, which obeys it alone.

    Attributes:
        identity: what the device said of itself.
        newest: the newest state.
    """

    def __init__(self, address: str, inlet: Inlet, joints: int) -> None:
        """Connect and take the command.

        Raises:
            DriverError: nobody is there, it does not answer, or it has another client.
        """
        self.inlet, self._commands = inlet, CommandCodec(joints)
        self._seq = 0
        self._buffer = memoryview(bytearray(LONGEST))
        self._stop = b""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self._socket.connect(address)
            self._socket.setblocking(False)
            self.identity = self.ask(Kind.HELLO)
        except OSError as error:
            self.close()
            raise DriverError(
                f"no MuJoCo device answers at {address} ({error.strerror}); is it running?"
            ) from None
        except BaseException:
            self.close()
            raise
        self._stop = message(Head(Kind.ESTOP, 0, 0, inlet.session, 0, 0))

    @property
    def newest(self) -> State:
        if self.inlet.state is None:
            raise DriverError("the MuJoCo device has not sent a state yet")
        return self.inlet.state

    @property
    def commands(self) -> bool:
        """Whether the device obeys us, as far as it has said."""
        state = self.inlet.state
        return state is not None and state.head.code in (Status.RISING, Status.ACTIVE)

    def await_state(self) -> State:
        """The newest state, once there is one.

        Raises:
            DriverError: there is none.
        """
        until_ns = monotonic_ns() + round(ANSWER_S * 1e9)
        while self.inlet.state is None and self.wait(until_ns):
            self.drain()
        return self.newest

    def drain(self) -> None:
        """Takes all that has come; never blocks.

        Raises:
            DriverError: the device is gone.
        """
        receive, buffer, inlet = self._socket.recv_into, self._buffer, self.inlet
        try:
            while size := receive(buffer):
                inlet.take(buffer[:size], monotonic_ns())
        except BlockingIOError:
            inlet.conclude()
            return
        except OSError as error:
            raise DriverError(f"the link to the MuJoCo device broke: {error.strerror}") from None
        raise DriverError("the MuJoCo device has gone; is its process running?")

    def wait(self, until_ns: int) -> bool:
        """Sleeps until something comes, or until then; whether there was time left."""
        left_ns = until_ns - monotonic_ns()
        if left_ns <= 0:
            return False
        select.select((self._socket,), (), (), left_ns * 1e-9)
        return True

    def ask(self, kind: Kind, **body: Any) -> dict[str, Any]:
        """Sends a request; returns its answer, once a state of after it has come, too.

        Only to HELLO that state is not awaited: it may be of another robot than was declared.

        Raises:
            DriverError: the device refuses, or does not answer.
        """
        self._seq += 1
        inlet, seq, now = self.inlet, self._seq, monotonic_ns()
        self._send(message(Head(kind, 0, 0, inlet.session, seq, now), body))
        until_ns = now + round(ANSWER_S * 1e9)
        while self.wait(until_ns):
            self.drain()
            if inlet.answered != seq:
                continue
            if not inlet.answer.get("ok"):
                raise DriverError(f"the MuJoCo device refuses: {inlet.answer.get('text')}")
            if inlet.is_after or kind is Kind.HELLO:
                return inlet.answer
        raise DriverError(
            f"the MuJoCo device did not answer {kind.name.lower()} within {ANSWER_S:g} s"
        )

    def command(self, setpoint: Setpoint, now_ns: int) -> None:
        """Sends one command; never blocks.

        Raises:
            DriverError: the device takes nothing, or numbers are no numbers.
        """
        self._seq += 1
        try:
            self._send(self._commands.pack(self.inlet.session, self._seq, now_ns, setpoint))
        except (struct.error, TypeError) as error:
            raise DriverError(f"{setpoint} cannot be sent: {error}") from None

    def _send(self, frame: bytes | bytearray) -> None:
        try:
            self._socket.send(frame, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            raise DriverError(
                "the MuJoCo device takes no packets; does its process stand?"
            ) from None
        except OSError as error:
            raise DriverError(f"the link to the MuJoCo device broke: {error.strerror}") from None

    def release(self, rest: str) -> None:
        """Gives the command back without waiting for what comes of it; never raises."""
        self._seq += 1
        head = Head(Kind.RELEASE, 0, 0, self.inlet.session, self._seq, monotonic_ns())
        with suppress(OSError):
            self._socket.send(message(head, {"rest": rest}), socket.MSG_NOSIGNAL)

    def stop(self) -> bool:
        """Sends the e-stop, made in advance; whether it went out. Never raises."""
        try:
            return bool(self._stop) and self._socket.send(self._stop, socket.MSG_NOSIGNAL) > 0
        except OSError:
            return False

    def close(self) -> None:
        self._socket.close()
