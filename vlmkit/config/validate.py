"""From a tree to a validated config; a mistake is named by where it was written."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError

from vlmkit.config.tree import KeyPath, Node, Origin, find, to_plain
from vlmkit.errors import VlmkitError
from vlmkit.mistakes.explain import explain, one_line

Config = TypeVar("Config", bound=BaseModel)


def validate(model: type[Config], tree: Node) -> Config:
    """Validate a tree.

    Raises:
        VlmkitError: the first mistake, with the place where the value was written.
    """
    try:
        return TypeAdapter(model).validate_python(to_plain(tree))
    except ValidationError as error:
        mistakes = explain(model, error)
    # A message about the whole begins with the section it speaks of.
    first = mistakes[0]
    place = nearest_origin(tree, first.path or (first.message.split()[0],))
    raise VlmkitError(f"{place}: {one_line(mistakes)}")


def nearest_origin(tree: Node, path: KeyPath) -> Origin:
    """Where a value was written, or the closest mapping or list around it."""
    for length in range(len(path), -1, -1):
        node = find(tree, path[:length])
        if node is not None:
            return node.origin
    return tree.origin
