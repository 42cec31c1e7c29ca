"""The published JSON Schema is what the models say today."""

from __future__ import annotations

import json
from typing import Any

import pytest

from safetypilot.launch import published, registry
from safetypilot.launch.files import CONFIGS, built_in
from safetypilot.launch.loader import read


def test_it_is_up_to_date() -> None:
    """If this fails: python -m safetypilot.launch.published"""
    assert published.PATH.read_text() == published.text()


def test_every_node_type_has_its_config() -> None:
    definitions = published.build()["$defs"]
    for name in registry.TYPES:
        assert set(definitions[f"config of {name}"]["properties"]) == set(
            registry.node_type(name).fields
        )
    eps = definitions["config of arbiter"]["properties"]["eps"]
    assert eps["description"].startswith("risk above which")
    assert {"type": "string", "pattern": r"\$\{[^{}]*\}"} in eps["anyOf"]


def test_the_notes_of_a_docstring_find_their_fields() -> None:
    notes = published._attributes(registry.node_type("graph_fakes:Pilot").config)
    assert notes == {
        "gain": "what it multiplies with, over two lines.",
        "low": "its limits.",
        "high": "its limits.",
    }


def test_every_reference_leads_somewhere() -> None:
    schema = published.build()

    def references(value: Any) -> list[str]:
        if isinstance(value, list):
            return [found for entry in value for found in references(entry)]
        if not isinstance(value, dict):
            return []
        here = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return here + [found for entry in value.values() for found in references(entry)]

    found = references(schema)
    assert len(found) > 10
    for reference in found:
        assert reference.removeprefix("#/$defs/").replace("%20", " ") in schema["$defs"]


@pytest.mark.parametrize("name", sorted(built_in()))
def test_our_launch_files_name_the_schema_and_use_its_keys(name: str) -> None:
    path = built_in()[name]
    first = path.read_text().splitlines()[0]
    assert (CONFIGS / first.rpartition("$schema=")[2]).resolve() == published.PATH
    assert set(read(path).values) <= set(published.build()["properties"])
    assert read(path).values["name"] == name


def test_it_is_plain_json() -> None:
    assert json.loads(published.text()) == published.build()
