"""The JSON Schema of launch files, for editors: `python -m safetypilot.launch.published` writes it.

It is wider than what `load` accepts where a file may leave things to others: a value may be a
`${argument}`, and what an included file says need not be said again.
"""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path
from typing import Any

from safetypilot.launch import registry
from safetypilot.launch.schema import LaunchFile

PATH = Path(__file__).parent / "launch.schema.json"
_ARGUMENT = {"type": "string", "pattern": r"\$\{[^{}]*\}"}
_SWITCH = {"enum": ["on", "off", "yes", "no"]}
_SHORT = {  # what BeforeValidators of the models take as well
    "Include": {"type": "string", "description": "relative to this file"},
    "Restart": {"enum": ["never", "on-failure", "always"]},
}


def build() -> dict[str, Any]:
    """The schema, with the config of every built-in node type."""
    schema = LaunchFile.model_json_schema()
    definitions: dict[str, Any] = schema.pop("$defs")
    for name, short in _SHORT.items():
        definitions[f"{name}Mapping"] = definitions.pop(name)
        definitions[name] = {"anyOf": [short, {"$ref": f"#/$defs/{name}Mapping"}]}
    configs = _configs(definitions)
    _refine_nodes(definitions["Node"], configs)
    required = schema.pop("required")
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Safety Pilot launch file",
        **{key: value for key, value in schema.items() if key != "title"},
        "required": ["name"],
        "if": {"not": {"required": ["include"]}},
        "then": {"required": required},
        "$defs": dict(sorted(definitions.items())),
    }
    opened = {
        "properties": _open(schema["properties"]),
        "$defs": {
            name: entry if name == "Argument" else _open(entry)
            for name, entry in schema["$defs"].items()
        },
    }
    return {**schema, **opened}


def text() -> str:
    """What the committed file should hold."""
    return json.dumps(build(), indent=2, allow_nan=False) + "\n"


def _configs(definitions: dict[str, Any]) -> dict[str, str]:
    """Adds the config of each node type to the definitions: type -> its reference."""
    references = {}
    for name in registry.TYPES:
        kind = registry.node_type(name)
        schema = kind.schema()
        definitions.update(schema.pop("$defs", {}))
        schema.pop("required", None)  # an including file may say only what it changes
        notes: dict[str, str] = {}
        for base in reversed(kind.config.__mro__):
            notes |= _attributes(base)
        for key, entry in schema["properties"].items():
            if key in notes:
                entry["description"] = notes[key]
        schema["description"] = (inspect.getdoc(kind.config) or name).splitlines()[0]
        definitions[f"config of {name}"] = schema
        references[name] = f"#/$defs/config%20of%20{name}"
    return references


def _attributes(config: type[Any]) -> dict[str, str]:
    """What the Google-style docstring of a config says of each field."""
    _, _, section = (inspect.getdoc(config) or "").partition("Attributes:\n")
    notes: dict[str, str] = {}
    for entry in re.split(r"\n(?= {4}\S)", section.rstrip()):
        names, colon, note = entry.strip().partition(":")
        if colon and re.fullmatch(r"\w+(,\s+\w+)*", names):
            notes |= dict.fromkeys(re.split(r",\s+", names), " ".join(note.split()))
    return notes


def _refine_nodes(node: dict[str, Any], configs: dict[str, str]) -> None:
    """A node's type is one of ours or module:Class; its config follows from the type."""
    node.pop("required")
    node["properties"]["type"] = {
        "description": node["properties"]["type"]["description"],
        "anyOf": [{"enum": list(configs)}, {"type": "string", "pattern": r"^[\w.]+:\w+$"}],
    }
    node["allOf"] = [
        {
            "if": {"properties": {"type": {"const": name}}, "required": ["type"]},
            "then": {"properties": {"config": {"$ref": reference}}},
        }
        for name, reference in configs.items()
    ]


def _open(schema: Any) -> Any:
    """Lets a `${argument}` stand wherever a number, a switch or a choice may."""
    if isinstance(schema, list):
        return [_open(entry) for entry in schema]
    if not isinstance(schema, dict):
        return schema
    opened = {
        key: value if key in ("if", "default", "required", "enum") else _open(value)
        for key, value in schema.items()
        if key != "title" or not isinstance(value, str)
    }
    closed = opened.get("type") in ("number", "integer", "boolean")
    if not closed and not ("enum" in opened or "const" in opened):
        return opened
    about = {key: opened.pop(key) for key in ("description", "default") if key in opened}
    switch = [_SWITCH] if opened.get("type") == "boolean" else []
    return {**about, "anyOf": [opened, *switch, _ARGUMENT]}


if __name__ == "__main__":
    PATH.write_text(text())
