"""The methods in float64, written from the papers' formulas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.contrast.contract import Streams
from vlmkit.contrast import DolaConfig

Wide = NDArray[np.float64]


def log_softmax(values: NDArray[Any]) -> Wide:
    wide = values.astype(np.float64)
    wide = wide - wide.max(-1, keepdims=True)
    return wide - np.log(np.exp(wide).sum(-1, keepdims=True))


def cut(scores: Wide, values: NDArray[Any], fraction: float) -> Wide:
    """The plausibility constraint on probabilities."""
    probs = np.exp(log_softmax(values))
    return np.where(probs >= fraction * probs.max(-1, keepdims=True), scores, -np.inf)


def cfg(config: Any, found: Streams) -> Wide:
    c, u = log_softmax(found.values), log_softmax(found.others[:, 0])
    return u + config.scale * (c - u)


def contrastive_decoding(config: Any, found: Streams) -> Wide:
    expert = log_softmax(found.values)
    amateur = log_softmax(found.others[:, 0].astype(np.float64) / config.amateur_temperature)
    if config.beta is None:
        scores = expert - amateur
    else:
        scores = (1 + config.beta) * expert - config.beta * amateur
    return cut(scores, found.values, config.alpha)


def away(config: Any, found: Streams) -> Wide:
    """VCD and ICD."""
    z, disturbed = found.values.astype(np.float64), found.others[:, 0].astype(np.float64)
    return cut((1 + config.alpha) * z - config.alpha * disturbed, found.values, config.beta)


def away_from(config: Any, found: Streams) -> Wide:
    """The example of a method from outside."""
    z, early = found.values.astype(np.float64), found.others[:, 0].astype(np.float64)
    return z + config.config["weight"] * (z - early)


def m3id(config: Any, found: Streams) -> Wide:
    c, u = log_softmax(found.values), log_softmax(found.others[:, 0])
    gamma = np.exp(-config.forgetting * (found.num_tokens[:, None] + 1.0))
    weight = (1 - gamma) / gamma
    if config.confidence is not None:
        weight = weight * (c.max(-1, keepdims=True) < np.log(config.confidence))
    return cut(c + weight * (c - u), found.values, config.beta)


def divergences(config: DolaConfig, found: Streams) -> Wide:
    """``[B, N]``: how far each early layer is from the last."""
    log_p, log_q = log_softmax(found.values)[:, None], log_softmax(found.others)
    p, q = np.exp(log_p), np.exp(log_q)
    mean = (p + q) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        if config.divergence == "jensen_shannon":
            terms = (p * (log_p - np.log(mean)) + q * (log_q - np.log(mean))) / 2
        else:
            terms = mean * (2 * np.log(mean) - log_p - log_q) / 2
    return np.asarray(np.where(np.isnan(terms), 0.0, terms).sum(-1))


def layer_gap(config: DolaConfig, found: Streams) -> float:
    """By how much the layer chosen leads, in the closest row."""
    if found.others.shape[1] == 1:
        return np.inf
    ordered = np.sort(divergences(config, found), axis=-1)
    if np.isinf(ordered[:, -2]).any():
        return 0.0
    return float((ordered[:, -1] - ordered[:, -2]).min())


def dola(config: DolaConfig, found: Streams) -> Wide:
    chosen = divergences(config, found).argmax(-1)
    early = found.others[np.arange(len(chosen)), chosen]
    scores = log_softmax(found.values) - log_softmax(early)
    return cut(scores, found.values, config.relative_top)


REFERENCES: dict[str, Callable[[Any, Streams], Wide]] = {
    "cfg": cfg,
    "contrastive_decoding": contrastive_decoding,
    "vcd": away,
    "icd": away,
    "m3id": m3id,
    "dola": dola,
    "external": away_from,
}
