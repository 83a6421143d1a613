"""Where a policy hurts: in one attention layer alone, in the keys alone, in the values alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vlmkit.contracts.interface import Cache, CacheKind, KVSpec, Model
from vlmkit.experiment.kv_eval.lockstep import Row, run_lockstep
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


def sensitivity(
    model: Model,
    rows: Sequence[Row],
    baseline: NewCache,
    caches: Sequence[NewCache],
    *,
    step_size: int,
    is_over: Callable[[], bool] = lambda: False,
) -> list[list[float]] | None:
    """Measure the mean KL over the reference tokens with each of some caches.

    Args:
        model: the model's functions.
        rows: B prompts with the tokens that follow them.
        baseline: the cache that the others are compared with.
        caches: with a policy in one place each, from :func:`layers_alone` or :func:`sides_alone`.
        step_size: tokens per forward pass of a prefill, >= 1.
        is_over: asked at each step; True: stop.

    Returns:
        By row, by cache; nothing in a row without caches, or where keys and values turn out not
        to go together. None where it was stopped.
    """
    if not caches:
        return [[] for _ in rows]
    try:
        found = run_lockstep(
            model,
            rows,
            baseline,
            [Variant(cache) for cache in caches],
            step_size=step_size,
            with_prompt=False,
            is_over=is_over,
        )
    except UnlikeError:
        return [[] for _ in rows]
    if found is None:
        return None
    return [[sum(one.kl) / len(one.kl) for one in row] for row in zip(*found, strict=True)]


def layers_alone(model: Model, baseline: NewCache, policy: NewCache) -> list[NewCache]:
    """Return caches with the policy in one attention layer each."""
    layers = [index for index, spec in enumerate(model.layer_specs) if isinstance(spec, KVSpec)]
    return [in_one_layer(baseline, policy, layer) for layer in layers]


def sides_alone(
    model: Model, rows: Sequence[Row], baseline: NewCache, policy: NewCache
) -> list[NewCache]:
    """Return caches with the policy in the keys alone, and in the values alone.

    There are none where the policy does not hold the tokens that the baseline holds, as a window
    does not, or holds them otherwise after the prompt.
    """
    longest = max(len(row.inputs.token_ids) + len(row.token_ids) for row in rows)
    pairs = zip(baseline(0).kinds, policy(0).kinds, model.layer_specs, strict=True)
    for ours, theirs, spec in pairs:
        if not (isinstance(ours, CacheKind) and isinstance(theirs, CacheKind)):
            continue
        assert isinstance(spec, KVSpec)
        if ours.finishing is not None or theirs.finishing is not None:
            return []
        held = [kind.hold(spec, model.dtype, longest).num_tokens for kind in (ours, theirs)]
        if held[0] != held[1]:
            return []
    attention = model.backend.forms.attention
    halves = (policy, baseline), (baseline, policy)
    return [from_two(keys, values, attention) for keys, values in halves]
