"""What differs between resolved configs, path by path, in few words."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

ABSENT = "–"


def differences(config: Mapping[str, Any], reference: Mapping[str, Any]) -> dict[str, str]:
    """The paths at which a config differs from a reference, with the config's values.

    Lists of stages are compared stage by stage where they have the same kinds in the same order,
    else they are shown whole.

    Example:
        >>> base = {"sampling": [{"kind": "temperature", "temperature": 1.0}], "seed": 0}
        >>> hot = {"sampling": [{"kind": "temperature", "temperature": 2.0}], "seed": 0}
        >>> differences(hot, base)
        {'sampling.0.temperature': '2.0'}
        >>> differences({"sampling": [], "seed": 0}, base)
        {'sampling': '[]'}
    """
    found: dict[str, str] = {}
    _compare("", config, reference, found)
    return found


def compact(value: Any) -> str:
    """Write a value of a config in one line; a stage is ``kind(key=value)``.

    Example:
        >>> compact([{"kind": "top_p", "p": 0.9}, None, "a"])
        '[top_p(p=0.9), null, "a"]'
    """
    if isinstance(value, Mapping):
        pairs = ", ".join(f"{key}={compact(item)}" for key, item in value.items() if key != "kind")
        return f"{value['kind']}({pairs})" if "kind" in value else f"{{{pairs}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(compact, value))}]"
    return json.dumps(value, ensure_ascii=False, default=str)


def _compare(path: str, value: Any, other: Any, found: dict[str, str]) -> None:
    if isinstance(value, Mapping) and isinstance(other, Mapping) and _kind(value) == _kind(other):
        for key in [*value, *(key for key in other if key not in value)]:
            name = f"{path}.{key}" if path else str(key)
            if key not in value:
                found[name] = ABSENT
            elif key not in other:
                found[name] = compact(value[key])
            else:
                _compare(name, value[key], other[key], found)
    elif _same_stages(value, other):
        for place, (item, counterpart) in enumerate(zip(value, other, strict=True)):
            _compare(f"{path}.{place}", item, counterpart, found)
    elif compact(value) != compact(other):
        found[path] = compact(value)


def _same_stages(value: Any, other: Any) -> bool:
    if not (isinstance(value, list | tuple) and isinstance(other, list | tuple)):
        return False
    same_kinds = [_kind(item) for item in value] == [_kind(item) for item in other]
    return same_kinds and all(isinstance(item, Mapping) for item in [*value, *other])


def _kind(value: Any) -> Any:
    return value.get("kind") if isinstance(value, Mapping) else None
