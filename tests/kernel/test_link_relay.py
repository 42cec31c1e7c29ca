"""Nodes of the other host can be asked as if they were here; not for everything."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from links import Pair, Side, eventually

from safetypilot.nodes.kernel.errors import KernelError, RequestRefused
from safetypilot.nodes.kernel.link_frames import Kind
from safetypilot.nodes.kernel.link_relay import ACROSS, MOST_BYTES
from safetypilot.nodes.kernel.transport import ControlServer, open_context, request


class Nodes:
    """Control sockets of some nodes, which remember what they were asked."""

    def __init__(self, side: Side, names: tuple[str, ...]) -> None:
        self.asked: list[tuple[str, str, dict[str, Any]]] = []
        self._context = open_context()
        self._servers = {n: ControlServer(self._context, side.endpoints.control(n)) for n in names}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(0.005):
            for name, server in self._servers.items():
                got = server.receive()
                if got is None:
                    continue
                self.asked.append((name, *got))
                if got[0] == "rollback":
                    server.answer({"ok": False, "error": "there is no model before"})
                else:
                    server.answer({"ok": True, "result": {"node": name, "values": [1, None]}})

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._context.destroy(0)


class Hosts:
    def __init__(self, root: Path, keys: Path) -> None:
        pair = Pair(keys)
        names = ("simulator", "arbiter", "recovery_planner")
        robot = pair.robot(nodes=names, stoppers=("arbiter", "simulator"), elsewhere=("policy",))
        workstation = pair.workstation(nodes=("policy",), elsewhere=names)
        (root / "r").mkdir()
        (root / "w").mkdir()
        self.robot, self.workstation = Side(root / "r", robot), Side(root / "w", workstation)
        self.nodes = Nodes(self.robot, names)

    def start(self) -> Hosts:
        for side in (self.robot, self.workstation):
            side.start()
        for side in (self.robot, self.workstation):
            eventually(lambda side=side: side.status["up"], what="the link")  # type: ignore[misc]
        return self

    def ask(self, node: str, name: str, **arguments: Any) -> dict[str, Any]:
        """From the workstation."""
        return request(self.workstation.endpoints, node, name, arguments)

    def close(self) -> None:
        self.workstation.close()
        self.robot.close()
        self.nodes.close()


@pytest.fixture(scope="module")
def hosts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hosts]:
    made = Hosts(tmp_path_factory.mktemp("r"), tmp_path_factory.mktemp("k")).start()
    yield made
    made.close()


@pytest.fixture(autouse=True)
def forget(hosts: Hosts) -> None:
    hosts.nodes.asked.clear()
    (hosts.robot.endpoints.root / "estop").unlink(missing_ok=True)


def test_a_node_of_the_other_host_answers_as_if_it_were_here(hosts: Hosts) -> None:
    for name in ("status", "swaps", "epoch"):
        assert hosts.ask("simulator", name, x=1) == {"node": "simulator", "values": [1, None]}
    assert [asked for _, asked, _ in hosts.nodes.asked] == ["status", "swaps", "epoch"]
    assert hosts.nodes.asked[0][2] == {"x": 1}


def test_its_refusal_is_its_own(hosts: Hosts) -> None:
    with pytest.raises(RequestRefused, match=r"^there is no model before$"):
        hosts.ask("recovery_planner", "rollback")


@pytest.mark.parametrize("name", ["reset", "arm", "disarm", "shutdown", "activate", "params"])
def test_what_takes_a_person_there_is_not_asked_from_here(hosts: Hosts, name: str) -> None:
    with pytest.raises(RequestRefused, match=f"'{name}' takes a person on robot, where arbiter is"):
        hosts.ask("arbiter", name)
    assert not hosts.nodes.asked and name not in ACROSS


def said(hosts: Hosts, side: Side, kind: Kind, *fields: Any) -> None:
    """What a link that has been taken over might say."""
    side.freeze()
    try:
        assert side.link._talk.say(kind, *fields)
    finally:
        side.thaw()


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        (Kind.ASK, ("arbiter", "reset", {})),
        (Kind.ASK, ("recovery_planner", "swap", {"path": "/etc/passwd"})),
        (Kind.ASK, ("../../x", "status", {})),
        (Kind.ASK, ("link", "status", {})),
        (Kind.BRING, ("recovery_planner", {}, "../../evil.onnx", b"x")),
        (Kind.BRING, ("recovery_planner", {}, "evil.sh", b"x")),
        (Kind.BRING, ("nobody", {}, "m.onnx", b"x")),
    ],
)
def test_the_end_that_is_asked_decides_what_may_be_asked(
    hosts: Hosts, kind: Kind, fields: tuple[Any, ...]
) -> None:
    answers: list[Any] = []
    take = hosts.workstation.link._relay.take
    hosts.workstation.link._relay.take = (  # type: ignore[method-assign]
        lambda kind, fields: answers.append(fields)
    )
    try:
        said(hosts, hosts.workstation, kind, 7_000, *fields)
        number, done, answer = eventually(lambda: answers)[0]
    finally:
        hosts.workstation.link._relay.take = take  # type: ignore[method-assign]
    assert (number, done) == (7_000, False) and answer["is"]
    assert not hosts.nodes.asked and not list(hosts.robot.endpoints.root.rglob("*evil*"))


def test_an_e_stop_reaches_the_latch_the_arbiter_and_the_plant(hosts: Hosts) -> None:
    outcome = hosts.ask("simulator", "estop", reason="smoke")
    assert outcome == {"arbiter": "ok", "simulator": "ok"}
    latch = json.loads((hosts.robot.endpoints.root / "estop").read_text())
    assert latch["reason"] == "workstation: smoke"
    stopped = [("arbiter", "estop"), ("simulator", "estop")]
    assert [(node, name) for node, name, _ in hosts.nodes.asked] == stopped


def test_a_model_travels_and_is_staged_from_where_it_arrived(hosts: Hosts, tmp_path: Path) -> None:
    content = bytes(range(256)) * 4000  # 1 MB
    (tmp_path / "new.onnx").write_bytes(content)
    hosts.ask("recovery_planner", "swap", path=str(tmp_path / "new.onnx"), epoch=3)
    node, name, arguments = hosts.nodes.asked[0]
    assert (node, name, arguments["epoch"]) == ("recovery_planner", "swap", 3)
    arrived = Path(arguments["path"])
    assert arrived.read_bytes() == content
    root = hosts.robot.endpoints.root / "models" / "from-workstation"
    assert arrived == root / f"{hashlib.sha256(content).hexdigest()[:12]}-new.onnx"


@pytest.mark.parametrize(
    ("name", "size", "why"),
    [
        ("gone.onnx", None, "No such file"),
        ("model.pt", 10, "it is no .onnx file"),
        ("large.onnx", MOST_BYTES + 1, "at most 15 travel"),
    ],
)
def test_a_file_that_cannot_travel_is_refused_with_the_reason(
    hosts: Hosts, tmp_path: Path, name: str, size: int | None, why: str
) -> None:
    if size is not None:
        (tmp_path / name).write_bytes(bytes(size))
    with pytest.raises(RequestRefused, match=f"cannot be sent to robot.*{why}"):
        hosts.ask("recovery_planner", "swap", path=str(tmp_path / name))
    assert not hosts.nodes.asked


def test_a_node_that_does_not_answer_is_given_up(hosts: Hosts) -> None:
    with pytest.raises(RequestRefused, match="did not answer 'status' within 1 s"):
        request(hosts.robot.endpoints, "policy", "status", timeout_s=10)  # nobody is behind it


def test_without_a_link_it_is_said_at_once_and_nothing_waits_for_ever(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    hosts = Hosts(tmp_path_factory.mktemp("r"), tmp_path_factory.mktemp("k"))
    try:
        hosts.workstation.start()
        with pytest.raises(RequestRefused, match="simulator is on robot, which is not linked"):
            hosts.ask("simulator", "status")
        hosts.robot.start()
        eventually(lambda: hosts.workstation.status["up"], what="the link")
        hosts.robot.freeze()
        with pytest.raises(KernelError, match="no answer from robot"):
            hosts.ask("simulator", "status")
    finally:
        hosts.close()
