"""The best next tokens over the rows of a search: found on the device, ordered on the host."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import mlx.core as mx

from vlmkit.errors import VlmkitError

_LONG = 8192  # fewer values than this are partitioned at once


class Beam(NamedTuple):
    """A live row and what it has gathered so far."""

    row: int
    score: float  # a float32 value


class Candidate(NamedTuple):
    """A token that a live row could take."""

    row: int
    token_id: int
    logprob: float  # of the token alone
    before: float  # score of the row
    score: float  # their sum in float32


def best_candidates(
    logprobs: mx.array, groups: Sequence[Sequence[Beam]], count: int
) -> list[list[Candidate]]:
    """Return each group's best continuations by ``score + logprob``, from the best down.

    Ties go to the earlier beam of the group, then to the lower id. Tokens of logprob −inf are
    left out, so there may be fewer than asked for.

    Args:
        logprobs: float32 ``[K, V]``.
        groups: beams per group; a row may be in several groups.
        count: how many per group, at least 1.

    Raises:
        VlmkitError: the logprobs of a row are NaN.

    Example:
        >>> rows = mx.array([[-1.0, -2.0], [-0.5, -mx.inf]])
        >>> [found] = best_candidates(rows, [[Beam(0, -0.25), Beam(1, -1.0)]], 2)
        >>> [(each.row, each.token_id, each.score) for each in found]
        [(0, 0, -1.25), (1, 0, -1.5)]
    """
    size = logprobs.shape[-1]
    arrays = [mx.isnan(logprobs[:, 0])]  # log-softmax spreads a NaN over its whole row
    for group in groups:
        own = logprobs[mx.array([beam.row for beam in group])]
        totals = (own + mx.array([[beam.score] for beam in group])).reshape(-1)
        ids = _top(totals, min(count, totals.size))
        arrays += [ids, totals[ids], own.reshape(-1)[ids]]
    mx.eval(arrays)
    broken = [row for row, is_nan in enumerate(_values(arrays[0])) if is_nan]
    if broken:
        raise VlmkitError(
            f"search: the logits of live row {broken[0]} are NaN, or the sampler chain removed "
            "every token; check the weights' dtype and the chain's biases",
            path=("search",),
        )
    return [
        _order(group, size, *map(_values, arrays[3 * place + 1 : 3 * place + 4]))
        for place, group in enumerate(groups)
    ]


def _values(array: mx.array) -> list[float]:
    return cast("list[float]", array.tolist())


def _order(
    group: Sequence[Beam],
    size: int,
    ids: Sequence[float],
    totals: Sequence[float],
    logprobs: Sequence[float],
) -> list[Candidate]:
    """Turn flat ids over the group's beams into candidates, from the best down."""
    found = sorted(zip(ids, totals, logprobs, strict=True), key=lambda entry: (-entry[1], entry[0]))
    candidates = []
    for flat, total, logprob in found:
        if logprob > -float("inf"):
            place, token_id = divmod(int(flat), size)
            beam = group[place]
            candidates.append(Candidate(beam.row, token_id, logprob, beam.score, total))
    return candidates


def _top(values: mx.array, count: int) -> mx.array:
    """Return the places of the largest of ``[N]`` values, in any order; ties: the lowest places.

    The largest lie within as many blocks as there are of them: those of the largest maxima.
    """
    size = values.size
    width = 1 << max(1, round((size / count) ** 0.5)).bit_length()
    num_blocks = size // width
    if size < _LONG or num_blocks <= 2 * count:
        return _partition(values, count)
    whole = num_blocks * width
    blocks = _partition(mx.max(values[:whole].reshape(num_blocks, width), axis=-1), count)
    places = mx.sort(blocks)[:, None] * width + mx.arange(width, dtype=mx.uint32)
    places = mx.concatenate([places.reshape(-1), mx.arange(whole, size, dtype=mx.uint32)])
    return places[_partition(values[places], count)]


def _partition(values: mx.array, count: int) -> mx.array:
    # MLX compares equal values by their index, so the lowest one wins (a test holds it to that).
    return mx.argpartition(-values, count - 1)[:count]
