"""The bytes that each token of a vocabulary stands for in the middle of a text."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from vlmkit.errors import VlmkitError

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_PIECEWISE = frozenset({"Replace", "Metaspace", "ByteFallback", "Fuse", "Strip"})


def token_bytes(
    texts: Sequence[str | None], decoder: Mapping[str, Any] | None
) -> tuple[bytes, ...]:
    """Decode tokens one by one, to bytes: a token may hold part of a character.

    Args:
        texts: the tokens as the vocabulary writes them; None for an id without a token.
        decoder: the ``decoder`` of a tokenizer.json.

    Returns:
        One entry per text; ``b""`` for None.

    Raises:
        VlmkitError: the decoder joins tokens in a way that depends on their neighbours.

    Example:
        >>> token_bytes(["Ġthe", "Ã", None], {"type": "ByteLevel"})
        (b' the', b'\\xc3', b'')
        >>> steps = [
        ...     {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        ...     {"type": "ByteFallback"},
        ... ]
        >>> token_bytes(["▁the", "<0xC3>"], {"type": "Sequence", "decoders": steps})
        (b' the', b'\\xc3')

    Reference:
        Radford et al., "Language Models are Unsupervised Multitask Learners", 2019 (byte-level
        BPE); Kudo and Richardson, "SentencePiece", arXiv 1808.06226 (byte fallback).
    """
    steps = tuple(_steps(decoder))
    kinds = {step["type"] for step in steps}
    if "ByteLevel" in kinds and kinds <= {"ByteLevel", "Fuse"}:
        table = _translation()
        return tuple(_from_alphabet(text or "", table) for text in texts)
    if not kinds or not kinds <= _PIECEWISE:
        names = ", ".join(sorted(kinds)) or "none"
        raise VlmkitError(
            f"grammar: the tokenizer's decoder ({names}) does not give each token bytes of its "
            "own; byte-level and SentencePiece tokenizers do"
        )
    return tuple(_from_piece(text or "", steps, "ByteFallback" in kinds) for text in texts)


def byte_alphabet() -> dict[str, int]:
    """Return the character that byte-level vocabularies write for each byte, and the byte.

    Example:
        >>> byte_alphabet()["Ġ"], byte_alphabet()["a"]
        (32, 97)
    """
    shown = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1)]
    shown += range(ord("®"), ord("ÿ") + 1)
    hidden = [byte for byte in range(256) if byte not in shown]
    moved = {chr(256 + place): byte for place, byte in enumerate(hidden)}
    return {chr(byte): byte for byte in shown} | moved


def _steps(decoder: Mapping[str, Any] | None) -> Iterator[Mapping[str, Any]]:
    if decoder is not None and decoder["type"] == "Sequence":
        for part in decoder["decoders"]:
            yield from _steps(part)
    elif decoder is not None:
        yield decoder


def _translation() -> dict[int, str]:
    """Each character of the alphabet to the Latin-1 character of its byte, others to none of it."""
    alphabet = byte_alphabet()
    others = {byte: "\uffff" for byte in range(256) if chr(byte) not in alphabet}
    return {ord(character): chr(byte) for character, byte in alphabet.items()} | others


def _from_alphabet(text: str, table: Mapping[int, str]) -> bytes:
    try:
        return text.translate(table).encode("latin-1")
    except UnicodeEncodeError:  # an added token, written as it is
        return text.encode()


def _from_piece(text: str, steps: Sequence[Mapping[str, Any]], byte_fallback: bool) -> bytes:
    match = _BYTE.fullmatch(text) if byte_fallback else None
    if match is not None:
        return bytes([int(match[1], 16)])
    for step in steps:
        if step["type"] == "Metaspace":
            text = text.replace(step["replacement"], " ")
        elif step["type"] == "Replace" and "String" in step["pattern"]:
            text = text.replace(step["pattern"]["String"], step["content"])
        elif step["type"] == "Replace":
            literal = step["content"].replace("\\", r"\\")
            text = re.sub(step["pattern"]["Regex"], literal, text)
    return text.encode()
