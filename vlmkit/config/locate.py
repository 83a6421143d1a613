"""Mistakes that only the model or a file can show, with the place of the value that made them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vlmkit.config.tree import DEFAULT, KeyPath, Node, find, format_path
from vlmkit.config.validate import nearest_origin
from vlmkit.config.yaml_tree import parse_path
from vlmkit.errors import VlmkitError


@contextmanager
def located(tree: Node, otherwise: KeyPath = ()) -> Iterator[None]:
    """Put file, line and key in front of an error that begins with a key, a kind or an image.

    Args:
        tree: what was written, and where.
        otherwise: the key of every other error; none by default.

    Example:
        >>> from vlmkit.config.document import parse_yaml
        >>> tree = parse_yaml("seed: 1\\ncontrast: {kind: dola}", "run.yaml")
        >>> with located(tree):
        ...     raise VlmkitError("dola: there is no layer 99")
        Traceback (most recent call last):
        vlmkit.errors.VlmkitError: run.yaml:2: contrast: dola: there is no layer 99
    """
    try:
        yield
    except VlmkitError as error:
        message = str(error)
        path = _spoken_of(message, tree) or otherwise
        origin = nearest_origin(tree, path) if path else DEFAULT
        if origin == DEFAULT:
            raise
        key = format_path(path)
        shown = message if message.startswith(f"{key}:") else f"{key}: {message}"
        raise VlmkitError(f"{origin}: {shown}") from error


def _spoken_of(message: str, tree: Node) -> KeyPath:
    """The key a message is about; empty if it does not say."""
    images = find(tree, ("images",))
    for index, image in enumerate(
        images.value if images and isinstance(images.value, list) else ()
    ):
        if message.startswith((f"image {image.value}", f"{image.value}: ")):
            return ("images", index)
    name = message.partition(":")[0]
    keys = parse_path(name)
    if find(tree, keys[:1]) is not None and keys:
        return keys
    return next((path for path, kind in _stages(tree) if kind == name), ())


def _stages(node: Node, path: KeyPath = ()) -> Iterator[tuple[KeyPath, object]]:
    """Every mapping with a ``kind``."""
    if isinstance(node.value, list):
        items = list(enumerate(node.value))
    elif isinstance(node.value, dict):
        kind = node.value.get("kind")
        if kind is not None:
            yield path, kind.value
        items = list(node.value.items())
    else:
        return
    for key, item in items:
        yield from _stages(item, (*path, key))
