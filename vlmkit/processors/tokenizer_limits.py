"""What a tokenizer may do to a text: how much longer it may make it, in how many steps.

The tokenizers library does whatever tokenizer.json says: five replacements of one character by 200
make 300 gigabytes of one character, and a broken table ends the whole process.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from vlmkit.errors import VlmkitError, brief

PARTS = ("normalizer", "pre_tokenizer", "post_processor", "decoder")
MAX_STEPS = 64
"""Of one part; the longest known have ten."""
MAX_VALUES = 10_000
"""In one part, such as the tokens that a post-processor puts around a text."""
MAX_ADDED_CHARS = 1_000
"""That are put before or between the pieces of a text, however short it is."""
MAX_GROWTH = 4_000.0
"""How many characters may become of one: normal forms make up to 18 of one, and some tokenizers
have two of them and change cases too (1,944)."""
MAX_NORMALIZED_CHARS = 20_000_000
"""Of a text after its normalization."""
MAX_DECODED_GROWTH = 100.0
"""How many characters a decoder may make of one of a token."""
MAX_IDS = 2**24
"""Ids are below this: what is made for every id, tokens or not, takes 1 GB."""
MAX_TOKEN_CHARS = 10_000
"""Of one token of the vocabulary: each costs as much text as it has."""
_FIXED = {  # the longest result of one character
    "NFC": 3.0,
    "NFD": 4.0,
    "NFKC": 18.0,
    "NFKD": 18.0,
    "Lowercase": 3.0,
    "BertNormalizer": 9.0,
    "ByteLevel": 4.0,
    "Metaspace": 2.0,
}
_SETTLED = ("NFC", "NFD", "NFKC", "NFKD", "Lowercase")  # a second time they change nothing


def check_parts(parts: Mapping[str, Any], place: str) -> float:
    """Refuse a tokenizer whose parts do more to a text than they may.

    Args:
        parts: those of tokenizer.json, by name; None or absent where there is none.
        place: what errors call the file.

    Returns:
        How many characters may become of one while a text is encoded.

    Raises:
        VlmkitError: says which part, and what it does.

    Example:
        >>> step = {"type": "Replace", "pattern": {"String": "a"}, "content": "a" * 200}
        >>> steps = {"type": "Sequence", "normalizers": [step] * 5}
        >>> check_parts({"normalizer": steps}, "tokenizer.json")
        Traceback (most recent call last):
        vlmkit.errors.VlmkitError: tokenizer.json: normalizer: it may make 320,000,000,000 \
characters of one, and 4,000 are allowed; take the one of the original checkpoint
    """
    for name in PARTS:
        _check_number(parts.get(name), MAX_VALUES, "values", f"{place}: {name}")
    normalizers = list(_steps(parts.get("normalizer"), "normalizers"))
    pieces = list(_steps(parts.get("pre_tokenizer"), "pretokenizers"))
    decoders = list(_steps(parts.get("decoder"), "decoders"))
    grown = _growth(normalizers, MAX_GROWTH, f"{place}: normalizer")
    split = _growth(pieces, MAX_GROWTH, f"{place}: pre_tokenizer")
    _growth(decoders, MAX_DECODED_GROWTH, f"{place}: decoder")
    return grown * split


def check_vocab(vocab: Any, place: str) -> None:
    """Refuse a vocabulary with an id or a token that is too large.

    Args:
        vocab: ids by token, or a list of tokens with their scores; else it is left to the library.
        place: what errors call the file.

    Raises:
        VlmkitError: says which token.

    Example:
        >>> check_vocab({"a": 2**32 - 1}, "tokenizer.json")
        Traceback (most recent call last):
        vlmkit.errors.VlmkitError: tokenizer.json: the token 'a' has the id 4,294,967,295, and ids \
are below 16,777,216; take the one of the original checkpoint
    """
    longest = 0
    if isinstance(vocab, Mapping):
        try:
            last = max(vocab.values(), default=0)
        except TypeError:  # the library refuses what is no id
            last = 0
        if isinstance(last, int | float) and last >= MAX_IDS:
            token = next(token for token, index in vocab.items() if index == last)
            raise VlmkitError(
                f"{place}: the token {brief(token)} has the id {last:,}, and ids are below"
                f" {MAX_IDS:,}; {OTHER}"
            )
        longest = max(map(len, vocab), default=0)
    elif isinstance(vocab, list):
        tokens = (entry[0] for entry in vocab if isinstance(entry, list) and entry)
        longest = max(map(_length, tokens), default=0)
    check_token_length(longest, place)


def check_token_length(longest: int, place: str) -> None:
    """Refuse a vocabulary by the characters of its longest token.

    Raises:
        VlmkitError: it is too long.
    """
    if longest > MAX_TOKEN_CHARS:
        raise _refused(place, f"it has a token of {longest:,} characters", MAX_TOKEN_CHARS)


def _steps(part: Any, key: str) -> Iterator[Mapping[str, Any]]:
    waiting = [part]
    while waiting:
        step = waiting.pop()
        if isinstance(step, Mapping) and step.get("type") == "Sequence":
            inner = step.get(key)
            waiting += reversed(inner) if isinstance(inner, list) else []
        elif isinstance(step, Mapping):
            yield step


def _growth(steps: list[Mapping[str, Any]], most: float, place: str) -> float:
    if len(steps) > MAX_STEPS:
        raise _refused(place, f"it has {len(steps):,} steps", MAX_STEPS)
    factor, added, settled = 1.0, 0.0, set[str]()
    for step in steps:
        kind = str(step.get("type"))
        longer, more = _effect(step, kind, place)
        if kind not in _SETTLED:
            settled.clear()
        elif kind in settled:
            longer = 1.0
        settled.add(kind)
        factor, added = factor * longer, added * longer + more
    if factor > most:
        raise _refused(place, f"it may make {factor:,.0f} characters of one", int(most))
    if added > MAX_ADDED_CHARS:
        raise _refused(place, f"it adds {added:,.0f} characters to every text", MAX_ADDED_CHARS)
    return factor


def _effect(step: Mapping[str, Any], kind: str, place: str) -> tuple[float, float]:
    """How many characters one may become, and how many are added to every text."""
    if kind == "Prepend":
        return 1.0, float(_length(step.get("prepend")))
    if kind == "Replace":
        content, pattern = _length(step.get("content")), step.get("pattern")
        given = pattern.get("String") if isinstance(pattern, Mapping) else None
        if given:
            return max(1.0, content / _length(given)), 0.0
        return 1.0 + content, float(content)  # it may match between two characters
    if kind == "Precompiled":
        return _longest_piece(step.get("precompiled_charsmap"), place), 0.0
    return _FIXED.get(kind, 1.0), 0.0


def _longest_piece(table: Any, place: str) -> float:
    """Characters of the longest replacement in a table that is written in base64."""
    try:
        data = base64.b64decode(table if isinstance(table, str) else b"", validate=True)
    except ValueError:
        data = b""
    return _longest_replacement(data, place)


def _longest_replacement(data: bytes, place: str) -> float:
    """Characters of the longest replacement in SentencePiece's table of characters.

    Reference: https://github.com/google/sentencepiece, src/normalizer.cc, DecodePrecompiledCharsMap
    """
    size, unit = int.from_bytes(data[:4], "little"), 4
    if len(data) < unit or size % unit or not unit <= size <= len(data) - unit:
        raise VlmkitError(f"{place}: its precompiled_charsmap is broken; {OTHER}")
    pieces = data[unit + size :].split(b"\0")
    return float(max(1, *(len(piece.decode(errors="replace")) for piece in pieces)))


def check_charsmap(data: bytes, place: str) -> None:
    """Refuse a table of characters that is broken, or makes too much of one.

    Raises:
        VlmkitError: says which.
    """
    if (most := _longest_replacement(data, place)) > MAX_GROWTH:
        raise _refused(place, f"it may make {most:,.0f} characters of one", int(MAX_GROWTH))


def _check_number(part: Any, most: int, what: str, place: str) -> None:
    waiting, number = [part], 0
    while waiting:
        value = waiting.pop()
        inner: Iterable[Any] = ()
        if isinstance(value, list | Mapping):
            inner = value.values() if isinstance(value, Mapping) else value
            number += len(value)
        if number > most:
            raise _refused(place, f"it has {number:,} {what} or more", most)
        waiting += inner


def _length(text: Any) -> int:
    return len(text) if isinstance(text, str) else 0


OTHER = "take the one of the original checkpoint"


def _refused(place: str, what: str, most: int) -> VlmkitError:
    return VlmkitError(f"{place}: {what}, and {most:,} are allowed; {OTHER}")


def check_normalized(text: str, growth: float, normalize: Any, place: str) -> None:
    """Refuse a text that would become too long; it is looked at in pieces.

    Args:
        text: to be encoded.
        growth: how many characters may become of one; see :func:`check_parts`.
        normalize: what the normalizer makes of a text.
        place: what errors call the file.

    Raises:
        VlmkitError: its normal form has more than ``MAX_NORMALIZED_CHARS``.

    Example:
        >>> check_normalized("ab", 18.0, str.upper, "tokenizer.json")
    """
    if len(text) * growth <= MAX_NORMALIZED_CHARS:
        return
    length, step = 0, max(1, math.floor(MAX_NORMALIZED_CHARS / 10 / growth))
    for begin in range(0, len(text), step):
        length += len(normalize(text[begin : begin + step]))
        if length > MAX_NORMALIZED_CHARS:
            raise VlmkitError(
                f"{place}: its normalizer makes more than {MAX_NORMALIZED_CHARS:,} characters of a"
                f" text of {len(text):,}; {OTHER}, or shorten the text"
            )
