"""Text that looks like a special token and is none: marked in a prompt, encoded as plain text.

A mark (``MARK``) inside what would be a token says that it is text; encoding takes the marks out.
It is a noncharacter of Unicode, so no text has a use for it, and it stays in a prompt that is cut,
joined or stored.

Reference: The Unicode Standard 16.0, section 23.7, "Noncharacters".
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

from vlmkit.errors import VlmkitError
from vlmkit.processors.tokenizer_time import Encode, encode_known

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

MARK = "\ufdd0"
_GUARD = "\ufdd1"  # begins the names of tokens in a tokenizer that knows no other


def mark_literal(text: str, tokens: Iterable[str], *, joined: bool = False) -> str:
    """Mark a text so that none of these tokens is read from it.

    Args:
        text: what a user wrote.
        tokens: of two characters or more; shorter ones are left alone.
        joined: more text follows, which might complete a token that begins here.

    Example:
        >>> mark_literal("what is <s>?", ["<s>"]).replace(MARK, "·")
        'what is <·s>?'
        >>> mark_literal("<", ["<s>"], joined=True).replace(MARK, "·")
        '<·'
    """
    names = sorted({token for token in tokens if len(token) > 1})
    if not names:
        return text
    # Looking ahead finds tokens that overlap, too.
    ends = [match.start() + 1 for match in _ahead(tuple(names)).finditer(text)]
    pieces = zip([0, *ends], [*ends, len(text)], strict=True)
    text = MARK.join(text[begin:end] for begin, end in pieces)
    may_grow = joined and any(
        text.endswith(name[:length]) for name in names for length in range(1, len(name))
    )
    return text + MARK if may_grow else text


def is_marker(token: str) -> bool:
    """Whether an added token that a template writes has a meaning: no word and no empty space."""
    return bool(token.strip()) and not token.strip().isalnum()


def unmark(text: str) -> str:
    """Take the marks out, to show a prompt.

    Example:
        >>> unmark(mark_literal("what is <s>?", ["<s>"]))
        'what is <s>?'
    """
    return text.replace(MARK, "")


def literal_encoder(
    backend: Backend, encode_text: Encode = encode_known
) -> Callable[[str], list[int]]:
    """A function from a marked text to its ids, equal to the backend's where no token is marked.

    The function raises VlmkitError where the vocabulary would give plain text a token's id.
    """
    added = {
        token.content: index
        for index, token in backend.get_added_tokens_decoder().items()
        if not token.single_word  # whether such a one is read depends on its neighbours
    }

    @lru_cache(maxsize=1)  # most runs never need it, and a large vocabulary takes a second
    def guarded() -> Backend:
        return _with_guards(backend, added)

    def encode(text: str) -> list[int]:
        real: list[int] = []

        def guard(match: re.Match[str]) -> str:
            real.append(added[match[0]])
            return _GUARD + match[0]

        pattern = _one_of(tuple(sorted(added)))
        text = text.replace(_GUARD, "")
        guarded_text = unmark(pattern.sub(guard, text)) if added else unmark(text)
        encoding = encode_text(guarded(), guarded_text, False)
        is_real = [_GUARD in token for token in encoding.tokens]
        ids, remaining = list(encoding.ids), iter(real)
        plain = {index for index, real_one in zip(ids, is_real, strict=True) if not real_one}
        literal = {match[0] for match in pattern.finditer(unmark(text))} if added else set()
        for token in literal:
            if added[token] in plain:
                raise _no_text(token)
        assert sum(is_real) == len(real)
        return [next(remaining) if one else index for one, index in zip(is_real, ids, strict=True)]

    return encode


def refuse_literal(text: str) -> list[int]:
    """Refuse a marked text, for tokenizers that always read their tokens."""
    place = text.index(MARK)
    raise _no_text(unmark(text[max(place - 1, 0) : place + 20]).split()[0])


def _no_text(token: str) -> VlmkitError:
    return VlmkitError(
        f"prompt: {token!r} in a message is a special token, and this tokenizer cannot read it as"
        " text; write it in another way, for instance with a space inside",
        path=("prompt",),
    )


def _with_guards(backend: Backend, added: Mapping[str, int]) -> Backend:
    from tokenizers import Tokenizer as Backend

    state = json.loads(backend.to_str())
    for entry in state["added_tokens"]:
        if entry["content"] in added:
            entry["content"] = _GUARD + entry["content"]
    state["post_processor"] = None  # it names tokens, and only adds some
    return Backend.from_str(json.dumps(state))


@lru_cache(maxsize=8)
def _one_of(names: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(re.escape(name) for name in sorted(names, key=len, reverse=True)))


@lru_cache(maxsize=8)
def _ahead(names: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(f"(?={_one_of(names).pattern})")
