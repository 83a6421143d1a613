"""A thinking budget: close the thinking block after so many tokens, or keep it open that long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from vlmkit.contracts.stages import Decision, StoppingCriterion, TokenEvent
from vlmkit.stopping.eos import NO_EOS, EosMarkers
from vlmkit.stopping.text_stops import TextStops, find_stop, held_from, text_stops
from vlmkit.stopping.thinking_config import ThinkingBudgetConfig, ThinkingMarkers
from vlmkit.tokens.sequences import TokenSequence, advance, token_sequence


class ThinkingBudgetState(NamedTuple):
    """Where a row stands in its thinking."""

    inside: bool  # between a start marker and its end marker
    matched: int  # ids of the marker that may come next, which the tokens end with
    used: int  # thinking tokens so far; those of a begun end marker count until it is complete
    queue: tuple[int, ...]  # ids to force, or to go on with if the offered override happens
    closing: bool  # whether `queue` closes the block, so that its ids are no thinking
    decision: Decision  # what was said about the token to come
    text_start: int  # an end-of-sequence text may begin at this character at the earliest


_NOTHING = Decision()
_NO_VETO: frozenset[str] = frozenset()


class _Rules(NamedTuple):
    config: ThinkingBudgetConfig
    start: TokenSequence
    end: TokenSequence
    closing: tuple[int, ...]
    wait: tuple[int, ...]
    eos_ids: frozenset[int]
    eos_texts: TextStops
    veto: frozenset[str]  # while inside
    offers: dict[tuple[bool, bool], tuple[tuple[int, int], ...]]
    # (too early to close?, could the next token complete the end marker?) -> overrides


def thinking_budget(
    config: ThinkingBudgetConfig,
    markers: ThinkingMarkers,
    eos: EosMarkers = NO_EOS,
) -> StoppingCriterion:
    """Build the criterion that gives a block exactly ``budget`` thinking tokens, then closes it.

    Markers are matched as whole token sequences, and forced as such. A prompt is already thinking
    when no end marker follows its last start marker. A model that closes in time is left alone,
    also when the budget runs out between two tokens of its end marker. Before ``min_tokens``, the
    last token of an end marker is replaced by the first of ``wait``. An end-of-sequence token
    inside is replaced by the first token of the closing sequence, unless it may stop the row.

    Args:
        config: budget, scope, and what happens to ends and stops inside a block.
        markers: the config's texts as token ids.
        eos: what ends a sequence, for ``eos_inside: close``.

    Example:
        >>> markers = ThinkingMarkers(start=(1,), end=(2,), closing=(2,), wait=(3,))
        >>> criterion = thinking_budget(ThinkingBudgetConfig(budget=1), markers)
        >>> state, decision = criterion.init([1])
        >>> decision.forced_id
        >>> state, decision = criterion.step(state, TokenEvent(7, "a", 1))
        >>> decision.forced_id
        2

    Reference:
        Muennighoff et al., "s1: Simple test-time scaling", arXiv 2501.19393 (budget forcing).
        Qwen Team, "Qwen3 Technical Report", arXiv 2505.09388 (thinking budget).
    """
    close = config.eos_inside == "close"
    ignored = config.stop_inside == "ignore"
    vetoes = {"stop_sequences": ignored, "stop_token_ids": ignored, "eos": close}
    eos_ids = eos.ids if close else frozenset()
    rules = _Rules(
        config=config,
        start=token_sequence(markers.start),
        end=token_sequence(markers.end),
        closing=markers.closing,
        wait=markers.wait,
        eos_ids=eos_ids,
        eos_texts=text_stops(eos.texts if close else ()),
        veto=frozenset(kind for kind, active in vetoes.items() if active),
        offers={
            (early, last): _offer(markers, eos_ids, early=early, last=last)
            for early in (False, True)
            for last in (False, True)
        },
    )

    def init(prompt_ids: Sequence[int]) -> tuple[ThinkingBudgetState, Decision]:
        state = _plan(rules, _read_prompt(rules, prompt_ids), ended=False, veto=_NO_VETO)
        return state, state.decision

    def step(state: ThinkingBudgetState, event: TokenEvent) -> tuple[ThinkingBudgetState, Decision]:
        following, ended = _find_end(rules, _take_token(rules, state, event), event)
        # the markers themselves are outside: what ends a row there counts
        veto = rules.veto if state.inside and following.inside else _NO_VETO
        following = _plan(rules, following, ended=ended, veto=veto)
        return following, following.decision

    return StoppingCriterion("thinking_budget", init, step)


def close_block(state: ThinkingBudgetState, markers: ThinkingMarkers) -> ThinkingBudgetState:
    """Decide to close the block that the row is in, from the next token on.

    Args:
        state: inside a block, with no end marker begun.
        markers: those of the criterion whose state it is.
    """
    return state._replace(
        queue=markers.closing, closing=True, decision=Decision(markers.closing[0])
    )


def _offer(
    markers: ThinkingMarkers, eos_ids: frozenset[int], *, early: bool, last: bool
) -> tuple[tuple[int, int], ...]:
    """Which draws a sequence's first id takes the place of: ``wait`` when it is too early."""
    end = frozenset(markers.end[-1:]) if last else frozenset()
    ids = eos_ids | end if early else eos_ids - end
    queue = markers.wait if early else markers.closing
    return tuple((drawn_id, queue[0]) for drawn_id in sorted(ids)) if queue else ()


def _read_prompt(rules: _Rules, prompt_ids: Sequence[int]) -> ThinkingBudgetState:
    """Find out whether the prompt ends inside a block, and what it used up of the budget."""
    start, end, total = rules.start, rules.end, rules.config.scope == "total"
    inside, opening, ending, used = False, 0, 0, 0
    for token_id in prompt_ids:
        if inside:
            ending = advance(end, ending, token_id)
            used += 1
            if ending == len(end.ids):
                inside, opening, ending = False, 0, 0
                used = max(used - len(end.ids), 0)
                continue
        opening = advance(start, opening, token_id)
        if opening == len(start.ids):
            # a second start marker restarts the block: the last one counts
            inside, opening, ending = True, 0, 0
            used = used if total else 0
    return ThinkingBudgetState(
        inside=inside,
        matched=ending if inside else opening,
        used=used if rules.config.count_prompt else 0,
        queue=(),
        closing=False,
        decision=Decision(),
        text_start=0,
    )


def _take_token(
    rules: _Rules, state: ThinkingBudgetState, event: TokenEvent
) -> ThinkingBudgetState:
    """Count a token, follow the markers, and take what was forced off the queue."""
    token_id = event.token_id
    taken = _was_taken(state.decision, event)
    if taken:
        state = state._replace(queue=state.queue[1:])
    elif state.decision.forced_id is None or token_id in dict(state.decision.overrides):
        state = state._replace(queue=(), closing=False)
    # otherwise another criterion forced its own token first: ours still follow
    if not state.inside:
        matched = advance(rules.start, state.matched, token_id)
        if matched < len(rules.start.ids):
            return state._replace(matched=matched)
        used = state.used if rules.config.scope == "total" else 0
        return state._replace(inside=True, matched=0, used=used, text_start=len(event.text))

    uncounted = state.closing and taken
    matched = advance(rules.end, state.matched, token_id)
    used = state.used if uncounted else state.used + 1
    if matched == len(rules.end.ids):
        if uncounted:
            return state._replace(inside=False, matched=0)
        # what was still to be forced is void when another closes the block
        return state._replace(
            inside=False, matched=0, used=max(used - matched, 0), queue=(), closing=False
        )
    closed = uncounted and not state.queue
    return state._replace(inside=not closed, matched=0 if closed else matched, used=used)


def _was_taken(decision: Decision, event: TokenEvent) -> bool:
    """Whether the token is there because the decision put it there."""
    overrides = dict(decision.overrides)
    if decision.forced_id is not None:
        return event.token_id == decision.forced_id and event.token_id not in overrides
    if event.drawn_id is None:
        return event.token_id in overrides.values()
    return overrides.get(event.drawn_id) == event.token_id


def _find_end(
    rules: _Rules, state: ThinkingBudgetState, event: TokenEvent
) -> tuple[ThinkingBudgetState, bool]:
    """Tell whether an end of sequence stands inside the block that no override caught."""
    if not rules.eos_texts.sequences:
        return state, state.inside and not state.closing and event.token_id in rules.eos_ids
    length = len(event.text)
    if not state.inside or state.closing:
        return state._replace(text_start=length), False
    if find_stop(rules.eos_texts, event.text, state.text_start) is not None:
        return state._replace(text_start=length), True
    held = held_from(rules.eos_texts, event.text, state.text_start)
    state = state._replace(text_start=length if held is None else held)
    return state, event.token_id in rules.eos_ids


def _plan(
    rules: _Rules, state: ThinkingBudgetState, *, ended: bool, veto: frozenset[str]
) -> ThinkingBudgetState:
    """Decide about the token to come."""

    def then(
        decision: Decision, queue: tuple[int, ...] = (), *, closing: bool = False
    ) -> ThinkingBudgetState:
        return ThinkingBudgetState(
            state.inside, state.matched, state.used, queue, closing, decision, state.text_start
        )

    config, end = rules.config, rules.end.ids
    if state.closing and state.queue:
        return then(Decision(state.queue[0], veto=veto), state.queue, closing=True)
    if not state.inside:
        return then(_NOTHING)

    begun = state.matched  # tokens of an end marker that the model may be writing
    if config.budget is not None and state.used >= config.budget:
        if begun and state.used > config.budget:
            # the marker lies across the boundary by now: only its rest can follow
            return then(Decision(end[begun], veto=veto), end[begun:])
        own = ((end[begun], end[begun]),) if begun else ()
        return then(Decision(rules.closing[0], own, veto=veto), rules.closing, closing=True)
    if state.queue and not ended:
        return then(Decision(state.queue[0], veto=veto), state.queue)

    early = max(state.used - begun, 0) < config.min_tokens
    queue = rules.wait if early else rules.closing
    if ended:
        return then(Decision(queue[0], veto=veto), queue, closing=not early)
    offer = rules.offers[early, begun == len(end) - 1]
    return then(Decision(overrides=offer, veto=veto), queue, closing=not early)
