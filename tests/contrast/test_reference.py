"""The methods equal what the papers' formulas give in float64, and what transformers computes."""

from __future__ import annotations

import numpy as np
import pytest

from tests.contrast.contract import NUM_LAYERS, Streams, case_id, cases, num_streams, run
from tests.contrast.reference import REFERENCES, layer_gap
from tests.contrast.write_goldens import GOLDEN
from tests.sampling.test_laws import assert_same_distribution
from vlmkit.contrast import CfgConfig, DolaConfig, M3idConfig, build_contrast

every_config = pytest.mark.parametrize("config", cases(), ids=case_id)


def draw(config, *, rows: int, size: int, seed: int = 0) -> Streams:
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(rows, size)) * rng.choice([1.0, 4.0], size=(rows, 1))
    # Other streams of a model resemble it.
    noise = rng.normal(size=(rows, num_streams(config), size))
    scale = rng.choice([0.3, 1.0, 2.0], size=(*noise.shape[:2], 1))
    others = values[:, None] + scale * noise
    # Rounding of a difference grows with its weight: e³ at most.
    most = int(3.0 / config.forgetting) if isinstance(config, M3idConfig) else 1000
    tokens = rng.integers(0, most, rows)
    return Streams(np.float32(values), np.float32(others), tokens.astype(np.int32))


@every_config
@pytest.mark.parametrize("seed", range(4))
def test_small_vocabularies(config, seed):
    found = draw(config, rows=6, size=40, seed=seed)
    expected = REFERENCES[config.kind](config, found)
    result = run(config, found)
    np.testing.assert_array_equal(np.isneginf(result), np.isneginf(expected))
    kept = ~np.isneginf(expected)
    np.testing.assert_allclose(result[kept], expected[kept], rtol=2e-5, atol=2e-5)


@every_config
def test_large_vocabularies(config):
    """152k tokens: a plain float32 log-sum-exp would be off by more than this."""
    found = draw(config, rows=2, size=151_936, seed=7)
    assert not isinstance(config, DolaConfig) or layer_gap(config, found) > 1e-4
    expected = REFERENCES[config.kind](config, found)
    result = run(config, found)
    np.testing.assert_array_equal(np.isneginf(result), np.isneginf(expected))
    kept = ~np.isneginf(expected)
    np.testing.assert_allclose(result[kept], expected[kept], rtol=2e-5, atol=5e-5)


def test_guidance_of_one_returns_the_very_logits():
    config = CfgConfig(scale=1.0)
    found = draw(config, rows=3, size=50)
    np.testing.assert_array_equal(run(config, found), found.values)


def test_guidance_of_zero_is_the_negative_prompt():
    config = CfgConfig(scale=0.0)
    found = draw(config, rows=3, size=50)
    assert_same_distribution(run(config, found), found.others[:, 0])


def test_m3id_grows_with_the_answer_and_stays_finite():
    config = M3idConfig(forgetting=0.02)
    found = draw(config, rows=1, size=50)
    distance = []
    for count in (0, 10, 100, 100_000, 2**31 - 1):
        moved = run(config, found._replace(num_tokens=np.array([count], np.int32)))
        assert np.isfinite(moved).all()
        distance.append(np.abs(moved - run(M3idConfig(forgetting=0.0), found)).max())
    assert distance[0] < distance[1] < distance[2] < distance[3]


def test_m3id_leaves_a_sure_token_alone():
    config = M3idConfig(forgetting=1.0, confidence=0.9)
    sure = Streams(
        np.float32([[9.0, 0.0, 0.0], [1.0, 0.0, 0.0]]),
        np.float32([[[0.0, 1.0, 2.0]], [[0.0, 1.0, 2.0]]]),
        np.array([5, 5], np.int32),
    )
    result = run(config, sure)
    assert_same_distribution(result[:1], sure.values[:1])
    assert result[1].max() - result[1].min() > 10.0


@pytest.mark.parametrize(("layers", "golden"), [((0, 1, 2, 3), "selected"), ((0,), "single")])
def test_dola_equals_transformers(layers, golden):
    arrays = np.load(GOLDEN)
    config = DolaConfig(layers=layers, divergence="from_mean")
    rows = len(arrays["logits"])
    early = arrays["early"][:, list(layers)]
    found = Streams(arrays["logits"], early, np.zeros(rows, np.int32))
    result = run(config, found)
    np.testing.assert_array_equal(np.isneginf(result), np.isneginf(arrays[golden]))
    kept = np.isfinite(result)
    np.testing.assert_allclose(result[kept], arrays[golden][kept], rtol=1e-5, atol=1e-5)


def test_the_two_divergences_of_dola_may_choose_another_layer():
    arrays = np.load(GOLDEN)
    found = Streams(arrays["logits"], arrays["early"], np.zeros(24, np.int32))
    papers = run(DolaConfig(layers=(0, 1, 2, 3)), found)
    kept = np.isfinite(papers)
    same = np.isclose(papers, arrays["selected"], atol=1e-3) | ~kept
    assert 0 < same.all(-1).sum() < 24


def transformers_layers(choice: str, num_layers: int, tied: bool) -> tuple[int, ...]:
    """The rule in the comments of ``_dola_decoding``, written out."""
    start = 0 if not tied or num_layers < 2 else 2 if num_layers > 2 else 1
    half = num_layers // 2
    if choice == "low":
        if start == half:
            return (start,)
        return tuple(range(start, half if num_layers <= 40 else 20, 2))
    return tuple(range(half if num_layers <= 40 else num_layers - 20, num_layers, 2))


@pytest.mark.parametrize("choice", ["low", "high"])
@pytest.mark.parametrize("tied", [False, True])
def test_dola_chooses_among_the_layers_of_transformers(choice, tied):
    for num_layers in range(1, 100):
        config = DolaConfig(layers=choice)
        contrast = build_contrast(config, num_layers=num_layers, tied_embeddings=tied)
        expected = transformers_layers(choice, num_layers, tied)
        if (choice, tied, num_layers) == ("low", True, 3):
            assert expected == (), "transformers would fail"
            expected = (2,)
        assert contrast.early_layers == expected
        assert all(0 <= layer < num_layers for layer in contrast.early_layers)


@pytest.mark.torch
@pytest.mark.parametrize("scale", [0.0, 0.5, 1.5, 5.0])
def test_guidance_equals_transformers(scale):
    import torch
    from transformers import UnbatchedClassifierFreeGuidanceLogitsProcessor

    config = CfgConfig(scale=scale)
    found = draw(config, rows=4, size=NUM_LAYERS * 50)

    class Output(dict):
        logits = torch.tensor(found.others[:, None, 0])

    processor = UnbatchedClassifierFreeGuidanceLogitsProcessor(
        guidance_scale=scale, model=lambda *args, **kwargs: Output()
    )
    ids = torch.zeros((4, 1), dtype=torch.long)
    expected = processor(ids, torch.tensor(found.values)).numpy()
    np.testing.assert_allclose(run(config, found), expected, rtol=1e-5, atol=1e-5)
