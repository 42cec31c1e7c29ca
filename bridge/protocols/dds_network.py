"""Where DDS may be heard: the configuration of Cyclone DDS, and one network interface only."""

from __future__ import annotations

import os
import re
import socket
import stat

from safetypilot.bridge.contract import DriverError

LOOPBACK = "lo"
_FIRST_PORT, _PORTS = 7400, 250  # UDP, of domain 0; for each domain
_HIGHEST_DOMAIN = 230

# One participant on a host misses the first call of another now and then: call every second. Who
# was killed is forgotten after three. `lo` often lacks the MULTICAST flag, so peers are named.
_ON_LOOPBACK = """
<CycloneDDS><Domain Id="any">
  <General>
    <Interfaces><NetworkInterface address="127.0.0.1" multicast="false"/></Interfaces>
    <AllowMulticast>false</AllowMulticast>
  </General>
  <Discovery>
    <ParticipantIndex>auto</ParticipantIndex>
    <MaxAutoParticipantIndex>24</MaxAutoParticipantIndex>
    <Peers><Peer address="127.0.0.1"/></Peers>
    <SPDPInterval>1s</SPDPInterval>
    <LeaseDuration>3s</LeaseDuration>
  </Discovery>
</Domain></CycloneDDS>
"""
_ON_INTERFACE = """
<CycloneDDS><Domain Id="any">
  <General>
    <Interfaces><NetworkInterface name="{}" multicast="default"/></Interfaces>
  </General>
  <Discovery><ParticipantIndex>auto</ParticipantIndex></Discovery>
</Domain></CycloneDDS>
"""


def check(domain: int, interface: str) -> None:
    """Whether there is such a domain and such an interface.

    Raises:
        DriverError: there is not.
    """
    if not 0 <= domain <= _HIGHEST_DOMAIN:
        raise DriverError(f"domain is {domain}; it goes from 0 to {_HIGHEST_DOMAIN}")
    names = [name for _, name in socket.if_nameindex()]
    if interface not in names or not re.fullmatch(r"[\w.-]{1,15}", interface):
        raise DriverError(
            f"there is no network interface {interface!r}; there are {', '.join(names)}"
        )


def configuration(interface: str) -> str:
    """What Cyclone is to be told."""
    return _ON_LOOPBACK if interface == LOOPBACK else _ON_INTERFACE.format(interface)


def confine(domain: int, interface: str) -> None:
    """Lets nothing in but from one interface: Cyclone itself listens on all of them.

    Raises:
        DriverError: this system cannot do that.
    """
    first = _FIRST_PORT + _PORTS * domain
    for descriptor in _sockets():
        with socket.socket(fileno=os.dup(descriptor)) as opened:
            if opened.family != socket.AF_INET or opened.type != socket.SOCK_DGRAM:
                continue
            address, port = opened.getsockname()
            if address == "0.0.0.0" and first <= port < first + _PORTS:
                _bind(opened, interface)


def _sockets() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc/self/fd") if _is_socket(int(name))]
    except OSError as error:
        raise DriverError(f"DDS cannot be confined to one interface here: {error}") from error


def _is_socket(descriptor: int) -> bool:
    try:
        return stat.S_ISSOCK(os.fstat(descriptor).st_mode)
    except OSError:
        return False  # closed in the meantime


def _bind(opened: socket.socket, interface: str) -> None:
    try:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.encode() + b"\0")
    except (OSError, AttributeError) as error:
        raise DriverError(
            f"DDS would listen on every network interface, and this system cannot confine it to "
            f"{interface}: {error}"
        ) from error
