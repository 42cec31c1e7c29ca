"""The processes of a run, each with the nodes in it: they start, die and are restarted together."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from safetypilot.launch.children import Child, Reaper
from safetypilot.launch.members import Member, State


class Crew:
    """The nodes of one process; most have one.

    Attributes:
        name: of the process: the node's own, or what the launch file calls it.
    """

    def __init__(self, members: Sequence[Member], logs: Path, keeper: Reaper) -> None:
        self.members = tuple(members)
        self.name = members[0].plan.process or members[0].name
        self._log = logs / f"{self.name}.log"
        self._log.unlink(missing_ok=True)
        self._keeper = keeper
        self.child: Child | None = None

    def start(self) -> None:
        self.child = Child([member.spec for member in self.members], self._log, self._keeper)
        for member in self.members:
            member.start(self.child)

    def restart(self) -> None:
        """Starts a new process, with the models that flew."""
        for member in self.members:
            member.renew()
        self.start()

    def is_due(self, now: float) -> bool:
        """Whether its pause before a restart is over."""
        return all(m.state is State.WAITING and now >= m.restart_at for m in self.members)

    def among(self, members: set[Member]) -> bool:
        """Whether all of its nodes are."""
        return members.issuperset(self.members)

    def bury(self, code: int) -> str | None:
        """Settles what becomes of its nodes after its process has ended.

        Returns:
            Why the run cannot go on, or None.
        """
        if self.child:
            self.child.bury()
        self.child = None
        reasons = [member.bury(code) for member in self.members]
        return next((reason for reason in reasons if reason is not None), None)


def assemble(members: Iterable[Member], logs: Path, keeper: Reaper) -> list[Crew]:
    """One crew per process, in graph order of their first nodes."""
    by_process: dict[str, list[Member]] = {}
    for member in members:
        by_process.setdefault(member.plan.crew, []).append(member)
    return [Crew(crew, logs, keeper) for crew in by_process.values()]
