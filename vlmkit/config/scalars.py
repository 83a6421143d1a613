"""Single values of a YAML file, where YAML 1.1 reads something else than people mean."""

from __future__ import annotations

from typing import Any

import yaml

from vlmkit.checkpoints.checkpoint_json import is_utf8
from vlmkit.config.budget import MAX_NUMBER_CHARACTERS
from vlmkit.errors import VlmkitError
from vlmkit.printable import shorten

_TAG = "tag:yaml.org,2002:"


def read_scalar(loader: yaml.SafeLoader, node: yaml.ScalarNode, where: str) -> Any:
    """Make a value of a scalar node; dates stay text, since no key takes a date.

    Args:
        loader: knows YAML's rules.
        node: the scalar, with its tag.
        where: what an error begins with: place and key.

    Raises:
        VlmkitError: a number that YAML 1.1 counts in base 8 or 60, so that ``010`` would be 8 and
            ``1:30`` would be 90; a text that is not what its tag says, or too long for a number.

    Example:
        >>> loader = yaml.SafeLoader("[1_000, 0x10, 2024-01-01]")
        >>> [read_scalar(loader, item, "") for item in loader.get_single_node().value]
        [1000, 16, '2024-01-01']
    """
    kind, text = node.tag.removeprefix(_TAG), node.value
    if kind == "timestamp":
        return text
    if not is_utf8(text):
        raise VlmkitError(f"{where}{_cut(text)!r} holds half of a surrogate pair, no character")
    if kind in ("int", "float") and len(text) > MAX_NUMBER_CHARACTERS:
        raise VlmkitError(
            f"{where}{_cut(text)!r} is too long for a number: {len(text):,} characters, at most "
            f"{MAX_NUMBER_CHARACTERS}"
        )
    try:
        value = loader.construct_object(node)
    except (ValueError, OverflowError, LookupError, AttributeError, RecursionError):
        name = {"int": "whole number", "float": "number", "bool": "boolean"}.get(kind, kind)
        raise VlmkitError(f"{where}{_cut(text)!r} is no {name}") from None
    if kind in ("int", "float") and ":" in text:
        raise VlmkitError(
            f"{where}YAML 1.1 counts {_cut(text)} in base 60, as {value}; write {value} if that is "
            f"meant, or '{_cut(text)}' in quotes for text"
        )
    digits = text.replace("_", "").lstrip("+-")
    if kind == "int" and digits.isdecimal() and abs(value) != int(digits):
        meant = f"{'-' if text.startswith('-') else ''}{int(digits)}"
        raise VlmkitError(
            f"{where}YAML 1.1 counts {_cut(text)} in base 8, as {value}; write {meant} or {value}, "
            f"or '{_cut(text)}' in quotes for text"
        )
    return value


def _cut(text: str) -> str:
    return shorten(text, 40)
