"""From the logits of one step to its record. Pure, on the host, in float64."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import TYPE_CHECKING, NamedTuple, TypedDict

import numpy as np
from numpy.typing import NDArray

from vlmkit.errors import VlmkitError
from vlmkit.tracing.records import Candidate, Removed, StageRecord, TraceStep, TrackedToken

if TYPE_CHECKING:
    import mlx.core as mx

    from vlmkit.contracts.stages import StepTrace

_NUM_REMOVED = 5  # listed per stage; all are counted


class _Distribution(NamedTuple):
    name: str
    logprobs: NDArray[np.float64]  # [V], −inf where removed
    kept: NDArray[np.bool_]  # [V]
    ids: NDArray[np.intp]  # [K], those kept, ascending
    probs: NDArray[np.float64]  # [K], of those
    entropy_nats: float


def measure_step(
    trace: StepTrace,
    *,
    position: int,
    token_id: int,
    forced: bool,
    decode: Callable[[Sequence[int]], str],
    top_n: int,
) -> TraceStep:
    """Measure what each stage did to the distribution of one token.

    Args:
        trace: names, and float32 ``[V]`` logits: the model's own, then those after each stage.
        position: generated tokens before this one.
        token_id: the token taken.
        forced: whether a stopping criterion chose it.
        decode: token ids to text, special tokens included.
        top_n: how many tokens to list per stage, at least 1.

    Raises:
        VlmkitError: a logit is NaN or +inf.

    Example:
        >>> import mlx.core as mx
        >>> from types import SimpleNamespace as StepTrace
        >>> own = mx.log(mx.array([0.5, 0.3, 0.2]))
        >>> cut = mx.where(own > -1.5, own, -mx.inf)
        >>> stage = measure_step(
        ...     StepTrace(names=("model", "cut"), logits=(own, cut), sampled_id=1),
        ...     position=0, token_id=1, forced=False, decode=lambda ids: "abc"[ids[0]], top_n=2,
        ... ).stages[1]
        >>> stage.num_kept, round(stage.removed_mass, 6), [token.text for token in stage.removed]
        (2, 0.2, ['c'])
    """
    text_of = cache(lambda index: decode([index]))
    chain = [_normalise(*entry) for entry in zip(trace.names, trace.logits, strict=True)]
    tops = [leading(item.logprobs, top_n) for item in chain]
    ids = {token_id, trace.sampled_id}.union(*(top.tolist() for top in tops))
    tokens = _track(chain, ids, text_of)
    stages = [
        StageRecord(
            name=after.name,
            entropy_nats=after.entropy_nats,
            num_kept=len(after.ids),
            top=[Candidate(i, text_of(i), float(after.logprobs[i])) for i in top.tolist()],
            token_logprob=_finite(after.logprobs[token_id]),
            tracked=[_finite(after.logprobs[token.id]) for token in tokens],
            **_removal(before, after, top_n, text_of),
        )
        for before, after, top in zip([chain[0], *chain[:-1]], chain, tops, strict=True)
    ]
    return TraceStep(
        position=position,
        token_id=token_id,
        text=text_of(token_id),
        forced=forced,
        sampled_id=trace.sampled_id,
        stages=stages,
        tokens=tokens,
    )


def leading(values: NDArray[np.float64], n: int) -> NDArray[np.intp]:
    """The ids of the n largest values above −inf, the largest first, ties by the lowest id.

    >>> leading(np.array([1.0, 3.0, -np.inf, 3.0]), 2).tolist()
    [1, 3]
    """
    found = np.flatnonzero(values > -np.inf)
    if len(found) > n:
        place = len(found) - n
        smallest = np.partition(values[found], place)[place]
        found = np.flatnonzero(values >= smallest)
    return found[np.argsort(-values[found], kind="stable")[:n]]


def _normalise(name: str, logits: mx.array) -> _Distribution:
    values = np.array(logits)
    kept = values > -np.inf
    ids = np.flatnonzero(kept)  # often few: what follows looks at no others
    logprobs = np.full(len(values), -np.inf)
    if np.isnan(values).any() or (len(ids) and values.max() == np.inf):
        raise VlmkitError(f"trace: the logits after stage {name!r} hold NaN or +inf")
    if not len(ids):
        return _Distribution(name, logprobs, kept, ids, ids.astype(np.float64), 0.0)
    own = values[ids].astype(np.float64)
    own -= own.max()
    weights = np.exp(own)
    total = weights.sum()
    own -= np.log(total)
    probs = weights / total
    logprobs[ids] = own
    return _Distribution(name, logprobs, kept, ids, probs, max(0.0, -float(probs @ own)))


def _track(
    chain: Sequence[_Distribution], ids: Iterable[int], text_of: Callable[[int], str]
) -> list[TrackedToken]:
    """Follow these tokens through the chain, in the order of the model's own distribution."""
    own = chain[0].logprobs
    tokens = []
    for index in ids:
        above = np.count_nonzero(own > own[index]) + np.count_nonzero(own[:index] == own[index])
        kept = [item.kept[index] for item in chain]
        # a stage of one's own may bring a token back: what counts is the last time it went
        last = max((place for place, is_kept in enumerate(kept) if is_kept), default=-1)
        removed_by = None if kept[-1] else last + 1
        tokens.append(TrackedToken(index, text_of(index), int(above) + 1, removed_by))
    return sorted(tokens, key=lambda token: token.rank)


class _Removal(TypedDict):
    removed_mass: float
    num_removed: int
    removed: list[Removed]


def _removal(
    before: _Distribution, after: _Distribution, top_n: int, text_of: Callable[[int], str]
) -> _Removal:
    """What one stage took away, by its probability on entering the stage."""
    is_gone = ~after.kept[before.ids]
    ids, probs = before.ids[is_gone], before.probs[is_gone]
    most = leading(before.logprobs[ids], min(top_n, _NUM_REMOVED)).tolist()
    return _Removal(
        removed_mass=min(1.0, float(probs.sum())),
        num_removed=len(ids),
        removed=[Removed(int(ids[i]), text_of(int(ids[i])), float(probs[i])) for i in most],
    )


def _finite(value: np.float64) -> float | None:
    return float(value) if value > -np.inf else None
