"""Prompts by themselves: under what they are prefilled, and what they have in common."""

from __future__ import annotations

from functools import partial

import mlx.core as mx

from vlmkit.cache import new_cache
from vlmkit.contracts.interface import Model
from vlmkit.pipeline import PipelineConfig
from vlmkit.processors import Processor
from vlmkit.prompts import PrefillOptions, PromptCache, PromptStore, Started, prefill_prompts
from vlmkit.resolve.request import Request, prepare_inputs


def prefill_options(pipeline: PipelineConfig) -> PrefillOptions:
    """Return how a pipeline's prompts go through a model."""
    return PrefillOptions(partial(new_cache, pipeline.cache), pipeline.prefill.step_size)


class Held:
    """A model as a key: itself alone, and kept alive, so that no other can come in its place."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Held) and other.model is self.model

    def __hash__(self) -> int:
        return id(self.model)


def prompt_store(cache: PromptCache, model: Model, pipeline: PipelineConfig) -> PromptStore:
    """Return a cache's prompts that this model under this pipeline can continue."""
    return PromptStore(cache, (Held(model), pipeline.cache.model_dump_json()))


def start_request(
    model: Model,
    processor: Processor,
    request: Request,
    pipeline: PipelineConfig,
    prompt_cache: PromptCache | None = None,
) -> Started:
    """Prefill one request alone, or take it from the prompt cache, which takes it in."""
    pixels = None if prompt_cache is None else prompt_cache.pixels
    inputs = prepare_inputs(model, processor, request, pipeline, pixels)
    store = None if prompt_cache is None else prompt_store(prompt_cache, model, pipeline)
    prefilled = prefill_prompts(model, [inputs], prefill_options(pipeline), known=store)
    mx.eval(prefilled.state, prefilled.hidden)
    started = Started(inputs, prefilled.state, prefilled.hidden)
    if store is not None:
        store.put(started)
    return started
