"""What models bring along: a training run names its files, and says at which risk they were flown.

On the command line `run=DIR` stands for the arguments policy, critic, dynamics, recovery, samples,
encoder, latent_critic, cost, eps, method, horizon and population, and `critic=FILE` for the last
four if the run that made it left its manifest beside the file. What is given by itself wins.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetypilot.launch import files, trained
from safetypilot.launch.cli_common import InputError
from safetypilot.launch.loader import Document, Mark, Problem
from safetypilot.launch.schema import Argument

MANIFEST = "manifest.json"
_WAYS = ("dynamics", "recovery", "samples")  # to recover
_EYES = ("encoder", "latent_critic")
_SETTINGS = {  # argument -> setting of the run
    "eps": "eps",
    "method": "planner_method",
    "horizon": "horizon",
    "population": "planner_population",
}
_SAMPLES = 1000  # for runs that trained a critic and flew without a shield


class Supplemented(NamedTuple):
    """The command line, what follows from it, and where a run that it names was trained."""

    command: Document
    env: str  # "" if no run is named, or it does not say
    run: Mark


def supplement(
    specs: Mapping[str, Argument], command: Document, problems: list[Problem]
) -> Supplemented:
    """Add what follows from the arguments that were given; `problems` is taken note of in here."""
    said: dict[str, tuple[object, Mark]] = {}
    stated = {name: value for name, value in command.values.items() if value is not None}
    given = {name: str(value) for name, value in stated.items() if name in specs}
    env, run = "", command.mark
    for name in (name for name in given if specs[name].kind == "run" and given[name]):
        run = command.at((name,))
        try:
            found = of_run(Path(files.locate(given[name], run)))
        except InputError as error:
            problems.append(Problem(run, str(error)))
            continue
        env = str(found.get("env", ""))
        said |= {key: (value, run) for key, value in found.items()}
    if given.get("critic"):
        mark = command.at(("critic",))
        found = of_critic(Path(files.locate(given["critic"], mark)))
        said |= {key: (value, mark) for key, value in found.items()}
    said |= _ways(given, command)
    whole = Document(command.mark, dict(command.values), dict(command.keys), dict(command.marks))
    for name, (value, mark) in said.items():
        if name in specs and name not in whole.values:
            whole.values[name] = value
            whole.marks[name,] = whole.keys[name,] = mark
    return Supplemented(whole, env, run)


def _ways(given: Mapping[str, str], command: Document) -> dict[str, tuple[object, Mark]]:
    """A way to recover of one's own replaces that of the launch file; without a shield, none."""
    named = [way for way in _WAYS if given.get(way, "") not in ("", "0")]
    said: dict[str, tuple[object, Mark]] = {}
    if named:
        mark = command.at((named[0],))
        dropped = () if "dynamics" in named else ("dynamics", "recovery", *_EYES)
        said |= dict.fromkeys(dropped, ("", mark))
        said |= {} if "samples" in named else {"samples": (0, mark)}
    if given.get("shield", "on").lower() in ("off", "no", "false", "0"):
        said["eps"] = (1.0, command.at(("shield",)))  # nobody asks
    return said


def of_run(folder: Path) -> dict[str, object]:
    """Arguments by name that a training run stands for; what it does not say is left out.

    Raises:
        InputError: it is no run, or holds several.
    """
    run = trained.find(folder)
    models = {path.stem: str(path) for path in run.models.glob("*.onnx")}
    run.files()  # complains if there is no policy
    said: dict[str, object] = {"policy": models["trained"]}
    if run.env:
        said["env"] = run.env
    if "cost" in run.settings:
        said["cost"] = run.settings["cost"]
    if "critic" not in models:
        return said
    said |= {"critic": models["critic"], **_settings(run.settings)}
    return said | _way(models, run.settings)


def _way(models: Mapping[str, str], settings: Mapping[str, Any]) -> dict[str, object]:
    """The way to recover that the run was trained with; the critic alone always allows one.

    Args:
        models: files by name, without the suffix.
        settings: of the run.
    """
    way: dict[str, object] = dict.fromkeys(("dynamics", "recovery", *_EYES), "") | {"samples": 0}
    if "dynamics" in models:
        names = ("dynamics", *_EYES) if "encoder" in models else ("dynamics",)
    elif "recovery" in models and settings.get("recovery") != "q-sampling":
        names = ("recovery",)
    else:
        return way | {"samples": settings.get("recovery_samples") or _SAMPLES}
    return way | {name: models[name] for name in names if name in models}


def of_critic(file: Path) -> dict[str, object]:
    """What the run that made a critic says of its use; empty if nothing is known."""
    try:
        content = json.loads((file.parent / MANIFEST).read_text(encoding="utf-8"))
        made = file.name in content["files"]
        return _settings(content["settings"]) if made else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # a file from elsewhere; the launch file then says it


def _settings(settings: Mapping[str, Any]) -> dict[str, object]:
    found = {name: settings.get(key) for name, key in _SETTINGS.items()}
    return {name: value for name, value in found.items() if value is not None}
