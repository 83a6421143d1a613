"""Checks of token ids that every model makes."""

from __future__ import annotations

from vlmkit.contracts.inputs import Inputs
from vlmkit.errors import VlmkitError


def check_token_ids(inputs: Inputs, vocab_size: int) -> None:
    """Refuse an empty prompt, and ids that the embedding does not have."""
    ids = inputs.token_ids
    if len(ids) == 0:
        raise VlmkitError("the prompt is empty; it needs at least one token")
    outside = ids[(ids < 0) | (ids >= vocab_size)]
    if len(outside):
        raise VlmkitError(
            f"token id {int(outside[0])} is outside the vocabulary of {vocab_size}; "
            "tokenizer and model do not belong together"
        )
