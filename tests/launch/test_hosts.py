"""Launch files with two hosts: what is refused, who flies what, and keys."""

from __future__ import annotations

import json
import stat
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from safetypilot.launch import cli, keys
from safetypilot.launch.files import CONFIGS
from safetypilot.launch.graph import Graph, LaunchFileError, load
from safetypilot.launch.portion import digest, portion

FILE = """\
name: split
env: maze
rate: 50
hosts:
  robot: {address: "192.168.1.10:7447", key: keys/robot.public, secret: keys/robot.secret}
  desk: {key: keys/desk.public, secret: keys/desk.secret, nice: -5}
nodes:
  plant: {type: "graph_fakes:Plant", host: robot}
  policy: {type: "graph_fakes:Policy", host: desk}
  judge: {type: "graph_fakes:Judge", host: desk}
  chooser: {type: "graph_fakes:Chooser", host: robot}
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    keys.make(tmp_path / "keys", ("robot", "desk"))
    return tmp_path


def graph(text: str = FILE, host: str | None = None, *arguments: str) -> Graph:
    Path("f.yaml").write_text(dedent(text))
    return load("f.yaml", arguments, host=host)


def problems(text: str, host: str | None = None) -> str:
    with pytest.raises(LaunchFileError) as caught:
        graph(text, host)
    return str(caught.value)


def call(*words: str) -> Result:
    return CliRunner().invoke(cli.app, list(words), prog_name="safetypilot")


def test_each_host_flies_its_nodes_and_a_link_that_stands_for_the_others() -> None:
    made = graph()
    robot, desk = portion(made, "robot"), portion(made, "desk")
    assert [node.name for node in robot.nodes] == ["plant", "chooser", "link"]
    assert [node.name for node in desk.nodes] == ["policy", "judge", "link"]
    here, there = robot.nodes[-1], desk.nodes[-1]
    assert here.inputs == there.outputs == ("observation",)
    assert here.outputs == there.inputs == ("proposal", "risk")
    assert (robot.plant, desk.plant) == ("plant", "link")
    assert here.config["address"] == there.config["address"] == "tcp://192.168.1.10:7447"
    assert (here.config["calls"], there.config["calls"], there.nice) == (False, True, -5)
    public = {name: Path(f"keys/{name}.public").read_text().strip() for name in ("robot", "desk")}
    assert (here.config["peer_key"], there.config["peer_key"]) == (public["desk"], public["robot"])
    assert here.config["graph"] == there.config["graph"]
    secret = Path("keys/robot.secret").read_text().strip()
    assert secret not in json.dumps([made.to_dict(), here.config]), "it stays in its file"
    for plan in (robot, desk):
        for node in plan.nodes:  # every input that has a writer anywhere has one here
            assert not plan.spec(node, Path("r"), Path("t"), 1).absent


def test_without_a_host_the_graph_flies_whole_and_needs_no_keys(here: Path) -> None:
    for file in (here / "keys").iterdir():
        file.unlink()
    made = graph()
    assert [node.name for node in made.plan().nodes] == ["plant", "policy", "judge", "chooser"]
    assert sum("there is no key in" in warning for warning in made.warnings) == 2
    assert Graph.from_dict(json.loads(json.dumps(made.to_dict()))) == made


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        ('address: "192.168.1.10:7447", ', "", "one host listens and the other calls; neither"),
        ("desk: {key", 'desk: {address: "10.0.0.2:7447", key', "calls; both listen"),
        ("192.168.1.10:7447", "0.0.0.0:7447", "f.yaml:5:20: 0.0.0.0:7447 would listen on every"),
        ("192.168.1.10:7447", "[::]:7447", "would listen on every interface"),
        ("192.168.1.10:7447", "*:7447", "'*:7447' is no address; write it as 192.168.1.10:7447"),
        ("192.168.1.10:7447", "192.168.1.10", "'192.168.1.10' is no address"),
        ("192.168.1.10:7447", "robot:70000", "'robot:70000' is no address"),
        (", key: keys/robot.public", "", "missing key 'key' in hosts.robot"),
        (", secret: keys/robot.secret", "", "missing key 'secret' in hosts.robot"),
        ("  desk: {key: keys/desk.public, secret: keys/desk.secret, nice: -5}\n", "",
         "f.yaml:4:1: a graph is split over two hosts, not 1"),
        (", host: desk}\n  judge", "}\n  judge", "f.yaml:9:3: node 'policy' says no host; add "),
        ("host: desk}\n  judge", "host: dsk}\n  judge", "no host 'dsk'; did you mean 'desk'?"),
        ("judge:", "link:", "'link' is what joins the hosts; no node can have that name"),
    ],
)  # fmt: skip
def test_what_cannot_work_is_refused_before_anything_starts(
    old: str, new: str, wanted: str
) -> None:
    assert old in FILE
    assert wanted in problems(FILE.replace(old, new, 1))


def test_a_host_of_a_node_needs_hosts() -> None:
    text = "".join(line for line in FILE.splitlines(True) if "secret" not in line)
    assert "there is no host 'robot'; add `hosts:`" in problems(text.replace("hosts:\n", ""))


def test_nodes_of_one_process_are_on_one_host() -> None:
    text = FILE.replace("host: robot}", "host: robot, process: p}").replace(
        "host: desk}\n  judge", "host: desk, process: p}\n  judge"
    )
    assert "process 'p' cannot be on robot and desk" in problems(text)


def test_which_host_this_is_must_be_one_of_them() -> None:
    assert "--host rbot: there is no host 'rbot'; did you mean 'robot'?" in problems(FILE, "rbot")
    whole = "".join(line for line in FILE.splitlines(True) if "secret" not in line)
    whole = whole.replace("hosts:\n", "").replace(", host: robot", "").replace(", host: desk", "")
    assert "--host robot: this launch file has no hosts" in problems(whole, "robot")


def test_keys_must_be_there_be_secret_and_belong_together(here: Path) -> None:
    secret = here / "keys" / "robot.secret"
    secret.chmod(0o640)
    assert "keys/robot.secret can be read by others: chmod 600" in problems(FILE, "robot")
    secret.chmod(0o600)
    secret.write_text((here / "keys" / "desk.secret").read_text())
    assert "is not the secret of the key that robot has here" in problems(FILE, "robot")
    secret.unlink()
    assert f"there is no key in {secret}" in problems(FILE, "robot")
    graph(FILE, "desk")  # it is no business of the other host
    (here / "keys" / "robot.public").write_text("nonsense")
    assert "does not hold a key: 64 hexadecimal digits" in problems(FILE, "desk")


def test_a_key_may_stand_in_the_launch_file_itself(here: Path) -> None:
    key = (here / "keys" / "desk.public").read_text().strip()
    made = graph(FILE.replace("keys/desk.public", key), "robot")
    assert portion(made, "robot").nodes[-1].config["peer_key"] == key


def test_two_topics_of_one_type_cannot_cross() -> None:
    text = FILE + '  other: {type: "graph_fakes:Policy", host: desk}\n'
    text += '  second: {type: "graph_fakes:Judge", host: robot}\n'
    text += "remap: {other: {proposal: p2}, second: {proposal: p2, risk: r2}}\n"
    assert "'proposal' and 'p2' both carry Proposal between the hosts" in problems(text)


def test_a_remapped_topic_keeps_its_name_on_both_hosts() -> None:
    text = FILE + "remap: {policy: {proposal: p}, judge: {proposal: p}, chooser: {proposal: p}}\n"
    link = portion(graph(text), "robot").nodes[-1]
    assert link.outputs == ("p", "risk") and link.remap == {"proposal": "p"}
    assert link.config["receives"] == ["proposal", "risk"]


def test_what_a_cut_cable_would_leave_the_plant_without_is_said() -> None:
    text = FILE.replace('Chooser", host: robot', 'Chooser", host: desk')
    assert any("nothing but its own failsafe" in warning for warning in graph(text).warnings)
    text = (CONFIGS / "maze-two-hosts.yaml").read_text()
    text = text.replace("recovery_planner: {host: robot}", "recovery_planner: {host: workstation}")
    text = text.replace("[maze.yaml]", f"[{CONFIGS}/maze.yaml]")
    assert any("nobody plans a recovery" in warning for warning in graph(text).warnings)


@pytest.mark.parametrize(
    ("old", "new"),
    [("rate: 50", "rate: 25"), ("env: maze", "env: reach"), ('Judge", host: desk', 'Judge2"')],
)
def test_hosts_that_fly_different_graphs_are_told_apart(old: str, new: str) -> None:
    if "Judge2" in new:
        new = 'Judge", host: robot'
    assert digest(graph()) != digest(graph(FILE.replace(old, new)))


def test_what_may_differ_between_the_hosts_does_not_tell_them_apart(here: Path) -> None:
    key = (here / "keys" / "desk.public").read_text().strip()
    other = FILE.replace("keys/desk.public", key).replace("name: split", "name: other")
    assert digest(graph()) == digest(graph(other, "robot"))


def test_of_the_observations_those_cross_that_somebody_answers() -> None:
    def links(policy: float, planner: float, at: str = "workstation") -> list[Any]:
        arguments = [f"policy_rate={policy:g}", f"planner_rate={planner:g}"]
        text = (Path(cli.__file__).parent / "configs" / "maze-two-hosts.yaml").read_text()
        text = text.replace("recovery_planner: {host: robot}", f"recovery_planner: {{host: {at}}}")
        text = text.replace(
            "[maze.yaml]", f"[{Path(cli.__file__).parent}/configs/maze-multirate.yaml]"
        )
        made = graph(text, None, *arguments)
        return [portion(made, host) for host in ("robot", "workstation")]

    robot, workstation = links(50, 20, "robot")
    assert robot.nodes[-1].every == workstation.nodes[-1].every == 10
    specs = {n.name: workstation.spec(n, Path("r"), Path("t"), 1) for n in workstation.nodes}
    assert specs["task_policy"].thinned == [] and specs["task_policy"].rates["observation"] == 10
    assert specs["safety_critic"].rates == {"observation": 10, "proposal": 10}
    there = {n.name: robot.spec(n, Path("r"), Path("t"), 1) for n in robot.nodes}
    assert there["link"].thinned == ["observation"]
    assert there["arbiter"].rates == {"proposal": 10, "recovery": 25, "risk": 10}
    assert 10 in there["simulator"].slow["observation"]

    robot, workstation = links(50, 20)  # every 10th and every 25th: every 5th crosses
    assert robot.nodes[-1].every == 5
    specs = {n.name: workstation.spec(n, Path("r"), Path("t"), 1) for n in workstation.nodes}
    assert specs["link"].slow == {"observation": [10, 25]}
    assert specs["recovery_planner"].thinned == ["observation"]


def test_the_host_of_the_plant_says_when_the_run_ends() -> None:
    made = graph(FILE + "episodes: 5\nduration: 60\n")
    robot, desk = portion(made, "robot"), portion(made, "desk")
    assert (robot.episodes, robot.duration_s) == (5, 60)
    assert (desk.episodes, desk.duration_s) == (None, None)


def test_the_script_goes_to_where_its_nodes_are() -> None:
    text = FILE + "script: [{after_s: 1, request: {node: policy, request: x}}]\n"
    made = graph(text)
    assert portion(made, "robot").script == () and len(portion(made, "desk").script) == 1


def test_a_picture_of_the_graph_shows_who_is_where() -> None:
    drawn = call("graph", "maze-two-hosts").output.splitlines()
    begin, between = drawn.index("    subgraph robot"), drawn.index("    subgraph workstation")
    robot = "".join(drawn[begin:between])
    assert "simulator(" in robot and "arbiter[" in robot and "task_policy[" not in robot
    assert "subgraph" not in call("graph", "maze").output


def test_models_of_the_other_host_need_not_be_here(here: Path) -> None:
    words = ["maze-two-hosts", f"keys={here / 'maze'}", "policy=elsewhere.onnx"]
    keys.make(here / "maze", ("robot", "workstation"))
    assert call("check", *words, "--host", "robot").exit_code == 0
    assert (
        "there is no file elsewhere.onnx" in call("check", *words, "--host", "workstation").output
    )


# Keys.


def test_keys_are_made_for_their_owner_alone_and_never_over_others(here: Path) -> None:
    result = call("keys", "--out", "made")
    assert result.exit_code == 0, result.output
    for name in ("robot", "workstation"):
        secret, public = here / "made" / f"{name}.secret", here / "made" / f"{name}.public"
        assert stat.S_IMODE(secret.stat().st_mode) == 0o600
        assert keys.read_secret(secret) == keys.read(public)
        assert keys.read(public) in result.output
        assert secret.read_text().strip() not in result.output
    assert stat.S_IMODE((here / "made").stat().st_mode) == 0o700
    again = call("keys", "robot", "--out", "made")
    assert again.exit_code == 2 and "robot.public exists" in again.output
    assert call("keys", "rob-ot", "--out", "more").exit_code == 2
    assert json.loads(call("keys", "a", "--out", "third", "--json").output).keys() == {"a"}
    (here / "file").write_text("")
    assert "Not a directory" in call("keys", "--out", "file/x").output


def test_lockstep_is_for_one_machine(here: Path) -> None:
    keys.make(here / "maze", ("robot", "workstation"))
    result = call(
        "launch", "maze-two-hosts", f"keys={here / 'maze'}", "--host", "robot", "--clock",
        "lockstep", "--episodes", "1",
    )  # fmt: skip
    assert result.exit_code == 2 and "--host needs real time" in result.output
