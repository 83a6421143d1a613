"""From a tree to a validated config; a mistake is named by where it was written."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ValidationError

from vlmkit.config.tree import Node, Origin, find, format_path, to_plain
from vlmkit.declare.configbase import parse_config
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
    raise error_at(tree, mistakes[0].about, one_line(mistakes)) from None


def error_at(tree: Node, path: KeyPath, message: str) -> VlmkitError:
    """Make an error about a value, with the place where that was written in front.

    What stands in a file outside the config's folder is not repeated.

    Example:
        >>> from vlmkit.config.document import parse_yaml
        >>> tree = parse_yaml("seed: secret", "../notes.yaml", is_hidden=True)
        >>> str(error_at(tree, ("seed",), "seed: 'secret' is no number"))[:53]
        '../notes.yaml:1: seed: does not fit; the file lies ou'
    """
    origin = nearest_origin(tree, path)
    if origin.is_hidden:
        message = (
            f"{format_path(path)}: does not fit; the file lies outside the config's folder, so "
            "what it says is not shown"
        )
    return VlmkitError(f"{origin}: {message}", path=path)


def nearest_origin(tree: Node, path: KeyPath) -> Origin:
    """Where a value was written, or the closest mapping or list around it."""
    for length in range(len(path), -1, -1):
        node = find(tree, path[:length])
        if node is not None:
            return node.origin
    return tree.origin
