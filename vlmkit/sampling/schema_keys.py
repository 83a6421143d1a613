"""Keys of a JSON schema's objects that nothing can be spelt for, as llguidance would allow them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from vlmkit.sampling.schema_parts import Schema
from vlmkit.tokens.vocabulary import byte_matcher, is_dead_end

OPTIONS = "x-guidance"  # the key of llguidance's own options, at the top of a schema
ESCAPES = 'nrbtf"\\'  # without \uXXXX each string has one spelling, and so has each key


def settle_patterns(schema: dict[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
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
        OPTIONS: {"whitespace_flexible": False, "json_allowed_escapes": ESCAPES},
    }
    return f"start: %json {json.dumps(schema)}"
