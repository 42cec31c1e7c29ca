"""Checks of a graph that is split over two hosts: who is where, and how the two find each other.

    hosts:
      robot: {address: "192.168.1.10:7447", key: keys/robot.public, secret: keys/robot.secret}
      workstation: {key: keys/workstation.public, secret: keys/workstation.secret}

Without `--host` a launch file with hosts flies on one machine, as if it had none, and nothing
listens. With it, one of the two listens, at the one address that is named here; keys are needed
whatever the address, since other users of the machine can reach loopback as well.
"""

from __future__ import annotations

import re
from ipaddress import ip_address
from pathlib import Path

from safetypilot.launch import files, keys
from safetypilot.launch.checks import Check
from safetypilot.launch.loader import Mark, Place, Problem, did_you_mean, show
from safetypilot.launch.portion import LINK, MODEL, crossing
from safetypilot.launch.resolved import HostSpec, NodeSpec, TopicSpec
from safetypilot.launch.schema import Host

_ADDRESS = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9.-]+):(\d{1,5})")


def settle(check: Check, topics: tuple[TopicSpec, ...], here: str | None) -> tuple[HostSpec, ...]:
    """The two hosts, or none; complains of what cannot work.

    Args:
        here: the host that this machine is to be; None: none in particular.
    """
    named = check.file.hosts
    if here is not None and here not in named:
        mend = did_you_mean(here, named, what="its hosts are") if named else ""
        message = f"there is no host {show(here)}" if named else "this launch file has no hosts"
        check.problems.append(Problem(Mark(f"--host {here}"), message, mend))
    _places(check)
    if not named:
        return ()
    if len(named) != 2:
        check.complain(("hosts",), f"a graph is split over two hosts, not {len(named)}", key=True)
        return ()
    made = tuple(_host(check, name, host, here) for name, host in named.items())
    listening = [name for name, host in named.items() if host.address is not None]
    if len(listening) != 1:
        who = "both listen" if listening else "neither listens"
        mend = "give one of them, best the robot, an address: ADDRESS:PORT"
        check.complain(("hosts",), f"one host listens and the other calls; {who}", mend, key=True)
    if here in named and not check.problems:
        _own_key(check, next(host for host in made if host.name == here))
    _topics(check, topics)
    _apart(check)
    return made


def _host(check: Check, name: str, host: Host, here: str | None) -> HostSpec:
    place: Place = ("hosts", name)
    address = "" if host.address is None else _address(check, (*place, "address"), host.address)
    secret = files.locate(host.secret, check.document.at((*place, "secret")))
    realtime = check.file.realtime_of(host)
    key = _public(check, (*place, "key"), host.key, here)
    return HostSpec(name, address, key, secret, tuple(host.cpus), host.nice, realtime)


def _address(check: Check, place: Place, text: str) -> str:
    """The address as it stands; complains of one that names no interface."""
    found = _ADDRESS.fullmatch(text)
    if found is None or not 0 < int(found[2]) < 1 << 16:
        mend = "write it as 192.168.1.10:7447, with the port"
        check.complain(place, f"{show(text)} is no address", mend)
        return ""
    try:
        if ip_address(found[1].strip("[]")).is_unspecified:
            mend = "name the one by which the other host comes"
            check.complain(place, f"{text} would listen on every interface", mend)
    except ValueError:
        pass  # a name
    return text


def _public(check: Check, place: Place, text: str, here: str | None) -> str:
    """The key itself; a file that is missing matters once the graph is really split."""
    if keys.is_key(text):
        return text
    try:
        return keys.read(Path(files.locate(text, check.document.at(place))))
    except keys.UnusableKey as error:
        mend = "`safetypilot keys` makes those of a robot and a workstation"
        if here is not None:
            check.complain(place, str(error), mend)
        else:
            check.warnings.append(f"{check.document.at(place)}: {error}; {mend}")
        return ""


def _own_key(check: Check, host: HostSpec) -> None:
    """The secret key is there, is secret, and is the one that belongs to the public one."""
    place: Place = ("hosts", host.name, "secret")
    try:
        if keys.read_secret(Path(host.secret)) != host.key:
            message = f"{host.secret} is not the secret of the key that {host.name} has here"
            check.complain(place, message, "both are made together: `safetypilot keys`")
    except keys.UnusableKey as error:
        check.complain(place, str(error))


def _places(check: Check) -> None:
    """Every node is on a host, and those of one process are on the same."""
    named = check.file.hosts
    processes: dict[str, NodeSpec] = {}
    for node in check.nodes:
        place: Place = ("nodes", node.name)
        if named and not node.host:
            mend = f"add host: {' or '.join(named)}"
            check.complain(place, f"node {node.name!r} says no host", mend, key=True)
        elif node.host and node.host not in named:
            mend = did_you_mean(node.host, named, what="there are") if named else "add `hosts:`"
            check.complain((*place, "host"), f"there is no host {show(node.host)}", mend)
        if named and node.name == LINK:
            message = f"{LINK!r} is what joins the hosts; no node can have that name"
            check.complain(place, message, "call it otherwise", key=True)
        first = processes.setdefault(node.process, node) if node.process else node
        if first.host != node.host:
            message = f"process {node.process!r} cannot be on {first.host} and {node.host}"
            check.complain((*place, "process"), message, "name two processes")


def _topics(check: Check, topics: tuple[TopicSpec, ...]) -> None:
    """A link knows a topic by its type, so of each type one can cross."""
    seen: dict[str, str] = {}
    for topic in crossing(check.nodes, topics):
        other = seen.setdefault(topic.type, topic.name)
        if other != topic.name:
            message = f"{other!r} and {topic.name!r} both carry {topic.message} between the hosts"
            check.complain(("hosts",), message, "one topic of a type can; move a node", key=True)
    at = {node.name: node for node in check.nodes}
    for topic in (t for t in topics if t.type == MODEL):
        away = [name for name in topic.readers if at[name].host != at[topic.writer].host]
        if away and not at[topic.writer].config.get("together", False):
            check.warnings.append(
                f"{', '.join(away)} on another host than {topic.writer}: models travel as sets "
                f"only, and one that is announced by itself stays where it is"
            )


def _apart(check: Check) -> None:
    """Warns where a cut cable would leave the plant less than it could have."""
    at = {port.name: node for node in check.nodes for port in node.outputs}
    arbiter, plant = at.get("command"), at.get("observation")
    planner = at.get("recovery")
    if arbiter is None:
        return
    if plant is not None and plant.host != arbiter.host:
        check.warnings.append(
            f"{plant.name} is on {plant.host}, {arbiter.name} on {arbiter.host}: with the cable "
            "cut the plant has nothing but its own failsafe"
        )
    if planner is not None and planner.host != arbiter.host:
        check.warnings.append(
            f"{planner.name} is on {planner.host}, {arbiter.name} on {arbiter.host}: with the "
            "cable cut nobody plans a recovery"
        )
