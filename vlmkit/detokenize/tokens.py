"""Token ids to text, one token at a time: characters never split, any tokenizer.

Example:
    >>> pieces = {1: b"caf", 2: b"\\xc3", 3: b"\\xa9"}
    >>> def decode(ids):
    ...     return b"".join(pieces[i] for i in ids).decode(errors="replace")
    >>> state = init()
    >>> segments = []
    >>> for token_id in (1, 2, 3):
    ...     state, segment = push(state, token_id, decode)
    ...     segments.append(segment)
    >>> segments, finish(state, decode)
    (['caf', '', 'é'], '')
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

Decode = Callable[[Sequence[int]], str]
"""Token ids to text. Special tokens are left out here or not at all; no clean-up of spaces."""

_REPLACEMENT = "\ufffd"
_MAX_HELD = 8  # characters that stay back when the window is full
_MAX_BYTE_TOKENS = 4  # tokens: no character has more bytes
_MAX_WINDOW = 48  # tokens
_KEPT = 24  # tokens of a full window that are kept: the held characters lie in them


class DetokenizerState(NamedTuple):
    """The last few tokens: enough to decode the next one in its context."""

    ids: tuple[int, ...]
    mark: int  # ids[:mark] are context: their text was given out in full
    text: str  # decode(ids)
    done: str  # what of `text` was given out


def init() -> DetokenizerState:
    """Return the state before the first token."""
    return DetokenizerState((), 0, "", "")


def push(state: DetokenizerState, token_id: int, decode: Decode) -> tuple[DetokenizerState, str]:
    """Add one token and return the text that is certain by now.

    The token is decoded behind those before it, since tokenizers write spaces by context. Trailing
    replacement characters are held back, as the next token may complete them. All segments and the
    tail of :func:`finish` together equal ``decode`` of all tokens. The cost per token does not
    grow with the text.

    Args:
        state: the tokens before.
        token_id: the new one. One that decodes to nothing adds nothing.
        decode: the tokenizer's function, the same in every call.

    Reference:
        The prefix-offset method of text-generation-inference (``decode_token``) and vLLM
        (``detokenize_incrementally``).
    """
    ids = (*state.ids, token_id)
    text = decode(ids)
    if text == state.text and (text or len(ids) > _MAX_WINDOW) and not decode((token_id,)):
        return state, ""
    if not text.startswith(state.done):
        # text changed that is out, as it does with byte tokens until their character is whole
        if len(ids) - state.mark < _MAX_BYTE_TOKENS:
            return state._replace(ids=ids, text=text), ""
        ids = ids[state.mark :]
        state, text = init(), decode(ids)
    done = text[: len(text) - _count_held(text, len(ids))]
    segment = done[len(state.done) :]
    if segment and done == text:
        context = ids[state.mark :]
        text = decode(context)
        return DetokenizerState(context, len(context), text, text), segment
    done = state.done + segment
    return _shorten(DetokenizerState(ids, state.mark, text, done), decode), segment


def finish(state: DetokenizerState, decode: Decode) -> str:
    """Return the text still held back, once no token follows."""
    if state.text.startswith(state.done):
        return state.text[len(state.done) :]
    return decode(state.ids[state.mark :])


def _count_held(text: str, num_ids: int) -> int:
    held = len(text) - len(text.rstrip(_REPLACEMENT))
    return held if num_ids <= _MAX_WINDOW else min(held, _MAX_HELD)


def _shorten(state: DetokenizerState, decode: Decode) -> DetokenizerState:
    """Bound the window where no token ended a character for long, as in a row of stray bytes."""
    if len(state.ids) <= _MAX_WINDOW:
        return state
    ids = state.ids[-_KEPT:]
    text = decode(ids)
    num_held = len(state.text) - len(state.done)
    return DetokenizerState(ids, 0, text, text[: max(len(text) - num_held, 0)])
