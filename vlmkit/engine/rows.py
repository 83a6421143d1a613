"""One row on the host: what was asked, how far it is, and what its last token meant."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import mlx.core as mx

from vlmkit.engine.sampler_groups import RowSampler
from vlmkit.engine.text import (
    TextDecoder,
    TextState,
    flush_text,
    init_text,
    push_token,
    release_text,
)
from vlmkit.errors import VlmkitError
from vlmkit.types import Decision, Finish, Inputs, Pytree, StoppingCriterion, TokenEvent


class RowSpec(NamedTuple):
    """All that the decode loop needs to know of one row."""

    inputs: Inputs
    sampler: RowSampler
    stopping: StoppingCriterion
    text: TextDecoder
    token_limit: int | None  # the row ends at this many tokens, whatever the criteria say


class PromptTiming(NamedTuple):
    """How long the prefill took that this row was part of."""

    seconds: float  # this row's share, by prompt tokens
    tokens_per_s: float  # of the whole prefill, cached tokens not counted
    cached_tokens: int = 0  # taken from an equal prompt beside it


class RowState(NamedTuple):
    """A row in flight. ``decision`` applies to the token that is being drawn."""

    row: int  # place of the row in the order of the specs
    spec: RowSpec
    stopping: Pytree
    decision: Decision
    text: TextState
    num_tokens: int
    timing: PromptTiming
    first_token_s: float  # clock reading when the first token was there


class Step(NamedTuple):
    """One token of one row, as the decode loop yields it."""

    row: int  # place of the row in the order of the specs
    num_prompt_tokens: int
    token_id: int | None  # None only for a row that ended before its first token
    forced: bool
    text: str  # newly released text
    num_tokens: int
    finish: Finish | None
    logits: mx.array | None  # float32 [V], before the sampler chain
    timing: PromptTiming
    first_token_s: float


def start_row(place: int, spec: RowSpec) -> RowState:
    """A row before its prefill. Its decision may already force the first token, or end the row."""
    stopping, decision = spec.stopping.init(spec.inputs.token_ids.tolist())
    if spec.token_limit == 0 and decision.finish is None:
        decision = decision._replace(finish=Finish("length", "context"))
    timing = PromptTiming(0.0, 0.0)
    return RowState(place, spec, stopping, decision, init_text(), 0, timing, 0.0)


def may_continue(row: RowState) -> bool:
    """Whether the row can have another token after the one being drawn."""
    limit = row.spec.token_limit
    return limit is None or row.num_tokens + 1 < limit


def observe_token(
    row: RowState, sampled_id: int, token_id: int, logits: mx.array
) -> tuple[RowState, Step]:
    """Take in the token that was drawn: update text and stopping, and say what comes out."""
    if token_id < 0:
        raise VlmkitError(
            f"row {row.row}: no token can be drawn after {row.num_tokens} tokens: the logits "
            "are NaN, or the sampler chain removed every token; check the weights' dtype and the "
            "chain's biases"
        )
    forced = token_id != sampled_id or is_forced(row.decision, sampled_id)
    num_tokens = row.num_tokens + 1
    text = push_token(row.spec.text, row.text, token_id)
    stopping, decision = row.spec.stopping.step(
        row.stopping, TokenEvent(token_id, text.full, num_tokens, drawn_id=sampled_id)
    )
    if decision.finish is None and num_tokens == row.spec.token_limit:
        decision = decision._replace(finish=Finish("length", "context"))
    if decision.finish is not None:
        text = flush_text(row.spec.text, text)
        text, released = release_text(text, decision.finish.text_end)
    else:
        text, released = release_text(text, decision.hold_from)
    row = row._replace(stopping=stopping, decision=decision, text=text, num_tokens=num_tokens)
    step = Step(
        row=row.row,
        num_prompt_tokens=len(row.spec.inputs.token_ids),
        token_id=token_id,
        forced=forced,
        text=released,
        num_tokens=num_tokens,
        finish=decision.finish,
        logits=logits,
        timing=row.timing,
        first_token_s=row.first_token_s,
    )
    return row, step


def is_forced(decision: Decision, sampled_id: int) -> bool:
    """Whether a decision chose the token, even if the sampler happened to draw the same one."""
    return decision.forced_id is not None and sampled_id != decision.forced_unless


def apply_decisions(sampled: mx.array, rows: Sequence[RowState]) -> mx.array:
    """Replace drawn tokens (int32 ``[B]``) by what the rows' decisions force or substitute."""
    tokens = sampled
    substitutes = [row.decision.substitute for row in rows]
    if any(substitute is not None for substitute in substitutes):
        width = max(len(substitute[0]) for substitute in substitutes if substitute is not None)
        # -2 is no token id, so padding never matches
        table = [
            [*(entry[0] if entry else ()), *[-2] * (width - len(entry[0] if entry else ()))]
            for entry in substitutes
        ]
        hits = mx.any(sampled[:, None] == mx.array(table, dtype=mx.int32), axis=1)
        replacements = mx.array([entry[1] if entry else -2 for entry in substitutes], mx.int32)
        tokens = mx.where(hits, replacements, tokens)
    forced_ids = [row.decision.forced_id for row in rows]
    if any(forced_id is not None for forced_id in forced_ids):
        forced = mx.array([-1 if i is None else i for i in forced_ids], dtype=mx.int32)
        allowed = [row.decision.forced_unless for row in rows]
        unless = mx.array([-2 if i is None else i for i in allowed], dtype=mx.int32)
        tokens = mx.where((forced >= 0) & (sampled != unless), forced, tokens)
    return tokens


def unstarted_step(row: RowState) -> Step:
    """The only step of a row that ends before its first token."""
    return Step(
        row=row.row,
        num_prompt_tokens=len(row.spec.inputs.token_ids),
        token_id=None,
        forced=False,
        text="",
        num_tokens=0,
        finish=row.decision.finish,
        logits=None,
        timing=row.timing,
        first_token_s=0.0,
    )
