"""From a tree to a validated config, with one-line messages that name place, key and remedy."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from vlmkit.config.jsonschema import BOUNDS, Schema, json_schema
from vlmkit.config.tree import KeyPath, Node, Origin, find, format_path, to_plain
from vlmkit.errors import VlmkitError, nearest

Config = TypeVar("Config", bound=BaseModel)


class _Spot(NamedTuple):
    """Where in a schema an error is."""

    path: KeyPath  # without tags
    around: Schema  # of the innermost mapping with fixed keys
    schema: Schema  # of the value itself; empty for an unknown key


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
    place = nearest_origin(tree, first.path)
    where = f"{format_path(first.path)}: " if first.path else ""
    raise VlmkitError(f"{place}: {where}{first.message}{more}")


def explain(model: type[BaseModel], error: ValidationError) -> list[Mistake]:
    """Translate pydantic's errors.

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
    return [_mistake(schema, details) for details in error.errors(include_url=False)]


def nearest_origin(tree: Node, path: KeyPath) -> Origin:
    """Where a value was written, or the closest mapping or list around it."""
    for length in range(len(path), -1, -1):
        node = find(tree, path[:length])
        if node is not None:
            return node.origin
    return tree.origin


def _mistake(schema: Schema, details: ErrorDetails) -> Mistake:
    spot = _follow(schema, details["loc"])
    write = _MESSAGES.get(details["type"], _value_message)
    return Mistake(spot.path, write(details, spot))


def _follow(root: Schema, loc: Sequence[int | str]) -> _Spot:
    """Walk a JSON Schema along an error's location.

    pydantic puts a union's tag into the location; only the schema tells a tag from a key.
    """
    path: KeyPath = ()
    around = schema = _resolve(root, root)
    for part in loc:
        tags = schema.get("discriminator", {}).get("mapping", {})
        if part in tags:
            schema = around = _resolve(root, {"$ref": tags[part]})
        elif "properties" in schema:
            path, around = (*path, part), schema
            schema = _resolve(root, schema["properties"].get(part, {}))
        elif isinstance(schema.get("additionalProperties"), dict):
            path, schema = (*path, part), _resolve(root, schema["additionalProperties"])
        elif isinstance(part, int):
            path, schema = (*path, part), _resolve(root, _item_schema(schema, part))
    return _Spot(path, around, schema)


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


def _unknown_key(details: ErrorDetails, spot: _Spot) -> str:
    known = list(spot.around.get("properties", {}))
    name = str(details["loc"][-1])
    return f"unknown key{nearest(name, known)} (known here: {', '.join(known)})"


def _missing(details: ErrorDetails, spot: _Spot) -> str:
    return "is required"


def _unknown_kind(details: ErrorDetails, spot: _Spot) -> str:
    context = details.get("ctx", {})
    known = [tag.strip(" '") for tag in context["expected_tags"].split(",")]
    tag = str(context["tag"])
    return f"unknown kind {tag!r}{nearest(tag, known)} (one of {', '.join(known)})"


def _mapping_message(details: ErrorDetails, spot: _Spot) -> str:
    kinds = list(spot.schema.get("discriminator", {}).get("mapping", {}))
    keys = list(spot.schema.get("properties", {}))
    content = f" with a 'kind' ({', '.join(kinds)})" if kinds else ""
    if keys and not kinds:
        content = f" with keys such as {', '.join(keys[:3])}"
    return f"needs a mapping{content}, got {_show(details['input'])}"


def _text_message(details: ErrorDetails, spot: _Spot) -> str:
    value = details["input"]
    # YAML reads `no`, `off`, `1234` and `1.0` as something else than text.
    hint = "; in YAML, put it in quotes" if isinstance(value, (bool, int, float)) else ""
    return f"must be text, got {_show(value)}{hint}"


def _list_message(details: ErrorDetails, spot: _Spot) -> str:
    return f"must be a list, got {_show(details['input'])}"


def _range_message(details: ErrorDetails, spot: _Spot) -> str:
    broken = {BOUNDS[key]: value for key, value in details["ctx"].items() if key in BOUNDS}
    return f"must be {_show_range({**broken, **spot.schema})}, got {_show(details['input'])}"


def _show_range(schema: Schema) -> str:
    low, open_low = schema.get("minimum"), schema.get("exclusiveMinimum")
    high, open_high = schema.get("maximum"), schema.get("exclusiveMaximum")
    lower = f"at least {low}" if low is not None else f"greater than {open_low}"
    upper = f"at most {high}" if high is not None else f"less than {open_high}"
    has_lower = low is not None or open_low is not None
    has_upper = high is not None or open_high is not None
    return " and ".join([lower] * has_lower + [upper] * has_upper)


def _value_message(details: ErrorDetails, spot: _Spot) -> str:
    message = details["msg"].removeprefix("Value error, ").removeprefix("Assertion failed, ")
    if details["type"] in ("value_error", "assertion_error"):
        return message
    for wording in ("Input should be", "String should", "Tuple should", "Dictionary should"):
        message = message.replace(wording, "must be" if wording.endswith("be") else "must")
    expected = details.get("ctx", {}).get("expected")
    hint = ""
    if expected is not None and isinstance(details["input"], str):
        hint = nearest(details["input"], [name.strip(" '") for name in _alternatives(expected)])
    return f"{message}, got {_show(details['input'])}{hint}"


def _alternatives(expected: str) -> list[str]:
    return expected.replace(" or ", ", ").split(", ")


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


_MESSAGES: dict[str, Callable[[ErrorDetails, _Spot], str]] = {
    "extra_forbidden": _unknown_key,
    "missing": _missing,
    "union_tag_invalid": _unknown_kind,
    "union_tag_not_found": _mapping_message,
    "model_attributes_type": _mapping_message,
    "model_type": _mapping_message,
    "dict_type": _mapping_message,
    "string_type": _text_message,
    "greater_than": _range_message,
    "greater_than_equal": _range_message,
    "less_than": _range_message,
    "less_than_equal": _range_message,
    "tuple_type": _list_message,
}
