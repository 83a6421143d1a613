"""What eviction methods keep of one row, by their authors' formulas in plain numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.cache.kinds import NUM_HEADS, SCALE, Tokens
from vlmkit.contracts.interface import PromptShape

Scores = NDArray[np.float64]


def attention_of(tokens: Tokens) -> Scores:
    """Causal attention [H_kv, G, n, n]."""
    heads, count, dim = tokens.keys.shape
    queries = tokens.queries.astype(np.float64).reshape(heads, NUM_HEADS // heads, count, dim)
    scores = SCALE * queries @ tokens.keys[:, None].astype(np.float64).swapaxes(-1, -2)
    scores = np.where(np.tri(count, dtype=bool), scores, -np.inf)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return np.asarray(weights / weights.sum(-1, keepdims=True))


def snapkv(tokens: Tokens, window: int, pool: int) -> Scores:
    got = attention_of(tokens)[:, :, -window:, :-window].mean(2)
    padded = np.pad(got, [(0, 0), (0, 0), (pool // 2, pool // 2)])
    pooled = np.lib.stride_tricks.sliding_window_view(padded, pool, axis=-1).mean(-1)
    return np.pad(pooled.mean(1), [(0, 0), (0, window)])


def h2o(tokens: Tokens, per_query: bool) -> Scores:
    total = attention_of(tokens).sum(2).mean(1)
    count = total.shape[-1]
    return total / np.arange(count, 0, -1) if per_query else total


def tova(tokens: Tokens) -> Scores:
    last = attention_of(tokens)[:, :, -1]
    return np.broadcast_to(last.mean((0, 1)), (len(tokens.keys), last.shape[-1]))


def knorm(tokens: Tokens) -> Scores:
    return -np.linalg.norm(tokens.keys.astype(np.float64), axis=-1)


def keydiff(tokens: Tokens) -> Scores:
    keys = tokens.keys.astype(np.float64)
    unit = keys / np.linalg.norm(keys, axis=-1, keepdims=True)
    anchor = unit.mean(1, keepdims=True)
    return -(unit * anchor).sum(-1) / np.linalg.norm(anchor, axis=-1)


def random(tokens: Tokens, seed: int, layer: int) -> Scores:
    heads, count, _ = tokens.keys.shape
    rng = np.random.default_rng((seed, layer))
    return np.asarray(rng.random((count, heads), np.float32).T, np.float64)


def kept_by(config: Any, tokens: Tokens, prompt: PromptShape) -> list[list[int]]:
    """The tokens that each head keeps, ascending."""
    count = prompt.length
    images = {place for start, end in prompt.images for place in range(start, end)}
    if config.image_ratio is None:
        text = min(config.budget, count) if config.ratio is None else _share(config.ratio, count)
        groups = [(set(range(count)), text)]
    else:
        text = _share(config.ratio, count - len(images))
        groups = [
            (set(range(count)) - images, text),
            (images, _share(config.image_ratio, len(images))),
        ]
    sinks = min(config.sinks, text // 2)
    window = {"snapkv": lambda: config.window, "pyramidkv": lambda: config.window,
              "tova": lambda: 1, "h2o": lambda: int(text * config.recent_ratio)}.get(
        config.kind, lambda: 0
    )()  # fmt: skip
    if window and sinks + window >= text:
        window = max((text - sinks) // 2, 1)
    scores = _scores(config, tokens, window).copy()
    scores[:, :sinks] = np.inf
    scores[:, count - window :] = np.inf
    return [
        sorted(
            place
            for members, number in groups
            for place in sorted(members, key=lambda j: -row[j])[:number]
        )
        for row in scores
    ]


def _share(ratio: float, count: int) -> int:
    return min(max(int(ratio * count + 1e-9), 1), count)


def _scores(config: Any, tokens: Tokens, window: int) -> Scores:
    match config.kind:
        case "snapkv" | "pyramidkv":
            return snapkv(tokens, window, config.pool)
        case "h2o":
            return h2o(tokens, config.attention == "mean")
        case "tova":
            return tova(tokens)
        case "knorm":
            return knorm(tokens)
        case "keydiff":
            return keydiff(tokens)
        case _:
            return random(tokens, config.seed, 0)
