"""The keys of a stage as its reader wants them: type, range, default and meaning."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import yaml

from vlmkit.config.docstrings import plain, read_docstring
from vlmkit.declare.configbase import StageConfig
from vlmkit.mistakes.jsonschema import Schema, json_schema

_WORDS = {
    "integer": ("whole number", "whole numbers"),
    "number": ("number", "numbers"),
    "string": ("text", "texts"),
    "boolean": ("true or false", "true or false"),
    "null": ("null", "null"),
    "array": ("list", "lists"),
    "object": ("mapping", "mappings"),
}
_BOUNDS = (
    ("minimum", "≥"),
    ("exclusiveMinimum", ">"),
    ("maximum", "≤"),
    ("exclusiveMaximum", "<"),
)


class Parameter(NamedTuple):
    """One key that a stage takes."""

    name: str  # with a dot where it stands in a mapping
    type: str  # with its range
    default: str | None  # as YAML writes it; None: the key is required
    description: str


def config_parameters(config: type[StageConfig]) -> list[Parameter]:
    """List the keys of a config, without ``kind``.

    Example:
        >>> from vlmkit.sampling import TopP
        >>> config_parameters(TopP)[0]
        Parameter(name='p', type='number > 0, ≤ 1', default=None, description='share of the \
probability mass; 1 is off')
    """
    root = json_schema(config)
    return list(_keys(_resolve(root, root), root, ""))


def factory_parameters(factory: Callable[..., Any]) -> list[Parameter]:
    """List the arguments of a function, as its signature and docstring name them.

    Example:
        >>> def cut(a: float, b: int = 2): "Cut."
        >>> [parameter[:3] for parameter in factory_parameters(cut)]
        [('a', 'float', None), ('b', 'int', '2')]
    """
    described = read_docstring(factory).arguments
    try:
        arguments = inspect.signature(factory).parameters.values()
    except ValueError:
        return []  # some functions written in C have none
    empty = inspect.Parameter.empty
    return [
        Parameter(
            argument.name,
            _show_annotation(argument.annotation),
            None if argument.default is empty else _show(argument.default),
            described.get(argument.name, ""),
        )
        for argument in arguments
        if argument.kind not in (argument.VAR_POSITIONAL, argument.VAR_KEYWORD)
    ]


def _show_annotation(annotation: Any) -> str:
    if annotation is inspect.Parameter.empty:
        return ""
    return annotation if isinstance(annotation, str) else inspect.formatannotation(annotation)


def _keys(schema: Schema, root: Schema, prefix: str) -> Iterator[Parameter]:
    required = schema.get("required", [])
    for name, own in schema["properties"].items():
        if name == "kind":
            continue
        default = None if name in required else _show(own.get("default"))
        description = plain(own.get("description", ""))
        yield Parameter(prefix + name, show_type(own, root), default, description)
        for option in own.get("anyOf", [own]):
            inner = _resolve(root, option)
            if "properties" in inner:
                yield from _keys(inner, root, f"{prefix}{name}.")


def show_type(schema: Schema, root: Schema, *, plural: bool = False) -> str:
    """Name what a JSON Schema allows.

    Example:
        >>> show_type({"type": "array", "items": {"type": "integer", "minimum": 0}}, {})
        'list of whole numbers ≥ 0'
    """
    schema = _resolve(root, schema)
    if "anyOf" in schema:
        return " or ".join(show_type(option, root, plural=plural) for option in schema["anyOf"])
    if "enum" in schema or "const" in schema:
        return " or ".join(map(_show, schema.get("enum", [schema.get("const")])))
    if "discriminator" in schema:
        return "stages, each with its kind" if plural else "a stage with its kind"
    if "type" not in schema:
        return "any value"
    word = _WORDS[schema["type"]][plural]
    items = schema.get("items", {})
    if "prefixItems" in schema:
        items = schema["prefixItems"][0]
        word = f"{word} of {len(schema['prefixItems'])}"
        return f"{word} {show_type(items, root, plural=True)}"
    if items:
        least = f" (at least {schema['minItems']})" if "minItems" in schema else ""
        return f"{word} of {show_type(items, root, plural=True)}{least}"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"{word} to {show_type(schema['additionalProperties'], root, plural=True)}"
    bounds = [f"{sign} {_show(schema[key])}" for key, sign in _BOUNDS if key in schema]
    return " ".join([word, *([", ".join(bounds)] if bounds else [])])


def _show(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.15g}"  # 1, where YAML writes 1.0
    if isinstance(value, str) and not value.isprintable():
        return json.dumps(value, ensure_ascii=False)  # YAML would break the line
    try:
        text = yaml.safe_dump(
            value, default_flow_style=True, width=10**6, sort_keys=False, allow_unicode=True
        )
    except yaml.YAMLError:
        return repr(value)  # a default in Python that YAML has no form for
    return text.removesuffix("...\n").strip()


def _resolve(root: Schema, schema: Schema) -> Schema:
    while "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rsplit("/", 1)[-1]]
    return schema
