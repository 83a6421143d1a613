"""Mistakes that only the model or a file can show, with the place of the value that made them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vlmkit.config.tree import DEFAULT, Node, format_path
from vlmkit.config.validate import error_at, nearest_origin
from vlmkit.errors import KeyPath, RanksError, VlmkitError


@contextmanager
def located(tree: Node, otherwise: KeyPath = ()) -> Iterator[None]:
    """Put file, line and key in front of an error that says which key it is about.

    Args:
        tree: what was written, and where.
        otherwise: the key of every other error; none by default.

    Example:
        >>> from vlmkit.config.document import parse_yaml
        >>> tree = parse_yaml("seed: 1\\ncontrast: {kind: dola}", "run.yaml")
        >>> with located(tree):
        ...     raise VlmkitError("dola: there is no layer 99", path=("contrast",))
        Traceback (most recent call last):
        vlmkit.errors.VlmkitError: run.yaml:2: contrast: dola: there is no layer 99
    """
    try:
        yield
    except RanksError:
        raise  # of all ranks, or of another's config
    except VlmkitError as error:
        path = error.path or otherwise
        if not path or nearest_origin(tree, path) == DEFAULT:
            raise
        message, key = str(error), format_path(path)
        shown = message if message.startswith(f"{key}:") else f"{key}: {message}"
        raise error_at(tree, path, shown) from error
