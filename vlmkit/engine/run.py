"""From a request and a pipeline config to the steps of the decode loop."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn

from vlmkit.cache import CacheConfig, build_cache, describe_cache
from vlmkit.engine.loop import LoopOptions, decode_rows
from vlmkit.engine.rows import RowSpec, Step
from vlmkit.engine.sampler_groups import RowSampler
from vlmkit.engine.text import TextDecoder
from vlmkit.pipeline import PipelineConfig
from vlmkit.preprocess import ImageSource, prepare
from vlmkit.processors import Processor
from vlmkit.sampling import build_chain, exclude_ids
from vlmkit.stopping import build_stopping
from vlmkit.types import Inputs, Model


class Request(NamedTuple):
    """What to generate from."""

    prompt: str | Sequence[int]  # formatted text, or token ids
    images: tuple[ImageSource, ...] = ()
    audio: tuple[Any, ...] = ()
    sample: int = 0  # which of several independent samples of the same prompt this is


def prepare_inputs(
    model: Model, processor: Processor, request: Request, pipeline: PipelineConfig
) -> Inputs:
    """Load the request's media and lay the prompt out as token ids and patches."""
    return prepare(
        processor,
        request.prompt,
        request.images,
        request.audio,
        config=pipeline.preprocess,
        context_length=model.config.max_position_embeddings,
    )


def build_row(
    model: Model,
    processor: Processor,
    inputs: Inputs,
    pipeline: PipelineConfig,
    *,
    sample: int,
) -> RowSpec:
    """Turn a pipeline's sampling and stopping configs into the functions of one row."""
    tokenizer = processor.tokenizer
    decode = partial(tokenizer.decode, skip_special_tokens=False)
    sampling = exclude_ids(pipeline.sampling, sorted(processor.placeholder_ids))
    limits = [stop.max_tokens for stop in pipeline.stopping if stop.kind == "max_tokens"]
    context_length = model.config.max_position_embeddings
    if context_length is not None:
        limits.append(max(context_length - len(inputs.token_ids), 0))
    return RowSpec(
        inputs=inputs,
        sampler=RowSampler(
            chain=build_chain(sampling),
            key=tuple(stage.model_dump_json() for stage in sampling),
            seed=pipeline.seed,
            sample=sample,
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
        token_limit=min(limits, default=None),
    )


def check_pipeline(model: Model, pipeline: PipelineConfig) -> None:
    """Refuse a cache policy that cannot work on this model, before anything is computed."""
    build_cache(pipeline.cache, model.layer_shapes, 0, model.dtype)


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
        prefill_step_size=pipeline.prefill.step_size,
        new_cache=partial(_new_cache, model, pipeline.cache),
        group_by_shape=group_by_shape,
    )
    return decode_rows(model, specs, options)


def _new_cache(model: Model, config: CacheConfig, batch: int) -> Any:
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
    }
