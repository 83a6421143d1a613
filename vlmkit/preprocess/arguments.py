"""What callers give as a prompt and as media, checked and in one form each."""

from __future__ import annotations

import array
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import mlx.core as mx
import numpy as np

from vlmkit.errors import VlmkitError

BYTES_LIKE = (bytes, bytearray, memoryview, array.array)


def as_sources(value: Any) -> tuple[Any, ...]:
    """Nothing, one source or a list of sources as a tuple.

    One source is whatever is no list: text, a path, bytes in any form, an image, a stream.

    Example:
        >>> as_sources(None), as_sources(bytearray(b"ab")), as_sources(["a.png", "b.png"])
        ((), (bytearray(b'ab'),), ('a.png', 'b.png'))
    """
    if value is None:
        return ()
    if isinstance(value, Sequence) and not isinstance(value, (str, *BYTES_LIKE)):
        return tuple(value)
    return (value,)


def check_prompt(prompt: object, name: str = "prompt") -> str | tuple[int, ...]:
    """Return a formatted prompt: text as it is, token ids as a tuple.

    Args:
        prompt: text, or token ids in a list, a tuple, or an array of one dimension.
        name: what errors call it.

    Raises:
        VlmkitError: anything else; says what came and what to call.

    Example:
        >>> check_prompt("Hi"), check_prompt([5, 7])
        ('Hi', (5, 7))
    """
    if isinstance(prompt, str):
        return prompt
    if isinstance(prompt, (np.ndarray, mx.array)):
        prompt = prompt.tolist()
    if isinstance(prompt, Mapping):
        raise VlmkitError(f"{name}: a message; {_FORMAT}")
    if isinstance(prompt, (bytes, bytearray, memoryview)):
        raise VlmkitError(f"{name}: {type(prompt).__name__}; give text, as in str(data, 'utf-8')")
    if not isinstance(prompt, Sequence):
        shown = "None" if prompt is None else f"of type {type(prompt).__name__}"
        raise VlmkitError(f"{name}: {shown}; give text, as apply_chat_template returns it")
    kinds = set(map(type, prompt))
    if kinds == {int}:
        return tuple(prompt)
    if any(issubclass(kind, Mapping) for kind in kinds):
        raise VlmkitError(f"{name}: a list of messages; {_FORMAT}")
    if any(issubclass(kind, str) for kind in kinds):
        raise VlmkitError(
            f"{name}: a list of strings; give one string, or several as"
            " batch_generate(model, processor, prompts=[...])"
        )
    return tuple(_token_id(entry, place, name) for place, entry in enumerate(prompt))


_FORMAT = "messages go through apply_chat_template(processor, model.config, messages) first"


def _token_id(value: Any, place: int, name: str) -> int:
    try:
        if isinstance(value, (bool, np.bool_)):
            raise TypeError
        return operator.index(value)
    except (TypeError, ValueError) as error:
        shown = " ".join(repr(value).split())
        shown = shown if len(shown) <= 60 else f"{shown[:60]}…"
        raise VlmkitError(
            f"{name}: {shown} at position {place} is no token id; ids are whole numbers, and text"
            " is a string"
        ) from error
