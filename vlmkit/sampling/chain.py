"""A sampler chain: stages in the order they are given, then one draw per row."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from vlmkit.contracts.interface import Pytree
from vlmkit.contracts.stages import HostReducer, SamplerStage
from vlmkit.errors import VlmkitError, placed
from vlmkit.sampling.draw import NO_TOKEN, draw_greedy, draw_inverse_cdf, is_finite
from vlmkit.sampling.numerics import scatter


class SamplerChain(NamedTuple):
    """Pure functions from logits to a token id per row. The state is a tuple, one per stage.

    ``uniforms`` is float32 ``[B, 1 + num_random]``: column 0 is for the draw, column j for the
    j-th random stage. It may be None when ``num_random`` is 0 and the chain is greedy.
    A row draws -1 when it has no finite largest logit: all are −inf, or one is NaN or +inf.
    """

    stages: tuple[SamplerStage, ...]
    init: Callable[[Sequence[NDArray[np.int32]], int], Pytree]  # (prompt ids per row, V) -> state
    sample: Callable[[Pytree, mx.array, mx.array | None], tuple[Pytree, mx.array]]
    # (state, logits [B, V], uniforms) -> state, token ids int32 [B]: the stages and the draw
    update: Callable[[Pytree, mx.array], Pytree]  # (state, the ids int32 [B] really taken) -> state
    run: Callable[[Pytree, mx.array, mx.array | None], tuple[Pytree, mx.array]]
    # (state, logits [B, V], uniforms) -> state, logits [B, V] after all stages, sample's to draw of
    apply: Callable[[Pytree, mx.array, mx.array | None], mx.array]  # the logits of run alone
    draw: Callable[[mx.array, mx.array | None], mx.array]  # (those logits, uniforms) -> int32 [B]
    trace: Callable[[Pytree, mx.array, mx.array | None], tuple[mx.array, ...]]
    # the same arguments as run -> the logits [B, V] after each stage
    hosts: tuple[HostReducer, ...]  # of the stages that have one, in order
    with_hosts: Callable[[Pytree, Sequence[mx.array]], Pytree]
    # (state, one array [B, ...] per host reducer) -> the state that the next draw reads
    apply_hosts: Callable[[Pytree, mx.array], mx.array]
    # (state, logits [B, V]) -> logits [B, V] after the stages that apply ahead of the others
    num_ahead: int
    num_random: int
    is_greedy: bool


def chain(stages: Sequence[SamplerStage], *, hosts_ahead: bool = False) -> SamplerChain:
    """Compose stages; no stage at all draws from ``softmax(logits)``.

    ``sample`` gives the same state and tokens as ``draw`` after ``run``, but once a stage has left
    a short list of candidates it goes on with those alone, and takes one that is left undrawn.

    Args:
        stages: in the order in which they apply.
        hosts_ahead: stages with a host reducer that are not random apply in ``apply_hosts`` alone,
            and leave the logits as they are at their place: for rows with a contrast.

    Example:
        >>> from vlmkit.sampling import Temperature, TopK, build_chain
        >>> sampler = build_chain([TopK(k=2), Temperature(temperature=0.7)])
        >>> state = sampler.init([np.array([5, 1])], 4)
        >>> logits = mx.array([[0.0, 9.0, 1.0, 9.5]])
        >>> state, token_ids = sampler.sample(state, logits, mx.array([[0.1]]))
        >>> token_ids.item()
        1
    """
    given = stages = tuple(stages)
    host_places = [index for index, stage in enumerate(stages) if stage.host is not None]
    ahead = [index for index in host_places if hosts_ahead and not stages[index].is_random]
    stages = tuple(
        _passing(stage) if index in ahead else stage for index, stage in enumerate(given)
    )
    is_greedy = any(stage.is_greedy for stage in stages)
    draw = _draw_largest if is_greedy else _draw

    def init(prompts: Sequence[NDArray[np.int32]], vocab_size: int) -> Pytree:
        return tuple(stage.init(prompts, vocab_size) for stage in stages)

    def update(state: Pytree, token_ids: mx.array) -> Pytree:
        return tuple(
            stage.update(part, token_ids) for stage, part in zip(stages, state, strict=True)
        )

    def trace(state: Pytree, logits: mx.array, uniforms: mx.array | None) -> tuple[mx.array, ...]:
        return tuple(after for _, after in _steps(stages, state, logits, uniforms))

    def run(state: Pytree, logits: mx.array, uniforms: mx.array | None) -> tuple[Pytree, mx.array]:
        after = list(_steps(stages, state, logits, uniforms))
        left = after[-1][1] if after else logits.astype(mx.float32)
        return tuple(part for part, _ in after), left

    def apply(state: Pytree, logits: mx.array, uniforms: mx.array | None) -> mx.array:
        return run(state, logits, uniforms)[1]

    def sample(
        state: Pytree, logits: mx.array, uniforms: mx.array | None
    ) -> tuple[Pytree, mx.array]:
        state, ids, logits = _run(stages, state, logits.astype(mx.float32), uniforms)
        if ids is not None and ids.shape[1] == 1:
            return state, mx.where(is_finite(logits), ids.astype(mx.int32), NO_TOKEN)[:, 0]
        places = draw(logits, uniforms)
        if ids is None:
            return state, places
        found = mx.take_along_axis(ids, mx.maximum(places, 0)[:, None], axis=-1)[:, 0]
        return state, mx.where(places < 0, places, found.astype(mx.int32))

    return SamplerChain(
        stages=stages,
        init=init,
        sample=sample,
        update=update,
        run=run,
        apply=apply,
        draw=draw,
        trace=trace,
        hosts=tuple(stage.host for stage in stages if stage.host is not None),
        with_hosts=partial(_with_hosts, host_places),
        apply_hosts=partial(_apply_some, given, ahead),
        num_ahead=len(ahead),
        num_random=sum(stage.is_random for stage in stages),
        is_greedy=is_greedy,
    )


def _passing(stage: SamplerStage) -> SamplerStage:
    """A stage that has applied already."""
    return stage._replace(
        apply=lambda state, logits, uniform: logits, by_value=True, shortlist=None, observe=None
    )


def placed_stage(stage: SamplerStage, index: int) -> SamplerStage:
    """Let a stage's errors, now and while it runs, name its place in the list of stages."""
    keys, host, observe = ("sampling", index), stage.host, stage.observe
    return stage._replace(
        init=placed(stage.init, *keys),
        apply=placed(stage.apply, *keys),
        update=placed(stage.update, *keys),
        observe=None if observe is None else placed(observe, *keys),
        host=None if host is None else HostReducer(*(placed(function, *keys) for function in host)),
    )


def numbered_hosts(sampler: SamplerChain, number: int) -> SamplerChain:
    """Let errors on the host name their row; for the rows of a batch, all of them.

    The number travels in the states, so chains that were numbered can share their functions.

    Args:
        sampler: the chain.
        number: what errors call the row.
    """
    return sampler._replace(hosts=tuple(_numbered(host, number) for host in sampler.hosts))


def _numbered(host: HostReducer, number: int) -> HostReducer:
    def named(row: int, function: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except VlmkitError as error:
            raise VlmkitError(f"row {row}: {error}", path=error.path) from error

    return HostReducer(
        init=lambda prompt_ids: (number, named(number, host.init, prompt_ids)),
        step=lambda state, token_id: (state[0], named(state[0], host.step, state[1], token_id)),
        value=lambda state: named(state[0], host.value, state[1]),
    )


def _draw_largest(logits: mx.array, uniforms: mx.array | None) -> mx.array:
    """Draw the most likely token of each row."""
    return draw_greedy(logits)


def _draw(logits: mx.array, uniforms: mx.array | None) -> mx.array:
    """Draw each row's token by the first of its uniform numbers."""
    if uniforms is None:
        raise ValueError("a chain that isn't greedy needs uniforms [B, 1 + num_random]")
    return draw_inverse_cdf(logits, uniforms[:, 0])


def _steps(
    stages: Sequence[SamplerStage], state: Pytree, logits: mx.array, uniforms: mx.array | None
) -> Iterator[tuple[Pytree, mx.array]]:
    """Run the stages one by one: each one's state as it applied, and the logits after it."""
    logits = logits.astype(mx.float32)
    columns = _columns(stages, uniforms)
    for stage, part, column in zip(stages, state, columns, strict=True):
        seen = part if stage.observe is None else stage.observe(part, logits)
        logits = stage.apply(seen, logits, column)
        yield seen, logits


def _apply_some(
    stages: Sequence[SamplerStage], places: Sequence[int], state: Pytree, logits: mx.array
) -> mx.array:
    for index in places:
        logits = stages[index].apply(state[index], logits, None)
    return logits


def _with_hosts(places: Sequence[int], state: Pytree, values: Sequence[mx.array]) -> Pytree:
    parts = list(state)
    for index, value in zip(places, values, strict=True):
        parts[index] = value
    return tuple(parts)


def _columns(stages: Sequence[SamplerStage], uniforms: mx.array | None) -> list[mx.array | None]:
    """Return each stage's uniform numbers ``[B]``, None for a stage that isn't random."""
    num_random = sum(stage.is_random for stage in stages)
    if num_random == 0:
        return [None] * len(stages)
    if uniforms is None or uniforms.shape[1] != 1 + num_random:
        shape = None if uniforms is None else uniforms.shape
        raise ValueError(f"uniforms must be [B, {1 + num_random}] for this chain, not {shape}")
    columns: list[mx.array | None] = []
    used = 0
    for stage in stages:
        used += stage.is_random
        columns.append(uniforms[:, used] if stage.is_random else None)
    return columns


def _run(
    stages: Sequence[SamplerStage], state: Pytree, logits: mx.array, uniforms: mx.array | None
) -> tuple[Pytree, mx.array | None, mx.array]:
    """Run the stages on as few columns as possible: new state, the columns' ids, their logits."""
    vocab_size = logits.shape[-1]
    ids: mx.array | None = None
    parts = list(state)
    columns = _columns(stages, uniforms)
    for index, (stage, column) in enumerate(zip(stages, columns, strict=True)):
        if ids is not None and not stage.by_value:
            logits = scatter(ids, logits, vocab_size)
            ids = None
        if stage.observe is not None:
            parts[index] = stage.observe(parts[index], logits)
        if ids is None and stage.shortlist is not None:
            short = stage.shortlist(parts[index], logits)
            if short is not None:
                ids, logits = short
                continue
        logits = stage.apply(parts[index], logits, column)
    return tuple(parts), ids, logits
