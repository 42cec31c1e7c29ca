"""Turns pydantic's errors into problems with a place, a value and a mend."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from safetypilot.launch.loader import Document, Place, Problem, did_you_mean, dotted, show

Schema = Mapping[str, Any]
ModelT = TypeVar("ModelT", bound=BaseModel)

_UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")
_MISSING = ("missing", "missing_argument")
_WANTED = {
    "model_type": "should be a mapping",
    "dataclass_type": "should be a mapping",
    "model_attributes_type": "should be a mapping",
    "dict_type": "should be a mapping",
    "list_type": "should be a list",
    "tuple_type": "should be a list",
    "int_from_float": "should be a whole number",
    "int_parsing": "should be a whole number",
    "int_parsing_size": "is too large",
    "int_type": "should be a whole number",
    "float_parsing": "should be a number",
    "float_type": "should be a number",
    "bool_parsing": "should be on or off",
    "bool_type": "should be on or off",
    "string_type": "should be text",
}


def validate(
    model: type[ModelT], document: Document, problems: list[Problem], skip: tuple[str, ...] = ()
) -> ModelT | None:
    """The document as the model, or None with `problems` extended.

    Args:
        skip: top-level keys whose problems have been reported already.
    """
    try:
        return model.model_validate(document.values)
    except ValidationError as error:
        found = from_pydantic(error, document, model.model_json_schema())
        problems.extend(p for place, p in found if not (place and place[0] in skip))
        return None


def from_pydantic(
    error: ValidationError, document: Document, schema: Schema, under: Place = ()
) -> list[tuple[Place, Problem]]:
    """Each error with its place in the document; `under` is where the validated value stands."""
    found = []
    for item in error.errors(include_url=False):
        place = (*under, *item["loc"])
        kind, value = item["type"], item["input"]
        if kind in _UNKNOWN_KEY:
            name = str(place[-1])
            known = known_keys(schema, item["loc"][:-1])
            message = f"unknown key {show(name)}{_where(place[:-1])}"
            problem = Problem(document.at(place, key=True), message, did_you_mean(name, known))
        elif kind in _MISSING:
            message = f"missing key {show(place[-1])}{_where(place[:-1])}"
            in_mapping = bool(place[:-1]) and isinstance(place[-2], str)
            problem = Problem(document.at(place[:-1], key=in_mapping), message)
        elif place[-1:] == ("[key]",):
            mend = "use letters, digits and underscores, beginning with a letter"
            message = f"{show(place[-2])} is not a name{_where(place[:-2])}"
            problem = Problem(document.at(place[:-1], key=True), message, mend)
        else:
            problem = Problem(document.at(place), *_value(kind, place, value, item))
        found.append((place, problem))
    return found


def _value(kind: str, place: Place, value: object, item: Mapping[str, Any]) -> tuple[str, str]:
    """Message and mend for a value that is wrong."""
    text = _WANTED.get(kind) or re.sub(r"^(Value error, |Input )", "", str(item["msg"]))
    name = dotted(place)
    mend = ""
    if kind == "literal_error" and isinstance(value, str):
        known = re.findall(r"'([^']*)'", item["ctx"]["expected"])
        mend = did_you_mean(value, known) if len(known) > 2 else ""
        mend = mend if mend.startswith("did") else ""
    if kind == "string_pattern_mismatch":
        text = "should have only letters, digits and underscores (a launch file's name also -)"
    if isinstance(value, dict | list) and kind == "value_error":
        return f"{name} {text}", ""
    return f"{name} {text}, got {show(value)}", mend


def _where(place: Place) -> str:
    return f" in {dotted(place)}" if place else ""


def known_keys(schema: Schema, place: Place) -> list[str]:
    """The keys that a JSON schema allows at a place inside the value it describes."""
    return list(dict.fromkeys(key for s in _descend(schema, schema, place) for key in _keys(s)))


def _keys(schema: Schema) -> list[str]:
    return list(schema.get("properties", {}))


def _descend(root: Schema, schema: Schema, place: Place) -> list[Schema]:
    """Every sub-schema that may describe the value at `place`, through references and unions."""
    if "$ref" in schema:
        return _descend(root, root["$defs"][schema["$ref"].rsplit("/", 1)[1]], place)
    options = [*schema.get("anyOf", ()), *schema.get("oneOf", ()), *schema.get("allOf", ())]
    if options:
        return [found for option in options for found in _descend(root, option, place)]
    if not place:
        return [schema]
    head, rest = place[0], place[1:]
    child = schema.get("items") if isinstance(head, int) else schema.get("properties", {}).get(head)
    if child is None:  # a mapping of any names
        named = schema.get("patternProperties", {}).values()
        child = next(iter(named), schema.get("additionalProperties"))
    return _descend(root, child, rest) if isinstance(child, dict) else []
