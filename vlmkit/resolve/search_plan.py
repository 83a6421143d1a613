"""What a search will need, before it begins: rows, and the memory of their caches and logits."""

from __future__ import annotations

import warnings
from typing import NamedTuple

import mlx.core as mx

from vlmkit.backend.memory import available_bytes
from vlmkit.cache import new_cache, rows_num_bytes
from vlmkit.cache.shared import MIN_SAVED
from vlmkit.contracts.inputs import Inputs
from vlmkit.contracts.interface import Model
from vlmkit.errors import VlmkitError, VlmkitWarning, within
from vlmkit.pipeline import PipelineConfig
from vlmkit.resolve.request import context_left
from vlmkit.search import build_search
from vlmkit.stopping import token_limit

MANY_ROWS = 64  # per request: more are warned of
_CACHE_COPIES = 2.5  # rows are copied where they move, and buffers where they grow
_LOGIT_COPIES = 6  # float32: the model's, the chain's, logprobs, scores and their sort


class SearchPlan(NamedTuple):
    """The most that the searches in flight may hold at a time."""

    num_rows: int  # of one request
    num_requests: int
    num_tokens: int  # per row, prompt and answer
    cache_bytes: int
    logits_bytes: int

    @property
    def num_bytes(self) -> int:
        """Of caches and logits together."""
        return self.cache_bytes + self.logits_bytes


def plan_search(
    model: Model,
    inputs: Inputs,
    pipeline: PipelineConfig,
    *,
    num_logits: int,
    num_requests: int = 1,
) -> SearchPlan | None:
    """Say what a request's search may need at most; None for a pipeline without one.

    A contrast with other prompts, or with a second model, counts as two streams of this model.

    Args:
        model: what runs the rows.
        inputs: the request, prepared.
        pipeline: how it becomes text.
        num_logits: logits per row.
        num_requests: how many such requests are in flight.
    """
    if pipeline.search is None:
        return None
    with within("search"):
        width = build_search(pipeline.search).width
    contrast = pipeline.contrast
    streams = 1 if contrast is None or contrast.kind == "dola" else 2
    limits = (token_limit(pipeline.stopping), context_left(model, [inputs]))
    prompt = len(inputs.token_ids)
    tokens = prompt + min((n for n in limits if n is not None), default=0)
    # A prompt that becomes a prefix stays one: rows share again only what that makes smaller.
    shares = model.backend.forms.prefixed is not None and (width - 1) * prompt >= MIN_SAVED
    held = rows_num_bytes(
        new_cache(pipeline.cache, model, 0).kinds,
        model.layer_specs,
        model.dtype,
        num_rows=width,
        num_tokens=tokens,
        num_shared=prompt if shares else 0,
    )
    prompts = num_requests * streams
    return SearchPlan(
        num_rows=width,
        num_requests=num_requests,
        num_tokens=tokens,
        cache_bytes=int(_CACHE_COPIES * prompts * held),
        logits_bytes=_LOGIT_COPIES * width * prompts * num_logits * 4,
    )


def check_search_plan(plan: SearchPlan | None, pipeline: PipelineConfig) -> None:
    """Refuse a search that cannot fit, and warn of one with very many rows.

    Raises:
        VlmkitError: it may need more than the memory that is free; says how much, and how many
            rows would fit.

    Warns:
        VlmkitWarning: a request has more than 64 rows.
    """
    if plan is None or pipeline.search is None:
        return
    key = {"contrastive_search": "top_k", "external": "config"}.get(
        pipeline.search.kind, "num_beams"
    )
    several = f" for each of {plan.num_requests} requests" if plan.num_requests > 1 else ""
    need = (
        f"search.{key}: {plan.num_rows} rows{several} of up to {plan.num_tokens} tokens may take "
        f"{_size(plan.num_bytes)} (KV cache {_size(plan.cache_bytes)}, logits "
        f"{_size(plan.logits_bytes)})"
    )
    free = available_bytes()
    if free is not None:
        free += mx.get_cache_memory()  # what mlx keeps for its next arrays
        if plan.num_bytes > free:
            fitting = plan.num_rows * free // plan.num_bytes
            limit = f"{fitting} rows" if key == "config" else f"{key}: {fitting}"
            fewer = f"{limit} or less" if fitting > 1 else "no search"
            raise VlmkitError(
                f"{need}, and {_size(free)} are free; use {fewer}, a smaller max_tokens or batch, "
                "or a quantized cache",
                path=("search", key),
            )
    if plan.num_rows > MANY_ROWS:
        warnings.warn(f"{need}, and each step computes all of them", VlmkitWarning, stacklevel=2)


def _size(num_bytes: int) -> str:
    for unit, size in (("GB", 10**9), ("MB", 10**6)):
        if num_bytes >= size:
            return f"{num_bytes / size:.1f} {unit}"
    return f"{num_bytes / 1000:.0f} kB"
