"""Bundles: what is packed flies elsewhere, and only where the robot is the one it was made for."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner, Result

from safetypilot.bridge.contract import DriverError
from safetypilot.envs.body import Drive
from safetypilot.envs.maze_body import MazeBody
from safetypilot.launch import bundle, cli, files, robots
from safetypilot.launch.graph import Graph, load


def call(*words: str) -> Result:
    return CliRunner().invoke(cli.app, list(words), prog_name="safetypilot")


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "robot.zip"
    result = call("bundle", "maze", "plant=bridge", "-o", str(path))
    assert result.exit_code == 0, result.output
    return path


def repacked(path: Path, to: Path, **changes: bytes) -> Path:
    """The same archive with some entries changed."""
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(to, "w") as new:
        for name in old.namelist():
            new.writestr(
                name, changes.get(name.replace("/", "__").replace(".", "_"), old.read(name))
            )
    return to


def test_a_bundle_holds_launch_file_models_and_robot(packed: Path) -> None:
    read = bundle.read(packed)
    names = sorted(name.split("-", 1)[1] for name in read.files)
    assert names == ["critic.onnx", "dynamics.onnx", "maze.xml", "trained.onnx"]
    assert read.manifest["robot"]["task"]["joints"] == ["slide_x", "slide_y"]
    assert str(files.zoo()) not in json.dumps(read.graph.to_dict()["nodes"])


def test_it_flies_without_the_files_that_it_was_made_of(packed: Path, tmp_path: Path) -> None:
    graph = bundle.read(packed).unpack(tmp_path / "b")
    model = Path(graph.node("task_policy").config["model"])
    assert model.parent == tmp_path / "b"
    assert model.read_bytes() == (files.zoo() / "maze" / "trained.onnx").read_bytes()
    original = load("maze", ["plant=bridge"])
    assert [n.name for n in graph.nodes] == [n.name for n in original.nodes]
    assert graph.plan().period_ns == original.plan().period_ns


@pytest.mark.parametrize(("changes", "why"), [
    ({"launch_json": b"{}"}, "was changed after it was made: launch.json"),
    ({"bundle_json": b'{"schema": 1}'}, "is no bundle"),
    ({"bundle_json": b'{"schema": 2, "files": {}}'}, "has schema 2"),
    ({"bundle_json": b"{"}, "is no bundle"),
    ({"bundle_json": b'{"schema": 1, "files": ["a"]}'}, "is no bundle"),
    ({"bundle_json": b'{"schema": 1, "files": {"../x": "y"}}'}, "is called '../x'"),
    ({"bundle_json": b'{"schema": 1, "files": {"/etc/x": "y"}}'}, "is called '/etc/x'"),
])  # fmt: skip
def test_a_bundle_that_was_tampered_with_does_not_fly(
    packed: Path, tmp_path: Path, changes: dict[str, bytes], why: str
) -> None:
    bad = repacked(packed, tmp_path / "bad.zip", **changes)
    with pytest.raises(bundle.BundleError, match=why):
        bundle.read(bad)
    result = call("launch", str(bad))
    assert result.exit_code == 2 and "Traceback" not in result.output


def rewritten(path: Path, to: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    """A bundle of somebody who can hash: its launch file is another, and everything agrees."""
    read = bundle.read(path)
    graph = read.graph.to_dict()
    change(graph)
    text = json.dumps(graph).encode()
    manifest = {**read.manifest, "launch_sha256": hashlib.sha256(text).hexdigest()}
    return repacked(path, to, launch_json=text, bundle_json=json.dumps(manifest).encode())


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "..", "", "files/../../x", "none.onnx"])
def test_a_name_that_leads_out_of_the_bundle_is_refused(
    packed: Path, tmp_path: Path, name: str
) -> None:
    def point(graph: dict[str, Any]) -> None:
        graph["nodes"]["task_policy"]["config"]["model"] = f"bundled:{name}"

    bad = rewritten(packed, tmp_path / "bad.zip", point)
    with pytest.raises(bundle.BundleError, match=re.escape(f"names {name!r}, which is not in it")):
        bundle.read(bad).unpack(tmp_path / "b")
    assert not (tmp_path / "b").exists()
    result = call("launch", str(bad))
    assert result.exit_code == 2 and "which is not in it" in result.output


def test_nothing_is_written_outside_the_folder(packed: Path, tmp_path: Path) -> None:
    read = bundle.read(packed)
    outside = bundle.Bundle(read.graph, {**read.files, "../out": b"x"}, read.manifest)
    with pytest.raises(bundle.BundleError, match=r"is called '\.\./out'"):
        outside.unpack(tmp_path / "b")
    assert not list(tmp_path.iterdir())


def test_a_member_that_the_manifest_does_not_list_is_refused(packed: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.zip"
    shutil.copy(packed, bad)
    with zipfile.ZipFile(bad, "a") as archive:
        archive.writestr("files/../../evil", b"x")
    with pytest.raises(bundle.BundleError, match=r"holds 'files/\.\./\.\./evil', which its manif"):
        bundle.read(bad)


def with_config(name: str, **config: Any) -> Graph:
    """The maze with a robot, and another config of one node."""
    graph = load("maze", ["plant=bridge"])
    nodes = (
        replace(node, config={**node.config, **config}) if node.name == name else node
        for node in graph.nodes
    )
    return replace(graph, nodes=tuple(nodes))


def test_a_driver_of_ones_own_comes_along(tmp_path: Path) -> None:
    own = tmp_path / "own.py"
    own.write_text(
        "from safetypilot.bridge.drivers.mujoco import MujocoDriver\n"
        "class OwnDriver(MujocoDriver):\n    pass\n"
    )
    name, path = f"{own}:OwnDriver", tmp_path / "own.zip"
    options = load("maze", ["plant=bridge"]).node("bridge").config["options"]["mujoco"]
    bundle.make(with_config("bridge", driver=name, options={name: options}), path)
    own.unlink()
    graph = bundle.read(path).unpack(tmp_path / "b")
    config = graph.node("bridge").config
    assert config["driver"].startswith(str(tmp_path / "b")) and list(config["options"]) == [
        config["driver"]
    ]
    bundle.check_here(bundle.read(path), graph)


@pytest.mark.parametrize("part", [
    '<include file="arms.xml"/>', '<asset><mesh name="m" file="arms.xml"/></asset>',
    '<asset><texture type="cube" fileright="arms.xml"/></asset>',
])  # fmt: skip
def test_a_robot_of_several_files_is_not_bundled_in_part(tmp_path: Path, part: str) -> None:
    robot = tmp_path / "robot.xml"
    robot.write_text(f"<mujoco>{part}</mujoco>")
    graph = with_config("recovery_planner", dynamics=str(robot))
    with pytest.raises(bundle.BundleError, match=r"robot\.xml needs arms\.xml, which would stay"):
        bundle.make(graph, tmp_path / "x.zip")
    assert not (tmp_path / "x.zip").exists()


def test_a_model_with_weights_beside_it_is_not_bundled_in_part(tmp_path: Path) -> None:
    path = tmp_path / "big.onnx"
    model = onnx.load(files.zoo() / "maze" / "trained.onnx")
    onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    graph = load("maze", [f"policy={path}"])
    with pytest.raises(bundle.BundleError, match=r"big\.onnx needs w\.bin, which would stay"):
        bundle.make(graph, tmp_path / "x.zip")


def test_a_model_that_was_exchanged_is_noticed(packed: Path, tmp_path: Path) -> None:
    name = next(n for n in bundle.read(packed).files if n.endswith("trained.onnx"))
    key = f"files__{name}".replace(".", "_")
    with pytest.raises(bundle.BundleError, match=f"was changed after it was made: {name}"):
        bundle.read(repacked(packed, tmp_path / "bad.zip", **{key: b"junk"}))


def test_what_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / "x.zip").write_bytes(b"junk")
    for path, why in (("x.zip", "is no bundle"), ("none.zip", "No such file")):
        result = call("launch", str(tmp_path / path))
        assert result.exit_code == 2 and why in result.output
    result = call("bundle", "maze", "-o", str(tmp_path / "no" / "x.zip"))
    assert result.exit_code == 2 and "No such file" in result.output
    assert "is a .zip file" in call("bundle", "maze", "-o", "x.tar").output


def test_an_archive_with_broken_bytes(packed: Path, tmp_path: Path) -> None:
    for at in range(500, packed.stat().st_size, 20_000):
        broken = bytearray(packed.read_bytes())
        broken[at : at + 7] = b"\xff\x00\xaa\x55\xff\x00\xaa"
        path = tmp_path / "broken.zip"
        path.write_bytes(broken)
        result = call("launch", str(path))
        assert result.exit_code == 2 and "broken.zip" in result.output, result.output


@pytest.mark.parametrize("launch", [{"nodes": []}, {"rate": "x"}, {"nodes": {"a": 1}}, []])
def test_a_launch_file_that_is_none(packed: Path, tmp_path: Path, launch: Any) -> None:
    read = bundle.read(packed)
    text = json.dumps({**read.graph.to_dict(), **launch} if launch else launch).encode()
    manifest = {**read.manifest, "launch_sha256": hashlib.sha256(text).hexdigest()}
    changes = {"launch_json": text, "bundle_json": json.dumps(manifest).encode()}
    result = call("launch", str(repacked(packed, tmp_path / "b.zip", **changes)))
    assert result.exit_code == 2 and "its launch file cannot be read" in result.output


@pytest.mark.parametrize("robot", [None, {}, {"joints": None}, "a"])
def test_a_bundle_that_does_not_name_its_robot_is_refused(
    packed: Path, tmp_path: Path, robot: Any
) -> None:
    manifest = json.dumps({**bundle.read(packed).manifest, "robot": robot}).encode()
    path = repacked(packed, tmp_path / "b.zip", bundle_json=manifest)
    result = call("launch", str(path))
    assert result.exit_code == 2 and "which robot it was made for" in result.output


def test_a_bundle_takes_no_arguments(packed: Path) -> None:
    result = call("launch", str(packed), "eps=0.5")
    assert result.exit_code == 2 and "flown as it is" in result.output


def test_another_robot_is_refused(packed: Path) -> None:
    read = bundle.read(packed)
    robot = json.loads(json.dumps(read.manifest["robot"]))
    robot["joints"][0]["velocity"] = "0.5"
    robot["joints"][1]["unit"] = "rad"
    robot["time_factor"] = 1.0
    robot["watchdog_s"], robot["command_timeout_s"] = None, 9.0
    robot["failsafes"], robot["calibration"] = ["limp"], "0123456789ab"
    robot["task"]["joints"].reverse()
    other = bundle.Bundle(read.graph, read.files, {**read.manifest, "robot": robot})
    with pytest.raises(bundle.BundleError, match="made for another robot") as caught:
        bundle.check_here(other, load("maze", ["plant=bridge"]))
    text = str(caught.value)
    assert "velocity of joint 'slide_x': made for 0.5, here" in text
    assert "unit of joint 'slide_y': made for rad, here m" in text
    assert "time_factor: made for 1.0, here 50" in text and "task: made for" in text
    assert "watchdog_s: made for None, here 0." in text
    assert "command_timeout_s: made for 9.0, here 0." in text
    assert "failsafes: made for ['limp'], here ['" in text
    assert "calibration: made for 0123456789ab, here \n" in text
    bundle.check_here(read, load("maze", ["plant=bridge"]))


def test_other_joints_are_named_in_their_order() -> None:
    joint: dict[str, Any] = {"name": "a"}
    here = {"joints": [{"name": "b"}, joint], **dict.fromkeys(robots.COMPARED, 1)}
    made = {**here, "joints": [joint, {"name": "b"}]}
    assert robots.differences(made, here) == ["joints: made for a, b; here are b, a"]
    assert robots.differences(here, here) == []


@pytest.mark.parametrize(("arguments", "why"), [
    (["rate=25"], "a control step of the task is 1 s of the robot"),
    (["driver=mujco"], "did you mean 'mujoco'?"),
])  # fmt: skip
def test_check_names_the_line_of_a_robot_that_does_not_fit(arguments: list[str], why: str) -> None:
    result = call("check", "maze", "plant=bridge", *arguments)
    assert result.exit_code == 2 and "maze.yaml:" in result.output and why in result.output


def test_a_task_that_no_robot_can_do() -> None:
    result = call("check", "navigation1", "plant=bridge")
    assert result.exit_code == 2 and "cannot be done by a robot" in result.output


NAMES = {"joint_names": "slide_x,slide_y"}


class Legs(MazeBody):
    """Has gains."""

    def drive(self, action: Any, position: Any) -> Drive:
        return Drive(position, (0.0, 0.0), (0.0, 0.0), (20.0, 20.0), (0.5, 0.5))


@pytest.fixture
def exported(tmp_path: Path) -> Any:
    """A policy with the metadata that Isaac Lab's exporters write."""

    def export(**metadata: str) -> str:
        path = tmp_path / "policy.onnx"
        shutil.copy(files.zoo() / "maze" / "trained.onnx", path)
        model = onnx.load(path)
        onnx.helper.set_model_props(model, metadata)
        onnx.save(model, path)
        return str(path)

    return export


@pytest.mark.parametrize(("metadata", "why"), [
    ({"joint_names": "slide_y,slide_x"}, "for the joints slide_y, slide_x; the robot's are"),
    ({**NAMES, "joint_stiffness": "20,25"}, "joint_stiffness of 25 for 'slide_y'"),
    ({**NAMES, "joint_damping": "1,0.5"}, "joint_damping of 1 for 'slide_x'"),
])  # fmt: skip
def test_a_policy_of_other_joints_order_or_gains_is_refused(
    exported: Any, metadata: dict[str, str], why: str
) -> None:
    with pytest.raises(DriverError, match=why):
        robots.check_model(exported(**metadata), Legs(), "maze")


def test_a_policy_that_fits_or_says_nothing_is_taken(exported: Any) -> None:
    fits = {
        "joint_names": "slide_x,slide_y",
        "joint_stiffness": "20,20",
        "joint_damping": "0.5,0.5",
    }
    robots.check_model(exported(**fits), Legs(), "maze")
    robots.check_model(str(files.zoo() / "maze" / "trained.onnx"), Legs(), "maze")
    assert np.isfinite(Legs().drive(None, (0.0, 0.0)).kp).all()
