"""The same parameters in other implementations: mlx-lm and transformers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from tests.effort import scaled
from tests.sampling.contract import VOCAB_SIZE
from tests.sampling.strategies import histories, logits
from tests.sampling.test_laws import assert_same_distribution, no_knife_edge, run
from vlmkit.sampling import (
    FrequencyPenalty,
    LogitBias,
    MinP,
    PresencePenalty,
    RepetitionPenalty,
    Temperature,
    TopK,
    TopP,
)

LAW = settings(max_examples=scaled(30))


@pytest.fixture(scope="module", autouse=True)
def uncompiled() -> Iterator[None]:
    """mlx-lm's functions would be compiled, by a C++ compiler, for every k that is drawn."""
    mx.disable_compile()
    yield
    mx.enable_compile()


TAME = ("normal", "nearly flat", "ties", "flat", "one finite")  # some compute exp of raw logits


def has_ties(values: np.ndarray) -> bool:
    finite = [row[np.isfinite(row)] for row in values]
    return any(len(np.unique(row)) < len(row) for row in finite)


@LAW
@given(
    values=logits(only=("normal", "nearly flat")),
    p=st.sampled_from([0.3, 0.9]),
    k=st.integers(1, 20),
)
def test_mlx_lm_truncations(values, p, k):
    from mlx_lm.sample_utils import apply_min_p, apply_top_k, apply_top_p

    assume(not has_ties(values))  # mlx-lm leaves ties to the order of its sort
    logprobs = mx.array(values) - mx.logsumexp(mx.array(values), axis=-1, keepdims=True)
    assert_same_distribution(run(TopK(k=k), values), np.array(apply_top_k(logprobs, k)))
    min_p = np.array(apply_min_p(logprobs, 0.05))
    assert_same_distribution(run(MinP(p=0.05), values), min_p)
    config = TopP(p=p)
    if no_knife_edge(config, values):
        peer = np.array(apply_top_p(logprobs, p))
        # It adds up from the small end, and may keep one removed token of zero mass.
        np.testing.assert_array_equal(np.isneginf(run(config, values)), np.isneginf(peer))


@LAW
@given(data=st.data(), context_size=st.integers(1, 10))
def test_mlx_lm_penalties(data, context_size):
    from mlx_lm.sample_utils import make_logits_processors

    values = data.draw(logits(only=TAME))[:1]
    prompts, steps = data.draw(histories(1))
    assume(len(prompts[0]) + len(steps) > 0)
    tokens = mx.array(np.concatenate([prompts[0], steps[:, 0]]))
    ours: list[tuple[Any, dict[str, Any]]] = [
        (
            RepetitionPenalty(penalty=1.4, context_size=context_size),
            {"repetition_penalty": 1.4, "repetition_context_size": context_size},
        ),
        (
            PresencePenalty(penalty=0.6, context_size=context_size, include_prompt=True),
            {"presence_penalty": 0.6, "presence_context_size": context_size},
        ),
        (
            FrequencyPenalty(penalty=0.6, context_size=context_size, include_prompt=True),
            {"frequency_penalty": 0.6, "frequency_context_size": context_size},
        ),
        (LogitBias(bias={1: -4.0, 2: 3.0}), {"logit_bias": {1: -4.0, 2: 3.0}}),
    ]
    for config, parameters in ours:
        (processor,) = make_logits_processors(**parameters)
        peer = np.array(processor(tokens, mx.array(values)))  # a copy: some write into it
        np.testing.assert_allclose(run(config, values, prompts, steps), peer, rtol=1e-5, atol=1e-5)


@pytest.mark.torch
@settings(max_examples=scaled(60))
@given(values=logits(only=TAME), p=st.sampled_from([0.2, 0.9, 0.99]), k=st.integers(1, VOCAB_SIZE))
def test_transformers_warpers(values, p, k):
    import torch
    from transformers import (
        MinPLogitsWarper,
        TemperatureLogitsWarper,
        TopKLogitsWarper,
        TopPLogitsWarper,
    )

    ours_and_theirs: list[tuple[Any, Any]] = [
        (Temperature(temperature=0.7), TemperatureLogitsWarper(0.7)),
        (MinP(p=0.05), MinPLogitsWarper(0.05)),
    ]
    if not has_ties(values):  # transformers keeps all tokens tied at the k-th place
        ours_and_theirs += [(TopK(k=k), TopKLogitsWarper(k)), (TopP(p=p), TopPLogitsWarper(p))]
    for config, warper in ours_and_theirs:
        if no_knife_edge(config, values):
            peer = warper(None, torch.tensor(values)).numpy()
            assert_same_distribution(run(config, values), peer, atol=1e-6)


@pytest.mark.torch
@settings(max_examples=scaled(60))
@given(data=st.data(), penalty=st.sampled_from([0.7, 1.3]))
def test_transformers_repetition_penalty(data, penalty):
    import torch
    from transformers import RepetitionPenaltyLogitsProcessor

    values = data.draw(logits(only=TAME))[:1]
    prompts, steps = data.draw(histories(1))
    tokens = np.concatenate([prompts[0], steps[:, 0]]).astype(np.int64)
    config = RepetitionPenalty(penalty=penalty, context_size=100)
    peer = RepetitionPenaltyLogitsProcessor(penalty)(
        torch.tensor(tokens[None]), torch.tensor(values)
    )
    np.testing.assert_allclose(run(config, values, prompts, steps), peer.numpy(), rtol=1e-6)
