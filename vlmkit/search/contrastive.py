"""Contrastive search: likely tokens whose hidden state repeats nothing in the context."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple, cast

import mlx.core as mx
from pydantic import Field

from vlmkit.declare.configbase import Float, Int, StageConfig
from vlmkit.errors import VlmkitError
from vlmkit.search.candidates import Beam, best_candidates
from vlmkit.search.protocol import (
    Extend,
    Extended,
    Hypothesis,
    Outcome,
    Search,
    SearchStart,
    SearchStep,
)


class ContrastiveSearch(StageConfig):
    """Weigh a token's probability against the likeness of its hidden state to the context's."""

    kind: Literal["contrastive_search"] = "contrastive_search"
    top_k: Int = Field(default=4, ge=2, description="tokens that are tried out in each step")
    alpha: Float = Field(default=0.6, ge=0, le=1, description="weight of the likeness; 0 is greedy")


class _Tried(NamedTuple):
    """A row in flight: a candidate token and its path."""

    extended: Extended
    probability: float
    score: float  # sum of logprobs up to and with this token


class ContrastiveState(NamedTuple):
    """A search in flight."""

    context: mx.array  # float32 [T, H] hidden states of unit length: prompt and committed tokens
    tried: tuple[_Tried, ...]  # one per live row; none before the first step


def contrastive_search(config: ContrastiveSearch) -> Search:
    """Return contrastive search over the logprobs that the sampler chain leaves.

    The k most likely tokens run through the model side by side, each as a row. The one with the
    largest ``(1 − alpha) · p − alpha · max_j cos(h, h_j)`` is committed, where p is its
    probability, h its final hidden state and h_j those of the prompt and of all tokens committed
    so far. Its logits give the next k. So every token, also the last one, is decided one forward
    pass after it was proposed, and a row whose path has finished still takes part in that pass.
    On equal values the more likely token wins. The score of the result is its sum of logprobs.

    Example:
        >>> search = contrastive_search(ContrastiveSearch(top_k=4, alpha=0.6))
        >>> search.width, search.needs_hidden
        (4, True)

    Reference:
        Su et al., "A contrastive framework for neural text generation", NeurIPS 2022,
        arXiv:2202.06417; transformers 4.49, ``GenerationMixin._contrastive_search``.
    """

    def init(start: SearchStart) -> ContrastiveState:
        assert start.prompt_hidden is not None, "contrastive search needs the prompt's hidden state"
        return ContrastiveState(_unit(start.prompt_hidden), ())

    def advance(
        state: ContrastiveState, step: SearchStep, extend: Extend
    ) -> tuple[ContrastiveState, Outcome]:
        if not state.tried:
            return _propose(config.top_k, state, step, 0, 0.0, extend)
        assert step.hidden is not None, "contrastive search needs the rows' hidden state"
        hidden = _unit(step.hidden)
        winner = _rank(config.alpha, state, hidden)
        (path, finished), _, score = state.tried[winner]
        if finished:
            best = (Hypothesis(path, score),)
            return state, Outcome((), (), (), committed=(path,), done=True, best=best)
        context = mx.concatenate([state.context, hidden[winner : winner + 1]])
        state = state._replace(context=context)
        state, outcome = _propose(config.top_k, state, step, winner, score, extend)
        return state, outcome._replace(committed=(path,))

    return Search("contrastive_search", config.top_k, 1, True, False, init, advance)


def _unit(hidden: mx.array) -> mx.array:
    """Scale the rows of ``[N, H]`` to length one, in float32."""
    hidden = hidden.astype(mx.float32)
    return hidden / mx.sqrt(mx.sum(hidden * hidden, axis=-1, keepdims=True))


def _rank(alpha: float, state: ContrastiveState, hidden: mx.array) -> int:
    """Return the place of the best row. ``hidden``: float32 ``[K, H]`` of unit length."""
    likeness = mx.max(hidden @ state.context.T, axis=-1)
    probabilities = mx.array([tried.probability for tried in state.tried])
    values = (1 - alpha) * probabilities - alpha * likeness
    return cast(int, mx.argmax(values).item())


def _propose(
    k: int, state: ContrastiveState, step: SearchStep, row: int, score: float, extend: Extend
) -> tuple[ContrastiveState, Outcome]:
    """Let the k most likely tokens after a row be the next rows."""
    [candidates] = best_candidates(step.logprobs, [[Beam(row, 0.0)]], k)
    if not candidates:
        raise VlmkitError(
            "search: no token can follow: the sampler chain removed every token; check its biases "
            "and allowed tokens",
            path=("search",),
        )
    probabilities = [math.exp(each.logprob) for each in candidates]
    tried = tuple(
        _Tried(extend(row, each.token_id), probability, score + each.logprob)
        for each, probability in zip(candidates, probabilities, strict=True)
    )
    outcome = Outcome(
        rows=(row,) * len(tried),
        token_ids=tuple(each.token_id for each in candidates),
        paths=tuple(each.extended.path for each in tried),
    )
    return state._replace(tried=tried), outcome
