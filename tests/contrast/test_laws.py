"""Laws that every method obeys, over the contract table."""

from __future__ import annotations

from typing import get_args

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.contrast.contract import CONTRACT, TAME, Streams, build, case_id, cases, run, streams
from tests.contrast.reference import REFERENCES, layer_gap
from tests.effort import scaled
from tests.sampling.test_laws import assert_same_distribution
from vlmkit.contrast import ContrastConfig, DolaConfig, IcdConfig, VcdConfig
from vlmkit.sampling import MinP, build_stage

LAW = settings(max_examples=scaled(8))
# DoLa has no choice of layer to check where several are infinitely far from the last.
OFTEN_UNUSABLE = settings(LAW, suppress_health_check=[HealthCheck.filter_too_much])
every_config = pytest.mark.parametrize("config", cases(), ids=case_id)


def of_role(role: str):
    configs = [config for row in CONTRACT.values() for config in getattr(row, role)]
    return pytest.mark.parametrize("config", configs, ids=case_id)


def one_choice(config, found: Streams) -> bool:
    """True when DoLa's choice of layer doesn't hang on rounding."""
    return not isinstance(config, DolaConfig) or layer_gap(config, found) > 1e-4


def test_every_kind_has_its_row():
    kinds = {get_args(part.model_fields["kind"].annotation)[0] for part in union_members()}
    assert kinds == set(CONTRACT) == set(REFERENCES)


def union_members():
    return get_args(get_args(ContrastConfig)[0])


@every_config
@given(data=st.data())
@LAW
def test_shape_support_and_finiteness(config, data):
    found = data.draw(streams(config))
    before = [field.copy() for field in found]
    result = run(config, found)
    assert result.shape == found.values.shape
    assert result.dtype == np.float32
    assert not np.isnan(result).any()
    assert not np.isposinf(result).any()
    assert np.isfinite(result).any(-1).all()
    assert np.isneginf(result)[np.isneginf(found.values)].all(), "a removed token came back"
    for field, copy in zip(found, before, strict=True):
        np.testing.assert_array_equal(field, copy)


@every_config
@given(data=st.data())
@LAW
def test_rows_are_independent(config, data):
    found = data.draw(streams(config))
    together = run(config, found)
    for row in range(len(found.values)):
        np.testing.assert_array_equal(together[row], run(config, found.row(row))[0])


@every_config
@given(data=st.data())
@OFTEN_UNUSABLE
def test_the_order_of_the_vocabulary_does_not_matter(config, data):
    found = data.draw(streams(config, TAME))
    assume(one_choice(config, found))
    order = np.random.default_rng(0).permutation(found.values.shape[1])
    moved = Streams(found.values[:, order], found.others[..., order], found.num_tokens)
    assert_same_distribution(run(config, found)[:, order], run(config, moved))


@every_config
@given(data=st.data(), shift=st.integers(-40, 40), other=st.integers(-40, 40))
@OFTEN_UNUSABLE
def test_constants_added_to_a_stream_do_not_matter(config, data, shift, other):
    found = data.draw(streams(config, ("normal", "ties", "nearly flat")))
    # Multiples of 1/64: then adding a whole number is exact.
    values, others = (np.round(field * 64) / 64 for field in found[:2])
    found = Streams(np.float32(values), np.float32(others), found.num_tokens)
    assume(one_choice(config, found))
    moved = Streams(found.values + np.float32(shift), found.others + np.float32(other), found[2])
    assert_same_distribution(run(config, found), run(config, moved), atol=2e-5)


@of_role("neutral")
@given(data=st.data())
@LAW
def test_neutral_parameters_change_nothing(config, data):
    found = data.draw(streams(config, TAME))
    assert_same_distribution(run(config, found), found.values)


@of_role("nothing_to_contrast")
@given(data=st.data())
@LAW
def test_equal_streams_leave_the_distribution(config, data):
    found = data.draw(streams(config, TAME))
    found = Streams(found.values, found.values[:, None], np.minimum(found.num_tokens, 20))
    assert_same_distribution(run(config, found), found.values, atol=2e-5)


@every_config
def test_what_is_not_a_number_stays_so(config):
    rng = np.random.default_rng(0)
    streams_of = len(build(config).early_layers) or 1
    others = rng.normal(size=(2, streams_of, 9)).astype(np.float32)
    values = rng.normal(size=(2, 9)).astype(np.float32)
    values[0, 3] = np.nan
    result = run(config, Streams(values, others, np.zeros(2, np.int32)))
    assert np.isnan(result[0]).any(), "nothing could be drawn, and nothing tells"
    assert not np.isnan(result[1]).any()


@given(data=st.data(), beta=st.sampled_from([0.0, 1e-3, 0.1, 0.5, 1.0]))
@LAW
@pytest.mark.parametrize("kind", [VcdConfig, IcdConfig])
def test_without_contrast_the_cut_is_min_p(kind, data, beta):
    config = kind(alpha=0.0, beta=beta)
    found = data.draw(streams(config))
    stage = build_stage(MinP(p=beta))
    cut = np.array(stage.apply((), mx.array(found.values), None))
    np.testing.assert_array_equal(run(config, found), cut)


@pytest.mark.parametrize("config", cases(), ids=case_id)
@pytest.mark.parametrize("rows", [1, 3])
def test_the_combination_is_one_graph(config, rows, tmp_path):
    """It reads no value on the host: the graph of some logits is right for others."""
    contrast = build(config)
    size, num = 50, len(contrast.early_layers) or 1

    def drawn(seed):
        rng = np.random.default_rng(seed)
        values = mx.array(rng.normal(size=(rows, size)).astype(np.float32))
        others = mx.array(rng.normal(size=(rows, num, size)).astype(np.float32))
        return values, others, mx.array(rng.integers(0, 9, rows), mx.int32)

    file = str(tmp_path / "combine.mlxfn")
    mx.export_function(file, contrast.combine, *drawn(1))
    (found,) = mx.import_function(file)(*drawn(2))
    np.testing.assert_array_equal(np.array(found), np.array(contrast.combine(*drawn(2))))
