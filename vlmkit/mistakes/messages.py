"""What a mistake in a config is called: what is wrong with the value, and what would work."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from pydantic_core import ErrorDetails

from vlmkit.errors import KeyPath, brief, nearest
from vlmkit.mistakes.jsonschema import BOUNDS, Schema, kind_sections
from vlmkit.names.words import key_words, kind_words, off_words


class Spot(NamedTuple):
    """Where in a schema an error is."""

    path: KeyPath  # without tags
    around: Schema  # of the innermost mapping with fixed keys
    schema: Schema  # of the value itself; empty for an unknown key
    says_null: bool = False  # the value's description says what null means
    root: Schema | None = None  # of the whole config


def write_message(details: ErrorDetails, spot: Spot) -> str:
    """Say in one line what is wrong.

    Args:
        details: one of pydantic's errors.
        spot: where it is.

    Example:
        >>> details = {"type": "int_type", "loc": ("k",), "msg": "", "input": "x"}
        >>> write_message(details, Spot(("k",), {}, {"type": "integer"}))
        "must be a whole number, got 'x'"
    """
    if len(spot.schema.get("anyOf", ())) > 1 and details["type"] not in _SAID_ALIKE:
        return _forms_message(details, spot)
    message = _MESSAGES.get(details["type"], _value_message)(details, spot)
    off = off_words(_kind(spot), str(spot.path[-1]) if spot.path else "", details["input"])
    return message if off is None else f"{message}; {off}"


def _kind(spot: Spot) -> str:
    """The kind of the stage that a mistake is in, or an empty text."""
    return str(spot.around.get("properties", {}).get("kind", {}).get("const", ""))


def _unknown_key(details: ErrorDetails, spot: Spot) -> str:
    known = list(spot.around.get("properties", {}))
    name = str(details["loc"][-1])
    words = key_words(name, known, _kind(spot) or None)
    if words is None and (section := kind_sections(spot.root or {}).get(name)) is not None:
        words = f"write it as a kind of {section}"
    if words is not None:
        return f"unknown key: {words}"
    return f"unknown key{nearest(name, known)} (known here: {', '.join(known)})"


def _missing(details: ErrorDetails, spot: Spot) -> str:
    own = spot.around.get("properties", {}).get(details["loc"][-1], {})
    return f"is required: {own['description']}" if "description" in own else "is required"


def _unknown_kind(details: ErrorDetails, spot: Spot) -> str:
    context = details.get("ctx", {})
    known = [tag.strip(" '") for tag in context["expected_tags"].split(",")]
    tag = str(context["tag"])
    words = kind_words(tag, known)
    if words is None and (section := kind_sections(spot.root or {}).get(tag)) is not None:
        words = f"it stands in {section}"
    if words is not None:
        return f"unknown kind {tag!r}: {words}"
    return f"unknown kind {tag!r}{nearest(tag, known)} (one of {', '.join(known)})"


def _mapping_message(details: ErrorDetails, spot: Spot) -> str:
    kinds = list(spot.schema.get("discriminator", {}).get("mapping", {}))
    keys = list(spot.schema.get("properties", {}))
    if details["input"] in kinds:
        return f"needs a mapping: write {{kind: {details['input']}}}, with its values in it"
    content = f" with a 'kind' ({', '.join(kinds)})" if kinds else ""
    if keys and not kinds:
        content = f" with keys such as {', '.join(keys[:3])}"
    return f"needs a mapping{content}, got {brief(details['input'])}"


def _text_message(details: ErrorDetails, spot: Spot) -> str:
    value = details["input"]
    # YAML reads `no`, `off`, `1234` and `1.0` as something else than text.
    hint = "; in YAML, put it in quotes" if isinstance(value, (bool, int, float)) else ""
    return f"must be text, got {brief(value)}{hint}"


def _list_message(details: ErrorDetails, spot: Spot) -> str:
    return f"must be a list, got {brief(details['input'])}"


def _length_message(details: ErrorDetails, spot: Spot) -> str:
    least = details["ctx"]["min_length"]
    return f"needs at least {least} item{'' if least == 1 else 's'}, got {brief(details['input'])}"


def _long_text_message(details: ErrorDetails, spot: Spot) -> str:
    most, length = details["ctx"]["max_length"], len(details["input"])
    return f"must have at most {most:,} characters, got {length:,}"


def _long_message(details: ErrorDetails, spot: Spot) -> str:
    return f"may have at most {details['ctx']['max_length']:,} items, got more"


def _bool_message(details: ErrorDetails, spot: Spot) -> str:
    return f"must be true or false, got {brief(details['input'])}"


def _whole_message(details: ErrorDetails, spot: Spot) -> str:
    return f"must be a whole number{_or_null(spot)}, got {brief(details['input'])}"


def _number_message(details: ErrorDetails, spot: Spot) -> str:
    return f"must be a number{_or_null(spot)}, got {brief(details['input'])}"


def _forms_message(details: ErrorDetails, spot: Spot) -> str:
    *most, last = [form for option in spot.schema["anyOf"] for form in _forms(option)]
    return f"must be {', '.join(most)} or {last}, got {brief(details['input'])}"


def _forms(schema: Schema) -> list[str]:
    if "const" in schema or "enum" in schema:
        return [repr(value) for value in schema.get("enum", [schema.get("const")])]
    match schema.get("type"):
        case "boolean":
            return ["true", "false"]
        case "array":
            whole = schema.get("items", {}).get("type") == "integer"
            return ["a list of whole numbers" if whole else "a list"]
        case "null":
            return ["null"]
        case "object":
            return ["a mapping"]
        case "integer":
            return ["a whole number"]
        case kind:
            return [f"a {kind}"]


def _or_null(spot: Spot) -> str:
    return " or null" if spot.says_null else ""


def _range_message(details: ErrorDetails, spot: Spot) -> str:
    broken = {BOUNDS[key]: value for key, value in details["ctx"].items() if key in BOUNDS}
    allowed = _show_range({**broken, **spot.schema}) + _or_null(spot)
    return f"must be {allowed}, got {brief(details['input'])}"


def _show_range(schema: Schema) -> str:
    low, open_low = schema.get("minimum"), schema.get("exclusiveMinimum")
    high, open_high = schema.get("maximum"), schema.get("exclusiveMaximum")
    lower = f"at least {low}" if low is not None else f"greater than {open_low}"
    upper = f"at most {high}" if high is not None else f"less than {open_high}"
    has_lower = low is not None or open_low is not None
    has_upper = high is not None or open_high is not None
    return " and ".join([lower] * has_lower + [upper] * has_upper)


def _value_message(details: ErrorDetails, spot: Spot) -> str:
    error = details.get("ctx", {}).get("error")
    if error is not None:  # what a validator of ours raised
        return str(error)
    message = details["msg"]
    for wording in ("Input should be", "String should", "Tuple should", "Dictionary should"):
        message = message.replace(wording, "must be" if wording.endswith("be") else "must")
    expected = details.get("ctx", {}).get("expected")
    hint = ""
    if expected is not None and isinstance(details["input"], str):
        hint = nearest(details["input"], [name.strip(" '") for name in _alternatives(expected)])
    return f"{message}, got {brief(details['input'])}{hint}"


def _alternatives(expected: str) -> list[str]:
    return expected.replace(" or ", ", ").split(", ")


_SAID_ALIKE = ("value_error", "too_short")  # whatever the value's other forms are

_MESSAGES: dict[str, Callable[[ErrorDetails, Spot], str]] = {
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
    "too_short": _length_message,
    "too_long": _long_message,
    "string_too_long": _long_text_message,
    "bool_type": _bool_message,
    "bool_parsing": _bool_message,
    "int_type": _whole_message,
    "int_parsing": _whole_message,
    "int_from_float": _whole_message,
    "float_type": _number_message,
    "float_parsing": _number_message,
}
