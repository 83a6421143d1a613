"""Tokens as configs write them: an id, the text of one token, or ``eos``.

One rule for every config. What is text becomes ids once a model's tokenizer is there, see
:mod:`vlmkit.tokens.lookup`; ids outside the vocabulary are refused there and by every stage.
"""

from __future__ import annotations

import numbers
from collections.abc import Iterable, Sized
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, Field, WithJsonSchema

from vlmkit.declare.configbase import Float
from vlmkit.errors import VlmkitError, brief

MAX_ID = 2**31 - 1
_MAX_DIGITS = 20  # Python reads numbers of many digits slowly, or not at all
MAX_ENTRIES = 300_000
"""Of a list or mapping of tokens; more than the largest vocabularies have (262,144)."""
MAX_SEQUENCE = 1024
"""Tokens of one sequence, which is looked for at every token that is drawn."""
MAX_STOPS = 1024
"""Stop strings and sequences of a row, each of which is looked for at every token that is drawn."""
MAX_STOP_CHARS = 4096
"""Of one stop string: so much text may be held back, and is searched again at every token. Also of
the text of one token."""
StopText = Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARS)]
"""A text that is looked for in what a model writes."""
StopTexts = Annotated[tuple[StopText, ...], Field(max_length=MAX_STOPS)]
EOS = "eos"
"""What stands for the model's own end-of-sequence tokens, as many as there are."""


def _token(value: Any) -> Any:
    if isinstance(value, str) and value:
        if len(value) > MAX_STOP_CHARS:
            raise ValueError(f"may have at most {MAX_STOP_CHARS:,} characters, got {len(value):,}")
        return value
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        # YAML reads `no`, `off` and `1.0` as something else than text.
        hint = "; in YAML, put text in quotes" if isinstance(value, bool | float) else ""
        raise ValueError(
            f"must be a token id, the text of one token or eos, got {brief(value)}{hint}"
        )
    token_id = int(value)
    if token_id < 0:
        raise ValueError(f"must be at least 0, got {brief(token_id)}")
    if token_id > MAX_ID:
        raise ValueError(f"must be at most {MAX_ID}, got {brief(token_id)}")
    return token_id


def _token_key(value: Any) -> Any:
    # JSON and overrides know no other keys than text
    is_number = isinstance(value, str) and value.isascii() and value.removeprefix("-").isdecimal()
    if is_number and len(value) > _MAX_DIGITS:
        raise ValueError(f"must be at most {MAX_ID}, got {brief(value)}")
    return _token(int(value) if is_number else value)


def _parts(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


def _count(value: Any) -> Any:
    if isinstance(value, Sized) and not isinstance(value, str) and len(value) > MAX_ENTRIES:
        raise ValueError(f"may have at most {MAX_ENTRIES:,} entries, got {len(value):,}")
    return value


check_count = BeforeValidator(_count)
"""Refuses more than ``MAX_ENTRIES`` before any of them is looked at."""


class Holds(NamedTuple):
    """Marks a config's field as one that holds tokens, and says in what form."""

    form: Literal["ids", "keys", "sequences"]


_ID = {"type": "integer", "minimum": 0}
_TEXT = {"type": "string", "minLength": 1, "maxLength": MAX_STOP_CHARS}
_TOKEN = {"anyOf": [_ID, _TEXT]}
TokenId = Annotated[int | str, BeforeValidator(_token), WithJsonSchema(_TOKEN)]
"""An id, the text of one token, or ``eos``."""

TokenKey = Annotated[int | str, BeforeValidator(_token_key), WithJsonSchema({"type": "string"})]
"""The same as a key of a mapping, where digits only are an id."""

_TokenSequence = Annotated[
    tuple[TokenId, ...],
    Field(min_length=1, max_length=MAX_SEQUENCE),
    BeforeValidator(_parts),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "array", "items": _TOKEN, "minItems": 1, "maxItems": MAX_SEQUENCE},
                _TEXT,
            ]
        }
    ),
]

TokenIds = Annotated[tuple[TokenId, ...], check_count, Holds("ids")]
"""A field of tokens, each written as in :data:`TokenId`."""

TokenBiases = Annotated[dict[TokenKey, Float], check_count, Holds("keys")]
"""A field of numbers by token, each written as in :data:`TokenKey`."""

TokenSequences = Annotated[
    tuple[_TokenSequence, ...], Field(max_length=MAX_STOPS), Holds("sequences")
]
"""A field of token sequences: text of any length, or a list of ids and texts in a row."""


def ids_of(kind: str, tokens: Iterable[int | str]) -> tuple[int, ...]:
    """Return tokens that are ids already, as every stage needs them.

    Raises:
        VlmkitError: text, which only a tokenizer can turn into ids.

    Example:
        >>> ids_of("dry", (198, 13))
        (198, 13)
    """
    ids: list[int] = []
    for token in tokens:
        if isinstance(token, str):
            raise VlmkitError(
                f"{kind}: {token!r} is text, and there is no tokenizer here: give the id, or put "
                "the config through vlmkit.tokens.lookup.resolve_tokens first"
            )
        ids.append(token)
    return tuple(ids)


def check_ids(kind: str, token_ids: Iterable[int | str], num_ids: int) -> None:
    """Refuse ids outside ``0 .. num_ids - 1``.

    Raises:
        VlmkitError: names them.

    Example:
        >>> check_ids("dry", (7, 99), 64)
        Traceback (most recent call last):
        ...
        vlmkit.errors.VlmkitError: dry: token id 99 is not in the vocabulary; ids go from 0 to 63
    """
    if wrong := [i for i in token_ids if isinstance(i, int) and not 0 <= i < num_ids]:
        raise VlmkitError(
            f"{kind}: token id {', '.join(map(str, wrong[:5]))} is not in the vocabulary; "
            f"ids go from 0 to {num_ids - 1}"
        )
