"""Ends what is left of a run whose supervisor was killed. Standard library only; starts in 20 ms.

`python -I -S reaper.py RUNTIME_DIR`, with the read end of a pipe as standard input. The supervisor
writes a line per process group: `+PID SECONDS` when it starts a node, `-PID` when it has buried
one, `done` at an orderly end. If the pipe closes without `done` the supervisor is dead: every group
gets SIGTERM, those left after one second SIGKILL, then the runtime directory is removed. SECONDS
are added to that one: a bridge that is killed while it takes its robot down drops it half-way.
"""

import os
import signal
import sys
import time

GRACE_S = 1.0
_ORDINARY = os.sched_param(0)


def main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    groups: dict[int, float] = {}  # -> how much longer it may take
    for line in sys.stdin:
        word = line.strip()
        if word == "done":
            return
        if word[:1] == "+":
            group, _, longer_s = word[1:].partition(" ")
            groups[int(group)] = float(longer_s or 0)
        elif word[:1] == "-":
            groups.pop(int(word[1:]), None)
    end(groups)
    remove(sys.argv[1])


def end(groups: dict[int, float]) -> None:
    """SIGTERM to all, SIGKILL to those that are left after their grace period."""
    left = {group for group in groups if send(group, signal.SIGTERM)}
    # A stopped process would sleep through SIGTERM.
    for group in left:
        send(group, signal.SIGCONT)
    since = time.monotonic()
    while left:
        time.sleep(0.02)
        left = {group for group in left if send(group, 0)}
        passed_s = time.monotonic() - since
        late = {group for group in left if passed_s > GRACE_S + groups[group]}
        for group in late:
            send(group, signal.SIGKILL)
        left -= late


def send(group: int, number: int) -> bool:
    """Whether the group existed."""
    try:
        os.killpg(group, number)
    except (ProcessLookupError, PermissionError):
        return False
    if number == signal.SIGKILL:
        for process in members(group):
            demote(process)
    return True


def members(group: int) -> list[int]:
    """Processes of a group that have not ended."""
    found = []
    for process in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.getpgid(int(process)) == group:
                found.append(int(process))
        except ProcessLookupError:
            continue
    return found


def demote(process: int) -> None:
    """Takes real-time scheduling from all threads of a process.

    Seen here: a SCHED_FIFO process spun inside the kernel for minutes, with SIGKILL pending and
    everybody else starving, waiting for something that it kept from running; so it ended at once.
    """
    try:
        for thread in os.listdir(f"/proc/{process}/task"):
            os.sched_setscheduler(int(thread), os.SCHED_OTHER, _ORDINARY)
    except OSError:
        return  # it has ended


def remove(folder: str) -> None:
    for path, _, files in os.walk(folder, topdown=False):
        for name in files:
            os.unlink(os.path.join(path, name))
        os.rmdir(path)


if __name__ == "__main__":
    main()
