"""Requests to the nodes of the other host, as if they were here.

For each of them the link answers on a control socket of that name, so that whoever asks nodes finds
it where all others are. What may be asked across is listed: looking, models, the e-stop. To arm, to
release an e-stop or to end a run takes a person on the host that it is about.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from time import monotonic_ns
from typing import Any, NamedTuple

from safetypilot.nodes.kernel.errors import KernelError
from safetypilot.nodes.kernel.link_frames import Kind
from safetypilot.nodes.kernel.link_talk import Talk
from safetypilot.nodes.kernel.transport import ControlServer, Endpoints, request

LOOK = ("status", "swap_status", "swaps")
ACROSS = (*LOOK, "swap", "swap_cancel", "rollback", "epoch", "estop")
PATIENCE_NS = 3_000_000_000  # an answer that has not come by then does not come
_NODE_PATIENCE_S = 1.0  # two nodes are asked for an e-stop
MOST_BYTES = 15 << 20  # of a model, in one message
_SUFFIXES = (".onnx",)

Background = Callable[[Callable[[], Any], Callable[[Any, int], None], str], None]


class _Asked(NamedTuple):
    server: ControlServer
    until_ns: int


class Relay:
    """Both sides of requests across a link.

    Args:
        nodes: of this host, that the other one may ask.
        stoppers: those of them that know the e-stop; none: the plant is on the other host.
        elsewhere: nodes of the other host.
        run_dir: where models that came across are kept.
        background: (work, done, name), as a node has it.
    """

    def __init__(
        self,
        talk: Talk,
        endpoints: Endpoints,
        nodes: Sequence[str],
        stoppers: Sequence[str],
        elsewhere: Sequence[str],
        run_dir: Path,
        background: Background,
    ) -> None:
        self._talk, self._endpoints, self._background = talk, endpoints, background
        self._nodes, self._stoppers, self._elsewhere = nodes, stoppers, elsewhere
        self._models = run_dir / "models" / f"from-{talk.me.peer}"
        self._servers: dict[str, ControlServer] = {}
        self._asked: dict[int, _Asked] = {}
        self._number = 0

    def open(self, zmq: Any, watch: Callable[[Any, Callable[[], None]], None]) -> None:
        """Answers for the other host's nodes from now on."""
        for node in self._elsewhere:
            server = ControlServer(zmq, self._endpoints.control(node))
            self._servers[node] = server
            watch(server.socket, lambda node=node: self._serve(node))  # type: ignore[misc]

    def close(self) -> None:
        for server in self._servers.values():
            server.close()

    # Asking.

    def _serve(self, node: str) -> None:
        server = self._servers[node]
        while server.waiting:
            asked = server.receive()
            if asked is not None:
                self._ask(server, node, *asked)

    def _ask(self, server: ControlServer, node: str, name: str, arguments: dict[str, Any]) -> None:
        peer = self._talk.me.peer
        if name not in ACROSS:
            server.answer(_no(f"{name!r} takes a person on {peer}, where {node} is"))
        elif not self._talk.up:
            server.answer(_no(f"{node} is on {peer}, which is not linked"))
        elif name == "swap":
            path = Path(str(arguments.get("path", "")))

            def read(content: Any, now_ns: int) -> None:
                if isinstance(content, Exception):
                    server.answer(_no(f"{path} cannot be sent to {peer}: {content}"))
                else:
                    self._say(server, Kind.BRING, node, arguments, path.name, content)

            self._background(lambda: _content(path), read, "model for the other host")
        else:
            self._say(server, Kind.ASK, node, name, arguments)

    def _say(self, server: ControlServer, kind: Kind, *fields: Any) -> None:
        self._number += 1
        if self._talk.say(kind, self._number, *fields):
            self._asked[self._number] = _Asked(server, monotonic_ns() + PATIENCE_NS)
        else:
            server.answer(_no(f"{self._talk.me.peer} takes no more at the moment"))

    def look_after(self, now_ns: int) -> None:
        """Gives up what has not been answered; all of it once the link is down."""
        for number, asked in list(self._asked.items()):
            if now_ns >= asked.until_ns or not self._talk.session:
                del self._asked[number]
                asked.server.answer(_no(f"no answer from {self._talk.me.peer}"))

    # Being asked.

    def take(self, kind: Kind, fields: list[Any]) -> None:
        """Takes in what the other host asks or answers."""
        if kind is Kind.ANSWER:
            number, done, answer = fields
            asked = self._asked.pop(number, None)
            if asked is not None:
                asked.server.answer({"ok": done, "result" if done else "error": answer.get("is")})
        elif kind is Kind.BRING:
            number, node, arguments, name, content = fields
            self._do(number, node, lambda: self._swap(node, arguments, name, content))
        else:
            number, node, name, arguments = fields
            if name == "estop":
                self._do(number, node, lambda: self._estop(arguments))
            elif name == "swap" or name not in ACROSS:
                self._answer(number, False, f"{name!r} cannot be asked across the link")
            else:
                self._do(number, node, lambda: self._request(node, name, arguments))

    def _do(self, number: int, node: str, work: Callable[[], Any]) -> None:
        def done(outcome: Any, now_ns: int) -> None:
            failed = isinstance(outcome, Exception)
            self._answer(number, not failed, str(outcome) if failed else outcome)

        if node in self._nodes:
            self._background(work, done, f"request to {node}")
        else:
            self._answer(number, False, f"there is no node {node!r} on {self._talk.me.host}")

    def _answer(self, number: int, done: bool, answer: Any) -> None:
        self._talk.say(Kind.ANSWER, number, done, {"is": answer})

    def _request(self, node: str, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
        return request(self._endpoints, node, name, arguments, _NODE_PATIENCE_S)

    def _estop(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """The latch first: it holds whatever becomes of the requests."""
        reason = f"{self._talk.me.peer}: {arguments.get('reason') or 'no reason given'}"
        latch = {"reason": reason, "at_ns": monotonic_ns()}
        (self._endpoints.root / "estop").write_text(json.dumps(latch))
        outcome = {}
        for node in self._stoppers:
            try:
                self._request(node, "estop", {"reason": reason})
                outcome[node] = "ok"
            except KernelError as error:
                outcome[node] = str(error)
        return outcome

    def _swap(self, node: str, arguments: dict[str, Any], name: str, content: bytes) -> Any:
        """Keeps a model that came across under its own digest, and has the node stage it."""
        if Path(name).name != name or not name.endswith(_SUFFIXES):
            raise KernelError(f"{name!r} is no name of a model file")
        self._models.mkdir(parents=True, exist_ok=True)
        file = self._models / f"{sha256(content).hexdigest()[:12]}-{name}"
        part = file.with_name(f".{file.name}")
        part.write_bytes(content)
        part.replace(file)
        return self._request(node, "swap", {**arguments, "path": str(file)})


def _content(path: Path) -> bytes:
    if path.suffix not in _SUFFIXES:
        raise KernelError("it is no .onnx file")
    content = path.read_bytes()
    if len(content) > MOST_BYTES:
        raise KernelError(f"it has {len(content) >> 20} MB; at most {MOST_BYTES >> 20} travel")
    return content


def _no(why: str) -> dict[str, Any]:
    return {"ok": False, "error": why}
