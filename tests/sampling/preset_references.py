"""vLLM's and llama.cpp's chains in numpy, one row at a time, written from their descriptions.

Penalties are in float32 like ours, everything after them in float64. The sampler of vLLM masks a
row of logits; that of llama.cpp shrinks a list of candidates, kept from the likeliest down.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
from numpy.typing import NDArray

from tests.sampling.presets import Case, softmax

Row = NDArray[np.float64]


def run_vllm(case: Case) -> NDArray[np.float64]:
    return np.stack([_vllm_row(case, row.copy()) for row in case.logits])


def run_llama_cpp(case: Case) -> NDArray[np.float64]:
    return np.stack([_llama_row(case, row.copy()) for row in case.logits])


def _vllm_row(case: Case, z: NDArray[np.float32]) -> Row:
    if config := case.get("suppress_tokens"):
        z[list(config.token_ids)] = -np.inf
    if (config := case.get("min_new_tokens")) and len(case.answer) < config.num_tokens:
        z[list(config.token_ids)] = -np.inf
    history = case.prompt + case.answer
    _penalise(case, z, history, Counter(case.answer), Counter(case.answer))
    row: Row = z.astype(np.float64)
    if config := case.get("temperature"):
        row /= config.temperature
    if config := case.get("min_p"):
        probs = softmax(row)
        row[probs < config.p * probs.max()] = -np.inf
    order = np.argsort(row, kind="stable")  # ascending: top_k by value, top_p by running sum
    ordered = row[order]
    if config := case.get("top_k"):
        ordered[ordered < ordered[-config.k]] = -np.inf
    if config := case.get("top_p"):
        drop = np.cumsum(softmax(ordered)) <= 1 - config.p
        drop[-1] = False
        ordered[drop] = -np.inf
    row[order] = ordered
    return row


def _penalise(
    case: Case,
    z: NDArray[np.float32],
    repeated: list[int],
    frequencies: Counter[int],
    presences: Counter[int],
) -> None:
    if config := case.get("logit_bias"):
        for token_id, bias in config.bias.items():
            z[token_id] += np.float32(bias)
    if config := case.get("repetition_penalty"):
        factor = np.float32(config.penalty)
        for token_id in set(repeated):
            z[token_id] = z[token_id] / factor if z[token_id] > 0 else z[token_id] * factor
    if config := case.get("frequency_penalty"):
        for token_id, count in frequencies.items():
            z[token_id] -= np.float32(config.penalty) * np.float32(count)
    if config := case.get("presence_penalty"):
        for token_id in presences:
            z[token_id] -= np.float32(config.penalty)


def _llama_row(case: Case, z: NDArray[np.float32]) -> Row:
    history = case.prompt + case.answer  # shorter than every window
    _penalise(case, z, history, Counter(history), Counter(history))
    if config := case.get("dry"):
        for token_id in set(history) - set(config.breaker_ids):
            length = _repeated_length(history, token_id, config.breaker_ids)
            if length >= config.allowed_length:
                excess = length - config.allowed_length
                z[token_id] -= np.float32(config.multiplier * config.base**excess)
    row: Row = z.astype(np.float64)
    if config := case.get("top_n_sigma"):
        finite = row[np.isfinite(row)]
        row[row < finite.max() - config.n * finite.std()] = -np.inf
    ids = np.argsort(-row, kind="stable")  # the candidates, the likeliest first
    ids = ids[np.isfinite(row[ids])]
    if config := case.get("top_k"):
        ids = ids[: config.k]
    if config := case.get("typical_p"):
        probs = softmax(row[ids])
        surprise = -np.log(np.maximum(probs, 1e-300))
        by_distance = np.argsort(np.abs(surprise - (probs * surprise).sum()), kind="stable")
        enough = np.cumsum(probs[by_distance]) > config.p
        count = int(np.argmax(enough)) + 1 if enough.any() else len(ids)
        ids = ids[np.sort(by_distance[:count])]
    if config := case.get("top_p"):
        enough = np.cumsum(softmax(row[ids])) >= config.p
        ids = ids[: int(np.argmax(enough)) + 1 if enough.any() else len(ids)]
    if config := case.get("min_p"):
        ids = ids[row[ids] >= row[ids[0]] + np.log(config.p)]
    if (config := case.get("xtc")) and case.xtc_applies:
        num_likely = int((softmax(row[ids]) >= config.threshold).sum())
        ids = ids[max(num_likely - 1, 0) :]
    out: Row = np.full_like(row, -np.inf)
    temperature = case.get("temperature")
    out[ids] = (row[ids] - row[ids].max()) / (temperature.temperature if temperature else 1.0)
    return out


def _repeated_length(history: list[int], token_id: int, breaker_ids: tuple[int, ...]) -> int:
    """Return how many of the last tokens, breakers excepted, stood before the token earlier."""
    longest = 0
    for place, other in enumerate(history):
        length = 0
        while (
            other == token_id
            and length < place
            and history[place - 1 - length] == history[-1 - length] not in breaker_ids
        ):
            length += 1
        longest = max(longest, length)
    return longest
