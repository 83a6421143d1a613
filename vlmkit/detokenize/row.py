"""The text of one row: decoded as tokens arrive, held back while it may become a stop."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from vlmkit.detokenize.tokens import DetokenizerState, finish, init, push


class TextDecoder(NamedTuple):
    """How token ids become text."""

    decode: Callable[[Sequence[int]], str]  # special tokens included
    special_ids: frozenset[int]
    skip_special_tokens: bool


class TextState(NamedTuple):
    """All text of a row so far, and how much of it was given out."""

    detokenizer: DetokenizerState
    full: str  # special tokens included
    hidden: tuple[tuple[int, int], ...]  # [start, end) spans of ``full`` that are not shown
    num_released: int  # characters of ``full`` given out or hidden


def init_text() -> TextState:
    """The state before the first token."""
    return TextState(init(), "", (), 0)


def push_token(decoder: TextDecoder, state: TextState, token_id: int) -> TextState:
    """Add a token; what it decodes to may wait for the rest of a character."""
    detokenizer, segment = push(state.detokenizer, token_id, decoder.decode)
    full = state.full + segment
    hidden = state.hidden
    if decoder.skip_special_tokens and token_id in decoder.special_ids:
        special = decoder.decode([token_id])
        if special and segment.endswith(special):
            hidden += ((len(full) - len(special), len(full)),)
    return state._replace(detokenizer=detokenizer, full=full, hidden=hidden)


def flush_text(decoder: TextDecoder, state: TextState) -> TextState:
    """Add what was waiting for more bytes: the row has ended."""
    return state._replace(full=state.full + finish(state.detokenizer, decoder.decode))


def release_text(state: TextState, end: int | None) -> tuple[TextState, str]:
    """Give out the text up to character ``end`` (``None``: all) that was not given out before."""
    stop = len(state.full) if end is None else min(end, len(state.full))
    start = state.num_released
    if stop <= start:
        return state, ""
    pieces, cursor = [], start
    for left, right in state.hidden:
        if right <= start or left >= stop:
            continue
        pieces.append(state.full[cursor : max(left, cursor)])
        cursor = max(cursor, right)
    pieces.append(state.full[cursor:stop])
    pending = tuple(span for span in state.hidden if span[1] > stop)
    return state._replace(num_released=stop, hidden=pending), "".join(pieces)
