"""Configuration as written: a tree of values, each with the place where it was written.

Trees are merged before anything is validated, so that one message can name the file and line of
any value, and ``describe`` can say where each came from.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vlmkit.errors import KeyPath as KeyPath
from vlmkit.errors import VlmkitError

Key = str | int


class Origin(NamedTuple):
    """Where a value was written: a file and line, a flag, an override, or the defaults."""

    source: str
    line: int | None = None
    is_file: bool = False
    is_hidden: bool = False  # what is written there is not to stand in messages

    def __str__(self) -> str:
        return self.source if self.line is None else f"{self.source}:{self.line}"


DEFAULT = Origin("default")


class Node(NamedTuple):
    """A scalar, a list of nodes or a mapping to nodes."""

    value: Any
    origin: Origin


def to_node(value: Any, origin: Origin) -> Node:
    """Wrap plain lists, mappings and scalars; every part gets the same origin."""
    if isinstance(value, Mapping):
        return Node({key: to_node(item, origin) for key, item in value.items()}, origin)
    if isinstance(value, (list, tuple)):
        return Node([to_node(item, origin) for item in value], origin)
    return Node(value, origin)


def to_plain(node: Node) -> Any:
    """The values without their origins.

    >>> to_plain(to_node({"a": (1, {"b": None})}, DEFAULT))
    {'a': [1, {'b': None}]}
    """
    if isinstance(node.value, dict):
        return {key: to_plain(item) for key, item in node.value.items()}
    if isinstance(node.value, list):
        return [to_plain(item) for item in node.value]
    return node.value


def find(node: Node, path: KeyPath) -> Node | None:
    """The node at a key path, or ``None`` where nothing was written."""
    for key in path:
        items = dict(enumerate(node.value)) if isinstance(node.value, list) else node.value
        if not isinstance(items, dict) or key not in items:
            return None
        node = items[key]
    return node


def format_path(path: KeyPath) -> str:
    """A key path as it is written in an override: ``sampling.0.temperature``."""
    return ".".join(str(key) for key in path)


def merge(base: Node, over: Node, path: KeyPath = ()) -> Node:
    """Lay ``over`` on ``base``: mappings merge key by key, everything else is replaced.

    Two exceptions follow from what configs mean. A mapping that names another ``kind`` replaces
    the old one, since the keys of one kind mean nothing to another. A mapping whose keys are all
    numbers edits a list in place.

    Raises:
        VlmkitError: a list index beyond the list.

    >>> old = to_node({"a": 1, "b": [{"x": 1}]}, DEFAULT)
    >>> to_plain(merge(old, to_node({"a": 2, "b": {0: {"y": 3}}}, DEFAULT)))
    {'a': 2, 'b': [{'x': 1, 'y': 3}]}
    """
    if not isinstance(over.value, dict):
        return over
    if isinstance(base.value, list) and over.value and all(isinstance(k, int) for k in over.value):
        return _edit_list(base, over, path)
    if not isinstance(base.value, dict) or _names_other_kind(base, over):
        return over
    merged = dict(base.value)
    for key, item in over.value.items():
        merged[key] = merge(merged[key], item, (*path, key)) if key in merged else item
    return Node(merged, over.origin)


def merge_all(nodes: Sequence[Node]) -> Node:
    """Merge from left to right; later nodes win. Needs at least one node."""
    result = nodes[0]
    for node in nodes[1:]:
        result = merge(result, node)
    return result


def replace_at(node: Node, path: KeyPath, new: Node) -> Node:
    """The tree with the node at an existing path replaced."""
    if not path:
        return new
    head, rest = path[0], path[1:]
    if isinstance(node.value, list):
        items = list(node.value)
        items[int(head)] = replace_at(items[int(head)], rest, new)
        return node._replace(value=items)
    return node._replace(value={**node.value, head: replace_at(node.value[head], rest, new)})


def _names_other_kind(base: Node, over: Node) -> bool:
    old, new = base.value.get("kind"), over.value.get("kind")
    return old is not None and new is not None and old.value != new.value


def _edit_list(base: Node, over: Node, path: KeyPath) -> Node:
    items = list(base.value)
    for index, item in over.value.items():
        if not 0 <= index < len(items):
            raise VlmkitError(
                f"{item.origin}: {format_path((*path, index))}: the list has {len(items)} "
                f"entries, so an index is 0 to {len(items) - 1}; or give the whole list",
                path=(*path, index),
            )
        items[index] = merge(items[index], item, (*path, index))
    return Node(items, base.origin)
