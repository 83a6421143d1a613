"""What really runs, as results report it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn

from vlmkit.backend.device import describe_device
from vlmkit.cache import describe_cache, hold_layers, worst_held
from vlmkit.contracts.interface import LayerKind, LayerSpec, Model, PromptShape
from vlmkit.pipeline import PipelineConfig
from vlmkit.processors import Processor
from vlmkit.sampling import Grammar, grammar_doubts
from vlmkit.stopping import clock_kinds, stop_markers


def effective_config(
    model: Model,
    processor: Processor,
    pipeline: PipelineConfig,
    encode: Callable[[str], Sequence[int]],
) -> dict[str, Any]:
    """What runs: the pipeline with all defaults, the cache per layer, backends, dtype."""
    return {
        "pipeline": pipeline.model_dump(mode="json"),
        "cache": describe_cache(
            pipeline.cache,
            model.layer_specs,
            model.dtype,
            sharing=model.backend.forms.prefixed is not None,
        ),
        "model_type": model.config.model_type,
        "dtype": str(model.dtype).removeprefix("mlx.core."),
        "packed_modules": _num_packed(model),
        "processor_backend": processor.backend,
        "eos_token_ids": sorted(processor.eos_token_ids),
        "stop_markers": stop_markers(
            pipeline.stopping,
            encode=encode,
            decode=partial(processor.tokenizer.decode, skip_special_tokens=False),
            eos_token_ids=processor.eos_token_ids,
        ),
        "device": describe_device(),
        "backend": model.backend.describe(),
        "reproducible": not clock_kinds(pipeline.stopping),
        "grammar": _grammar_promise(pipeline),
    }


def describe_run(effective: dict[str, Any], token_limit: int | None) -> dict[str, Any]:
    """Return what really runs for a row: its resolved pipeline, and its room for tokens."""
    return {**copy.deepcopy(effective), "token_limit": token_limit}


class CacheLayers(NamedTuple):
    """The layers of a model that differ, and how each keeps what it stores."""

    kinds: tuple[LayerKind, ...]
    specs: tuple[LayerSpec, ...]
    dtype: mx.Dtype  # of keys and values as computed
    places: tuple[tuple[int, ...], ...]  # of each, the layers that are so


def cache_layers(kinds: Sequence[LayerKind], model: Model) -> CacheLayers:
    """Return one of each: a model may have a hundred layers that are alike."""
    unlike: dict[tuple[int, LayerSpec], tuple[LayerKind, LayerSpec, list[int]]] = {}
    for place, (kind, spec) in enumerate(zip(kinds, model.layer_specs, strict=True)):
        unlike.setdefault((id(kind), spec), (kind, spec, []))[2].append(place)
    own, specs, places = zip(*unlike.values(), strict=True)
    return CacheLayers(own, specs, model.dtype, tuple(map(tuple, places)))


def with_held(
    effective: dict[str, Any],
    layers: CacheLayers,
    *,
    prompt: PromptShape,
    num_generated: int,
) -> dict[str, Any]:
    """Say in ``effective["cache"]`` what caches of these kinds hold of a row by now.

    Also layer by layer, as ``held_by_layer``: tokens held, tokens quantized, bytes as stored. Of
    layers that hold as much it is said once.
    """
    # The last token drawn has not gone through the model yet.
    num_tokens = prompt.length + max(num_generated - 1, 0)
    found = hold_layers(layers.kinds, layers.specs, layers.dtype, prompt, num_tokens)
    alike: dict[tuple[int, int, int], list[int]] = {}
    for index, _, one in found:
        facts = one.num_tokens, one.num_quantized, round(one.key_bytes + one.value_bytes)
        alike.setdefault(facts, []).extend(layers.places[index])
    names = ("held_tokens", "quantized_tokens", "held_bytes")
    by_layer = [
        {"layers": sorted(places), **dict(zip(names, facts, strict=True))}
        for facts, places in alike.items()
    ]
    held = worst_held(found, prompt, num_tokens)
    cache = {**effective["cache"], **held._asdict(), "held_by_layer": by_layer}
    return {**effective, "cache": cache}


def _grammar_promise(pipeline: PipelineConfig) -> dict[str, Any] | None:
    """Whether a complete answer is sure to fit the grammar; None without one."""
    grammars = [config for config in pipeline.sampling if isinstance(config, Grammar)]
    if not grammars:
        return None
    doubts = [doubt for config in grammars for doubt in grammar_doubts(config)]
    return {"guaranteed": not doubts, "doubts": doubts}


def _num_packed(model: Model) -> int:
    """How many weight matrices are held quantized."""
    if not isinstance(model, nn.Module):
        return 0
    modules = model.modules()  # type: ignore[no-untyped-call]
    return sum(isinstance(module, nn.QuantizedLinear | nn.QuantizedEmbedding) for module in modules)
