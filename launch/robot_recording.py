"""From a recorded run to a robot that plays it: the columns of bridge/protocols/recording.py.

What the robot was, its launch file tells: the run's `launch.json`, which lies beside the recording
of a run that recorded itself. What it did and was told is in the topic `actuation`, which every
bridge publishes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from safetypilot.bridge.contract import Description, DriverError, Mode
from safetypilot.bridge.lifecycle import State
from safetypilot.bridge.protocols.recording import Header, Track, save
from safetypilot.envs.body import Body
from safetypilot.launch import robots
from safetypilot.launch.cli_common import InputError
from safetypilot.launch.resolved import Graph
from safetypilot.nodes.kernel.messages import Actuation
from safetypilot.nodes.recording_file import Recording, RecordingError


@dataclass(frozen=True)
class Exported:
    """What has been written.

    Attributes:
        skipped: states that the bridge had seen before, or that came before the one before.
    """

    file: Path
    robot: str
    joints: int
    rows: int
    duration_s: float
    skipped: int


def export(files: Sequence[Path], output: Path, launch: Path | None = None) -> Exported:
    """Writes what the robot of a recorded run did, for `driver=recording`.

    From its first activation to the end of its last; of a run in which it was never active, all.

    Args:
        files: the recording, in order where it has several.
        launch: the run's launch.json; by default the one beside the first file.

    Raises:
        InputError: there is no such file, no robot in it, or launch file and recording differ.
    """
    if output.suffix != ".npz":
        raise InputError(f"-o {output}: the name of a robot's recording ends in .npz")
    graph, config = _bridge(launch or files[0].with_name("launch.json"))
    found = [message for file in files for message in _actuations(file)]
    rows = _active(_in_order(found))
    if len(rows) < 2:
        raise InputError(f"{files[0]}: no bridge published two states in it (topic `actuation`)")
    try:
        description, body = robots.robot_of(config, graph.period_ns)
        header = Header(
            description.name,
            description.joints,
            Mode(body.mode),
            graph.rate,
            description.time_factor,
            _sensors(description, body, len(rows[0].sensors)),
            source=files[0].name,
        )
        save(_track(header, rows), output)
    except DriverError as error:
        raise InputError(f"{files[0]}: {error}") from None
    duration_s = (rows[-1].stamp_ns - rows[0].stamp_ns) / 1e9
    skipped = len(found) - len(_in_order(found))
    return Exported(output, header.robot, len(header.joints), len(rows), duration_s, skipped)


def _bridge(launch: Path) -> tuple[Graph, dict[str, Any]]:
    """The graph, and the config of the bridge in it."""
    try:
        graph = Graph.from_dict(json.loads(launch.read_text("utf-8")))
    except OSError as error:
        raise InputError(
            f"{launch}: {error.strerror}; name the run's launch.json with --launch"
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{launch} is no resolved launch file: {error}") from None
    for node in graph.nodes:
        if node.type == "bridge":
            return graph, node.config
    raise InputError(f"{launch}: the graph has no bridge, so no robot was recorded")


def _actuations(file: Path) -> list[Actuation]:
    try:
        return [
            recorded.message
            for recorded in Recording(file)
            if isinstance(recorded.message, Actuation)
        ]
    except RecordingError as error:
        raise InputError(str(error)) from None


def _in_order(found: list[Actuation]) -> list[Actuation]:
    """Each state of the device once, by the time at which it was observed."""
    rows: list[Actuation] = []
    for message in sorted(found, key=lambda each: each.stamp_ns):
        if not rows or (
            message.stamp_ns > rows[-1].stamp_ns and message.device_seq != rows[-1].device_seq
        ):
            rows.append(message)
    return rows


def _active(rows: list[Actuation]) -> list[Actuation]:
    active = [index for index, row in enumerate(rows) if row.state == State.ACTIVE]
    return rows[active[0] : active[-1] + 1] if active else rows


def _sensors(description: Description, body: Body, numbers: int) -> dict[str, tuple[str, int]]:
    """Name -> unit and size; the task knows the sizes of those that it needs.

    Raises:
        InputError: what is left cannot be told apart.
    """
    sizes: Mapping[str, int] = body.sensors
    others = [name for name in description.sensors if name not in sizes]
    left = numbers - sum(sizes.get(name, 0) for name in description.sensors)
    if others and left % len(others) == 0 and (len(others) == 1 or left == len(others)):
        sizes = {**sizes, **dict.fromkeys(others, left // len(others))}
    elif others or left:
        raise InputError(
            f"the recording has {numbers} numbers of the sensors "
            f"{', '.join(description.sensors) or '(none)'}; whose they are cannot be told"
        )
    return {name: (unit, sizes[name]) for name, unit in description.sensors.items()}


def _track(header: Header, rows: list[Actuation]) -> Track:
    measured = np.stack([row.measured for row in rows])  # (T, 3, J)
    return Track(
        header,
        np.array([row.stamp_ns for row in rows], np.int64),
        measured[:, 0],
        measured[:, 1],
        measured[:, 2],
        np.stack([row.sent for row in rows]),
        np.stack([row.sensors for row in rows]),
    )
