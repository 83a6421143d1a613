"""Where the toolkits behind the presets are wrong, shown on their own code, beside ours.

The numbers are those of the list of defects in `test_regressions` and
`test_reference_truncations`, which hold ours to the right behaviour.
"""

from __future__ import annotations

import mlx.core as mx
import numpy as np
import pytest

from tests.sampling.test_laws import run
from vlmkit.sampling import (
    PLess,
    RepetitionPenalty,
    TopK,
    TopNSigma,
    TypicalP,
    Xtc,
    build_chain,
    build_stage,
)

vlm = pytest.mark.mlx_vlm


def logprobs(*rows: list[float]) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return np.log(np.array(rows, np.float32))


def kept(logits: object) -> list[list[bool]]:
    return np.isfinite(np.array(logits)).tolist()


@vlm
def test_1_mlx_vlm_a_seed_moves_temperature_before_top_p():
    """Without a seed: top_p, then temperature. With one: the other way round."""
    from mlx_vlm import sample_utils

    values = mx.array(logprobs([0.6, 0.25, 0.15]))
    mx.random.seed(0)
    sampler = sample_utils.make_sampler(temp=0.4, top_p=0.75)
    assert {sampler(values).item() for _ in range(100)} == {0, 1}
    with_seed = {
        sample_utils.top_p_sampling(values, 0.75, 0.4, key=mx.random.key(seed)).item()
        for seed in range(100)
    }
    assert with_seed == {0}


@vlm
def test_2_mlx_vlm_xtc_takes_the_least_likely_choice_of_all_rows():
    from mlx_vlm.sample_utils import apply_xtc

    rows = logprobs([0.55, 0.45, 0.0], [0.3, 0.3, 0.4])
    config = Xtc(probability=1.0, threshold=0.2)
    alone = [kept(apply_xtc(mx.array(row[None]), 1.0, 0.2, []))[0] for row in rows]
    assert kept(run(config, rows)) == alone == [[False, True, False], [True, True, False]]
    assert kept(apply_xtc(mx.array(rows), 1.0, 0.2, []))[0] == [False, False, False]


@pytest.mark.parametrize("module", ["mlx_lm", pytest.param("mlx_vlm", marks=vlm)])
def test_2_mlx_xtc_draws_one_number_for_all_rows(module):
    sample_utils = pytest.importorskip(f"{module}.sample_utils")
    rows = np.repeat(logprobs([0.6, 0.4]), 64, axis=0)
    mx.random.seed(0)
    theirs = np.isfinite(np.array(sample_utils.apply_xtc(mx.array(rows), 0.5, 0.2, [])))[:, 0]
    assert len(set(theirs.tolist())) == 1
    numbers = np.linspace(0, 0.99, 64)
    ours = np.isfinite(run(Xtc(probability=0.5, threshold=0.2), rows, u=numbers))[:, 0]
    np.testing.assert_array_equal(ours, numbers >= 0.5)


@vlm
def test_3_mlx_vlm_typical_p_and_top_n_sigma_after_a_mask():
    from mlx_vlm.sample_utils import apply_top_n_sigma, apply_typical_p

    masked = logprobs([0.6, 0.3, 0.1, 0.0])
    assert kept(run(TypicalP(p=0.5), masked)) == [[True, True, False, False]]
    assert kept(apply_typical_p(mx.array(masked), 0.5)) == [[True, False, False, False]]
    assert kept(run(TopNSigma(n=0.5), masked)) == [[True, False, False, False]]
    assert kept(apply_top_n_sigma(mx.array(masked), 0.5)) == [[True, True, True, False]]


@vlm
def test_4_mlx_vlm_p_less_drops_every_token_of_a_flat_row():
    from mlx_vlm.sample_utils import apply_p_less

    lost = 0
    for size in range(2, 200):
        flat = np.zeros((1, size), np.float32)
        assert np.isfinite(run(PLess(), flat)).all()
        lost += not np.isfinite(np.array(apply_p_less(mx.array(flat), 1.0))).any()
    assert lost > 0


@pytest.mark.parametrize("module", ["mlx_lm", pytest.param("mlx_vlm", marks=vlm)])
def test_15_mlx_top_k_of_the_whole_vocabulary_fails_at_the_first_token(module):
    sample_utils = pytest.importorskip(f"{module}.sample_utils")
    sampler = sample_utils.make_sampler(temp=1.0, top_k=3)
    with pytest.raises(ValueError, match="top_k"):
        sampler(mx.array(logprobs([0.5, 0.3, 0.2])))
    values = logprobs([0.5, 0.3, 0.2])
    np.testing.assert_array_equal(run(TopK(k=3), values), values)
    assert build_chain([TopK(k=3)]).num_random == 0


@pytest.mark.parametrize("module", ["mlx_lm", pytest.param("mlx_vlm", marks=vlm)])
def test_15_mlx_penalties_write_into_the_callers_logits(module):
    sample_utils = pytest.importorskip(f"{module}.sample_utils")
    values = np.ones((1, 4), np.float32)
    given = mx.array(values)
    sample_utils.make_repetition_penalty(2.0)(mx.array([1, 2]), given)
    assert given.tolist() == [[1.0, 0.5, 0.5, 1.0]]
    given = mx.array(values)
    stage = build_stage(RepetitionPenalty(penalty=2.0))
    out = stage.apply(stage.init([np.array([1, 2], np.int32)], 4), given, None)
    assert out.tolist() == [[1.0, 0.5, 0.5, 1.0]]
    assert given.tolist() == values.tolist()
