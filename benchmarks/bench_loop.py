"""What the decode loop adds to a bare forward-and-argmax loop.

    make bench ARGS=benchmarks/bench_loop.py

Both decode the same number of tokens after the same prefill on a checkpoint of the ``small`` size,
which is large enough that a step is dominated by the model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from benchmarks.random_checkpoint import write_checkpoint
from vlmkit import load, stream_generate
from vlmkit.cache import DenseConfig, build_cache
from vlmkit.contracts.inputs import Inputs
from vlmkit.passes.decode import decode_step
from vlmkit.passes.embed import embed_prompts
from vlmkit.passes.prefill import prefill

NUM_TOKENS = 24
PROMPT = list(range(10, 74))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    folder: Path = tmp_path_factory.mktemp("checkpoint")
    write_checkpoint(folder, "small")
    return load(str(folder))


def bare_loop(model: Any) -> list[int]:
    """Prefill, then forward and argmax, one step launched ahead like the real loop."""
    embeddings = embed_prompts(model, [Inputs.of(np.array(PROMPT, np.int32))])
    cache = build_cache(DenseConfig(), model.layer_specs, 1, model.dtype)
    state, logits = prefill(model, embeddings, cache, step_size=2048)
    tokens = mx.argmax(logits, axis=-1).astype(mx.int32)
    mx.eval(tokens)
    ids = []
    for step in range(NUM_TOKENS):
        if step < NUM_TOKENS - 1:
            state, logits = decode_step(model, state, tokens)
            upcoming = mx.argmax(logits, axis=-1).astype(mx.int32)
            mx.async_eval(upcoming)
        ids.append(tokens.item())
        tokens = upcoming
    return ids


def whole_loop(loaded: tuple[Any, Any]) -> list[int]:
    """The same through the public interface."""
    model, processor = loaded
    bias = dict.fromkeys(processor.eos_token_ids, 0.0)
    results = stream_generate(
        model, processor, PROMPT, max_tokens=NUM_TOKENS, logit_bias=bias, temperature=0.0
    )
    return [result.token for result in results]


@pytest.mark.benchmark(group="decode loop")
def test_bare_loop(benchmark: Any, loaded: tuple[Any, Any]) -> None:
    benchmark.pedantic(bare_loop, (loaded[0],), rounds=7, warmup_rounds=1)


@pytest.mark.benchmark(group="decode loop")
def test_whole_loop(benchmark: Any, loaded: tuple[Any, Any]) -> None:
    benchmark.pedantic(whole_loop, (loaded,), rounds=7, warmup_rounds=1)
