"""A pipeline config on a model and its processor: what runs, and what results report of it."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

from vlmkit.cache import build_cache
from vlmkit.contracts.interface import Model
from vlmkit.contracts.stages import StoppingCriterion
from vlmkit.detokenize.row import TextDecoder
from vlmkit.errors import VlmkitError, within
from vlmkit.pipeline import PipelineConfig, check_clock
from vlmkit.processors import Processor
from vlmkit.processors.lookup import token_lookup
from vlmkit.resolve.effective import CacheLayers, cache_layers, effective_config
from vlmkit.sampling import (
    MinNewTokens,
    build_row_chain,
    exclude_ids,
    row_chain_key,
)
from vlmkit.sampling.chain import chain
from vlmkit.sampling.sections import RowSampler
from vlmkit.search import Search, build_search
from vlmkit.stopping import (
    EosConfig,
    build_stopping,
    each_config,
    held_ids,
    token_limit,
)
from vlmkit.tokens.ids import ids_of
from vlmkit.tokens.lookup import TokenLookup, known_tokens, resolve_tokens


class Resolved(NamedTuple):
    """A pipeline's stages, built once for all rows that run it."""

    # Tokens are ids here, and what the model and the stops add to the chain is in it.
    pipeline: PipelineConfig
    key: str  # equal for pipelines that ask for the same
    cache: CacheLayers
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
            search that is to be traced, tokens or markers that the tokenizer does not know, a
            grammar that cannot be compiled.
    """
    cache = build_cache(pipeline.cache, model.layer_specs, 0, model.dtype)
    check_clock(pipeline)
    if trace and pipeline.search is not None:
        raise VlmkitError(
            f"search: {pipeline.search.kind} draws no tokens, so there is nothing to trace; leave "
            "it out",
            path=("search",),
        )
    tokenizer = processor.tokenizer
    decode = partial(tokenizer.decode, skip_special_tokens=False)
    lookup = token_lookup(processor, model.config.vocab_size)
    encode = partial(known_tokens, lookup)
    pipeline = resolve_tokens(pipeline, lookup)
    key = pipeline.model_dump_json()
    placeholder_ids = sorted(i for i in processor.placeholder_ids if i < lookup.num_ids)
    held = _hold_back(pipeline, lookup)
    sampling = (*held, *exclude_ids(pipeline.sampling, placeholder_ids))
    pipeline = pipeline.model_copy(update={"sampling": sampling})
    with within("search"):
        search = None if pipeline.search is None else build_search(pipeline.search)
    # Rows that a search gives their tokens stand apart from those that draw them.
    kind = None if search is None else (search.name, search.from_logprobs)
    stages = build_row_chain(sampling, vocabulary=processor.vocabulary, num_added=len(held))
    return Resolved(
        pipeline=pipeline,
        key=key,
        cache=cache_layers(cache.kinds, model),
        sampler=RowSampler(
            # A contrast cuts among what a grammar allows.
            chain=stages if pipeline.contrast is None else chain(stages.stages, hosts_ahead=True),
            key=(kind, row_chain_key(sampling)),
            seed=pipeline.seed,
            sample=0,
        ),
        stopping=build_stopping(
            pipeline.stopping,
            encode=encode,
            decode=decode,
            eos_token_ids=processor.eos_token_ids,
            num_ids=lookup.num_ids,
        ),
        search=search,
        text=TextDecoder(
            decode=decode,
            special_ids=tokenizer.special_ids,
            skip_special_tokens=pipeline.skip_special_tokens,
        ),
        max_tokens=token_limit(pipeline.stopping),
        num_eos=_num_eos(processor, pipeline),
        effective=effective_config(model, processor, pipeline, encode),
    )


def _hold_back(pipeline: PipelineConfig, lookup: TokenLookup) -> list[MinNewTokens]:
    """Stages that keep the tokens that end a row from being drawn before its stops let them."""
    held = held_ids(pipeline.stopping, partial(known_tokens, lookup), lookup.eos_ids)
    return [
        MinNewTokens(num_tokens=count, token_ids=tuple(i for i in ids if i < lookup.num_ids))
        for count, ids in held.items()
    ]


def _num_eos(processor: Processor, pipeline: PipelineConfig) -> int:
    own = {
        token_id
        for _, config in each_config(pipeline.stopping)
        if isinstance(config, EosConfig)
        for token_id in ids_of(config.kind, config.token_ids)
    }
    return len(processor.eos_token_ids | own)
