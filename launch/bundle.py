"""A graph in one file, to be flown elsewhere: `safetypilot bundle maze -o robot.zip`.

The archive holds the resolved launch file, every file that it names (by content), and what the
robot declared when the bundle was made. It flies only where all of that is still true.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from safetypilot.bridge import calibration
from safetypilot.bridge.contract import DriverError
from safetypilot.launch import contracts, robots
from safetypilot.launch.resolved import Graph, NodeSpec
from safetypilot.models.errors import ModelError
from safetypilot.models.model_file import summarise

SCHEMA = 1
_MANIFEST, _LAUNCH, _FILES = "bundle.json", "launch.json", "files/"
_MARK = "bundled:"  # before a file's name, where the launch file had its path
_LARGEST = 512 * 2**20
_ROBOTS = (".xml", ".mjcf", ".urdf")
_NAME = re.compile(r"[0-9a-f]{12}-[\w.+-]{1,100}", re.ASCII)
_CODE = re.compile(r"(.+\.py)(:[A-Za-z_]\w*)")  # a driver of one's own: file.py:Class
_POLICY = "task_policy"
_BROKEN = (  # what reading others' bytes and JSON may come to
    zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError,
    ValueError, LookupError, TypeError, AttributeError, ArithmeticError,
)  # fmt: skip


class BundleError(Exception):
    """A bundle cannot be made or flown; says why and what would mend it."""


@dataclass(frozen=True)
class Bundle:
    """A bundle that has been read and whose hashes hold.

    Attributes:
        graph: with files by their names in the bundle.
        files: name -> content.
        manifest: what it says of itself.
    """

    graph: Graph
    files: dict[str, bytes]
    manifest: dict[str, Any]

    def unpack(self, folder: Path) -> Graph:
        """Writes the files and says where they are; the graph that flies.

        Raises:
            BundleError: a file is named that the bundle does not hold, or that lies elsewhere.
            OSError: they cannot be written.
        """

        def place(text: str) -> str:
            if not text.startswith(_MARK):
                return text
            name, colon, attribute = text.removeprefix(_MARK).partition(":")
            if name not in self.files:
                raise BundleError(f"the launch file in it names {name!r}, which is not in it")
            return f"{folder.resolve() / name}{colon}{attribute}"

        _refuse_paths("bundle", self.files)
        placed = _with_texts(self.graph, place)
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in self.files.items():
            (folder / name).write_bytes(content)
        return placed


def make(graph: Graph, out: Path) -> dict[str, Any]:
    """Writes a bundle, whole or not at all; its manifest.

    Raises:
        BundleError: models and robot do not fit, or a file needs others that would stay behind.
        OSError: it cannot be written.
    """
    files: dict[str, bytes] = {}

    def take(text: str) -> str:
        code = _CODE.fullmatch(text)
        path, attribute = (Path(code[1]), code[2]) if code else (Path(text), "")
        if not (code or path.is_absolute()) or not path.is_file():
            return text
        content = path.read_bytes()
        _refuse_parts(path, content)
        plain = re.sub(r"[^\w.+-]", "_", path.name, flags=re.ASCII)[-100:]
        name = f"{hashlib.sha256(content).hexdigest()[:12]}-{plain}"
        files[name] = content
        return _MARK + name + attribute

    robot = check(graph)
    bundled = _with_texts(graph, take)
    launch = json.dumps(bundled.to_dict(), indent=2)
    manifest = {
        "schema": SCHEMA,
        "made_with": version("safetypilot"),
        "name": graph.name,
        "env": graph.env,
        "rate_hz": graph.rate,
        "launch_sha256": hashlib.sha256(launch.encode()).hexdigest(),
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        "robot": robot,
    }
    beside = out.with_name(out.name + ".new")
    try:
        with zipfile.ZipFile(beside, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr(_MANIFEST, json.dumps(manifest, indent=2) + "\n")
            archive.writestr(_LAUNCH, launch)
            for name, content in files.items():
                archive.writestr(_FILES + name, content)
        beside.replace(out)
    finally:
        beside.unlink(missing_ok=True)
    return manifest


def read(path: Path) -> Bundle:
    """Reads a bundle and compares every hash.

    Raises:
        BundleError: it is none, or not what was made.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = sum(entry.file_size for entry in archive.infolist())
            if sizes > _LARGEST:
                raise BundleError(f"{path}: {sizes >> 20} MiB unpacked, at most {_LARGEST >> 20}")
            manifest = json.loads(archive.read(_MANIFEST))
            if manifest.get("schema") != SCHEMA:
                raise BundleError(
                    f"{path} has schema {manifest.get('schema')!r}, this reads {SCHEMA}"
                )
            launch = archive.read(_LAUNCH)
            wanted = {str(name): str(sha) for name, sha in manifest["files"].items()}
            _refuse_paths(path, wanted)
            listed = {_MANIFEST, _LAUNCH, *(_FILES + name for name in wanted)}
            extra = sorted(set(archive.namelist()) - listed)
            if extra:
                raise BundleError(f"{path} holds {extra[0]!r}, which its manifest does not list")
            files = {name: archive.read(_FILES + name) for name in wanted}
    except OSError as error:
        raise BundleError(f"{path}: {error.strerror or error}") from None
    except _BROKEN as error:
        raise BundleError(f"{path} is no bundle, or a broken one: {error}") from None
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    wrong = [name for name, sha in wanted.items() if hashes.get(name) != sha]
    if hashlib.sha256(launch).hexdigest() != manifest.get("launch_sha256"):
        wrong.append(_LAUNCH)
    if wrong:
        raise BundleError(f"{path} was changed after it was made: {', '.join(wrong)}")
    try:
        graph = Graph.from_dict(json.loads(launch))
        if not graph.period_ns > 0:
            raise ValueError(f"rate is {graph.rate}")
    except _BROKEN as error:
        raise BundleError(f"{path}: its launch file cannot be read: {error}") from None
    return Bundle(graph, files, manifest)


def check(graph: Graph) -> dict[str, Any] | None:
    """Whether models and robot of a graph fit; what the robot declares, None if there is none.

    Raises:
        BundleError: they do not.
    """
    for misfit in contracts.misfits(graph.nodes, graph.env, graph.rate):
        raise BundleError(f"{graph.name}: {misfit.node}.{misfit.setting}: {misfit.why}")
    for node in graph.nodes:
        if node.type != "bridge":
            continue
        try:
            description, body = robots.robot_of(node.config, graph.period_ns)
            for other in graph.nodes:
                if other.type == _POLICY:
                    robots.check_model(str(other.config["model"]), body, graph.env)
            held = calibration.load_given(node.config.get("calibration"))
        except DriverError as error:
            raise BundleError(f"{graph.name}: {error}") from None
        return {
            "driver": node.config["driver"],
            "calibration": held.id,
            **robots.facts(description, body),
        }
    return None


def check_here(bundle: Bundle, graph: Graph) -> None:
    """Whether the robot here is the one that a bundle was made for.

    Raises:
        BundleError: it is not.
    """
    here = check(graph)
    made_for: Any = bundle.manifest.get("robot")
    if here is None:
        return
    try:
        found = robots.differences(made_for, here)
    except _BROKEN:
        raise BundleError("it does not say which robot it was made for; make it again") from None
    if found:
        raise BundleError("made for another robot:\n  " + "\n  ".join(found))


def _refuse_paths(bundle: Path | str, names: Iterable[str]) -> None:
    """A name that is more than a name may lead out of the folder that a bundle is unpacked in."""
    wrong = [name for name in names if not _NAME.fullmatch(name)]
    if wrong:
        raise BundleError(f"{bundle}: no file of a bundle is called {wrong[0]!r}")


def _refuse_parts(path: Path, content: bytes) -> None:
    """A file that names others is only a part of what would have to come along.

    Raises:
        BundleError: it does; with their names.
    """
    if path.suffix == ".onnx":
        parts, mend = _weights_of(content), "torch.onnx.export: external_data=False"
    elif path.suffix in _ROBOTS:
        parts, mend = _parts_of(content), "includes written out, meshes as geoms or their vertices"
    else:
        return
    if parts:
        raise BundleError(
            f"{path} needs {', '.join(parts)}, which would stay behind; make it one file ({mend})"
        )


def _weights_of(model: bytes) -> list[str]:
    try:
        return sorted(summarise(model).external)
    except ModelError:
        return []  # the node that reads it says what is wrong with it


def _parts_of(robot: bytes) -> list[str]:
    """The files that an MJCF or URDF names: file, fileright, filename ..."""
    try:
        elements = list(ElementTree.fromstring(robot).iter())
    except ElementTree.ParseError:
        return []  # MuJoCo says what is wrong with it
    found = [v for each in elements for key, v in each.attrib.items() if key.startswith("file")]
    return list(dict.fromkeys(found))


def _with_texts(graph: Graph, change: Callable[[str], str]) -> Graph:
    """The graph with every text in its nodes' configs and its script changed."""

    def node(spec: NodeSpec) -> NodeSpec:
        return replace(spec, config=_changed(spec.config, change))

    script = tuple(replace(s, arguments=_changed(s.arguments, change)) for s in graph.script)
    return replace(graph, nodes=tuple(map(node, graph.nodes)), script=script)


def _changed(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        # keys too: options are listed by driver, which may be a file
        return {_changed(key, change): _changed(child, change) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_changed(child, change) for child in value]
    return value
