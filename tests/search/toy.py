"""A loop that drives a search over a function from tokens to logits, without any KV cache."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten

from tests.models.tiny import empty_cache, tensor
from vlmkit.contracts.inputs import Inputs
from vlmkit.contracts.interface import Model, Span
from vlmkit.models.lm_adapter import LmModel
from vlmkit.models.lm_build import build_lm
from vlmkit.passes.embed import embed_prompts
from vlmkit.search import Extended, Search, SearchStart, SearchStep

VOCABULARY = 40
QWEN2: dict[str, Any] = {
    "model_type": "qwen2",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
    "rms_norm_eps": 1e-6,
    "max_position_embeddings": 256,
    "tie_word_embeddings": False,
    "rope_theta": 10000.0,
}

Tokens = tuple[int, ...]
Forward = Callable[[Sequence[Tokens]], tuple[mx.array, mx.array]]
"""Rows of equal length -> logits ``[B, V]`` of what follows, hidden states ``[B, T, H]``."""
Process = Callable[[Sequence[Tokens], mx.array], mx.array]
"""(rows, log-softmax of their logits ``[B, V]``) -> the logprobs a search is given."""


class Found(NamedTuple):
    """What came out of a search."""

    best: tuple[tuple[Tokens, float], ...]  # generated tokens and score, the best first
    committed: Tokens  # the last token of each path, as it was emitted
    widths: tuple[int, ...]  # rows of each forward pass


def qwen2(scale: float = 1.0) -> LmModel:
    """Return a small random Qwen2; ``scale`` makes its distributions sharper."""
    lm = build_lm(QWEN2)
    shapes = [(path, value.shape) for path, value in tree_flatten(lm.parameters())]
    weights = {path: mx.array(tensor(path, shape)) for path, shape in shapes}
    weights["lm_head.weight"] = weights["lm_head.weight"] * scale
    lm.load_weights(list(weights.items()))
    return LmModel(lm, QWEN2)


def _text(row: Tokens) -> Inputs:
    return Inputs.of(np.array(row, np.int32))


def without_cache(model: Model, to_inputs: Callable[[Tokens], Inputs] = _text) -> Forward:
    """Return a model as a function that computes all tokens anew every time."""

    def forward(rows: Sequence[Tokens]) -> tuple[mx.array, mx.array]:
        embeddings = embed_prompts(model, [to_inputs(row) for row in rows])
        width, batch = len(rows[0]), len(rows)
        span = Span((0,) * batch, (width,) * batch, width)
        cache = empty_cache(model, batch)
        hidden, _, _ = model.forward(embeddings.piece, cache, span)
        return model.logits(hidden[:, -1]), hidden

    return forward


def table(seed: int, vocab_size: int, scale: float = 2.0, width: int = 4) -> Forward:
    """Return a model whose every answer is random, but the same for the same tokens."""

    def forward(rows: Sequence[Tokens]) -> tuple[mx.array, mx.array]:
        logits = [_normal((seed, 0, *row), vocab_size) * scale for row in rows]
        hidden = [
            [_normal((seed, 1, *row[: n + 1]), width) for n in range(len(row))] for row in rows
        ]
        return mx.array(np.array(logits)), mx.array(np.array(hidden))

    return forward


def _normal(key: Sequence[int], size: int) -> np.ndarray:
    return np.random.default_rng(list(key)).standard_normal(size, dtype=np.float32)


def logprobs_of(forward: Forward, rows: Sequence[Tokens]) -> mx.array:
    """Return the log-softmax of a model's logits, float32 ``[B, V]``."""
    return normalise(forward(rows)[0])


def normalise(logits: mx.array) -> mx.array:
    """Return the log-softmax in float32."""
    logits = logits.astype(mx.float32)
    return logits - mx.logsumexp(logits, axis=-1, keepdims=True)


def penalise(penalty: float, *, renormalise: bool = False) -> Process:
    """Return the repetition penalty that transformers' beam search applies to logprobs."""

    def process(rows: Sequence[Tokens], logprobs: mx.array) -> mx.array:
        seen = np.zeros(logprobs.shape, bool)
        for place, row in enumerate(rows):
            seen[place, list(row)] = True
        logprobs = mx.where(mx.array(seen), logprobs * penalty, logprobs)
        return normalise(logprobs) if renormalise else logprobs

    return process


def run(
    search: Search,
    forward: Forward,
    prompt: Sequence[int],
    *,
    max_tokens: int,
    eos: Collection[int] = (),
    ends: Callable[[Tokens], bool] = lambda generated: False,
    process: Process | None = None,
) -> Found:
    """Run a search to its end.

    Args:
        search: what is tested.
        forward: the model.
        prompt: token ids.
        max_tokens: a path ends at this length,
        eos: with one of these ids,
        ends: or where this says so of the generated tokens.
        process: what is done to the logprobs; None leaves them.
    """
    prompt = tuple(prompt)
    start = SearchStart(max_tokens, max(1, len(eos)))
    if search.needs_hidden:
        start = start._replace(prompt_hidden=forward([prompt])[1][0])
    state, paths = search.init(start), ((),)
    committed: list[int] = []
    widths: list[int] = []
    while True:
        rows = [prompt + path for path in paths]
        logits, states = forward(rows)
        logprobs = process(rows, normalise(logits)) if process else normalise(logits)
        hidden = states[:, -1] if search.needs_hidden else None

        def extend(row: int, token_id: int, paths: tuple[Tokens, ...] = paths) -> Extended:
            path = (*paths[row], token_id)
            return Extended(path, token_id in eos or len(path) >= max_tokens or ends(path))

        widths.append(len(rows))
        state, outcome = search.advance(state, SearchStep(logprobs, hidden), extend)
        committed += [path[-1] for path in outcome.committed]
        for row, token_id, path in zip(outcome.rows, outcome.token_ids, outcome.paths, strict=True):
            assert path == (*paths[row], token_id)
        assert len(outcome.rows) <= search.width
        if outcome.done:
            return Found(tuple(outcome.best), tuple(committed), tuple(widths))
        paths = outcome.paths
