"""What a JSON schema is made of, and what in it no finite value fits."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from itertools import islice
from typing import Any
from urllib.parse import unquote

from vlmkit.errors import VlmkitError

Schema = Any  # true, false, or a mapping; anything else is left to llguidance to refuse

MAX_VISITS = 1_000_000
"""Schemas to look at while references are followed, each time counted: 2 s."""
_OF_SCHEMAS = ("allOf", "anyOf", "oneOf", "prefixItems", "items")  # a list of schemas
_BY_NAME = ("properties", "patternProperties", "$defs", "definitions")
_ONE = ("additionalProperties", "items", "additionalItems")


def parts(schema: Schema) -> Iterator[Schema]:
    """The schema and every schema in it."""
    yield schema
    if not isinstance(schema, dict):
        return
    for key, value in schema.items():
        if key in _OF_SCHEMAS and isinstance(value, list):
            inner = value
        elif key in _BY_NAME and isinstance(value, dict):
            inner = list(value.values())
        elif key in _ONE:
            inner = [value]
        else:
            continue
        for part in inner:
            yield from parts(part)


def map_parts(schema: dict[str, Any], function: Callable[[Schema], Schema]) -> dict[str, Any]:
    """Return the schema with a function applied to the schemas right inside it."""
    mapped = dict(schema)
    for key, value in schema.items():
        if key in _OF_SCHEMAS and isinstance(value, list):
            mapped[key] = [function(part) for part in value]
        elif key in _BY_NAME and isinstance(value, dict):
            mapped[key] = {name: function(part) for name, part in value.items()}
        elif key in _ONE:
            mapped[key] = function(value)
    return mapped


def names_in(schema: Schema) -> Iterator[str]:
    """Every key that the schema gives by name, anywhere."""
    for part in parts(schema):
        if isinstance(part, dict):
            for key in ("properties", "required"):
                named = part.get(key)
                if isinstance(named, (dict, list)):
                    yield from (name for name in named if isinstance(name, str))


def endless_refs(schema: Schema) -> frozenset[str]:
    """The ``$ref`` of this document that no finite value fits.

    The least fixed point: a value is built from smaller ones, so begin with none that fits.

    Raises:
        VlmkitError: that takes more than ``MAX_VISITS``.
    """
    targets = {
        ref: found[0]
        for part in parts(schema)
        if isinstance(part, dict) and isinstance(ref := part.get("$ref"), str)
        if (found := _resolve(schema, ref))
    }
    sizes: dict[str, int] = {}
    left = MAX_VISITS + 1
    for ref, target in targets.items():
        sizes[ref] = sum(1 for _ in islice(parts(target), left))
        left -= sizes[ref]
    endless, visits = set(targets), 0
    while True:
        visits += sum(sizes[ref] for ref in endless)
        if visits > MAX_VISITS:
            raise VlmkitError(f"its {len(targets)} references take too long to follow")
        ending = {ref for ref in endless if can_end(targets[ref], endless)}
        if not ending:
            return frozenset(endless)
        endless -= ending


def _resolve(schema: Schema, ref: str) -> list[Schema]:
    """What a JSON pointer within the document names; empty for every other reference."""
    if ref != "#" and not ref.startswith("#/"):
        return []
    here = schema
    for key in ref.split("/")[1:]:
        key = unquote(key).replace("~1", "/").replace("~0", "~")
        if isinstance(here, list) and key.isdecimal() and int(key) < len(here):
            here = here[int(key)]
        elif isinstance(here, dict) and key in here:
            here = here[key]
        else:
            return []
    return [here]


def can_end(schema: Schema, endless: Collection[str]) -> bool:
    """Whether a finite value may fit, as far as what a value must contain can tell.

    Args:
        schema: the schema.
        endless: what ``$ref`` may not lead to.
    """
    if not isinstance(schema, dict):
        return schema is not False
    ref = schema.get("$ref")
    if isinstance(ref, str) and ref in endless:
        return False

    def inner(key: str) -> list[bool]:
        parts = schema.get(key)
        return [can_end(part, endless) for part in parts] if isinstance(parts, list) else []

    if not all(inner("allOf")) or any(
        options and not any(options) for options in (inner("anyOf"), inner("oneOf"))
    ):
        return False
    types = schema.get("type", "null")
    return any(
        _type_can_end(schema, one, endless)
        for one in (types if isinstance(types, list) and types else [types])
    )


def _type_can_end(schema: Mapping[str, Any], kind: Any, endless: Collection[str]) -> bool:
    needed: list[Schema] = []
    if kind == "object":
        properties, required = schema.get("properties"), schema.get("required")
        if isinstance(properties, dict) and isinstance(required, list):
            needed = [properties[name] for name in required if name in properties]
    if kind == "array" and isinstance(least := schema.get("minItems", 0), int) and least > 0:
        prefix = schema.get("prefixItems", [])
        items = schema.get("items", True)
        if isinstance(items, list):
            prefix, items = items, schema.get("additionalItems", True)
        if isinstance(prefix, list):
            needed = [*prefix[:least], *([items] if least > len(prefix) else [])]
    return all(can_end(part, endless) for part in needed)
