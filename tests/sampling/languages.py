"""Random regular languages, read by derivatives, and vocabularies to hold to them."""

from __future__ import annotations

import re
from functools import lru_cache
from importlib.resources import files
from typing import Any, NamedTuple

from hypothesis import strategies as st

from vlmkit.contracts.stages import HostReducer
from vlmkit.processors import load_processor
from vlmkit.sampling import Grammar, build_stage
from vlmkit.tokens.vocabulary import Vocabulary

Node = tuple  # ("none",) ("empty",) ("bytes", frozenset) ("cat", a, b) ("or", a, b) ("star", a)
NONE: Node = ("none",)
EMPTY: Node = ("empty",)


class Language(NamedTuple):
    """A regex as text, and as an expression over bytes."""

    regex: str
    node: Node


def cat(first: Node, second: Node) -> Node:
    if NONE in (first, second):
        return NONE
    if first == EMPTY:
        return second
    return first if second == EMPTY else ("cat", first, second)


def either(first: Node, second: Node) -> Node:
    if first in (NONE, second):
        return second
    return first if second == NONE else ("or", first, second)


def has_empty(node: Node) -> bool:
    match node:
        case ("empty",) | ("star", _):
            return True
        case ("cat", first, second):
            return has_empty(first) and has_empty(second)
        case ("or", first, second):
            return has_empty(first) or has_empty(second)
    return False


@lru_cache(maxsize=100_000)
def derive(node: Node, byte: int) -> Node:
    """What may follow a byte; ``NONE`` where no match begins so.

    Reference: Brzozowski, "Derivatives of regular expressions", J. ACM 11(4), 1964.
    """
    match node:
        case ("bytes", members):
            return EMPTY if byte in members else NONE
        case ("cat", first, second):
            after = cat(derive(first, byte), second)
            return either(after, derive(second, byte)) if has_empty(first) else after
        case ("or", first, second):
            return either(derive(first, byte), derive(second, byte))
        case ("star", inner):
            return cat(derive(inner, byte), node)
    return NONE


def follow(node: Node, data: bytes) -> Node:
    for byte in data:
        node = derive(node, byte)
    return node


def literal(text: str) -> Language:
    node = EMPTY
    for byte in reversed(text.encode()):
        node = cat(("bytes", frozenset({byte})), node)
    return Language(re.escape(text).replace("/", r"\/"), node)


def _repeat(inner: Language, low: int, extra: int | None) -> Language:
    node: Node = ("star", inner.node) if extra is None else EMPTY
    for _ in range(extra or 0):
        node = either(EMPTY, cat(inner.node, node))
    for _ in range(low):
        node = cat(inner.node, node)
    high = "" if extra is None else low + extra
    return Language(f"(?:{inner.regex}){{{low},{high}}}", node)


LITERALS = ("a", "b", "ab", "1", "é", "日", "日本", "\n", " ", "/", '"', ".", "the object")
_leaf = st.sampled_from(LITERALS).map(literal) | st.sampled_from(
    [
        Language("[ab]", ("bytes", frozenset(b"ab"))),
        Language(r"\d", ("bytes", frozenset(range(48, 58)))),
    ]
)


def _grow(inner: st.SearchStrategy[Language]) -> st.SearchStrategy[Language]:
    pairs = st.tuples(inner, inner)
    return (
        pairs.map(lambda p: Language(p[0].regex + p[1].regex, cat(p[0].node, p[1].node)))
        | pairs.map(
            lambda p: Language(f"(?:{p[0].regex}|{p[1].regex})", either(p[0].node, p[1].node))
        )
        | st.builds(_repeat, inner, st.integers(0, 2), st.none() | st.integers(0, 2))
    )


languages = st.recursive(_leaf, _grow, max_leaves=6)


def _pieces(*texts: str) -> list[bytes]:
    """Characters of more than one byte, cut in all ways."""
    cuts = []
    for text in texts:
        data = text.encode()
        cuts += [data[i:j] for i in range(len(data)) for j in range(i + 2, len(data) + 1)]
    return cuts


EOS = 0
TOKENS = (
    b"<end>",
    *(bytes([byte]) for byte in range(256)),
    *dict.fromkeys(_pieces("é", "日本", "ab1", ' "', "aé")),
    b"the",
    b" object",
    b"",
)


def spell(text: str) -> list[int]:
    """Encode byte by byte."""
    return [1 + byte for byte in text.encode()]


BYTES = Vocabulary(
    read_tokens=lambda: TOKENS,
    num_ids=len(TOKENS) + 3,
    special_ids=frozenset({EOS}),
    eos_ids=frozenset({EOS}),
    encode=spell,
)
"""Every byte, some longer tokens that cut characters, an id without text, three ids of padding."""


def brute_force(node: Node, vocabulary: Vocabulary) -> list[bool]:
    """For each id: can the text so far, and this token, still become a match?"""
    return [
        has_empty(node)
        if token_id in vocabulary.eos_ids
        else bool(token) and token_id not in vocabulary.special_ids and follow(node, token) != NONE
        for token_id, token in enumerate(vocabulary.tokens)
    ]


SHAPES = load_processor(str(files("vlmkit") / "assets" / "shapes")).vocabulary
"""The embedded model's: byte-level, with thinking markers."""
START, END, SHAPES_EOS = 633, 634, 627


def host_of(vocabulary: Vocabulary = SHAPES, **config: Any) -> HostReducer:
    host = build_stage(Grammar(**config), vocabulary=vocabulary).host
    assert host is not None
    return host
