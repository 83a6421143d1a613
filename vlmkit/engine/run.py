"""From a request and a pipeline config to the steps of the decode loop."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import mlx.core as mx
import mlx.nn as nn

from vlmkit.cache import CacheConfig, build_cache, describe_cache
from vlmkit.engine.contrasting import Amateur, row_contrast
from vlmkit.engine.lanes import LaneOptions
from vlmkit.engine.loop import LoopOptions, decode_rows
from vlmkit.engine.request import Request
from vlmkit.engine.rows import RowSpec, Step
from vlmkit.engine.sampler_groups import RowSampler
from vlmkit.engine.text import TextDecoder
from vlmkit.errors import VlmkitError
from vlmkit.pipeline import PipelineConfig, check_clock
from vlmkit.processors import Processor
from vlmkit.sampling import (
    Grammar,
    build_row_chain,
    build_stage,
    exclude_ids,
    grammar_doubts,
    row_chain_key,
)
from vlmkit.search import build_search
from vlmkit.stopping import EosConfig, build_stopping, clock_kinds, each_config, token_limit
from vlmkit.types import Cache, Inputs, Model


def build_row(
    model: Model,
    processor: Processor,
    request: Request,
    inputs: Inputs,
    pipeline: PipelineConfig,
    *,
    amateur: Amateur | None = None,
    trace: bool = False,
    number: int = 0,
) -> RowSpec:
    """Turn a pipeline's sampling, stopping, contrast and search configs into a row's functions.

    Args:
        model: the model's functions.
        processor: its processor.
        request: what the row generates from.
        inputs: the request, prepared.
        pipeline: how.
        amateur: the second model of contrastive decoding.
        trace: keep the logits after each stage in every step.
        number: what errors call the row.
    """
    tokenizer = processor.tokenizer
    decode = partial(tokenizer.decode, skip_special_tokens=False)
    sampling = exclude_ids(pipeline.sampling, sorted(processor.placeholder_ids))
    contrast = row_contrast(model, processor, request, inputs, pipeline, amateur)
    limits = [token_limit(pipeline.stopping), context_left(model, [inputs])]
    if contrast is not None:
        limits.append(context_left(contrast.model or model, contrast.inputs))
    return RowSpec(
        inputs=inputs,
        sampler=RowSampler(
            chain=build_row_chain(sampling, vocabulary=processor.vocabulary),
            key=row_chain_key(sampling),
            seed=pipeline.seed,
            sample=request.sample,
        ),
        stopping=build_stopping(
            pipeline.stopping,
            encode=tokenizer.encode,
            decode=decode,
            eos_token_ids=processor.eos_token_ids,
        ),
        text=TextDecoder(
            decode=decode,
            special_ids=tokenizer.special_ids,
            skip_special_tokens=pipeline.skip_special_tokens,
        ),
        token_limit=min((limit for limit in limits if limit is not None), default=None),
        contrast=contrast,
        search=None if pipeline.search is None else build_search(pipeline.search),
        num_eos=_num_eos(processor, pipeline),
        trace=trace,
        number=number,
    )


def context_left(model: Model, streams: Sequence[Inputs]) -> int | None:
    """How many tokens can follow all of these prompts; None where nothing limits them."""
    length: int | None = model.config.max_position_embeddings
    if length is None or not streams:
        return None
    return max(length - max(len(inputs.token_ids) for inputs in streams), 0)


def _num_eos(processor: Processor, pipeline: PipelineConfig) -> int:
    """How many token ids end a row wherever they come."""
    own = {
        token_id
        for _, config in each_config(pipeline.stopping)
        if isinstance(config, EosConfig)
        for token_id in config.token_ids
    }
    return len(processor.eos_token_ids | own)


def check_pipeline(model: Model, pipeline: PipelineConfig, *, trace: bool = False) -> None:
    """Refuse what cannot work on this model, before anything is computed.

    Raises:
        VlmkitError: a cache policy that does not fit the layers, a clock in a reproducible run, a
            search that is to be traced.
    """
    build_cache(pipeline.cache, model.layer_shapes, 0, model.dtype)
    check_clock(pipeline)
    if trace and pipeline.search is not None:
        raise VlmkitError(
            f"search: {pipeline.search.kind} draws no tokens, so there is nothing to trace; leave "
            "it out"
        )


def check_grammars(processor: Processor, pipeline: PipelineConfig) -> None:
    """Compile the pipeline's grammars for a model's tokens; what was compiled is kept.

    Raises:
        VlmkitError: as :func:`vlmkit.sampling.grammar` does.
    """
    for config in pipeline.sampling:
        if isinstance(config, Grammar):
            build_stage(config, vocabulary=processor.vocabulary)


def run_rows(
    model: Model,
    specs: Iterable[RowSpec],
    pipeline: PipelineConfig,
    *,
    batch_size: int = 1,
    group_by_shape: bool = True,
) -> Iterator[Step]:
    """Run rows through the decode loop under the pipeline's prefill and cache configs."""
    options = LoopOptions(
        batch_size=batch_size,
        lanes=LaneOptions(partial(_new_cache, pipeline.cache), pipeline.prefill.step_size),
        group_by_shape=group_by_shape,
    )
    return decode_rows(model, specs, options)


def _new_cache(config: CacheConfig, model: Model, batch: int) -> Cache:
    return build_cache(config, model.layer_shapes, batch, model.dtype)


def _num_packed(model: Model) -> int:
    """How many weight matrices are held quantized."""
    if not isinstance(model, nn.Module):
        return 0
    modules = model.modules()  # type: ignore[no-untyped-call]
    return sum(isinstance(module, nn.QuantizedLinear | nn.QuantizedEmbedding) for module in modules)


def effective_config(
    model: Model, processor: Processor, pipeline: PipelineConfig
) -> dict[str, Any]:
    """What really ran: the pipeline with all defaults, the cache per layer, backends, dtype."""
    return {
        "pipeline": pipeline.model_dump(mode="json"),
        "cache": describe_cache(pipeline.cache, model.layer_shapes, model.dtype),
        "model_type": model.config.model_type,
        "dtype": str(model.dtype).removeprefix("mlx.core."),
        "packed_modules": _num_packed(model),
        "processor_backend": processor.backend,
        "eos_token_ids": sorted(processor.eos_token_ids),
        "device": str(mx.default_device()),
        "reproducible": not clock_kinds(pipeline.stopping),
        "grammar": _grammar_promise(pipeline),
    }


def _grammar_promise(pipeline: PipelineConfig) -> dict[str, Any] | None:
    """Whether a complete answer is sure to fit the grammar; None without one."""
    grammars = [config for config in pipeline.sampling if isinstance(config, Grammar)]
    if not grammars:
        return None
    doubts = [doubt for config in grammars for doubt in grammar_doubts(config)]
    return {"guaranteed": not doubts, "doubts": doubts}
