"""Grammar: only tokens that can still become a JSON value, a match of a regex, or a sentence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from vlmkit.contracts.stages import HostReducer, SamplerStage
from vlmkit.errors import VlmkitError
from vlmkit.numeric.probabilities import keep_where
from vlmkit.sampling.grammar_config import (
    Grammar,
    ThinkingBlock,
    describe_grammar,
    explain,
    to_lark,
)
from vlmkit.sampling.stateless import keep_state
from vlmkit.tokens.sequences import TokenSequence, advance, token_sequence
from vlmkit.tokens.vocabulary import Vocabulary, first_message

if TYPE_CHECKING:
    from llguidance import LLMatcher


class GrammarState(NamedTuple):
    """Where a row stands. The matcher is never changed: a step copies it."""

    inside: bool  # in a thinking block
    matched: int  # ids of the marker that may come next, which the tokens end with
    opening: bool  # the model may still begin its thinking block
    fresh: bool  # that block has just ended, and no token of the answer has come
    matcher: LLMatcher | None  # after the answer so far; None: only the start marker can go on


class _Rules(NamedTuple):
    name: str  # of the grammar, in messages
    vocabulary: Vocabulary
    first: LLMatcher  # at the start of the answer
    start: TokenSequence | None  # None: no thinking block
    end: TokenSequence | None
    markers: list[int]  # single tokens that are markers, so no part of an answer
    free: NDArray[np.bool_]  # [V], all true


def grammar(config: Grammar, vocabulary: Vocabulary) -> SamplerStage:
    r"""Set the logits of all tokens to −inf after which the answer could not be completed.

    A token stays if the answer with it is the beginning of some match; every way to split a text
    into tokens is allowed. Once the answer is a match, the end-of-sequence tokens are allowed
    beside what may go on, and alone when nothing may. Put this stage first in a chain: what an
    earlier stage removes cannot come back.

    One thinking block is free: the one that the prompt leaves open, or else one that the model
    opens at once, before its answer. There the start marker is allowed beside the grammar's tokens;
    after a block, also one that ends the prompt, it is not: a model would rather think again than
    write what it is not used to. A single-token marker is never part of an answer. The answer
    begins after the end marker; tokens forced between that marker and the answer, which the
    grammar would not allow, do not count (a thinking budget's transition may bring them). An
    end-of-sequence token inside the block ends the row without an answer; see ``eos_inside`` of
    the thinking budget.

    A JSON schema is held to as it is written, but for what llguidance does not know, which is an
    error. Strings and keys are spelt without ``\uXXXX`` escapes (so control characters other than
    tab, line feed and the like cannot be written), since a key with two spellings would dodge the
    schema of its name; between tokens of JSON there are at most a line break and 20 blanks. One
    thing no grammar can count: with ``minProperties`` of two or more beyond the required ones, a
    key that is written twice counts twice. `grammar_doubts` says so, and the result's
    ``effective["grammar"]["guaranteed"]`` is false then, as for options in the schema's
    ``x-guidance`` that give this up.

    The state on the device is bool ``[B, V]``, the tokens allowed next; ``host`` keeps it.

    Args:
        config: the grammar and the thinking markers.
        vocabulary: the model's tokens; keeps compiled grammars, so share one among rows.

    Raises:
        VlmkitError: llguidance is missing or refuses the grammar; no text or no finite JSON value
            fits it; markers that the tokenizer does not know. While running: a forced token that
            the grammar does not allow, or a grammar that grows beyond llguidance's limits.

    Example:
        >>> tokens = (b"y", b"yes", b"no", b"</s>")
        >>> end = frozenset({3})
        >>> vocabulary = Vocabulary(lambda: tokens, 4, special_ids=end, eos_ids=end, encode=list)
        >>> host = grammar(Grammar(regex="yes|maybe", thinking=None), vocabulary).host
        >>> state = host.init([])
        >>> host.value(state).tolist()
        [True, True, False, False]
        >>> host.value(host.step(state, 1)).tolist()
        [False, False, False, True]

    Reference:
        Willard and Louf, "Efficient Guided Generation for Large Language Models", arXiv 2307.09702;
        Moskal et al., llguidance, https://github.com/guidance-ai/llguidance.
    """
    rules = _resolve(config, vocabulary)
    host = HostReducer(
        init=lambda prompt_ids: _start(rules, prompt_ids),
        step=lambda state, token_id: _step(rules, state, token_id),
        value=lambda state: _allowed(rules, state),
    )

    def init(prompts: Sequence[NDArray[np.int32]], vocab_size: int) -> mx.array:
        if vocab_size > vocabulary.num_ids:
            raise VlmkitError(
                f"grammar: the model gives {vocab_size} logits, but its config.json and its "
                f"tokenizer know {vocabulary.num_ids} ids; set vocab_size in config.json"
            )
        return mx.array(np.stack([host.value(host.init(prompt.tolist())) for prompt in prompts]))

    def apply(state: mx.array, logits: mx.array, uniform: mx.array | None) -> mx.array:
        return keep_where(logits, state[:, : logits.shape[-1]])

    return SamplerStage("grammar", init, apply, keep_state, host=host)


def _resolve(config: Grammar, vocabulary: Vocabulary) -> _Rules:
    text, compile_grammar = to_lark(config), vocabulary.compile
    try:
        first = compile_grammar(text)
    except VlmkitError as error:
        raise VlmkitError(explain(config, str(error))) from error
    found = _markers(config.thinking, vocabulary)
    start, end = (None, None) if found is None else map(token_sequence, found)
    free = np.ones(vocabulary.num_ids, np.bool_)
    free.flags.writeable = False
    rules = _Rules(
        name=describe_grammar(config),
        vocabulary=vocabulary,
        first=first,
        start=start,
        end=end,
        markers=[ids[0] for ids in found or () if len(ids) == 1],
        free=free,
    )
    _mask(rules, first)  # raises where no token can begin a match
    return rules


def _markers(
    thinking: ThinkingBlock | None, vocabulary: Vocabulary
) -> tuple[tuple[int, ...], tuple[int, ...]] | None:
    """Return the ids of the start and the end marker; None without thinking blocks."""
    if thinking is None:
        return None
    found = []
    for own, usual in ((thinking.start, "<think>"), (thinking.end, "</think>")):
        text = usual if own is None else own
        ids = tuple(vocabulary.encode(text))
        known = b"".join(vocabulary.tokens[token_id] for token_id in ids) == text.encode()
        if not known or (own is None and len(ids) > 1):
            if thinking == ThinkingBlock():
                return None
            raise VlmkitError(
                f"grammar: thinking: the tokenizer has no token {text!r}; set start and end to the "
                "markers that this model writes, or thinking to null"
            )
        found.append(ids)
    return found[0], found[1]


def _start(rules: _Rules, prompt_ids: Sequence[int]) -> GrammarState:
    """Find out whether the prompt ends inside a thinking block, or with one."""
    if rules.start is None or rules.end is None:
        return GrammarState(False, 0, False, False, rules.first)
    inside, opening, ending, after = False, 0, 0, 0
    for place, token_id in enumerate(prompt_ids):
        ending = advance(rules.end, ending, token_id) if inside else 0
        if ending == len(rules.end.ids):
            inside, opening, ending, after = False, 0, 0, place + 1
            continue
        opening = advance(rules.start, opening, token_id)
        if opening == len(rules.start.ids):
            inside, opening, ending = True, 0, 0
    if inside:
        return GrammarState(True, ending, False, False, None)
    tokens = rules.vocabulary.tokens
    is_done = after > 0 and not any(tokens[token_id].strip() for token_id in prompt_ids[after:])
    return GrammarState(False, 0, not is_done, False, rules.first)


def _step(rules: _Rules, state: GrammarState, token_id: int) -> GrammarState:
    """Follow one token that was taken."""
    if state.inside and rules.end is not None:
        matched = advance(rules.end, state.matched, token_id)
        if matched < len(rules.end.ids):
            return state._replace(matched=matched)
        return GrammarState(False, 0, False, True, rules.first)
    after = None if state.matcher is None else _consume(state.matcher, token_id)
    if state.opening and rules.start is not None and token_id == rules.start.ids[state.matched]:
        matched = state.matched + 1
        if matched == len(rules.start.ids):
            return GrammarState(True, 0, False, False, None)
        return state._replace(matched=matched, matcher=after)
    if after is None and state.fresh:
        return state
    if after is None:
        text = rules.vocabulary.tokens[token_id].decode(errors="replace")
        raise VlmkitError(
            f"{rules.name}: token {token_id} {text!r} cannot come there"
            f"{_reason(state.matcher, token_id)}; only a forced token gets here, so leave out what "
            "forces it, or the grammar"
        )
    return GrammarState(False, 0, False, False, after)


def _consume(matcher: LLMatcher, token_id: int) -> LLMatcher | None:
    """Return the matcher after one more token, None where that is not allowed."""
    after = matcher.deep_copy()
    return after if after.consume_token(token_id) else None


def _reason(matcher: LLMatcher | None, token_id: int) -> str:
    if matcher is None:
        return ""
    refused = matcher.deep_copy()
    refused.consume_token(token_id)
    return f" ({first_message(refused.get_error())})"


def _allowed(rules: _Rules, state: GrammarState) -> NDArray[np.bool_]:
    """Return bool ``[V]``: the tokens that may come next."""
    if state.inside:
        return rules.free
    allowed = ~rules.free if state.matcher is None else _mask(rules, state.matcher)
    allowed[rules.markers] = False
    if state.opening and rules.start is not None:
        allowed[rules.start.ids[state.matched]] = True
    return allowed


def _mask(rules: _Rules, matcher: LLMatcher) -> NDArray[np.bool_]:
    """Return bool ``[V]``: what the grammar allows next."""
    scratch = matcher.deep_copy()  # running out of a limit is remembered in the matcher
    words = np.frombuffer(scratch.compute_bitmask(), np.uint8)
    if scratch.is_error():
        error = first_message(scratch.get_error())
        if error.startswith("NoExtension"):
            raise VlmkitError(f"{rules.name}: no token of this model can lead to a match")
        raise VlmkitError(f"{rules.name}: llguidance gave up: {error}; make the grammar simpler")
    bits = np.unpackbits(words, count=len(rules.free), bitorder="little")
    return bits.view(np.bool_)
