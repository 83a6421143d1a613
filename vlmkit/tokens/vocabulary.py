"""A model's tokens as bytes: what constrained decoding needs of a tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from types import ModuleType
from typing import TYPE_CHECKING

from vlmkit.errors import VlmkitError

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

NUM_KEPT_GRAMMARS = 16
_MAX_SHOWN = 300  # characters of what llguidance says


def require_llguidance() -> ModuleType:
    """Import llguidance, the parser behind the ``grammar`` stage.

    Raises:
        VlmkitError: it is not installed.

    Example:
        >>> require_llguidance().LLMatcher.grammar_from_lark("start: /a+/")
        'start: /a+/'
    """
    try:
        import llguidance
    except ImportError as error:
        raise VlmkitError("grammar needs llguidance: pip install 'vlmkit[structured]'") from error
    return llguidance


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """The tokens of a model. All that takes time is done at first use, and kept with this value.

    Example:
        >>> vocabulary = Vocabulary(
        ...     read_tokens=lambda: (b"yes", b"no", b"</s>"),
        ...     num_ids=4,
        ...     special_ids=frozenset({2}),
        ...     eos_ids=frozenset({2}),
        ...     encode=list,
        ... )
        >>> vocabulary.tokens
        (b'yes', b'no', b'</s>', b'')
    """

    read_tokens: Callable[[], Sequence[bytes]]  # the bytes of each id; b"" for one without text
    num_ids: int  # ids that the model may give a logit to; the last may have no token
    special_ids: frozenset[int]  # ids that are never text, whatever their bytes
    eos_ids: frozenset[int]  # ids that end a sequence
    encode: Callable[[str], Sequence[int]]  # text to ids, no special tokens added

    @cached_property
    def tokens(self) -> tuple[bytes, ...]:
        """The bytes of every id, ``num_ids`` of them."""
        tokens = tuple(self.read_tokens())[: self.num_ids]
        return tokens + (b"",) * (self.num_ids - len(tokens))

    @cached_property
    def compile(self) -> Callable[[str], LLMatcher]:
        """A function from a grammar in llguidance's Lark dialect to its matcher at the start.

        The matcher is shared: copy it (``deep_copy``) before it consumes anything. One of the
        16 grammars used last is not compiled again.

        The function raises VlmkitError where the grammar can't be compiled for these tokens, and
        this property where llguidance is missing or the model has no end-of-sequence token.
        """
        llguidance = require_llguidance()
        eos_ids = sorted(token_id for token_id in self.eos_ids if token_id < self.num_ids)
        if not eos_ids:
            raise VlmkitError(
                "grammar: the model has no end-of-sequence token, so no answer could end; "
                "set eos_token_id in its config.json"
            )
        wrapper = llguidance.TokenizerWrapper(_Tokens(self, eos_ids))
        tokenizer = llguidance.LLTokenizer(wrapper, eos_token=eos_ids)

        def compile_one(grammar: str) -> LLMatcher:
            matcher: LLMatcher = llguidance.LLMatcher(tokenizer, grammar, log_level=0)
            if matcher.is_error():
                raise VlmkitError(first_message(matcher.get_error()))
            return matcher

        return lru_cache(maxsize=NUM_KEPT_GRAMMARS)(compile_one)


class _Tokens:
    """What llguidance's TokenizerWrapper reads."""

    def __init__(self, vocabulary: Vocabulary, eos_ids: Sequence[int]) -> None:
        self.tokens = vocabulary.tokens
        self.eos_token_id = eos_ids[0]
        self.bos_token_id = None
        self.special_token_ids = sorted(
            token_id
            for token_id in vocabulary.special_ids | vocabulary.eos_ids
            if token_id < vocabulary.num_ids
        )
        self._encode = vocabulary.encode

    def __call__(self, text: bytes) -> list[int]:
        return list(self._encode(text.decode(errors="replace")))


@lru_cache(maxsize=1)
def _byte_tokenizer() -> LLTokenizer:
    tokenizer: LLTokenizer = require_llguidance().LLTokenizer("byte")
    return tokenizer


def byte_matcher(grammar: str) -> LLMatcher:
    """Compile a grammar for single bytes as tokens; an error is kept in the matcher."""
    matcher: LLMatcher = require_llguidance().LLMatcher(_byte_tokenizer(), grammar, log_level=0)
    return matcher


def is_dead_end(matcher: LLMatcher, text: bytes) -> bool:
    """Tell whether no match begins with these bytes.

    Args:
        matcher: of `byte_matcher`; it is not changed.
        text: the bytes.

    Example:
        >>> matcher = byte_matcher("start: /ab*/")
        >>> is_dead_end(matcher, b"abb"), is_dead_end(matcher, b"ba")
        (False, True)
    """
    after = matcher.deep_copy()
    if not after.consume_tokens(list(text)):
        return True
    after.compute_bitmask()
    return bool(after.is_error())


def first_message(report: str) -> str:
    r"""Return an error of llguidance as one line, without the excerpts it draws below.

    Example:
        >>> first_message("at 1(8): unknown name: \"b\"\n   1 | start: b\n              ^\n")
        'at 1(8): unknown name: "b"'
    """
    lines = report.split("\n<state>")[0].splitlines()
    kept = [line for line in lines if not _is_drawing(line)]
    text = " ".join(" ".join(kept).split())
    return (
        text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN // 2]}…{text[-_MAX_SHOWN // 2 :]}"
    )


def _is_drawing(line: str) -> bool:
    number, bar, _ = line.strip().partition(" |")
    return not line.strip(" ^") or (bool(bar) and number.isdecimal())
