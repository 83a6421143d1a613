"""A cache kind that drops the tokens of a prompt with the lowest scores once it is whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import mlx.core as mx

from vlmkit.cache.codec.build import build_codec
from vlmkit.cache.compose import KVState, cache_kind
from vlmkit.cache.eviction.budget import Counts, EvictionConfig, count_kept
from vlmkit.cache.eviction.choice import choose, gather
from vlmkit.cache.finishing import Finished, Method, Noted, Observer, finishing_kind, refill
from vlmkit.cache.layout import dense_layout
from vlmkit.cache.quantized import check_side
from vlmkit.cache.rotating import windowed
from vlmkit.cache.storage import Storage
from vlmkit.contracts.interface import CacheKind, Held, KVSpec, PromptShape


class Prompts(NamedTuple):
    """What tokens are scored by."""

    keys: mx.array  # [B, H_kv, S, D], as computed
    values: mx.array  # [B, H_kv, S, D_v]
    noted: Noted  # of the queries
    ends: mx.array  # int32 [B]: tokens per row
    window: mx.array  # int32 [B]: last tokens that are never dropped


Score = Callable[[Prompts], mx.array]
"""Scores float32 [B, H_kv, S], finite; the larger, the rather a token is kept."""


def eviction_kind(
    name: str,
    config: EvictionConfig,
    score: Score,
    *,
    observer: Observer | None = None,
    num_kept: Callable[[PromptShape], int] | None = None,
    layer: int | None = None,
    in_layer: Callable[[int, int], CacheKind] | None = None,
) -> CacheKind:
    """Compose the cache of an eviction method.

    Each head of keys keeps tokens of its own, all heads of a layer equally many. Where a prompt
    stays whole and is stored as computed, all is as in a dense cache to the bit. Layers with a
    sliding window keep that, as computed.

    Args:
        name: the kind.
        config: how much is kept, and how it is stored.
        score: of all tokens of a prompt.
        observer: what the score needs to know of the queries.
        num_kept: tokens kept of a prompt in this layer; None: as the config says.
        layer: what tells this layer's kind from another's; None: they are alike.
        in_layer: makes a layer's own kind.
    """

    def count(prompt: PromptShape) -> Counts:
        return count_kept(config, prompt, None if num_kept is None else num_kept(prompt))

    storage = Storage(keys=build_codec(config.keys), values=build_codec(config.values))
    after = cache_kind(name, dense_layout, storage, settings=config.model_dump_json())

    def hold(spec: KVSpec, dtype: mx.Dtype, prompt: PromptShape, seen: int) -> Held:
        kept = count(prompt).total
        held = after.hold(spec, dtype, kept + seen - prompt.length)
        return held._replace(num_first=kept)

    def check(spec: KVSpec) -> None:
        check_side("keys", config.keys, spec.key_dim)
        check_side("values", config.values, spec.value_dim)

    return finishing_kind(
        Method(
            name=name,
            settings=(config.model_dump_json(), layer),
            after=after,
            finish=partial(_evict, score, count),
            hold=hold,
            windowed=partial(windowed, name),
            observer=observer,
            check=check,
            in_layer=in_layer,
        )
    )


def _evict(
    score: Score,
    count: Callable[[PromptShape], Counts],
    after: CacheKind,
    full: KVState,
    noted: Noted,
    prompts: Sequence[PromptShape],
) -> Finished:
    (keys,), (values,), counts = full.keys, full.values, [count(prompt) for prompt in prompts]
    kept = [one.total for one in counts]
    dropped = tuple(prompt.length - n for prompt, n in zip(prompts, kept, strict=True))
    if any(dropped):
        longest = max(prompt.length for prompt in prompts)
        keys, values = keys[:, :, :longest], values[:, :, :longest]
        window = mx.array([one.window for one in counts], mx.int32)
        scores = score(Prompts(keys, values, noted, full.ends, window))
        chosen = choose(scores[:, :, :longest].astype(mx.float32), prompts, counts)
        keys, values = gather(keys, chosen), gather(values, chosen)
    return Finished(refill(after, keys, values, kept), dropped)
