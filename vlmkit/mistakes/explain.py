"""pydantic's errors in the reader's terms: the key as it is written, and what would work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from vlmkit.errors import KeyPath, VlmkitError, dotted
from vlmkit.mistakes.jsonschema import Schema, json_schema
from vlmkit.mistakes.messages import Spot, write_message


class Mistake(NamedTuple):
    """One value that does not fit, in the reader's terms."""

    path: KeyPath  # as written, without pydantic's union tags
    message: str
    about: KeyPath = ()  # the value to blame: ``path``, or one in it where a validator says so


def explain(model: type[BaseModel], error: ValidationError) -> list[Mistake]:
    """Translate pydantic's errors; a missing key comes last, since a misspelt one explains it.

    >>> from pydantic import TypeAdapter
    >>> from vlmkit.declare.configbase import StageConfig
    >>> class Stage(StageConfig):
    ...     scale: float
    >>> try:
    ...     TypeAdapter(Stage).validate_python({"scal": 1.0, "scale": 2.0})
    ... except ValidationError as error:
    ...     print(explain(Stage, error)[0].message)
    unknown key; did you mean 'scale'? (known here: scale)
    """
    schema = json_schema(model)
    found = sorted(error.errors(include_url=False), key=lambda item: item["type"] == "missing")
    shown = [details for details in found if not _follows(details, found)]
    return list(dict.fromkeys(_mistake(schema, details) for details in shown))


def _follows(details: ErrorDetails, found: Sequence[ErrorDetails]) -> bool:
    """Whether a list is only too short because items of it are wrong, which is said already."""
    loc = details["loc"]
    return details["type"] == "too_short" and any(
        len(other["loc"]) > len(loc) and other["loc"][: len(loc)] == loc for other in found
    )


def one_line(mistakes: Sequence[Mistake]) -> str:
    """The first mistake with its key, and how many others there are.

    >>> one_line([Mistake(("sampling", 0, "p"), "is required"), Mistake(("seed",), "is odd")])
    'sampling.0.p: is required (and 1 more)'
    """
    first, rest = mistakes[0], len(mistakes) - 1
    where = dotted(first.path)
    return f"{where}{': ' if where else ''}{first.message}{f' (and {rest} more)' if rest else ''}"


def _mistake(schema: Schema, details: ErrorDetails) -> Mistake:
    spot = _follow(schema, details["loc"])
    error = details.get("ctx", {}).get("error")
    inner = error.path if isinstance(error, VlmkitError) else ()
    return Mistake(spot.path, write_message(details, spot), (*spot.path, *inner))


def _follow(root: Schema, loc: Sequence[int | str]) -> Spot:
    """Walk a JSON Schema along an error's location.

    pydantic puts a union's tag into the location; only the schema tells a tag from a key. Where a
    value has several forms it reports one error per form; the walk ends there.
    """
    path: KeyPath = ()
    around = schema = _resolve(root, root)
    says_null = False
    for part in loc:
        if "anyOf" in schema:
            break
        tags = schema.get("discriminator", {}).get("mapping", {})
        if part in tags:
            schema = around = _resolve(root, {"$ref": tags[part]})
        elif "properties" in schema:
            path, around = (*path, part), schema
            own = schema["properties"].get(part, {})
            can_be_null = {"type": "null"} in own.get("anyOf", ())
            says_null = can_be_null and "null" in own.get("description", "")
            schema = _resolve(root, own)
        elif isinstance(schema.get("additionalProperties"), dict):
            path, schema = (*path, part), _resolve(root, schema["additionalProperties"])
        elif isinstance(part, int):
            path, schema = (*path, part), _resolve(root, _item_schema(schema, part))
    return Spot(path, around, schema, says_null, root)


def _item_schema(schema: Schema, index: int) -> Schema:
    prefix = schema.get("prefixItems", [])
    item: Schema = prefix[index] if 0 <= index < len(prefix) else schema.get("items", {})
    return item


def _resolve(root: Schema, schema: Schema) -> Schema:
    """Follow references and see through `X | None`."""
    while True:
        options = [s for s in schema.get("anyOf", ()) if s.get("type") != "null"]
        if "$ref" in schema:
            schema = root["$defs"][schema["$ref"].rsplit("/", 1)[-1]]
        elif len(options) == 1:
            schema = options[0]
        else:
            return schema
