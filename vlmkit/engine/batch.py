"""A batch: rows, and all that is aligned with them, which moves by one select and one join.

All rows of a batch are contrasted by one method, or by none, so each has the same number of
streams: its own, and those that the method compares it with. They are neighbours in the states.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import mlx.core as mx

from vlmkit.contracts.interface import DecodeState, Hidden
from vlmkit.engine.rows import RowState
from vlmkit.numeric.probabilities import entropy, log_softmax
from vlmkit.passes.decode import decode_hidden
from vlmkit.prompts import join_states, select_state
from vlmkit.resolve.method import Method
from vlmkit.sampling.sections import (
    Sections,
    apply_hosts,
    join_sections,
    select_sections,
    set_hosts,
)

_DOUBTS = frozenset({"entropy", "confidence"})


class Logits(NamedTuple):
    """What the models say of each row's next token; ``others`` until they are combined."""

    own: mx.array  # float32 [B, V], of the row's own stream
    hidden: mx.array  # [B, hidden], of the row's own stream
    others: mx.array | None = None  # float32 [B, N, V], of what the row is contrasted with
    combined: mx.array | None = None  # float32 [B, V], after the contrast
    doubts: mx.array | None = None  # float32 [B, 2]: entropy and confidence of ``own``, where read

    @property
    def entering(self) -> mx.array:
        """What enters the rows' sampler chains, float32 ``[B, V]``."""
        return self.own if self.combined is None else self.combined


class Batch(NamedTuple):
    """B rows after a forward pass: what their next tokens are chosen from."""

    rows: tuple[RowState, ...]
    streams: tuple[DecodeState, ...]  # of each model of ``Method.parts``, with n streams per row:
    # those of row b have the places from ``b * n`` to ``b * n + n - 1``
    sections: Sections
    logits: Logits

    @property
    def num_requests(self) -> int:
        """A search has several rows."""
        return len({row.number for row in self.rows})


def select(method: Method, batch: Batch, rows: list[int]) -> Batch | None:
    """Keep these rows, those of a section in any order; a row may come twice (a branch).

    Returns:
        The batch; None where no row is left.
    """
    if rows == list(range(len(batch.rows))):
        return batch
    if not rows:
        return None
    return _ordered(method, batch, rows)._replace(sections=select_sections(batch.sections, rows))


def join(method: Method, first: Batch, second: Batch) -> Batch:
    """Put the rows of two batches into one, those of equal chains together."""
    sections, order = join_sections(first.sections, second.sections)
    joined = Batch(
        first.rows + second.rows,
        tuple(map(join_states, zip(first.streams, second.streams, strict=True))),
        sections,
        Logits._make(
            None if one is None or two is None else mx.concatenate([one, two])
            for one, two in zip(first.logits, second.logits, strict=True)
        ),
    )
    return joined if order == list(range(len(order))) else _ordered(method, joined, order)


def _ordered(method: Method, batch: Batch, rows: Sequence[int]) -> Batch:
    """All of these rows but their sections."""
    index = mx.array(list(rows))
    streams = [
        select_state(state, [row * count + stream for row in rows for stream in range(count)])
        for (_, count), state in zip(method.parts, batch.streams, strict=True)
    ]
    logits = Logits._make(None if part is None else part[index] for part in batch.logits)
    return Batch(tuple(batch.rows[row] for row in rows), tuple(streams), batch.sections, logits)


def step_batch(method: Method, batch: Batch, token_ids: mx.array) -> Batch:
    """Build the graph of one forward pass per model, each row taking its token int32 [B]."""
    streams, hidden = [], []
    for (model, count), state in zip(method.parts, batch.streams, strict=True):
        tokens = token_ids if count == 1 else mx.repeat(token_ids, count)
        after, output = decode_hidden(model, state, tokens, taps=method.taps)
        streams.append(after)
        hidden.append(output)
    return batch._replace(streams=tuple(streams), logits=read_logits(method, hidden))


def read_logits(method: Method, hidden: Sequence[Hidden]) -> Logits:
    """Project the hidden states of each model's streams to logits."""
    (own, *amateur), count = hidden, method.num_own
    logits = method.model.logits(own.final).astype(mx.float32)
    if count == 1:
        final, mine, others = own.final, logits, None
    else:
        by_row = logits.reshape(-1, count, logits.shape[-1])
        mine, others = by_row[:, 0], by_row[:, 1:]
        final = own.final.reshape(-1, count, own.final.shape[-1])[:, 0]
    contrast = method.contrast
    if contrast is not None and contrast.early_layers:
        tapped = dict(zip(method.taps, own.taps, strict=True))
        early = mx.stack([tapped[layer] for layer in contrast.early_layers], axis=1)
        others = method.model.logits(early).astype(mx.float32)
    if method.amateur is not None:
        theirs = method.amateur.model.logits(amateur[0].final).astype(mx.float32)
        others = theirs.reshape(mine.shape[0], -1, theirs.shape[-1])
        mine, others = _same_vocabulary(mine, others)
    return Logits(mine, final, others)


def combine(method: Method, batch: Batch) -> Batch:
    """Contrast each row's streams, and read what the rows' stopping criteria ask for.

    A method keeps what is plausible beside the most likely token. Where a grammar rules that token
    out, the cut is to be taken among those that are left, or it could leave none of them; so the
    host reducers of a contrasted row's chain apply here, to all streams, and not in the chain.
    """
    sections, failures = set_hosts(batch.sections, [row.hosts for row in batch.rows])
    logits, others = batch.logits, batch.logits.others
    if any(row.spec.stopping.reads & _DOUBTS for row in batch.rows):
        logits = logits._replace(doubts=read_doubts(logits.own))
    if method.contrast is not None and others is not None:
        own, more = apply_hosts(sections, logits.own)
        if own is not logits.own:
            others = mx.where(own[:, None] == -mx.inf, -mx.inf, others)
        num_tokens = mx.array([row.num_tokens for row in batch.rows], mx.int32)
        combined = method.contrast.combine(own, others, num_tokens)
        if own is not logits.own:  # a method's difference of removed tokens may be NaN
            combined = mx.where(own == -mx.inf, -mx.inf, combined)
        failures |= more
        logits = logits._replace(others=None, combined=combined)
    return Batch(with_failures(batch.rows, failures), batch.streams, sections, logits)


def with_failures(
    rows: tuple[RowState, ...], failures: Mapping[int, Exception]
) -> tuple[RowState, ...]:
    """Note why rows of these places cannot go on; what a row failed at first stays."""
    if not failures:
        return rows
    return tuple(
        row._replace(failure=row.failure or failures.get(place)) for place, row in enumerate(rows)
    )


def read_doubts(logits: mx.array) -> mx.array:
    """Entropy in nats and largest probability of each row, float32 ``[B, 2]``."""
    logprobs = log_softmax(logits)
    largest = mx.exp(mx.max(logprobs, axis=-1, keepdims=True))
    return mx.concatenate([entropy(logprobs), largest], axis=-1)


def _same_vocabulary(own: mx.array, others: mx.array) -> tuple[mx.array, mx.array]:
    """Give both the width of ``own``; ids that the others don't have can't be drawn.

    Checkpoints pad their vocabulary to different sizes; no token has those ids.
    """
    size, theirs = own.shape[-1], others.shape[-1]
    if theirs > size:
        return own, others[..., :size]
    if theirs < size:
        others = mx.pad(others, [(0, 0), (0, 0), (0, size - theirs)], constant_values=-mx.inf)
        own = mx.where(mx.arange(size) < theirs, own, -mx.inf)
    return own, others
