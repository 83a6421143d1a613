"""From a tree to a validated config; a mistake is named by where it was written."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from vlmkit.config.tree import Node, Origin, find, to_plain
from vlmkit.configbase import parse_config
from vlmkit.errors import KeyPath, VlmkitError
from vlmkit.mistakes.explain import explain, one_line

Config = TypeVar("Config", bound=BaseModel)


def validate(model: type[Config], tree: Node) -> Config:
    """Validate a tree.

    Raises:
        VlmkitError: the first mistake, with the place where the value was written.
    """
    try:
        return parse_config(model, to_plain(tree))
    except ValidationError as error:
        mistakes = explain(model, error)
    about = mistakes[0].about
    raise VlmkitError(f"{nearest_origin(tree, about)}: {one_line(mistakes)}", path=about)


def nearest_origin(tree: Node, path: KeyPath) -> Origin:
    """Where a value was written, or the closest mapping or list around it."""
    for length in range(len(path), -1, -1):
        node = find(tree, path[:length])
        if node is not None:
            return node.origin
    return tree.origin
