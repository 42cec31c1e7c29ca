"""The supervisor of a run in real time: starts, watches, restarts and stops its processes.

Lifetime contract (each line has a test):
- every node is ready before any is activated; they are activated in graph order, the plant last;
- a node that dies is restarted by its policy, with a pause that doubles; exit code 3 is final;
- the plant stops first, then the others in reverse order: asked, after 1 s SIGTERM, 2 s SIGKILL;
- if the supervisor itself is killed, all of its processes are gone within 2 s (see reaper.py);
- only a bridge has longer than these 2 s: what its driver needs to take the robot down.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from safetypilot.bridge.estop import ALIVE, SOCKET, send
from safetypilot.launch import attach, runtime_dir, swapping
from safetypilot.launch.children import Reaper, describe_code, end_all
from safetypilot.launch.crews import Crew, assemble
from safetypilot.launch.errands import Errands
from safetypilot.launch.members import Member, State
from safetypilot.launch.plan import BRIDGE, EPISODE, Step
from safetypilot.launch.progress import Death, Run, handle_signals
from safetypilot.launch.shared import Shared
from safetypilot.nodes.kernel.errors import KernelError
from safetypilot.nodes.kernel.interface import Interface
from safetypilot.nodes.kernel.messages import EpisodeReport
from safetypilot.nodes.kernel.transport import Endpoints, Inbox
from safetypilot.nodes.kernel.wire import Codec, WireError

TURN_S = 0.03  # children are looked at this often
START_PATIENCE_S = 60.0  # a node that has not become ready by then is given up
SILENCE_S = 3.0  # an active node that has not reported for so long is said to hang
HANG_S = 15.0  # and is killed after this, which restarts it by its policy
PLANT_AFTER_S = 0.1  # the plant starts this long after the others, so that all are connected


class Supervisor:
    """Carries out a plan with a process per node, or for several that the plan puts together.

    Args:
        show: called with the run in every turn; draws it if it is time to.
    """

    def __init__(self, run: Run, show: Callable[[Run], None] = lambda run: None) -> None:
        self.progress = run
        self.plan = run.plan
        self._show = show
        self._killed = False
        self.members: dict[str, Member] = {}
        self._reaper: Reaper | None = None
        self._inbox: Inbox | None = None
        self._shared: Shared | None = None
        self._crews: list[Crew] = []
        self._all_ready = False
        self._script = list(run.plan.script)
        self._scripting = False
        self._hanging: set[str] = set()
        self._lines: list[Path] = []  # on which a bridge hears that we are alive
        self._lacking: set[str] = set()  # what the machine refuses, each said once
        self._decode = Codec(EpisodeReport, Interface.from_dict(run.plan.interface).dims).decode

    def run(self) -> None:
        """Runs until the plan is fulfilled, somebody stops it or it fails; see `Run`."""
        run = self.progress
        self.runtime = runtime_dir.create(self.plan.name)
        try:
            with handle_signals(run, self._kill):
                try:
                    self._start()
                    while not self._finished():
                        self._turn()
                finally:
                    run.ended = monotonic()
                    self._stop()
        finally:
            self.runtime.remove()

    # Starting.

    def _start(self) -> None:
        run, folder = self.progress, self.runtime.path
        run.run_id = self.runtime.run_id
        logs = run.run_dir / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        endpoints = Endpoints(folder)
        endpoints.make()
        self._lines = [folder / SOCKET for node in self.plan.nodes if node.node == BRIDGE]
        self.runtime.describe({**self.plan.describe(), "run_dir": str(run.run_dir)})
        run.rows = lambda: {member.name: member.row() for member in self.members.values()}
        self._inbox = Inbox(endpoints, (EPISODE,) if self.plan.writer(EPISODE) else ())
        self._ask = attach.asker(folder)
        self._activations, self._errands = Errands("activate"), Errands("script")
        self._reaper = Reaper(folder, self.runtime.lock)
        pid = os.getpid()
        specs = {n.name: self.plan.spec(n, run.run_dir, folder, pid) for n in self.plan.nodes}
        self._shared = Shared(self.plan, specs)
        for node in self.plan.nodes:
            self.members[node.name] = Member(node, self._shared.equip(node))
        self._crews = assemble(self.members.values(), logs, self._reaper)
        for crew in self._crews:
            crew.start()

    def _activate(self, member: Member, after_s: float = 0.0) -> None:
        child = member.child

        def work() -> None:
            sleep(after_s)
            self._ask(member.name, "activate", {})

        def done(outcome: Any) -> None:
            if member.child is not child or member.state is not State.READY:
                return
            if isinstance(outcome, Exception):
                self._say(member.name, f"could not be activated: {outcome}", "error")
                member.child.send(signal.SIGKILL) if member.child else None
                return
            member.enter(State.ACTIVE)
            if member.name == self.plan.plant or self.plan.plant is None:
                self.progress.active_since = self.progress.active_since or monotonic()

        self._activations.do(work, done)

    # One turn of the loop.

    def _turn(self) -> None:
        self._listen(TURN_S)
        self._watch()
        self._activations.collect()
        self._errands.collect()
        self._follow_script()
        for line in self._lines:
            with suppress(OSError):  # a bridge that is not there, or frozen, needs no heartbeat
                send(line, ALIVE)
        self._show(self.progress)

    def _listen(self, timeout_s: float) -> bool:
        """Takes in what has come, after waiting for something; False if nothing did."""
        if self._inbox is None:
            return False
        reports, frames = self._inbox.receive(timeout_s)
        for node, kind, data in reports:
            member = self.members.get(node)
            if member is None:
                continue
            if kind == "ready" and member.child and data.get("pid") == member.child.pid:
                member.enter(State.READY)
                self._on_ready(member)
            elif kind == "health":
                member.report(data)
            elif kind == "event":
                self._on_event(member, data)
        for _, frame in frames:
            try:
                if not self.progress.enough():
                    self.progress.tally.add(self._decode(frame))
            except WireError as error:
                self._say("supervisor", f"an episode report was refused: {error}", "error")
        return bool(reports or frames)

    def _on_ready(self, member: Member) -> None:
        if self._all_ready:
            self._activate(member)
            return
        if any(other.state is not State.READY for other in self.members.values()):
            return
        self._all_ready = True
        others = [other for other in self.members.values() if other.name != self.plan.plant]
        for other in others:
            self._activate(other)
        if self.plan.plant:
            self._activate(self.members[self.plan.plant], PLANT_AFTER_S if others else 0.0)

    def _on_event(self, member: Member, data: dict[str, Any]) -> None:
        if data.get("kind") in ("promoted", "rolled_back"):
            member.swapped |= data.get("settings") or {"model": str(data.get("path", ""))}
        elif data.get("kind") == "tripped":
            self._errands.do(
                lambda: swapping.follow_trip(self._ask, self.plan.pacemaker, data),
                lambda outcome: self._tell_failure(
                    member.name, "the set of models before did not come back", outcome
                ),
            )
        elif data.get("kind") == "trained":
            self._hand_over(member, data["files"], str(data["version"]))
        elif data.get("kind") == "run over":  # on the host of the plant
            self.progress.over = str(data["reason"])
            if data.get("failed"):
                self._fail(self.progress.over)
        if data.get("kind") == "realtime":
            for text in sorted(set(data.get("missing", ())) - self._lacking):
                self._lacking.add(text)
                self._say("realtime", f"{text}; running without")
            return
        self.progress.event(member.name, data)

    def _watch(self) -> None:
        now = monotonic()
        for crew in self._crews:
            if crew.child and (code := crew.child.code) is not None:
                self._on_death(crew, code)
            elif crew.is_due(now):
                crew.restart()
                self._say(crew.name, f"restarted (no. {crew.members[0].restarts})")
        for member in self.members.values():
            if member.state is State.STARTING and now - member.since > START_PATIENCE_S:
                self._fail(f"{member.name} was not ready after {START_PATIENCE_S:g} s")
            elif member.state is State.ACTIVE:
                self._watch_silence(member, now - member.heard)

    def _watch_silence(self, member: Member, silence_s: float) -> None:
        if silence_s < SILENCE_S:
            self._hanging.discard(member.name)
        elif member.name not in self._hanging:
            self._hanging.add(member.name)
            self._say(member.name, f"has not reported for {SILENCE_S:g} s: it hangs", "error")
        elif silence_s > HANG_S and member.child:
            self._say(member.name, f"has hung for {HANG_S:g} s and is killed", "error")
            member.child.send(signal.SIGKILL)
            member.heard = monotonic()

    def _on_death(self, crew: Crew, code: int) -> None:
        run = self.progress
        lines = crew.child.last_lines() if crew.child else []
        how = describe_code(code)
        at_s = round(monotonic() - run.started, 3)
        run.deaths.append(Death(crew.name, code, how, at_s, crew.members[0].generation, lines))
        reason = crew.bury(code)
        tail = "".join(f"\n    | {line}" for line in lines)
        self._say(crew.name, how + tail, "error" if code else "info")
        ended = [member.name for member in crew.members if member.state is State.ENDED]
        if reason is None and self.plan.plant in ended:
            reason = f"the plant, {self.plan.plant}, {how} and is not restarted"
        if reason is not None:
            self._fail(reason + (f": {lines[-1].strip()}" if lines else ""))

    def _follow_script(self) -> None:
        run = self.progress
        if not self._script or self._scripting or run.active_since is None:
            return
        step = self._script[0]
        if step.due(run.tally.episodes, run.elapsed_s):
            self._scripting = True
            self._say(step.node, f"script: {step.text}")
            self._errands.do(
                lambda: attach.carry_out(self._ask, step),
                lambda outcome: self._scripted(step, outcome),
            )

    def _hand_over(self, learner: Member, files: dict[str, str], version: str) -> None:
        everywhere = (*self.plan.nodes, *self.plan.elsewhere)
        takers = [node.name for node in everywhere if node.config.get("follow", True)]
        self._errands.do(
            lambda: swapping.hand_over(self._ask, self.plan.pacemaker, takers, files),
            lambda outcome: self._tell_failure(
                learner.name, f"{version} does not fly, the models before do", outcome
            ),
        )

    def _tell_failure(self, node: str, what: str, outcome: Any) -> None:
        if isinstance(outcome, Exception):
            self._say(node, f"{what}: {outcome}", "error")

    def _scripted(self, step: Step, outcome: Any) -> None:
        self._scripting = False
        self._script.pop(0)
        if isinstance(outcome, Exception):
            self.progress.script_failures.append(f"{step.text}: {outcome}")
            self._say(step.node, f"script: {step.text} failed: {outcome}", "error")

    # Ending.

    def _finished(self) -> bool:
        run = self.progress
        if run.failure or run.interrupted or run.over or run.enough():
            return True
        return not any(m.child or m.state is State.WAITING for m in self.members.values())

    def _fail(self, reason: str) -> None:
        self.progress.failure = self.progress.failure or reason

    def _kill(self) -> None:
        """The second Ctrl-C; a robot is still taken down gently, until a third."""
        again, self._killed = self._killed, True
        for crew in self._crews:
            gently = not again and any(member.plan.node == BRIDGE for member in crew.members)
            if crew.child:
                crew.child.send(signal.SIGTERM if gently else signal.SIGKILL)

    def _stop(self) -> None:
        plant = self.members.get(self.plan.plant or "")
        rest = [member for member in reversed(self.members.values()) if member is not plant]
        asked: set[Member] = set()
        for group in ([plant] if plant else [], rest):
            for member in group:
                self._request_stop(member)
            asked.update(group)
            # A process that the plant shares with others ends when they have stopped too.
            end_all([crew.child for crew in self._crews if crew.child and crew.among(asked)])
            self._collect(group)
        for held in (self._inbox, self._shared):
            if held:
                held.close()
        if self._reaper:
            self._reaper.dismiss()

    def _request_stop(self, member: Member) -> None:
        if not member.child or member.child.code is not None or self._killed:
            return
        if member.state is State.ACTIVE and member.name not in self._hanging:
            try:
                attach.asker(self.runtime.path, 0.25)(member.name, "shutdown", {})
                return
            except KernelError:
                pass  # it is busy or hangs; a signal follows
        member.child.send(signal.SIGTERM)

    def _collect(self, group: list[Member]) -> None:
        """Takes in the last words of processes that have ended in good order."""
        for _ in range(20):  # what they sent last may still be on its way
            if not self._listen(0.03):
                break
        for member in group:
            self.progress.lost[member.name] = member.lost()

    def _say(self, node: str, text: str, level: str = "info") -> None:
        self.progress.journal.add(node, text, level)
