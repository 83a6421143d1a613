"""JSON schemas as llguidance needs them: what it would misread is written in another way."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import unquote

from vlmkit.errors import VlmkitError
from vlmkit.vocabulary import byte_matcher, is_dead_end

Schema = Any  # true, false, or a mapping; anything else is left to llguidance to refuse
OPTIONS = "x-guidance"  # the key of llguidance's own options, at the top of a schema

_ESCAPES = 'nrbtf"\\'  # without \uXXXX each string has one spelling, and so has each key
_WHITESPACE = r"(\r?\n)?[ \t]{0,20}"  # else a model can write newlines without end
_OF_SCHEMAS = ("allOf", "anyOf", "oneOf", "prefixItems", "items")  # a list of schemas
_BY_NAME = ("properties", "patternProperties", "$defs", "definitions")
_ONE = ("additionalProperties", "items", "additionalItems")


class ReadSchema(NamedTuple):
    """A schema for llguidance."""

    text: str  # JSON
    doubts: tuple[str, ...]  # why an answer may not fit the schema all the same


@lru_cache(maxsize=64)
def read_schema(text: str) -> ReadSchema:
    """Rewrite a schema so that what llguidance makes of it is what it says, and every answer ends.

    - Strings and keys are spelt without ``\\uXXXX``, so that a key has one spelling and the schema
      of its name can't be dodged.
    - A ``$ref`` to what no finite value fits becomes ``false``.
    - ``patternProperties`` that match only names given elsewhere become ``properties``, and
      ``additionalProperties`` that no name is left for become ``false``; llguidance would allow a
      comma that no key can follow.
    - Between the tokens of JSON there is at most one line break and 20 spaces or tabs, where the
      schema's ``x-guidance`` does not set its whitespace.

    Args:
        text: the schema as JSON.

    Raises:
        VlmkitError: no finite value fits the schema.

    Example:
        >>> schema = '{"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#"}, true]}}}'
        >>> json.loads(read_schema(schema).text)["$defs"]["a"]["anyOf"][1]
        True
    """
    schema = json.loads(text)
    endless = _endless_refs(schema)
    if schema is False or not _can_end(schema, endless):
        loop = f": {', '.join(sorted(endless))} would never end" if endless else ""
        raise VlmkitError(f"no value fits it{loop}")
    names = tuple(dict.fromkeys(_names(schema)))

    def rewrite(part: Schema) -> Schema:
        if not isinstance(part, dict):
            return part
        if part.get("$ref") in endless:
            return False
        return _settle_patterns(_map_parts(part, rewrite), names)

    rewritten = rewrite({} if schema is True else schema)
    if not isinstance(rewritten, dict):
        return ReadSchema(json.dumps(rewritten), ())
    given = rewritten.get(OPTIONS, {})
    options = given
    if isinstance(given, dict):
        free = not given.keys() & {"whitespace_flexible", "whitespace_pattern"}
        defaults = {"json_allowed_escapes": _ESCAPES}
        options = {**defaults, **({"whitespace_pattern": _WHITESPACE} if free else {}), **given}
    return ReadSchema(json.dumps({**rewritten, OPTIONS: options}), tuple(_doubts(schema, options)))


def _parts(schema: Schema) -> Iterator[Schema]:
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
            yield from _parts(part)


def _map_parts(schema: dict[str, Any], function: Callable[[Schema], Schema]) -> dict[str, Any]:
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


def _endless_refs(schema: Schema) -> frozenset[str]:
    """The ``$ref`` of this document that no finite value fits.

    The least fixed point: a value is built from smaller ones, so begin with none that fits.
    """
    targets = {
        ref: found[0]
        for part in _parts(schema)
        if isinstance(part, dict) and isinstance(ref := part.get("$ref"), str)
        if (found := _resolve(schema, ref))
    }
    endless = set(targets)
    while True:
        ending = {ref for ref in endless if _can_end(targets[ref], endless)}
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


def _can_end(schema: Schema, endless: Collection[str]) -> bool:
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
        return [_can_end(part, endless) for part in parts] if isinstance(parts, list) else []

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
    return all(_can_end(part, endless) for part in needed)


def _names(schema: Schema) -> Iterator[str]:
    """Every key that the schema gives by name, anywhere."""
    for part in _parts(schema):
        if isinstance(part, dict):
            for key in ("properties", "required"):
                named = part.get(key)
                if isinstance(named, (dict, list)):
                    yield from (name for name in named if isinstance(name, str))


def _settle_patterns(schema: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    """Leave no key in a schema that nothing can be spelt for; ``names``: all that are given."""
    patterns = schema.get("patternProperties")
    if not isinstance(patterns, dict) or not patterns:
        return schema
    properties = schema.get("properties", {})
    if not isinstance(properties, dict):
        return schema
    left, properties = dict(patterns), dict(properties)
    for pattern, part in patterns.items():
        if not _is_dead(names, {pattern: {"type": "null"}}, additional=False):
            continue
        del left[pattern]
        for name in names:
            if _matches(pattern, name):
                own = properties.get(name)
                properties[name] = part if own is None else {"allOf": [own, part]}
    settled = {**schema, "properties": properties, "patternProperties": left}
    if _is_dead(names, dict.fromkeys(left, False), additional=True):
        settled["additionalProperties"] = False
    return settled


def _is_dead(names: tuple[str, ...], patterns: dict[str, Schema], *, additional: bool) -> bool:
    """Whether these names leave no other key for the patterns, or for additional properties."""
    matcher = byte_matcher(
        _object(dict.fromkeys(names, False), patterns, {"type": "null"} if additional else False)
    )
    return not matcher.is_error() and is_dead_end(matcher, b'{"')


def _matches(pattern: str, name: str) -> bool:
    matcher = byte_matcher(_object({}, {pattern: {"type": "null"}}, False))
    return not is_dead_end(matcher, f"{{{json.dumps(name, ensure_ascii=False)}:null".encode())


def _object(
    properties: Mapping[str, Schema], patterns: Mapping[str, Schema], additional: Schema
) -> str:
    schema = {
        "type": "object",
        "properties": properties,
        "patternProperties": patterns,
        "additionalProperties": additional,
        OPTIONS: {"whitespace_flexible": False, "json_allowed_escapes": _ESCAPES},
    }
    return f"start: %json {json.dumps(schema)}"


def _doubts(schema: Schema, options: Any) -> Iterator[str]:
    """Why an answer may not fit: what a grammar cannot count, and what the options give up."""
    parts = [part for part in _parts(schema) if isinstance(part, dict)]
    for part in parts:
        least, required = part.get("minProperties", 0), part.get("required", [])
        closed = part.get("additionalProperties") is False and not part.get("patternProperties")
        is_counted = isinstance(least, int) and isinstance(required, list) and not closed
        if is_counted and least - len(required) > 1:
            yield f"minProperties: {least} also counts a key that comes twice"
    if not isinstance(options, dict):
        return
    if "u" in options["json_allowed_escapes"] or options.get("json_allow_general_unicode_escapes"):
        yield f"{OPTIONS} allows \\u escapes, with which a key can dodge the schema of its name"
    if options.get("lenient"):
        yield f"{OPTIONS}.lenient ignores what llguidance lacks"
    if options.get("coerce_one_of") and any("oneOf" in part for part in parts):
        yield f"{OPTIONS}.coerce_one_of takes oneOf for anyOf"
