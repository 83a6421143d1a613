"""Which two stages may change places, and which may not: every pair of kinds, proven on rows."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from tests.sampling.contract import FADING_PENALTY, KINDS, VOCAB_SIZE, build_chain
from tests.sampling.test_laws import assert_same_distribution
from vlmkit.sampling import (
    AllowedTokens,
    Dry,
    DynamicTemperature,
    EpsilonCutoff,
    EtaCutoff,
    External,
    FrequencyPenalty,
    Grammar,
    Greedy,
    LogitBias,
    MinNewTokens,
    MinP,
    MirostatV1,
    MirostatV2,
    NoRepeatNgram,
    PLess,
    PresencePenalty,
    Quadratic,
    RepetitionPenalty,
    SamplerConfig,
    SuppressTokens,
    TailFree,
    Temperature,
    TopH,
    TopK,
    TopNSigma,
    TopP,
    TypicalP,
    Xtc,
)

NUM_ROWS = 300
STAGES: dict[str, SamplerConfig] = {
    config.kind: config
    for config in (
        Greedy(),
        Temperature(temperature=0.6),
        DynamicTemperature(min_temperature=0.4, max_temperature=2.5),
        Quadratic(factor=0.4),
        TopK(k=5),
        TopP(p=0.7),
        MinP(p=0.15),
        TypicalP(p=0.7),
        TopNSigma(n=1.0),
        EpsilonCutoff(epsilon=0.05),
        EtaCutoff(epsilon=0.2),
        TailFree(z=0.6),
        TopH(h=0.6),
        PLess(),
        Xtc(probability=0.7, threshold=0.1),
        MirostatV1(tau=1.5),
        MirostatV2(tau=1.2),
        RepetitionPenalty(penalty=1.8, context_size=8),
        PresencePenalty(penalty=2.0, include_prompt=True),
        FrequencyPenalty(penalty=1.0, include_prompt=True),
        Dry(multiplier=3.0, allowed_length=1),
        NoRepeatNgram(n=2),
        LogitBias(bias={token_id: 2.0 - token_id % 5 for token_id in range(VOCAB_SIZE)}),
        SuppressTokens(token_ids=tuple(range(0, VOCAB_SIZE, 3))),
        AllowedTokens(token_ids=tuple(range(1, VOCAB_SIZE, 2))),
        MinNewTokens(num_tokens=9, token_ids=tuple(range(4, 14))),
        Grammar(regex="[0-5]|[a-e]b|12", thinking=None),
        External(factory=FADING_PENALTY, config={"strength": 2.0}),
    )
}

MASKS = {"suppress_tokens", "allowed_tokens", "min_new_tokens", "no_repeat_ngram", "grammar"}
ADDED = {"logit_bias", "presence_penalty", "frequency_penalty", "dry", "external"}
KEEP_THE_ARGMAX = {
    *("temperature", "dynamic_temperature", "quadratic", "top_k", "top_p", "min_p", "top_n_sigma"),
    *("epsilon_cutoff", "eta_cutoff", "tail_free", "top_h", "p_less"),
    *("mirostat_v1", "mirostat_v2"),
}
RULES: list[tuple[set[str], set[str]]] = [
    (MASKS, MASKS | ADDED | {"temperature", "repetition_penalty"}),  # masks read no logit
    (ADDED, ADDED),  # sums
    ({"greedy"}, KEEP_THE_ARGMAX),
    ({"top_k"}, {"min_p", "temperature", "quadratic"}),  # ranks, and the distance to the first
    ({"top_n_sigma"}, {"temperature"}),  # both scale
]
COMMUTE = {
    frozenset(pair)
    for left, right in RULES
    for pair in itertools.product(left, right)
    if len(set(pair)) == 2
}


def result(configs: Sequence[SamplerConfig]) -> np.ndarray:
    """The logits of many rows, each with a history of its own, after some stages."""
    rng = np.random.default_rng(7)
    scales = np.array([0.3, 1.0, 3.0])[np.arange(NUM_ROWS) % 3]
    values = (rng.normal(size=(NUM_ROWS, VOCAB_SIZE)) * scales[:, None]).astype(np.float32)
    prompts = list(rng.integers(0, VOCAB_SIZE, (NUM_ROWS, 30)).astype(np.int32))
    sampler = build_chain(configs)
    state = sampler.init(prompts, VOCAB_SIZE)
    state = sampler.update(state, mx.array(rng.integers(0, VOCAB_SIZE, NUM_ROWS)))
    numbers = mx.array(np.tile(rng.random((NUM_ROWS, 1)), (1, 1 + sampler.num_random)))
    return np.array(sampler.apply(state, mx.array(values), numbers.astype(mx.float32)))


def same(first: np.ndarray, second: np.ndarray) -> bool:
    try:
        assert_same_distribution(first, second)
    except AssertionError:
        return False
    return True


def test_every_kind_is_here() -> None:
    assert set(STAGES) == set(KINDS)
    plain = result([])
    assert not any(same(result([config]), plain) for config in STAGES.values())


@pytest.mark.parametrize("kind", KINDS)
def test_order_matters_exactly_where_it_should(kind: str) -> None:
    """Both orders give the same distribution on all rows, or else differ on some row."""
    for other in KINDS[KINDS.index(kind) + 1 :]:
        pair: list[Any] = [STAGES[kind], STAGES[other]]
        commutes = same(result(pair), result(pair[::-1]))
        assert commutes == (frozenset((kind, other)) in COMMUTE), f"{kind}, {other}"
