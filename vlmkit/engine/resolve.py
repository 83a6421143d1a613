"""A pipeline config on a model and its processor: what runs, and what results report of it."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn

from vlmkit.cache import build_cache, describe_cache
from vlmkit.engine.samplers import RowSampler
from vlmkit.engine.text import TextDecoder
from vlmkit.errors import VlmkitError
from vlmkit.interface import Model
from vlmkit.pipeline import PipelineConfig, check_clock
from vlmkit.processors import Processor
from vlmkit.sampling import build_row_chain, exclude_ids, row_chain_key
from vlmkit.search import Search, build_search
from vlmkit.stages import StoppingCriterion
from vlmkit.stopping import (
    EosConfig,
    build_stopping,
    clock_kinds,
    each_config,
    stop_markers,
    token_limit,
)


class Resolved(NamedTuple):
    """A pipeline's stages, built once for all rows that run it."""

    pipeline: PipelineConfig  # with what the model adds: image placeholders that no penalty counts
    sampler: RowSampler  # of sample 0
    stopping: StoppingCriterion
    search: Search | None
    text: TextDecoder
    max_tokens: int | None  # the stopping criteria's own limit
    num_eos: int  # token ids that end a row wherever they come
    effective: dict[str, Any]  # what ran, without what depends on the prompt


def resolve(
    model: Model, processor: Processor, pipeline: PipelineConfig, *, trace: bool = False
) -> Resolved:
    """Build a pipeline's stages and refuse what cannot work, before anything is computed.

    Raises:
        VlmkitError: a cache policy that does not fit the layers, a clock in a reproducible run, a
            search that is to be traced, markers that the tokenizer does not know.
    """
    build_cache(pipeline.cache, model.layer_specs, 0, model.dtype)
    check_clock(pipeline)
    if trace and pipeline.search is not None:
        raise VlmkitError(
            f"search: {pipeline.search.kind} draws no tokens, so there is nothing to trace; leave "
            "it out"
        )
    tokenizer = processor.tokenizer
    decode = partial(tokenizer.decode, skip_special_tokens=False)
    sampling = exclude_ids(pipeline.sampling, sorted(processor.placeholder_ids))
    pipeline = pipeline.model_copy(update={"sampling": sampling})
    search = None if pipeline.search is None else build_search(pipeline.search)
    # Rows that a search gives their tokens stand apart from those that draw them.
    kind = None if search is None else (search.name, search.from_logprobs)
    return Resolved(
        pipeline=pipeline,
        sampler=RowSampler(
            chain=build_row_chain(sampling, vocabulary=processor.vocabulary),
            key=(kind, row_chain_key(sampling)),
            seed=pipeline.seed,
            sample=0,
        ),
        stopping=build_stopping(
            pipeline.stopping,
            encode=tokenizer.encode,
            decode=decode,
            eos_token_ids=processor.eos_token_ids,
        ),
        search=search,
        text=TextDecoder(
            decode=decode,
            special_ids=tokenizer.special_ids,
            skip_special_tokens=pipeline.skip_special_tokens,
        ),
        max_tokens=token_limit(pipeline.stopping),
        num_eos=_num_eos(processor, pipeline),
        effective=_effective(model, processor, pipeline),
    )


def _num_eos(processor: Processor, pipeline: PipelineConfig) -> int:
    own = {
        token_id
        for _, config in each_config(pipeline.stopping)
        if isinstance(config, EosConfig)
        for token_id in config.token_ids
    }
    return len(processor.eos_token_ids | own)


def _effective(model: Model, processor: Processor, pipeline: PipelineConfig) -> dict[str, Any]:
    """What runs: the pipeline with all defaults, the cache per layer, backends, dtype."""
    tokenizer = processor.tokenizer
    return {
        "pipeline": pipeline.model_dump(mode="json"),
        "cache": describe_cache(pipeline.cache, model.layer_specs, model.dtype),
        "model_type": model.config.model_type,
        "dtype": str(model.dtype).removeprefix("mlx.core."),
        "packed_modules": _num_packed(model),
        "processor_backend": processor.backend,
        "eos_token_ids": sorted(processor.eos_token_ids),
        "stop_markers": stop_markers(
            pipeline.stopping,
            encode=tokenizer.encode,
            decode=partial(tokenizer.decode, skip_special_tokens=False),
            eos_token_ids=processor.eos_token_ids,
        ),
        "device": str(mx.default_device()),
        "reproducible": not clock_kinds(pipeline.stopping),
    }


def _num_packed(model: Model) -> int:
    """How many weight matrices are held quantized."""
    if not isinstance(model, nn.Module):
        return 0
    modules = model.modules()  # type: ignore[no-untyped-call]
    return sum(isinstance(module, nn.QuantizedLinear | nn.QuantizedEmbedding) for module in modules)
