"""What passes between the decode loop and a search over several rows of one request."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import mlx.core as mx

Path = Any
"""One row on the host (text, stopping, thinking budget, records); a search only hands it on."""


class SearchStart(NamedTuple):
    """What a search may know of a request before its first step."""

    max_tokens: int | None = None  # most tokens a path can get; None: no limit
    num_eos: int = 1  # token ids that end a path wherever they come
    prompt_hidden: mx.array | None = None  # [T, H], for a search with ``needs_hidden``


class SearchStep(NamedTuple):
    """What a forward pass over the request's live rows gave. The first step has one row."""

    logprobs: mx.array  # float32 [K, V]: log-softmax of what the sampler chain left of the logits,
    # −inf where it removed a token; a forced token has 0 and all others −inf
    hidden: mx.array | None = None  # [K, H] final hidden state of the token each row has just
    # taken (first step: the last prompt token), for a search with ``needs_hidden``


class Extended(NamedTuple):
    """A path with one more token."""

    path: Path
    finished: bool  # a stopping criterion or the token limit ends it here


Extend = Callable[[int, int], Extended]
"""Pure ``(row, token_id) -> Extended``: the path of a live row with a token appended."""


class Hypothesis(NamedTuple):
    """A complete path."""

    path: Path
    score: float  # what the search ranks by


class Outcome(NamedTuple):
    """What a search wants next. The three tuples of live rows are of one length, at most K."""

    rows: tuple[int, ...]  # the live row that each next row continues; one may come several times
    token_ids: tuple[int, ...]  # the token that each next row takes
    paths: tuple[Path, ...]  # with that token appended
    committed: tuple[Path, ...] = ()  # paths decided for good by this step, to be emitted in order
    done: bool = False  # there are no live rows any more
    best: tuple[Hypothesis, ...] = ()  # when done: the result, from the best down


class Search(NamedTuple):
    """How one request is decoded over several rows: pure functions over a state."""

    name: str
    width: int  # most rows in flight
    num_return: int  # most hypotheses in the result
    needs_hidden: bool
    from_logprobs: bool  # the sampler chain gets log-probabilities in place of logits
    init: Callable[[SearchStart], Any]  # -> state
    advance: Callable[[Any, SearchStep, Extend], tuple[Any, Outcome]]
    # (state, step, extend) -> (state, outcome); waits for the device
