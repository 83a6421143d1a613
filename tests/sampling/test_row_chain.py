"""Rows with other temperatures, shares and penalties share a chain and draw as on their own."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import scaled
from tests.sampling.contract import CONTRACT, VOCAB_SIZE
from tests.sampling.strategies import histories, logits
from vlmkit.sampling import (
    FrequencyPenalty,
    MinP,
    PresencePenalty,
    RepetitionPenalty,
    Temperature,
    TopK,
    TopP,
    build_chain,
    build_row_chain,
    join_states,
    row_chain_key,
)

SHARED: dict[str, list[list[Any]]] = {
    "below one": [[Temperature(temperature=t)] for t in (0.3, 0.7, 1e-300, 0.999)],
    "above one": [[Temperature(temperature=t)] for t in (1.1, 2.0, 30.0, 1.7)],
    "min_p": [[MinP(p=p)] for p in (0.02, 0.3, 1.0, 0.5)],
    "top_p": [[TopP(p=p)] for p in (0.1, 0.83, 0.999, 0.5)],
    "top_p ties": [[TopP(p=p, ties="all")] for p in (0.1, 0.83, 0.999, 0.5)],
    "window": [[RepetitionPenalty(penalty=r, context_size=4)] for r in (1.3, 0.8, 2.0, 1.1)],
    "whole history": [
        [RepetitionPenalty(penalty=r, context_size=None)] for r in (1.3, 0.8, 2.0, 1.1)
    ],
    "presence": [[PresencePenalty(penalty=a)] for a in (0.7, -0.4, 0.0, 1.0)],
    "frequency": [
        [FrequencyPenalty(penalty=b, include_prompt=True)] for b in (0.2, 0.6, 0.0, -1.0)
    ],
    "a chain": [
        [
            RepetitionPenalty(penalty=1.05 + row / 10),
            TopK(k=8),
            TopP(p=0.6 + row / 10),
            MinP(p=0.01 + row / 50),
            Temperature(temperature=0.3 + row / 10),
        ]
        for row in range(4)
    ],
}


@pytest.mark.parametrize("name", SHARED)
@settings(max_examples=scaled(30))
@given(data=st.data())
def test_each_row_is_as_under_its_own_chain(name: str, data: st.DataObject) -> None:
    values = data.draw(logits())
    rows = len(values)
    prompts, steps = data.draw(histories(rows))
    configs = SHARED[name][:rows]
    assert len({row_chain_key(config) for config in configs}) == 1
    chains = [build_row_chain(config) for config in configs]
    shared = data.draw(st.sampled_from(chains))
    state = join_states(
        [chain.init([prompt], VOCAB_SIZE) for chain, prompt in zip(chains, prompts, strict=True)]
    )
    for tokens in steps:
        state = shared.update(state, mx.array(tokens))
    uniforms = mx.array(np.linspace(0, 0.99, rows, dtype=np.float32)[:, None])
    out = np.array(shared.apply(state, mx.array(values), uniforms))
    drawn = shared.sample(state, mx.array(values), uniforms)[1].tolist()
    for row, config in enumerate(configs):
        own = build_chain(config)
        one = slice(row, row + 1)
        alone = own.init([prompts[row]], VOCAB_SIZE)
        for tokens in steps:
            alone = own.update(alone, mx.array(tokens[one]))
        part, number = mx.array(values[one]), uniforms[one]
        np.testing.assert_array_equal(out[row], np.array(own.apply(alone, part, number))[0])
        assert drawn[row] == own.sample(alone, part, number)[1].item()


def test_a_large_vocabulary_takes_the_short_list_of_each_row() -> None:
    values = np.random.default_rng(0).normal(size=(3, 50_000)).astype(np.float32) * 4
    configs = [[TopP(p=p)] for p in (0.2, 0.7, 0.95)]
    chains = [build_row_chain(config) for config in configs]
    state = join_states([chain.init([[]], 50_000) for chain in chains])
    together = np.array(chains[2].apply(state, mx.array(values), mx.zeros((3, 1))))
    for row, config in enumerate(configs):
        own = build_chain(config)
        alone = own.apply(own.init([[]], 50_000), mx.array(values[row : row + 1]), mx.zeros((1, 1)))
        np.testing.assert_array_equal(together[row], np.array(alone)[0])


@pytest.mark.parametrize("kind", sorted(CONTRACT))
def test_what_decides_how_a_stage_computes_is_never_shared(kind: str) -> None:
    row = CONTRACT[kind]
    keys = [row_chain_key([config]) for config in row.configs]
    shares = kind in ("temperature", "top_p", "min_p")  # a number per row
    assert (len(set(keys)) < len(keys)) == shares
    off = row.neutral
    if off is not None and kind not in ("presence_penalty", "frequency_penalty"):
        assert row_chain_key([off]) not in keys
