"""A flight during which models are swapped: what `safetypilot bench swap` starts.

    python -P -m safetypilot.launch.bench.swap_flight COURSE

The swaps are asked for as `safetypilot swap` does; which model acted in which step is read from the
arbiter's decisions, through a tap.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic, monotonic_ns, sleep
from typing import Any

from safetypilot.launch import attach, runtime_dir
from safetypilot.launch.bench import contest, schedule, stack
from safetypilot.launch.bench.course import Course
from safetypilot.launch.bench.plant import GraphError, Progress
from safetypilot.launch.progress import Run
from safetypilot.nodes.kernel.errors import KernelError, RequestRefused
from safetypilot.nodes.kernel.interface import Interface
from safetypilot.nodes.kernel.messages import Decision
from safetypilot.nodes.kernel.taps import Taps
from safetypilot.nodes.kernel.transport import Endpoints
from safetypilot.nodes.kernel.wire import Codec

_LOOK_S = 0.002
_SETTLE_S = 0.5  # before the first swap and after the last
_PATIENCE_S = 20.0


@dataclass
class Diary:
    """Which task policy decided which step, kept as the moments at which it changed.

    Attributes:
        changes: (seq, version, sent_ns) of each first step of a version.
        steps: decisions heard. lost: sequence numbers that were not heard.
        mixed: decisions that name no task policy or more than one.
    """

    changes: list[tuple[int, str, int]] = field(default_factory=list)
    steps: int = 0
    lost: int = 0
    mixed: int = 0
    last_seq: int = -1

    def hear(self, decision: Any) -> None:
        if self.last_seq >= 0:
            self.lost += max(0, decision.seq - self.last_seq - 1)
        self.last_seq = decision.seq
        self.steps += 1
        found = [part.partition("=")[2] for part in decision.models.split(", ")
                 if part.startswith("task_policy=")]  # fmt: skip
        if len(found) != 1:
            self.mixed += 1
        elif not self.changes or self.changes[-1][1] != found[0]:
            self.changes.append((decision.seq, found[0], decision.sent_ns))

    def first(self, version: str, since_ns: int) -> tuple[int, int] | None:
        """Step and time of a version's first command since then; None: it has not acted."""
        for seq, acting, sent_ns in self.changes:
            if acting == version and sent_ns >= since_ns:
                return seq, sent_ns
        return None


class Swapper:
    """Starts with the graph, swaps one model after another, and asks for the end."""

    def __init__(self, course: Course) -> None:
        self._course = course
        self._thread: threading.Thread | None = None
        self._over = False
        self.diary = Diary()
        self.swaps: list[dict[str, Any]] = []
        self.refused: list[dict[str, str]] = []
        self.failure = ""

    def look(self, run: Run) -> None:
        """For the supervisor's turns."""
        if run.active_since is None or self._thread is not None:
            return
        found = runtime_dir.find(run.run_id)
        dims = Interface.from_dict(run.plan.interface).dims
        self._thread = threading.Thread(target=self._run, args=(found.path,), daemon=True)
        self._thread.start()
        threading.Thread(target=self._listen, args=(found.path, dims), daemon=True).start()

    def end(self) -> None:
        self._over = True

    def _listen(self, path: Path, dims: dict[str, int]) -> None:
        decode = Codec(Decision, dims).decode
        taps = Taps(Endpoints(path), ["decision"])
        while not self._over:
            for _, frame in taps.take():
                self.diary.hear(decode(frame))
            sleep(_LOOK_S)
        taps.close()

    def _run(self, path: Path) -> None:
        ask, options = attach.asker(path), self._course.options
        page = Progress(self._course)
        try:
            sleep(_SETTLE_S + self._course.warmup / self._course.rate_hz)
            for number, model in enumerate(_turns(options["models"], options["swaps"])):
                self._swap(ask, model)
                if number < len(options["bad"]):
                    self._offer(ask, *options["bad"][number])
                sleep(options["pause_s"])
                if page.stop:
                    break
            sleep(_SETTLE_S)
        except (KernelError, RequestRefused) as error:
            self.failure = str(error)
        page.ask_to_stop()

    def _swap(self, ask: attach.Ask, model: str) -> None:
        asked_ns = monotonic_ns()
        shadow = {"shadow_steps": self._course.options["shadow_steps"]}
        status = attach.swap(ask, "task_policy", model, _PATIENCE_S, shadow)
        end = monotonic() + _PATIENCE_S
        while (acted := self.diary.first(status["version"], asked_ns)) is None:
            if monotonic() > end:
                raise RequestRefused(f"{status['version']} was promoted and has not acted since")
            sleep(_LOOK_S)
        at_ns, (seq, sent_ns) = status["at_ns"], acted
        self.swaps.append({
            "version": status["version"],
            "promoted_at": status["promoted_at"],
            "acted_at": seq,
            "steps_until_it_acts": seq - status["promoted_at"],
            "staging_ms": (at_ns["staged"] - at_ns["asked"]) / 1e6,
            "shadow_ms": (at_ns["ready"] - at_ns["staged"]) / 1e6,
            "ready_to_acting_ms": (sent_ns - at_ns["ready"]) / 1e6,
        })  # fmt: skip

    def _offer(self, ask: attach.Ask, what: str, file: str) -> None:
        """A file that must be refused."""
        try:
            attach.swap(ask, "task_policy", file, _PATIENCE_S)
            self.refused.append({"what": what, "reason": ""})
        except RequestRefused as error:
            self.refused.append({"what": what, "reason": str(error)})


def _turns(models: list[str], count: int) -> Iterator[str]:
    """The models in turns, so many in all; the graph begins with the last of them."""
    for number in range(count):
        yield models[number % len(models)]


def main() -> None:
    schedule.die_with_parent()
    course = Course.read(sys.argv[1])
    swapper = Swapper(course)
    with contest.reasons(course):
        samples = stack.fly(course, swapper.look)
        swapper.end()
        if swapper.failure and not swapper.swaps:
            raise GraphError(swapper.failure)
        diary = swapper.diary
        samples.facts |= {
            "swaps": swapper.swaps, "refused": swapper.refused, "failure": swapper.failure,
            "decisions": diary.steps, "decisions_lost": diary.lost, "decisions_mixed": diary.mixed,
            "changes": len(diary.changes),
        }  # fmt: skip
        samples.save(course.result)
    contest.leave()


if __name__ == "__main__":
    main()
