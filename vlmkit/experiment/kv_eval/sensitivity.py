"""Which layers a policy hurts: the policy in one attention layer, the baseline in all others."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from vlmkit.experiment.kv_eval.lockstep import Row, run_lockstep
from vlmkit.experiment.kv_eval.streams import NewCache, Variant
from vlmkit.interface import Cache, KVSpec, Model


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
    if found is None:
        return None
    return [
        [sum(by_row[row].kl) / len(by_row[row].kl) for by_row in found] for row in range(len(rows))
    ]
