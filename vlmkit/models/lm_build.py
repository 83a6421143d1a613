"""Building an mlx-lm architecture from config.json, and saying which key it could not use."""

from __future__ import annotations

import dataclasses
import linecache
import re
import typing
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any

import mlx.nn as nn

from vlmkit.checkpoint_json import MAX_SIZE, Section, is_integer, is_number, shown
from vlmkit.errors import VlmkitError
from vlmkit.models.families import unsupported

_SIZES = re.compile(
    r"(hidden|intermediate|vocab)_size|num_.*(layers|heads)|head_dim|n_(layer|head)s?"
)
_MISSING = re.compile(r"missing \d+ required \S+ arguments?: '(\w+)'")
_TYPES = {int: "an integer", float: "a number", bool: "true or false", str: "a text"}


def build_lm(config: Mapping[str, Any]) -> nn.Module:
    """Build the mlx-lm architecture of a config.json, with random weights.

    Args:
        config: the contents of config.json.

    Raises:
        VlmkitError: mlx-lm has no such architecture, or cannot use the config; names the key.
    """
    from mlx_lm.utils import _get_classes

    name = str(config.get("model_type"))
    architectures = config.get("architectures")
    items = architectures if isinstance(architectures, list) else [architectures or ""]
    if not all(isinstance(item, str) for item in items):
        problem = f"is {shown(architectures)}; it has to be a list of names"
        raise Section(config).error("architectures", problem)
    try:
        model_class, args_class = _get_classes(dict(config))
    except (ValueError, ImportError, AttributeError) as error:
        raise unsupported(name) from error
    try:
        model: nn.Module = model_class(args_class.from_dict(dict(config)))
    except Exception as error:  # anything: the architectures check little themselves
        raise _explained(error, config, args_class) from error
    return model


def _explained(error: Exception, config: Mapping[str, Any], args_class: type) -> VlmkitError:
    """Return the error that names the key which an architecture stumbled over."""
    name = shown(config.get("model_type"))
    nested = config.get("text_config")
    inner = nested if isinstance(nested, Mapping) else {}
    section = Section(inner, "text_config.") if inner else Section(config)
    missing = _MISSING.search(str(error))
    key = missing.group(1) if missing else str(error.args[0]) if _is_key(error) else ""
    if key and section.values.get(key) is None:
        return section.error(key, f"is missing; mlx-lm's {name} needs it")
    for part in (section, Section(config)):
        for key, problem in _suspects(part.values, args_class):
            return part.error(key, f"is {shown(part.values[key])}; mlx-lm's {name} needs {problem}")
    read = [key for key in _keys_read(error.__traceback__) if key in {**config, **inner}]
    reason = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    where = section if read and read[0] in section.values else Section(config)
    return where.error(
        ", ".join(dict.fromkeys(read[:3])) or "model_type",
        f"cannot be used by mlx-lm's {name} ({reason}); fetch the checkpoint's own config.json",
    )


def _is_key(error: Exception) -> bool:
    return isinstance(error, KeyError) and bool(error.args) and isinstance(error.args[0], str)


def _suspects(values: Mapping[str, Any], args_class: type) -> Iterator[tuple[str, str]]:
    """The keys whose values cannot be right, each with what would be."""
    for key, value in values.items():
        if _SIZES.fullmatch(key) and value is not None:
            if not (is_integer(value) or isinstance(value, list)):
                yield key, "an integer above 0"
            elif is_integer(value) and not 1 <= value <= MAX_SIZE:
                yield key, "an integer above 0 and below 2³¹"
    if not dataclasses.is_dataclass(args_class):
        return
    for key, hint in typing.get_type_hints(args_class).items():
        allowed = set(typing.get_args(hint)) or {hint}
        value = values.get(key)
        if key in values and allowed <= {*_TYPES, type(None)} and not _is_one_of(value, allowed):
            known = [text for kind, text in _TYPES.items() if kind in allowed]
            yield key, " or ".join(known)


def _is_one_of(value: object, allowed: set[type]) -> bool:
    if value is None or isinstance(value, bool):
        return type(value) in allowed
    if is_integer(value):
        return bool({int, float} & allowed)
    return (
        is_number(value) and float in allowed
        if isinstance(value, float)
        else type(value) in allowed
    )


def _keys_read(traceback: TracebackType | None) -> list[str]:
    """The names in the source lines that an exception passed through, the innermost first."""
    lines = []
    while traceback is not None:
        filename = traceback.tb_frame.f_code.co_filename
        lines.append(linecache.getline(filename, traceback.tb_lineno))
        traceback = traceback.tb_next
    return [word for line in reversed(lines) for word in re.findall(r"[A-Za-z_]\w+", line)]
