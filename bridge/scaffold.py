"""Writes the skeleton of a driver, with its simulated device and its tests; it passes as it is."""

from __future__ import annotations

import keyword
import re
import sys
from importlib import resources
from pathlib import Path

from safetypilot.bridge.contract import DriverError
from safetypilot.bridge.registry import DRIVERS

_FILES = {  # of the template -> what it becomes
    "skeleton.py": "{name}.py",
    "skeleton_device.py": "{name}_device.py",
    "skeleton_test.txt": "test_{name}.py",
    "skeleton.md": "{name}.md",
}


def write(name: str, folder: Path) -> list[Path]:
    """Writes all files, or none.

    Args:
        name: of the driver, as Python names a module: my_arm.
        folder: made if it is not there.

    Returns:
        The files, the driver first.

    Raises:
        DriverError: the name will not do, or a file is there already.
    """
    _check(name)
    texts = {folder / to.format(name=name): _filled(of, name) for of, to in _FILES.items()}
    for path in texts:
        if path.exists():
            raise DriverError(f"{path} is there already; choose another name, or another folder")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path, text in texts.items():
            path.write_text(text, "utf-8")
    except OSError as error:
        raise DriverError(f"{error.filename}: {error.strerror}") from None
    return list(texts)


def class_name(name: str) -> str:
    """my_arm -> MyArm"""
    return "".join(word.capitalize() for word in name.split("_"))


def _check(name: str) -> None:
    if not re.fullmatch(r"[a-z][a-z0-9]*(_[a-z0-9]+)*", name) or keyword.iskeyword(name):
        raise DriverError(f"a driver's name is a module's, such as my_arm, and not {name!r}")
    if name in sys.stdlib_module_names or name in ("safetypilot", "skeleton", *DRIVERS):
        raise DriverError(f"{name!r} is the name of another module; choose another")


def _filled(template: str, name: str) -> str:
    text = resources.files("safetypilot.bridge.template").joinpath(template).read_text("utf-8")
    text = text.replace("from safetypilot.bridge.template import skeleton as", f"import {name} as")
    text = text.replace("safetypilot.bridge.template.skeleton", name)
    return text.replace("Skeleton", class_name(name)).replace("skeleton", name)
