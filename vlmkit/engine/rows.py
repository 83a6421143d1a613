"""One row on the host: what was asked, how far it is, and what its last token meant."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import mlx.core as mx

from vlmkit.contracts.inputs import Inputs
from vlmkit.contracts.interface import PromptShape, Pytree
from vlmkit.contracts.stages import Decision, Finish, StepTrace, StoppingCriterion, TokenEvent
from vlmkit.detokenize.row import (
    TextDecoder,
    TextState,
    flush_text,
    init_text,
    push_token,
    release_text,
)
from vlmkit.errors import VlmkitError
from vlmkit.ranks.group import join_ranks
from vlmkit.sampling.sections import RowSampler
from vlmkit.search import Search


class RowSpec(NamedTuple):
    """All that the decode loop needs to know of one row."""

    inputs: Inputs
    sampler: RowSampler
    stopping: StoppingCriterion
    text: TextDecoder
    token_limit: int | None  # the row ends at this many tokens, whatever the criteria say
    others: tuple[Inputs, ...] | None = None  # the prompts that its logits are contrasted with,
    # none where these are early layers; None: the model's own logits enter the chain
    search: Search | None = None  # None: one token is drawn per step
    num_eos: int = 1  # token ids that end the row, for a search
    trace: bool = False  # keep the logits after each stage
    number: int = 0  # what steps and errors call the row: its place among the caller's requests
    reused: bool = False  # a later row of the same loop begins with the same prompt
    clock: Callable[[], float] = time.perf_counter  # seconds


class PromptTiming(NamedTuple):
    """How long the prefill took that this row was part of."""

    seconds: float = 0.0  # this row's share, by the tokens that were computed for it
    tokens_per_s: float = 0.0  # of the whole prefill, cached tokens not counted
    cached_tokens: int = 0  # taken from an equal prompt beside it
    prompt_s: float = 0.0  # of the prefill, for this prompt: of all rows that have it together
    others_s: float = 0.0  # of ``seconds``, for what the row is contrasted with


class RowState(NamedTuple):
    """A row in flight, or a path of a search. ``decision`` is about the token being drawn."""

    spec: RowSpec
    prompt: PromptShape
    stopping: Pytree = None
    decision: Decision = Decision()
    text: TextState = init_text()
    hosts: tuple[Any, ...] = ()  # states of the chain's host reducers
    token_ids: tuple[int, ...] = ()  # generated so far
    timing: PromptTiming = PromptTiming()
    started_s: float = 0.0  # clock reading when its prefill began
    first_token_s: float = 0.0  # clock reading when the first token was there
    failure: Exception | None = None  # why the row ends at the token being drawn
    searching: Searching | None = None  # how far its search is; the same for all of its paths
    trail: tuple[Step, ...] = ()  # of a search: the steps that led here

    @property
    def number(self) -> int:
        """What steps and errors call it; the same for all paths of a search."""
        return self.spec.number

    @property
    def search(self) -> Search | None:
        """What gives the row its tokens; None: they are drawn."""
        return self.spec.search

    @property
    def goes_on(self) -> bool:
        """Whether the row has not finished."""
        return self.decision.finish is None

    @property
    def num_tokens(self) -> int:
        """Tokens generated so far."""
        return len(self.token_ids)


class Taken(NamedTuple):
    """The token that a row takes, and what is known of it."""

    sampled_id: int  # before forcing
    token_id: int
    logits: mx.array  # float32 [V], the model's own
    entropy: float | None = None
    confidence: float | None = None
    trace: StepTrace | None = None


class Step(NamedTuple):
    """One token of one row, as the decode loop yields it."""

    row: int  # the spec's number
    prompt: PromptShape = PromptShape(0)
    token_id: int | None = None  # None for a row that ends without a further token
    forced: bool = False
    text: str = ""  # newly released text
    num_tokens: int = 0
    finish: Finish | None = None
    logits: mx.array | None = None  # float32 [V], before the sampler chain
    timing: PromptTiming = PromptTiming()
    first_token_s: float = 0.0
    trace: StepTrace | None = None
    hypotheses: tuple[tuple[float, tuple[Step, ...]], ...] = ()
    # on the last step of a search: (score, steps) of its results, the best first


class Searching(NamedTuple):
    """A request that is being searched for."""

    state: Any  # the search's own
    num_emitted: int = 0  # steps that were given out


def start_row(spec: RowSpec) -> RowState:
    """A row before its prefill. Its decision may already force the first token, or end the row."""
    row = RowState(spec, PromptShape.of(spec.inputs))
    prompt_ids = spec.inputs.token_ids.tolist()
    try:
        stopping, decision = spec.stopping.init(prompt_ids)
        hosts = tuple(host.init(prompt_ids) for host in spec.sampler.chain.hosts)
    except Exception as error:  # a criterion or a stage of a third party raises what it likes
        return fail_row(row, error)
    if spec.token_limit == 0 and decision.finish is None:
        decision = decision._replace(finish=Finish("length", "context"))
    return row._replace(stopping=stopping, decision=decision, hosts=hosts)


def may_continue(row: RowState) -> bool:
    """Whether the row can have another token after the one being drawn.

    A search has taken that token already, and only rows that go on are left of it.
    """
    if row.search is not None:
        return True
    limit = row.spec.token_limit
    return row.failure is None and (limit is None or row.num_tokens + 1 < limit)


def observe_token(row: RowState, taken: Taken) -> tuple[RowState, Step]:
    """Take in the token that was drawn: update text and stopping, and say what comes out.

    A row that cannot go on ends with an error, which is its last step; its neighbours go on.
    """
    if row.failure is not None:
        row = fail_row(row, row.failure)
    elif taken.token_id < 0:
        row = fail_row(row, nothing_to_draw(row))
    else:
        try:
            return _take(row, taken)
        except Exception as error:  # a criterion of a third party raises what it likes
            row = fail_row(row, error)
    return row, end_row(row)


def fail_row(row: RowState, error: Exception) -> RowState:
    """Return the row as one that cannot go on."""
    return row._replace(decision=Decision(finish=Finish("error", "error", error=error)))


def _take(row: RowState, taken: Taken) -> tuple[RowState, Step]:
    sampled_id, token_id = taken.sampled_id, taken.token_id
    decision = row.decision
    # Even if the sampler happened to draw the same one.
    forced = decision.forced_id is not None and sampled_id not in dict(decision.overrides)
    num_tokens = row.num_tokens + 1
    text = push_token(row.spec.text, row.text, token_id)
    elapsed_s = None
    if "elapsed_s" in row.spec.stopping.reads:  # on rank 0's clock, since it decides
        elapsed_s = join_ranks().first_seconds(row.spec.clock() - row.started_s)
    event = TokenEvent(
        token_id,
        text.full,
        num_tokens,
        drawn_id=sampled_id,
        entropy=taken.entropy,
        confidence=taken.confidence,
        elapsed_s=elapsed_s,
    )
    stopping, decision = row.spec.stopping.step(row.stopping, event)
    if decision.finish is None and num_tokens == row.spec.token_limit:
        decision = decision._replace(finish=Finish("length", "context"))
    if decision.finish is not None:
        mx.async_eval(taken.logits)  # type: ignore[no-untyped-call]  # else it holds the batch's
        text = flush_text(row.spec.text, text)
        text, released = release_text(text, decision.finish.text_end)
    else:
        text, released = release_text(text, decision.hold_from)
    reducers = row.spec.sampler.chain.hosts
    row = row._replace(
        stopping=stopping,
        decision=decision,
        text=text,
        hosts=tuple(
            host.step(state, token_id) for host, state in zip(reducers, row.hosts, strict=True)
        ),
        token_ids=(*row.token_ids, token_id),
    )
    return row, _step_of(row, released, taken, forced=forced or token_id != sampled_id)


def _step_of(row: RowState, text: str, taken: Taken | None = None, *, forced: bool = False) -> Step:
    return Step(
        row=row.spec.number,
        prompt=row.prompt,
        token_id=None if taken is None else taken.token_id,
        forced=forced,
        text=text,
        num_tokens=len(row.token_ids),
        finish=row.decision.finish,
        logits=None if taken is None else taken.logits,
        timing=row.timing,
        first_token_s=row.first_token_s,
        trace=None if taken is None else taken.trace,
    )


def nothing_to_draw(row: RowState) -> VlmkitError:
    """Why a row ends where no token has a finite logit."""
    cut = (
        ""
        if row.spec.others is None
        else "; the contrast may also cut every token that the chain keeps (a list of allowed "
        "tokens, say): lower its plausibility cut"
    )
    return VlmkitError(
        f"row {row.number}: no token can be drawn after {row.num_tokens} tokens: the logits "
        "are NaN, or the sampler chain removed every token; check the weights' dtype and the "
        f"chain's biases{cut}"
    )


def apply_decisions(drawn: mx.array, decisions: Sequence[Decision]) -> mx.array:
    """Return the tokens that the rows take where these (int32 ``[B]``) are drawn."""
    if not any(decision.overrides_draws for decision in decisions):
        return drawn
    forced = mx.array([-1 if one.forced_id is None else one.forced_id for one in decisions])
    tokens = mx.where(forced < 0, drawn, forced.astype(drawn.dtype))
    width = max(len(decision.overrides) for decision in decisions)
    if width:
        # -2 is no token id, so padding never matches
        padded = [[*one.overrides, *[(-2, 0)] * width][:width] for one in decisions]
        table = mx.array(padded, drawn.dtype)
        hits = drawn[:, None] == table[:, :, 0]
        replaced = mx.sum(mx.where(hits, table[:, :, 1], 0), axis=1)
        tokens = mx.where(mx.any(hits, axis=1), replaced, tokens)
    return tokens


def end_row(row: RowState) -> Step:
    """The last step of a row that has ended without a further token.

    After an error, text that was held back comes out.
    """
    finish, text, released = row.decision.finish, row.text, ""
    if finish is not None and finish.error is not None:
        try:
            text = flush_text(row.spec.text, text)
        except Exception:  # decoding may be what the row failed at
            text = row.text
        _, released = release_text(text, None)
    return _step_of(row, released)
