"""How many rows fit side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlmkit.backend.memory import available_bytes

MAX_ROWS = 64
"""More rows side by side bring little on any one device."""

_SHARE = 0.4  # of the memory at hand; joining and moving rows takes a second copy for a moment
_NUMBER_BYTES = 4  # float32, what a CPU keeps; a GPU keeps half
_LOGITS_COPIES = 8  # of a row's distribution, through a chain
_GUESS = 16  # rows, where a config does not say how large they are


def rows_in_flight(config: Mapping[str, Any], *, tokens: int, available: int | None = None) -> int:
    """Return how many rows fit into the memory at hand, 64 at most.

    Args:
        config: of a checkpoint, as its config.json says it.
        tokens: of the longest row, prompt and response.
        available: bytes; None: asked of the system.

    Example:
        >>> text = {"num_hidden_layers": 28, "num_key_value_heads": 2, "hidden_size": 1536,
        ...         "num_attention_heads": 12, "vocab_size": 151936}
        >>> rows_in_flight(text, tokens=2000, available=4 << 30)
        14
    """
    row = row_bytes(config, tokens=tokens)
    room = available_bytes() if available is None else available
    if row is None or room is None:
        return _GUESS
    return max(1, min(MAX_ROWS, int(_SHARE * room) // row))


def row_bytes(config: Mapping[str, Any], *, tokens: int) -> int | None:
    """Return the memory of one row, its KV cache and its logits; None where config lacks sizes."""
    text = config.get("text_config") or config.get("llm_config") or config
    try:
        heads = int(text["num_attention_heads"])
        head_dim = int(text.get("head_dim") or int(text["hidden_size"]) // heads)
        width = int(text.get("num_key_value_heads") or heads) * head_dim
        layers, vocabulary = int(text["num_hidden_layers"]), int(text["vocab_size"])
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return None
    numbers = 2 * layers * width * tokens + _LOGITS_COPIES * vocabulary
    return _NUMBER_BYTES * numbers
