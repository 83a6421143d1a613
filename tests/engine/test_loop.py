"""The decode loop on models made for one purpose each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from vlmkit import load
from vlmkit.api import stream_pipeline
from vlmkit.backend.policy import PLAIN
from vlmkit.cache import DenseConfig, build_cache, cache_num_bytes
from vlmkit.contracts.inputs import Embeddings, Inputs, Media, Piece
from vlmkit.contracts.interface import Cache, Features, Forwarded, KVSpec, Span
from vlmkit.engine import Request, collect
from vlmkit.errors import VlmkitError
from vlmkit.passes.embed import embed_prompts
from vlmkit.pipeline import PipelineConfig


class Scripted:
    """A model whose logits are a function of the last token; it has a cache and ignores it."""

    def __init__(self, base: Any, logits_of: Callable[[mx.array], mx.array]) -> None:
        self.config = base.config
        self.layer_specs: tuple[KVSpec, ...] = (KVSpec(1, 32, 32),)
        self.dtype = mx.float32
        self.backend = PLAIN
        self.logits_of = logits_of
        self.widths: list[int] = []

    def encode(self, media: Sequence[Media]) -> tuple[Features, ...]:
        raise AssertionError("no prompt has media")

    def embed(
        self, batch: Sequence[Inputs], features: Any, starts: Sequence[int] | None = None
    ) -> Embeddings:
        starts = starts or [0] * len(batch)
        rows = [one.token_ids[start:] for one, start in zip(batch, starts, strict=True)]
        lengths = tuple(map(len, rows))
        ends = tuple(len(one.token_ids) for one in batch)
        ids = np.zeros((len(batch), max(lengths)), np.int32)
        for row, own in enumerate(rows):
            ids[row, : lengths[row]] = own
        positions = mx.array(starts)[:, None] + mx.arange(ids.shape[1])
        return Embeddings(Piece(self.embed_tokens(mx.array(ids)), positions[None]), lengths, ends)

    def embed_tokens(self, token_ids: mx.array) -> mx.array:
        return token_ids[..., None].astype(mx.float32)

    def forward(
        self, piece: Piece, cache: Cache, span: Span, taps: Sequence[int] = ()
    ) -> Forwarded:
        return Forwarded(piece.hidden, (), Cache(cache.kinds, cache.layers, span.ends))

    def logits(self, hidden: mx.array) -> mx.array:
        self.widths.append(hidden.shape[0])
        return self.logits_of(hidden[..., 0].astype(mx.int32))


@pytest.fixture(scope="module")
def shapes() -> tuple[Any, Any]:
    return load("shapes")


def run(model: Any, processor: Any, prompt: Sequence[int], **pipeline: Any) -> Any:
    request = Request(prompt)
    return collect(stream_pipeline(model, processor, request, PipelineConfig(**pipeline)))


def counting(vocab: int) -> Callable[[mx.array], mx.array]:
    return lambda last: (mx.arange(vocab) == (last[:, None] + 1)).astype(mx.float32) * 20


def limited(max_tokens: int) -> dict[str, Any]:
    return {"stopping": [{"kind": "max_tokens", "max_tokens": max_tokens}]}


def test_each_token_is_what_the_model_sees_next(shapes: tuple[Any, Any]) -> None:
    model = Scripted(shapes[0], counting(shapes[0].config.vocab_size))
    result = run(model, shapes[1], [7, 50], **limited(6))
    assert result.token_ids == [51, 52, 53, 54, 55, 56]
    assert (result.finish_reason, result.finish_kind) == ("length", "max_tokens")


def test_no_step_is_launched_after_the_last_token(shapes: tuple[Any, Any]) -> None:
    model = Scripted(shapes[0], counting(shapes[0].config.vocab_size))
    run(model, shapes[1], [7, 50], **limited(6))
    assert model.widths == [1] * 6


def test_nan_logits_are_one_clear_error(shapes: tuple[Any, Any]) -> None:
    vocab = shapes[0].config.vocab_size

    def broken(last: mx.array) -> mx.array:
        return mx.where(last[:, None] == 52, mx.nan, counting(vocab)(last))

    model = Scripted(shapes[0], broken)
    with pytest.raises(VlmkitError, match=r"after 2 tokens.*NaN"):
        run(model, shapes[1], [7, 50], **limited(6))


def test_a_chain_that_removes_every_token_is_one_clear_error(shapes: tuple[Any, Any]) -> None:
    model = Scripted(shapes[0], lambda last: mx.full((1, shapes[0].config.vocab_size), -mx.inf))
    with pytest.raises(VlmkitError, match="no token can be drawn"):
        run(model, shapes[1], [7, 50], **limited(6))


def test_a_stream_that_is_dropped_leaves_nothing_behind(shapes: tuple[Any, Any]) -> None:
    model = Scripted(shapes[0], counting(shapes[0].config.vocab_size))
    stream = stream_pipeline(model, shapes[1], Request([50]), PipelineConfig(**limited(9)))
    assert next(stream).token == 51
    stream.close()
    assert run(model, shapes[1], [50], **limited(3)).token_ids == [51, 52, 53]


def test_two_streams_may_take_turns(shapes: tuple[Any, Any]) -> None:
    model = Scripted(shapes[0], counting(shapes[0].config.vocab_size))
    pipeline = PipelineConfig(**limited(3))
    streams = [stream_pipeline(model, shapes[1], Request([s]), pipeline) for s in (50, 90)]
    tokens = [(a.token, b.token) for a, b in zip(*streams, strict=True)]
    assert tokens == [(51, 91), (52, 92), (53, 93)]


def test_ids_beyond_the_tokenizer_decode_to_nothing(shapes: tuple[Any, Any]) -> None:
    model, processor = shapes
    vocab = model.config.vocab_size
    assert vocab > processor.tokenizer.vocab_size
    padded = Scripted(model, counting(vocab))
    result = run(padded, processor, [vocab - 4], **limited(3))
    assert result.token_ids == [vocab - 3, vocab - 2, vocab - 1]
    assert result.text == ""


def test_peak_memory_is_weights_cache_and_one_chunk(shapes: tuple[Any, Any]) -> None:
    model, processor = shapes
    num_tokens, step = 1500, 256
    prompt = (processor.tokenizer.encode("How many red circles are there? ") * 400)[:num_tokens]
    config: Any = {"prefill": {"step_size": step}, **limited(2)}

    def chunk_bytes() -> int:
        """What the last chunk needs beside weights and cache: its own peak, cache full."""
        inputs = Inputs.of(np.array(prompt[:step], np.int32))
        cache = build_cache(
            DenseConfig(),
            model.layer_specs,
            1,
            model.dtype,
            attention=model.backend.forms.attention,
        )
        embeddings = embed_prompts(model, [inputs])
        mx.eval(embeddings.piece.hidden)
        mx.clear_cache()
        before = mx.get_active_memory()
        mx.reset_peak_memory()
        hidden, _, cache = model.forward(embeddings.piece, cache, Span((0,), (step,), step))
        mx.eval(hidden, cache.layers)
        scores = 4 * step * num_tokens * model.config.text_config.num_attention_heads
        return mx.get_peak_memory() - before + 3 * scores

    chunk = chunk_bytes()
    mx.clear_cache()
    weights = mx.get_active_memory()
    cache = build_cache(
        DenseConfig(), model.layer_specs, 1, model.dtype, attention=model.backend.forms.attention
    )
    per_token = sum(2 * 4 * shape.num_kv_heads * shape.key_dim for shape in model.layer_specs)
    cache_bytes = cache_num_bytes(cache) + per_token * (num_tokens + 256)
    hidden = 4 * num_tokens * model.config.text_config.hidden_size
    result = run(model, processor, prompt, **config)
    limit = weights + cache_bytes + hidden + chunk
    assert result.peak_memory * 1e9 <= 1.1 * limit
    whole_logits = 4 * num_tokens * model.config.vocab_size
    assert result.peak_memory * 1e9 < limit + whole_logits / 2


def test_a_decode_step_copies_no_cache(shapes: tuple[Any, Any]) -> None:
    model, processor = shapes
    prompt = (processor.tokenizer.encode("How many red circles are there? ") * 400)[:1900]
    config = PipelineConfig(**limited(12))
    mx.clear_cache()
    weights = mx.get_active_memory()
    stream = stream_pipeline(model, processor, Request(prompt), config)
    for _ in range(3):
        next(stream)
    cache = build_cache(
        DenseConfig(), model.layer_specs, 1, model.dtype, attention=model.backend.forms.attention
    )
    per_token = sum(2 * 4 * spec.num_kv_heads * spec.key_dim for spec in cache_specs(model))
    held = cache_num_bytes(cache) + per_token * len(prompt)
    mx.reset_peak_memory()
    for _ in range(6):
        next(stream)
    assert mx.get_peak_memory() - weights < 1.5 * held


def cache_specs(model: Any) -> list[KVSpec]:
    return [spec for spec in model.layer_specs if isinstance(spec, KVSpec)]
