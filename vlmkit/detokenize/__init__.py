"""Token ids to text as they arrive: whole characters, and what of them may be shown."""

from vlmkit.detokenize.row import (
    TextDecoder,
    TextState,
    flush_text,
    init_text,
    push_token,
    release_text,
)
from vlmkit.detokenize.tokens import DetokenizerState, finish, init, push

__all__ = [
    "DetokenizerState",
    "TextDecoder",
    "TextState",
    "finish",
    "flush_text",
    "init",
    "init_text",
    "push",
    "push_token",
    "release_text",
]
