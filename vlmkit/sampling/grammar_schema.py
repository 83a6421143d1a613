"""JSON schemas as llguidance needs them: what it would misread is written in another way."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

from vlmkit.errors import VlmkitError
from vlmkit.sampling.schema_keys import ESCAPES, OPTIONS, settle_patterns
from vlmkit.sampling.schema_parts import (
    Schema,
    can_end,
    endless_refs,
    map_parts,
    names_in,
    parts,
)

_WHITESPACE = r"(\r?\n)?[ \t]{0,20}"  # else a model can write newlines without end
# What has no spelling without \uXXXX; llguidance finds too late that a text needs it.
_UNWRITABLE = re.compile(r"[\x00-\x07\x0b\x0e-\x1f\x7f]")
_WRITABLE = r"^[^\x00-\x07\x0b\x0e-\x1f\x7f]*$"
_NAMES_CONTROL = re.compile(r"\\(x[017]|u00[017]|u\{|x\{|0|c)|" + _UNWRITABLE.pattern)


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
    - A ``pattern`` that names control characters has to do without those that need ``\\uXXXX``.
    - Between the tokens of JSON there is at most one line break and 20 spaces or tabs, where the
      schema's ``x-guidance`` does not set its whitespace.

    Args:
        text: the schema as JSON.

    Raises:
        VlmkitError: no finite value fits the schema, or a ``const`` or ``enum`` has a string with a
            control character that would need ``\\uXXXX``.

    Example:
        >>> schema = '{"$ref": "#/$defs/a", "$defs": {"a": {"anyOf": [{"$ref": "#"}, true]}}}'
        >>> json.loads(read_schema(schema).text)["$defs"]["a"]["anyOf"][1]
        True
    """
    schema = json.loads(text)
    endless = endless_refs(schema)
    if schema is False or not can_end(schema, endless):
        loop = f": {', '.join(sorted(endless))} would never end" if endless else ""
        raise VlmkitError(f"no value fits it{loop}")
    options = _options(schema)
    if not _allows_unicode_escapes(options):
        for part in parts(schema):
            _check_strings(part)
    names = tuple(dict.fromkeys(names_in(schema)))

    def rewrite(part: Schema) -> Schema:
        if not isinstance(part, dict):
            return part
        if isinstance(ref := part.get("$ref"), str) and ref in endless:
            return False
        settled = settle_patterns(map_parts(part, rewrite), names)
        pattern = None if _allows_unicode_escapes(options) else part.get("pattern")
        if isinstance(pattern, str) and _NAMES_CONTROL.search(pattern):
            return {"allOf": [settled, {"pattern": _WRITABLE}]}
        return settled

    rewritten = rewrite({} if schema is True else schema)
    if not isinstance(rewritten, dict):
        return ReadSchema(json.dumps(rewritten), ())
    return ReadSchema(json.dumps({**rewritten, OPTIONS: options}), tuple(_doubts(schema, options)))


def _options(schema: Schema) -> Any:
    """llguidance's options: ours, unless the schema sets them."""
    given = schema.get(OPTIONS, {}) if isinstance(schema, dict) else {}
    if not isinstance(given, dict):
        return given
    options = {"json_allowed_escapes": ESCAPES, **given}
    if not given.keys() & {"whitespace_flexible", "whitespace_pattern"}:
        options["whitespace_pattern"] = _WHITESPACE
    return options


def _allows_unicode_escapes(options: Any) -> bool:
    if not isinstance(options, dict):
        return False
    escapes = options["json_allowed_escapes"]
    every = options.get("json_allow_general_unicode_escapes")
    return escapes is None or "u" in str(escapes) or bool(every)


def _check_strings(schema: Schema) -> None:
    """Refuse values that cannot be written."""
    if not isinstance(schema, dict):
        return
    for key in ("const", "enum"):
        for text in _strings(schema.get(key)):
            if _UNWRITABLE.search(text):
                raise VlmkitError(
                    f"{key}: {json.dumps(text)} holds a control character, which no answer can "
                    "have but as \\b, \\t, \\n, \\f or \\r"
                )


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, (list, dict)):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


def _doubts(schema: Schema, options: Any) -> Iterator[str]:
    """Why an answer may not fit: what a grammar cannot count, and what the options give up."""
    mappings = [part for part in parts(schema) if isinstance(part, dict)]
    for part in mappings:
        least, required = part.get("minProperties", 0), part.get("required", [])
        closed = part.get("additionalProperties") is False and not part.get("patternProperties")
        is_counted = isinstance(least, int) and isinstance(required, list) and not closed
        if is_counted and least - len(required) > 1:
            yield f"minProperties: {least} also counts a key that comes twice"
    if not isinstance(options, dict):
        return
    if _allows_unicode_escapes(options):
        yield f"{OPTIONS} allows \\u escapes, with which a key can dodge the schema of its name"
    if options.get("lenient"):
        yield f"{OPTIONS}.lenient ignores what llguidance lacks"
    if options.get("coerce_one_of") and any("oneOf" in part for part in mappings):
        yield f"{OPTIONS}.coerce_one_of takes oneOf for anyOf"
