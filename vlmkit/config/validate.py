"""From a tree to a validated config, with one-line messages that name place, key and remedy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from vlmkit.config.jsonschema import Schema, json_schema
from vlmkit.config.messages import Spot, write_message
from vlmkit.config.tree import KeyPath, Node, Origin, find, format_path, to_plain
from vlmkit.errors import VlmkitError

Config = TypeVar("Config", bound=BaseModel)


class Mistake(NamedTuple):
    """One value that does not fit, in the reader's terms."""

    path: KeyPath  # as written, without pydantic's union tags
    message: str


def validate(model: type[Config], tree: Node) -> Config:
    """Validate a tree.

    Raises:
        VlmkitError: the first mistake, with the place where the value was written.
    """
    try:
        return model.model_validate(to_plain(tree))
    except ValidationError as error:
        mistakes = explain(model, error)
    first, rest = mistakes[0], len(mistakes) - 1
    more = f" (and {rest} more)" if rest else ""
    # A message about the whole begins with the section it speaks of.
    place = nearest_origin(tree, first.path or (first.message.split()[0],))
    where = f"{format_path(first.path)}: " if first.path else ""
    raise VlmkitError(f"{place}: {where}{first.message}{more}")


def explain(model: type[BaseModel], error: ValidationError) -> list[Mistake]:
    """Translate pydantic's errors; a missing key comes last, since a misspelt one explains it.

    >>> from vlmkit.configbase import Float, StageConfig
    >>> class Stage(StageConfig):
    ...     scale: Float
    >>> try:
    ...     Stage.model_validate({"scal": 1.0, "scale": 2.0})
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


def nearest_origin(tree: Node, path: KeyPath) -> Origin:
    """Where a value was written, or the closest mapping or list around it."""
    for length in range(len(path), -1, -1):
        node = find(tree, path[:length])
        if node is not None:
            return node.origin
    return tree.origin


def _mistake(schema: Schema, details: ErrorDetails) -> Mistake:
    spot = _follow(schema, details["loc"])
    return Mistake(spot.path, write_message(details, spot))


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
    return Spot(path, around, schema, says_null)


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
