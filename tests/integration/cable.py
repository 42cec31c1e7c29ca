"""Two hosts in network namespaces of their own, joined by a cable that can be slow, lossy or cut.

As a program it is the cable: it makes the two namespaces, each with one TUN device, and carries IP
packets from one to the other, so that TCP on both sides meets real delay, jitter, loss and silence
(the kernel's own netem is not everywhere). It prints its pid and the file descriptors of the
namespaces, then takes a JSON object per line: delay_ms, jitter_ms, loss, cut, bytes_per_s.

With `enter NS_FILE CLOCK_OFFSET_S COMMAND ...` it runs a command on one of the hosts, whose
CLOCK_MONOTONIC is that much ahead (a time namespace).
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import json
import os
import random
import select
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROBOT, WORKSTATION = "10.77.0.1", "10.77.0.2"
_NEWNET, _NEWTIME = 0x40000000, 0x00000080
_TUNSETIFF, _IFF_TUN, _IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
_DEVICE = "cable"


def missing() -> str:
    """Why there can be no such hosts here; empty if there can."""
    if os.geteuid():
        return "network namespaces need root"
    if not Path("/dev/net/tun").exists():
        return "there is no /dev/net/tun"
    if not Path("/proc/self/ns/time").exists():
        return "the kernel has no time namespaces"
    probe = subprocess.run(
        [sys.executable, __file__, "probe"], capture_output=True, text=True, check=False
    )
    return "" if probe.returncode == 0 else f"namespaces are not permitted: {probe.stderr[-200:]}"


class Cable:
    """The cable as a test holds it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout is not None
        ready = json.loads(self._process.stdout.readline())
        self._files = [f"/proc/{ready['pid']}/fd/{fd}" for fd in ready["namespaces"]]

    def set(self, **values: Any) -> None:
        """Changes what the cable is like; takes effect within a moment."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(values) + "\n")
        self._process.stdin.flush()

    def enter(self, host: int, offset_s: int = 0) -> list[str]:
        """What to put before a command for it to run on the robot (0) or the workstation (1)."""
        return [sys.executable, "-P", __file__, "enter", self._files[host], str(offset_s)]

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


def listening(pid: int) -> set[str]:
    """ADDRESS:PORT of everything that listens over TCP in the network namespace of a process."""
    found = set()
    for family in ("tcp", "tcp6"):
        for line in Path(f"/proc/{pid}/net/{family}").read_text().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A":
                address, port = words[1].split(":")
                parts = bytes.fromhex(address)[::-1]
                found.add(f"{'.'.join(map(str, parts))}:{int(port, 16)}")
    return found


# The program.


def _unshare(what: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(what):
        raise OSError(ctypes.get_errno(), "unshare")


def _enter(namespace: str, offset_s: int, command: list[str]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    handle = os.open(namespace, os.O_RDONLY)
    if libc.setns(handle, _NEWNET):
        raise OSError(ctypes.get_errno(), "setns")
    os.close(handle)
    if offset_s:
        _unshare(_NEWTIME)  # holds from the exec on
        Path("/proc/self/timens_offsets").write_text(f"monotonic {offset_s} 0\n")
    os.execvp(command[0], command)


def _host(address: str) -> tuple[int, int]:
    """A new network namespace with one end of the cable: the device, and the namespace itself."""
    _unshare(_NEWNET)
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    request = struct.pack("16sH22x", _DEVICE.encode(), _IFF_TUN | _IFF_NO_PI)
    fcntl.ioctl(tun, _TUNSETIFF, request)
    for words in (
        ["addr", "add", f"{address}/24", "dev", _DEVICE],
        ["link", "set", _DEVICE, "mtu", "1500", "up"],
        ["link", "set", "lo", "up"],
    ):
        subprocess.run(["ip", *words], check=True)
    return tun, os.open("/proc/self/ns/net", os.O_RDONLY)


class _Carrier:
    """Carries packets; keeps their order, as a cable does."""

    def __init__(self, ends: tuple[int, int]) -> None:
        self._other = {ends[0]: ends[1], ends[1]: ends[0]}
        self._like: dict[str, Any] = {}
        self._queue: list[tuple[float, int, int, bytes]] = []
        self._last = dict.fromkeys(ends, 0.0)
        self._free = dict.fromkeys(ends, 0.0)
        self._count = 0

    def run(self) -> None:
        while True:
            wait = max(0.0, self._queue[0][0] - time.monotonic()) if self._queue else None
            ready, _, _ = select.select([*self._other, sys.stdin], [], [], wait)
            for fd in ready:
                if fd is sys.stdin:
                    line = sys.stdin.readline()
                    if not line:
                        return
                    self._like.update(json.loads(line))
                else:
                    self._take(fd)
            while self._queue and self._queue[0][0] <= time.monotonic():
                _, _, to, packet = heapq.heappop(self._queue)
                os.write(to, packet)

    def _take(self, fd: int) -> None:
        like, to = self._like, self._other[fd]
        for _ in range(64):
            try:
                packet = os.read(fd, 65536)
            except BlockingIOError:
                return
            if like.get("cut") or random.random() < like.get("loss", 0.0):
                continue
            at = max(time.monotonic(), self._free[to])
            if rate := like.get("bytes_per_s"):
                at = self._free[to] = at + len(packet) / rate
            jitter = like.get("jitter_ms", 0.0)
            at += (like.get("delay_ms", 0.0) + random.uniform(-jitter, jitter)) / 1e3
            at = self._last[to] = max(at, self._last[to])
            self._count += 1
            heapq.heappush(self._queue, (at, self._count, to, packet))


def main() -> None:
    if sys.argv[1:2] == ["enter"]:
        _enter(sys.argv[2], int(sys.argv[3]), sys.argv[4:])
    robot, workstation = _host(ROBOT), _host(WORKSTATION)
    if sys.argv[1:] == ["probe"]:
        _unshare(_NEWTIME)
        return
    ready = {"pid": os.getpid(), "namespaces": [robot[1], workstation[1]]}
    sys.stdout.write(json.dumps(ready) + "\n")
    sys.stdout.flush()
    _Carrier((robot[0], workstation[0])).run()


if __name__ == "__main__":
    main()
