"""JSON from elsewhere: a key that stands twice in an object is refused.

RFC 8259 (section 4) leaves open which of the two counts, so two programs may read two different
files: what was looked at is then not what is used.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

from vlmkit.errors import brief

_STRING = re.compile(rb'"((?:[^"\\]++|\\.)*+)"\s*+(:?)', re.DOTALL)


def parse_json(data: bytes | str, *, change: Callable[[dict[str, Any]], Any] | None = None) -> Any:
    """Read JSON as Python does, where each key stands once.

    Args:
        data: the text, in UTF-8.
        change: what becomes of an object, the inner ones first; None: it stays as it is.

    Raises:
        ValueError: no JSON, nested too deeply, or a key that stands twice, which it names.

    Example:
        >>> parse_json('{"a": {"b": 1}}')
        {'a': {'b': 1}}
        >>> parse_json('{"a": {"b": 1, "b": 2}}')
        Traceback (most recent call last):
        ValueError: the key 'b' stands twice; leave one of them out
    """

    def take(pairs: list[tuple[str, Any]]) -> Any:
        found = dict(pairs)
        if len(found) < len(pairs):
            twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
            raise ValueError(f"the key {brief(twice)} stands twice; leave one of them out")
        return found if change is None else change(found)

    try:
        return json.loads(data, object_pairs_hook=take)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def check_keys(data: bytes) -> None:
    """Refuse JSON with a key that stands twice, before a faster reader is let at it.

    Where no two keys are alike, wherever they stand, that is seen without reading the rest.

    Raises:
        ValueError: as `parse_json`.

    Example:
        >>> check_keys(b'{"a": {"value": 1}, "b": {"value": "a"}}')
        >>> check_keys(b'{"a": 1, "\\\\u0061": 2}')
        Traceback (most recent call last):
        ValueError: the key 'a' stands twice; leave one of them out
    """
    keys = [text for text, colon in _STRING.findall(data) if colon]
    if len(set(keys)) < len(keys) or any(b"\\" in key for key in keys):
        parse_json(data)
