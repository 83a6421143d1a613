"""Long texts: what is far beyond a model's context is refused before all of it is tokenized."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vlmkit.errors import VlmkitError

CHARS_PER_TOKEN = 8
"""A text with more characters than this for each token of the context is counted first: prose has
about 4, and runs of spaces up to 100."""
MAX_CUT_TOKENS = 2
"""How many times the context the pieces may have. Cutting a text splits some of its tokens, but
never so many."""
PIECE_CHARS = 65_536


def check_text_length(
    text: str, context_length: int | None, encode: Callable[[str], Sequence[int]]
) -> None:
    """Refuse a text that is far beyond the context.

    Tokenizing takes about 200 bytes and 1.5 µs for each character, so piece after piece is counted
    until it is clear that the text does not fit.

    Args:
        text: of the prompt.
        context_length: tokens; None does not check.
        encode: text to token ids.

    Raises:
        VlmkitError: says how long it is.

    Example:
        >>> check_text_length("a" * 99, 2, list)
        Traceback (most recent call last):
        vlmkit.errors.VlmkitError: prompt: 99 characters, more than 4 tokens, but the model's \
context is 2; shorten the text
    """
    if context_length is None or len(text) <= CHARS_PER_TOKEN * context_length:
        return
    most, count = MAX_CUT_TOKENS * context_length, 0
    for begin in range(0, len(text), PIECE_CHARS):
        count += len(encode(text[begin : begin + PIECE_CHARS]))
        if count > most:
            raise VlmkitError(
                f"prompt: {len(text):,} characters, more than {most:,} tokens, but the model's"
                f" context is {context_length}; shorten the text",
                path=("prompt",),
            )
