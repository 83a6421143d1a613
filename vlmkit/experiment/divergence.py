"""Where a response that ran again first differs from its record, and what it was drawn from."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np
from numpy.typing import ArrayLike, NDArray

from vlmkit.experiment.records import Record
from vlmkit.tracing.measure import leading


class Candidate(msgspec.Struct, kw_only=True, frozen=True):
    """A token of a distribution."""

    token_id: int
    text: str
    logprob: float | None  # None: it cannot be drawn, or was not recorded
    rank: int | None  # 1 is the most likely; None: likewise


class Distribution(msgspec.Struct, kw_only=True, frozen=True):
    """What a token came from, at one position."""

    # "recorded model": the model's own as recorded, as far as it was; "model": its own now;
    # "drawn from": now, after contrast and the sampler chain.
    name: str
    top: list[Candidate]  # the most likely tokens, the first one first
    recorded: Candidate | None  # the recorded token in it; None: the record had ended
    now: Candidate | None  # the token that was taken now


class Side(msgspec.Struct, kw_only=True, frozen=True):
    """What one of two responses has where they part."""

    token_id: int | None  # None: it had ended
    token: str | None
    num_tokens: int
    finish_kind: str | None
    text: str  # the whole response
    error: str | None = None


class Divergence(msgspec.Struct, kw_only=True, frozen=True):
    """A response that is not as it was recorded."""

    arm: str
    sample: str
    seed: int
    what: str  # "token", "length", "ending", "text" or "error"
    position: int | None  # the first token that differs, from 0; None: all tokens are equal
    recorded: Side
    now: Side
    distributions: list[Distribution] = []  # at that position, where there are any


def first_difference(recorded: Sequence[int], now: Sequence[int]) -> int | None:
    """Return the first place at which two sequences differ; None where they are equal.

    Example:
        >>> first_difference([1, 2, 3], [1, 4, 3]), first_difference([1], [1, 2])
        (1, 1)
        >>> first_difference([1], [1]) is None
        True
    """
    for place, (one, other) in enumerate(zip(recorded, now, strict=False)):
        if one != other:
            return place
    return None if len(recorded) == len(now) else min(len(recorded), len(now))


def compare_records(
    recorded: Record,
    now: Record,
    distributions: Sequence[Distribution],
    decode: Callable[[Sequence[int]], str],
) -> Divergence | None:
    """Compare a response with its record; None where tokens, ending and text are the same.

    Args:
        recorded: the record.
        now: the same unit, run again.
        distributions: what the first token that differs came from.
        decode: token ids to text, special tokens included.
    """
    position = first_difference(recorded.token_ids, now.token_ids)
    what = _what(recorded, now, position)
    if what is None:
        return None
    return Divergence(
        arm=now.arm,
        sample=now.sample,
        seed=now.seed,
        what=what,
        position=position,
        recorded=_side(recorded, position, decode),
        now=_side(now, position, decode),
        distributions=list(distributions),
    )


def _what(recorded: Record, now: Record, position: int | None) -> str | None:
    if recorded.error != now.error:
        return "error"
    if position is not None:
        short = position >= min(len(recorded.token_ids), len(now.token_ids))
        return "length" if short else "token"
    for name, fields in (("ending", ("finish_reason", "finish_kind")), ("text", ("text",))):
        if any(getattr(recorded, field) != getattr(now, field) for field in fields):
            return name
    return None


def _side(record: Record, position: int | None, decode: Callable[[Sequence[int]], str]) -> Side:
    ended = position is None or position >= len(record.token_ids)
    token_id = None if ended or position is None else record.token_ids[position]
    return Side(
        token_id=token_id,
        token=None if token_id is None else decode([token_id]),
        num_tokens=len(record.token_ids),
        finish_kind=record.finish_kind,
        text=record.text,
        error=record.error,
    )


def describe_distribution(
    name: str,
    logits: ArrayLike,
    *,
    recorded_id: int | None,
    now_id: int | None,
    decode: Callable[[Sequence[int]], str],
    top_n: int,
) -> Distribution:
    """Return the most likely tokens of a distribution, and where two of them stand.

    Args:
        name: what it is called.
        logits: float ``[V]``; −inf where a token was removed.
        recorded_id: the recorded token; None: there is none.
        now_id: the token that was taken now.
        decode: token ids to text.
        top_n: how many tokens, at least 1.

    Example:
        >>> found = describe_distribution("model", np.log([0.5, 0.25, 0.25]), recorded_id=2,
        ...                               now_id=0, decode=lambda ids: "abc"[ids[0]], top_n=1)
        >>> found.top[0].text, found.recorded.rank, round(found.recorded.logprob, 4)
        ('a', 3, -1.3863)
    """
    logprobs = _log_softmax(np.array(logits, np.float64))

    def candidate(token_id: int) -> Candidate:
        own = logprobs[token_id]
        ahead = np.count_nonzero(logprobs > own) + np.count_nonzero(logprobs[:token_id] == own)
        kept = bool(own > -np.inf)
        return Candidate(
            token_id=token_id,
            text=decode([token_id]),
            logprob=float(own) if kept else None,
            rank=int(ahead) + 1 if kept else None,
        )

    def chosen(token_id: int | None) -> Candidate | None:
        known = token_id is not None and 0 <= token_id < len(logprobs)
        return candidate(token_id) if known and token_id is not None else None

    return Distribution(
        name=name,
        top=[candidate(int(token_id)) for token_id in leading(logprobs, top_n)],
        recorded=chosen(recorded_id),
        now=chosen(now_id),
    )


def recorded_distribution(
    record: Record, position: int, *, now_id: int, decode: Callable[[Sequence[int]], str]
) -> Distribution | None:
    """Return what was recorded of the model's own distribution of one token; None: nothing was.

    Args:
        record: the record.
        position: of the token, from 0.
        now_id: the token that was taken now.
        decode: token ids to text.
    """
    if position >= len(record.top_logprobs):
        return None
    top = [
        Candidate(token_id=token_id, text=decode([token_id]), logprob=logprob, rank=rank)
        for rank, (token_id, logprob) in enumerate(record.top_logprobs[position], start=1)
    ]
    known = {candidate.token_id: candidate for candidate in top}

    def chosen(token_id: int, logprob: float | None) -> Candidate:
        unranked = Candidate(token_id=token_id, text=decode([token_id]), logprob=logprob, rank=None)
        return known.get(token_id, unranked)

    return Distribution(
        name="recorded model",
        top=top,
        recorded=chosen(record.token_ids[position], record.logprobs[position]),
        now=chosen(now_id, None),
    )


def _log_softmax(values: NDArray[np.float64]) -> NDArray[np.float64]:
    largest = values.max()
    if not np.isfinite(largest):
        return np.full(len(values), -np.inf)
    shifted: NDArray[np.float64] = values - largest
    shifted -= np.log(np.exp(shifted).sum())
    return shifted
