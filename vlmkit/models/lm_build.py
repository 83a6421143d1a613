"""Building an mlx-lm architecture from config.json, and saying which key it could not use.

The architectures check little themselves and stumble wherever a bad value is first used. The keys
are found from what they say, from the types of their arguments, and from the lines that failed.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import linecache
import re
import traceback
import types
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import mlx.nn as nn

from vlmkit.checkpoints.checkpoint_json import reason
from vlmkit.declare.section import MAX_SIZE, Section, is_integer, is_number, shown
from vlmkit.errors import VlmkitError
from vlmkit.models.families import unsupported

_SIZES = re.compile(
    r"(hidden|intermediate|vocab)_size|num_(hidden_)?layers|num_\w*heads|head_dim|n_(layer|head)s?"
)
_MISSING = re.compile(r"missing \d+ required \S+ arguments?: (.*)")
_TYPES = {int: "an integer", float: "a number", bool: "true or false", str: "a text"}
_NAME = re.compile(r"[\w.-]{1,100}", re.ASCII)
_CLASS = re.compile(r"^(class Model\b|from .* import .*\bModel\b|    Model,$)", re.MULTILINE)
_NUM_KEYS = 4


def build_lm(config: Mapping[str, Any]) -> nn.Module:
    """Build the mlx-lm architecture of a config.json, with random weights.

    Args:
        config: the contents of config.json.

    Raises:
        VlmkitError: mlx-lm has no such architecture, or cannot use the config; names the key.
    """
    if not _may_be_known(str(config.get("model_type"))):
        raise unsupported(str(config.get("model_type")))
    from mlx_lm.utils import _get_classes  # takes seconds to import

    architectures = config.get("architectures")
    items = architectures if isinstance(architectures, list) else [architectures or ""]
    if not all(isinstance(item, str) for item in items):
        problem = f"is {shown(architectures)}; it has to be a list of names"
        raise Section(config).error("architectures", problem)
    try:
        model_class, args_class = _get_classes(dict(config))
    except (ValueError, ImportError, AttributeError) as error:
        raise unsupported(str(config.get("model_type"))) from error
    try:
        model: nn.Module = model_class(args_class.from_dict(dict(config)))
    except Exception as error:  # anything: the architectures check little themselves
        raise _unbuilt(error, config) from error
    return model


def _may_be_known(model_type: str) -> bool:
    """Tell whether mlx-lm may have an architecture of this name; nothing is imported.

    Its folder of architectures also has modules that are none, as cache and base. What is not
    there may be another name of one that is.
    """
    if not _NAME.fullmatch(model_type):
        return False
    spec = importlib.util.find_spec("mlx_lm")
    folders = spec.submodule_search_locations if spec is not None else None
    path = Path(folders[0], "models", f"{model_type}.py") if folders else None
    return path is None or not path.is_file() or _CLASS.search(path.read_text()) is not None


def find_culprit(error: Exception, config: Mapping[str, Any]) -> VlmkitError | None:
    """Return the error for a key that is missing or whose value cannot be right, if there is one.

    Args:
        error: what an architecture raised.
        config: the contents of config.json.
    """
    name = shown(config.get("model_type"))
    section = _text_section(config)
    if missing := [key for key in _missing(error) if section.values.get(key) is None]:
        is_missing = "is missing" if len(missing) == 1 else "are missing"
        return section.error(", ".join(missing), f"{is_missing}; mlx-lm's {name} needs it")
    hints = _hints(error)
    for part in (section, Section(config)):
        for key, needed in _suspects(part.values, hints):
            given = shown(part.values[key])
            return part.error(key, f"is {given}; mlx-lm's {name} needs {needed}")
    return None


def _unbuilt(error: Exception, config: Mapping[str, Any]) -> VlmkitError:
    found = find_culprit(error, config)
    if found is not None:
        return found
    section = _text_section(config)
    keys = _keys_read(error, {**config, **section.values}) or ["model_type"]
    where = section if keys[0] in section.values else Section(config)
    return where.error(
        ", ".join(keys[:_NUM_KEYS]),
        f"cannot be used by mlx-lm's {shown(config.get('model_type'))} ({reason(error)}); "
        "take the config.json that belongs to the weights",
    )


def _text_section(config: Mapping[str, Any]) -> Section:
    nested = config.get("text_config")
    is_nested = isinstance(nested, Mapping) and bool(nested)
    return Section(config).inner("text_config") if is_nested else Section(config)


def _missing(error: Exception) -> list[str]:
    if isinstance(error, KeyError):
        return [key for key in error.args if isinstance(key, str)]
    said = _MISSING.search(str(error))
    return re.findall(r"'(\w+)'", said.group(1)) if said else []


def _hints(error: Exception) -> dict[str, Any]:
    """The types of the arguments of every architecture that an exception passed through."""
    hints: dict[str, Any] = {}
    for frame, _ in traceback.walk_tb(error.__traceback__):
        for value in list(frame.f_locals.values()):
            args = getattr(value, "args", value) if isinstance(value, nn.Module) else value
            kind = args if isinstance(args, type) else type(args)
            if dataclasses.is_dataclass(kind) and kind.__module__.startswith("mlx_lm."):
                hints |= typing.get_type_hints(kind)
    return hints


def _suspects(values: Mapping[str, Any], hints: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The keys whose values cannot be right, each with what would be."""
    for key, value in values.items():
        hint = hints.get(key)
        is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
        allowed = set(typing.get_args(hint)) if is_union else {hint}
        is_size = _SIZES.fullmatch(key) is not None and value is not None
        if is_size and not isinstance(value, list):
            if not is_integer(value) or not 1 <= value <= MAX_SIZE:
                yield key, "an integer above 0 and below 2³¹"
        elif allowed <= {*_TYPES, type(None)} and not _is_one_of(value, allowed):
            yield key, " or ".join(text for kind, text in _TYPES.items() if kind in allowed)


def _is_one_of(value: object, allowed: set[Any]) -> bool:
    if value is None or isinstance(value, bool | str):
        return type(value) in allowed
    return is_number(value) and bool(allowed & ({int, float} if is_integer(value) else {float}))


def _keys_read(error: Exception, known: Mapping[str, Any]) -> list[str]:
    """The keys named in the innermost expression that failed and names any."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        first = frame.lineno or 0
        numbers = range(first, (frame.end_lineno or first) + 1)
        source = " ".join(linecache.getline(frame.filename, number) for number in numbers)
        found = [word for word in re.findall(r"[A-Za-z_]\w*", source) if word in known]
        if found:
            return list(dict.fromkeys(found))
    return []
