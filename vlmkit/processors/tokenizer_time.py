"""How long a tokenizer may take: regular expressions that are not known run against the clock.

The tokenizers library ends one that backtracks after ten million steps, and begins anew at the next
character. It lets nobody interrupt it, so it runs in a thread that is left behind when it is late.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

from vlmkit.errors import VlmkitError

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

MAX_SECONDS = 10.0
"""For one text: six million characters at the speed of usual tokenizers."""

_Result = TypeVar("_Result")
_CONTRACTIONS = r"'s|'t|'re|'ve|'m|'ll|'d"
_END = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_WORDS = r"|[^\r\n\p{L}\p{N}]?\p{L}+|"
_MARKS = r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_KNOWN = frozenset(
    (
        rf"{_CONTRACTIONS}| ?\p{{L}}+| ?\p{{N}}+| ?[^\s\p{{L}}\p{{N}}]+|\s+(?!\S)|\s+",  # GPT-2
        rf"(?i:{_CONTRACTIONS}){_WORDS}\p{{N}}{_END}",  # Qwen2
        rf"(?i:{_CONTRACTIONS}){_WORDS}\p{{N}}{{1,3}}{_END}",  # Llama 3
        rf"(?i:{_CONTRACTIONS})|[^\r\n\p{{L}}\p{{N}}]?[\p{{L}}\p{{M}}]+|\p{{N}}{_MARKS}",  # Qwen3.5
        rf"{_CONTRACTIONS}|[\p{{L}}]+|[\p{{N}}]|[^\s\p{{L}}\p{{N}}]+",  # CLIP
        r"\s+",
        " {2,}",
        " ",
        r"\d",
        r"[^\r\n]+",
        r" ?[a-d][1-4](?![\p{L}\p{N}])| \p{N}{1,2}(?!\p{N})"  # of the embedded checkpoint
        rf"{_WORDS}\p{{N}}{_END}",
    )
)
"""Those of widely used tokenizers, which take time in proportion to a text."""


def is_known(part: Any) -> bool:
    """Tell whether all regular expressions of a tokenizer's part are known to be quick.

    Args:
        part: of tokenizer.json, as ``pre_tokenizer``; None where there is none.

    Example:
        >>> is_known({"type": "Split", "pattern": {"Regex": " {2,}"}})
        True
        >>> is_known({"pretokenizers": [{"type": "Split", "pattern": {"Regex": "(x+x+)+y"}}]})
        False
    """
    return all(regex in _KNOWN for regex in _regexes(part))


def _regexes(part: Any) -> Iterator[Any]:
    waiting = [part]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Mapping):
            if "Regex" in value:
                yield value["Regex"]
            waiting += value.values()
        elif isinstance(value, list):
            waiting += value


def in_time(call: Callable[[], _Result], place: str) -> _Result:
    """Return what a call of the library returns, which lets other threads run meanwhile.

    Args:
        call: made in a thread of its own.
        place: what errors call the tokenizer's file.

    Raises:
        VlmkitError: it is not done after `MAX_SECONDS`; its thread goes on.

    Example:
        >>> in_time(lambda: 5, "tokenizer.json")
        5
    """
    result: Future[_Result] = Future()

    def work() -> None:
        try:
            result.set_result(call())
        except BaseException as error:  # of Rust, too
            result.set_exception(error)

    threading.Thread(target=work, name="vlmkit tokenizer", daemon=True).start()
    try:
        return result.result(MAX_SECONDS)
    except TimeoutError:
        raise VlmkitError(
            f"{place}: its regular expressions take more than {MAX_SECONDS:g} s for one text; take "
            "the one of the original checkpoint, or shorten the text"
        ) from None


Encode = Callable[["Tokenizer", str, bool], "Encoding"]
"""A tokenizer of the library, a text, and whether special tokens are added → its encoding."""


def encode_known(backend: Tokenizer, text: str, add_special_tokens: bool) -> Encoding:
    """Encode by known regular expressions."""
    return backend.encode(text, add_special_tokens=add_special_tokens)


def encode_in_time(place: str) -> Encode:
    """Return what encodes by regular expressions that are not known; see `in_time`."""

    def encode(backend: Tokenizer, text: str, add_special_tokens: bool) -> Encoding:
        # Of its functions only those for several texts let other threads run.
        return in_time(
            lambda: backend.encode_batch([text], add_special_tokens=add_special_tokens)[0], place
        )

    return encode
