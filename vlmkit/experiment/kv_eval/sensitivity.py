"""Where a policy hurts: in one attention layer alone, in the keys alone, in the values alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vlmkit.contracts.interface import Cache, CacheKind, KVSpec, Model
from vlmkit.experiment.kv_eval.lockstep import Measured, Row, run_lockstep
from vlmkit.experiment.kv_eval.sides import UnlikeError, from_two
from vlmkit.experiment.kv_eval.streams import NewCache, Variant


def in_one_layer(baseline: NewCache, policy: NewCache, layer: int) -> NewCache:
    """Return what makes a cache with the policy in one layer and the baseline in all others.

    Example:
        >>> import mlx.core as mx
        >>> from vlmkit.cache import AffineConfig, DenseConfig, build_cache
        >>> specs = [KVSpec(1, 32, 32)] * 3
        >>> configs = DenseConfig(), AffineConfig(group_size=32)
        >>> dense, affine = ((lambda batch, config=config: build_cache(config, specs, batch,
        ...                  mx.float32)) for config in configs)
        >>> [kind.name for kind in in_one_layer(dense, affine, 1)(1).kinds]
        ['dense', 'affine', 'dense']
    """

    def make(batch: int) -> Cache:
        ours, theirs = baseline(batch), policy(batch)

        def mixed(kept: tuple, put: tuple) -> tuple:  # type: ignore[type-arg]
            return (*kept[:layer], put[layer], *kept[layer + 1 :])

        return Cache(
            mixed(ours.kinds, theirs.kinds), mixed(ours.layers, theirs.layers), ours.lengths
        )

    return make


def layer_sensitivity(
    model: Model,
    rows: Sequence[Row],
    baseline: NewCache,
    policy: NewCache,
    *,
    step_size: int,
    is_over: Callable[[], bool] = lambda: False,
) -> list[list[float]] | None:
    """Measure the mean KL over the reference tokens with the policy in one layer at a time.

    Args:
        model: the model's functions.
        rows: B prompts with the tokens that follow them.
        baseline: the cache that the policy is compared with.
        policy: the cache that is put into one layer.
        step_size: tokens per forward pass of a prefill, >= 1.
        is_over: asked at each step; True: stop.

    Returns:
        By row, by attention layer; None where it was stopped.
    """
    layers = [index for index, spec in enumerate(model.layer_specs) if isinstance(spec, KVSpec)]
    found = run_lockstep(
        model,
        rows,
        baseline,
        [Variant(in_one_layer(baseline, policy, layer)) for layer in layers],
        step_size=step_size,
        with_prompt=False,
        is_over=is_over,
    )
    return None if found is None else _means(found)


def side_sensitivity(
    model: Model,
    rows: Sequence[Row],
    baseline: NewCache,
    policy: NewCache,
    *,
    step_size: int,
    is_over: Callable[[], bool] = lambda: False,
) -> list[list[float]] | None:
    """Measure the mean KL with the policy in the keys alone, and in the values alone.

    Args:
        model: the model's functions.
        rows: B prompts with the tokens that follow them.
        baseline: the cache that the policy is compared with.
        policy: the cache whose halves are taken.
        step_size: tokens per forward pass of a prefill, >= 1.
        is_over: asked at each step; True: stop.

    Returns:
        By row, of the keys and of the values; nothing in a row where the policy does not hold the
        tokens that the baseline holds, as a window does not, or holds them otherwise after the
        prompt. None where it was stopped.
    """
    longest = max(len(row.inputs.token_ids) + len(row.token_ids) for row in rows)
    pairs = zip(baseline(0).kinds, policy(0).kinds, model.layer_specs, strict=True)
    for ours, theirs, spec in pairs:
        if not (isinstance(ours, CacheKind) and isinstance(theirs, CacheKind)):
            continue
        assert isinstance(spec, KVSpec)
        if ours.finishing is not None or theirs.finishing is not None:
            return [[] for _ in rows]
        held = [kind.hold(spec, model.dtype, longest).num_tokens for kind in (ours, theirs)]
        if held[0] != held[1]:
            return [[] for _ in rows]
    attention = model.backend.forms.attention
    halves = (policy, baseline), (baseline, policy)
    try:
        found = run_lockstep(
            model,
            rows,
            baseline,
            [Variant(from_two(keys, values, attention)) for keys, values in halves],
            step_size=step_size,
            with_prompt=False,
            is_over=is_over,
        )
    except UnlikeError:
        return [[] for _ in rows]
    return None if found is None else _means(found)


def _means(found: Sequence[Sequence[Measured]]) -> list[list[float]]:
    """Mean KL by row, by variant."""
    return [[sum(one.kl) / len(one.kl) for one in row] for row in zip(*found, strict=True)]
