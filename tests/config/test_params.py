"""The documented keyword parameters: defaults, stage order, refusals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmkit.config.params import GenerationParams, pipeline_from_params
from vlmkit.errors import VlmkitError

# name: (documented default, a value that changes something)
DOCUMENTED: dict[str, tuple[Any, Any]] = {
    "max_tokens": (256, 5),
    "temperature": (0.0, 0.7),
    "top_p": (1.0, 0.9),
    "top_k": (0, 40),
    "min_p": (0.0, 0.1),
    "repetition_penalty": (None, 1.1),
    "repetition_context_size": (20, 64),
    "resize_shape": (None, (56, 84)),
    "kv_bits": (None, 8),
    "kv_group_size": (64, 32),
    "max_kv_size": (None, 128),
    "prefill_step_size": (2048, 16),
    "eos_tokens": (None, ["<|end|>"]),
    "skip_special_tokens": (False, True),
    "thinking_budget": (None, 8),
}
# What must be given beside a parameter for it to matter.
COMPANIONS: dict[str, dict[str, Any]] = {
    "top_p": {"temperature": 1.0},
    "top_k": {"temperature": 1.0},
    "min_p": {"temperature": 1.0},
    "repetition_context_size": {"repetition_penalty": 1.1},
    "kv_group_size": {"kv_bits": 8},
}


@pytest.mark.parametrize("name", DOCUMENTED)
def test_documented_defaults(name: str) -> None:
    assert GenerationParams.model_fields[name].default == DOCUMENTED[name][0]


@pytest.mark.parametrize("name", DOCUMENTED)
def test_no_parameter_is_ignored(name: str) -> None:
    default, other = DOCUMENTED[name]
    companions = COMPANIONS.get(name, {})
    base = pipeline_from_params(**companions)
    assert pipeline_from_params(**companions, **{name: default}) == base
    assert pipeline_from_params(**companions, **{name: other}) != base


def test_the_stage_order_is_that_of_mlx_lm() -> None:
    pipeline = pipeline_from_params(
        temperature=0.7,
        top_p=0.9,
        top_k=5,
        min_p=0.1,
        repetition_penalty=1.1,
        presence_penalty=0.1,
        frequency_penalty=0.2,
        logit_bias={3: -1.0},
    )
    assert [stage.kind for stage in pipeline.sampling] == [
        "logit_bias",
        "repetition_penalty",
        "presence_penalty",
        "frequency_penalty",
        "top_p",
        "min_p",
        "top_k",
        "temperature",
    ]


def test_temperature_zero_is_greedy() -> None:
    assert [stage.kind for stage in pipeline_from_params().sampling] == ["greedy"]
    assert [stage.kind for stage in pipeline_from_params(top_p=0.5, top_k=3).sampling] == ["greedy"]


@pytest.mark.parametrize(
    ("given_params", "expected"),
    [
        ({}, {"kind": "dense"}),
        ({"max_kv_size": 64}, {"kind": "rotating", "max_size": 64}),
        ({"kv_bits": 4}, {"kind": "affine", "bits": 4, "group_size": 64, "max_size": None}),
        ({"kv_bits": 8, "max_kv_size": 64}, {"kind": "affine", "bits": 8, "max_size": 64}),
    ],
)
def test_cache_policies(given_params: dict[str, Any], expected: dict[str, Any]) -> None:
    cache = pipeline_from_params(**given_params).cache.model_dump()
    assert expected.items() <= cache.items()


def test_stopping_order_and_contents() -> None:
    pipeline = pipeline_from_params(
        max_tokens=7, eos_tokens=["a", "b"], stop="x", thinking_budget=0, thinking_end_token="</t>"
    )
    by_kind = {stop.kind: stop for stop in pipeline.stopping}
    assert list(by_kind) == ["max_tokens", "eos", "stop_sequences", "thinking_budget"]
    assert by_kind["max_tokens"].max_tokens == 7
    assert by_kind["eos"].tokens == ("a", "b")
    assert by_kind["stop_sequences"].sequences == ("x",)
    assert (by_kind["thinking_budget"].budget, by_kind["thinking_budget"].end) == (0, "</t>")
    # Only what was given counts as set: unset markers keep their stricter check.
    assert "start" not in by_kind["thinking_budget"].model_fields_set


def test_numpy_numbers_are_numbers() -> None:
    pipeline = pipeline_from_params(max_tokens=np.int64(3), temperature=np.float32(0.5))
    assert pipeline == pipeline_from_params(max_tokens=3, temperature=0.5)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("temperature", -0.1, "temperature must be at least 0.0, got -0.1"),
        ("temperature", math.nan, "temperature must be a finite number, got nan"),
        ("temperature", math.inf, "temperature must be a finite number, got inf"),
        ("temperature", "0.5", "temperature must be a number, got '0.5'"),
        ("temperature", True, "temperature must be a number, got True"),
        ("temperature", None, "temperature must be a number, got None"),
        ("top_p", 0.0, "top_p must be greater than 0.0 and at most 1.0, got 0.0"),
        ("top_p", 1.1, "top_p must be greater than 0.0 and at most 1.0, got 1.1"),
        ("top_k", -1, "top_k must be at least 0, got -1"),
        ("top_k", 2.5, "top_k must be a whole number, got 2.5"),
        ("min_p", 1.5, "min_p must be at least 0.0 and at most 1.0, got 1.5"),
        ("max_tokens", -1, "max_tokens must be at least 0, got -1"),
        ("max_tokens", False, "max_tokens must be a whole number, got False"),
        ("repetition_penalty", 0.0, "repetition_penalty must be greater than 0.0, got 0.0"),
        ("repetition_context_size", 0, "repetition_context_size must be at least 1, got 0"),
        ("presence_penalty", math.inf, "presence_penalty must be a finite number, got inf"),
        ("logit_bias", {-1: 1.0}, "logit_bias.-1 must be at least 0, got -1"),
        ("logit_bias", {3: "x"}, "logit_bias.3 must be a number, got 'x'"),
        ("seed", -1, "seed must be at least 0 and less than 18446744073709551616, got -1"),
        ("resize_shape", 5, "resize_shape must be (height, width) in pixels, got 5"),
        ("resize_shape", (5,), "resize_shape must be (height, width) in pixels, got (5,)"),
        ("resize_shape", (0, 5), "resize_shape.0 must be at least 1, got 0"),
        ("kv_bits", 7, "kv_bits must be 2, 3, 4, 5, 6 or 8, got 7"),
        ("kv_bits", 1, "kv_bits must be 2, 3, 4, 5, 6 or 8, got 1"),
        ("kv_group_size", 48, "kv_group_size must be 32, 64 or 128, got 48"),
        ("max_kv_size", 0, "max_kv_size must be at least 1, got 0"),
        ("prefill_step_size", 0, "prefill_step_size must be at least 1, got 0"),
        ("eos_tokens", [1], "eos_tokens.0 must be text, got 1"),
        ("eos_tokens", [""], "eos_tokens.0 must have at least 1 character, got ''"),
        ("stop", [""], "stop.0 must have at least 1 character, got ''"),
        ("skip_special_tokens", 1, "skip_special_tokens must be true or false, got 1"),
        ("thinking_budget", -1, "thinking_budget must be at least 0, got -1"),
        ("thinking_budget", 1.5, "thinking_budget must be a whole number, got 1.5"),
    ],
)
def test_out_of_range(name: str, value: Any, message: str) -> None:
    with pytest.raises(VlmkitError) as caught:
        pipeline_from_params(**{name: value})
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("temp", "use temperature"),
        ("max_new_tokens", "use max_tokens"),
        ("images", "use image"),
        ("do_sample", "temperature=0 is greedy"),
        ("num_beams", "give search: {kind: beam, num_beams: …} in a PipelineConfig"),
        ("temprature", "did you mean 'temperature'?"),
        ("eos_token", "did you mean 'eos_tokens'?"),
        ("kvbits", "did you mean 'kv_bits'?"),
        ("image", "batch_generate has images"),
        ("sampling", "give sampling in a PipelineConfig to vlmkit.api.stream_pipeline"),
        ("reproducible", "give it in a PipelineConfig to vlmkit.api.stream_pipeline"),
        ("p_less", "give it as a kind of sampling in a PipelineConfig"),
        ("zzz", "known: max_tokens, temperature"),
    ],
)
def test_unknown_names(name: str, message: str) -> None:
    with pytest.raises(VlmkitError, match="unknown parameter") as caught:
        pipeline_from_params(**{name: 1})
    assert message in str(caught.value)


@given(
    temperature=st.floats(0, 5),
    top_p=st.floats(0.01, 1),
    top_k=st.integers(0, 100),
    min_p=st.floats(0, 1),
    seed=st.integers(0, 2**64 - 1) | st.none(),
    max_tokens=st.integers(0, 1000),
    thinking_budget=st.integers(0, 50) | st.none(),
)
def test_every_value_in_range_makes_a_pipeline(**params: Any) -> None:
    pipeline = pipeline_from_params(**params)
    assert pipeline.seed == (params["seed"] or 0)
    kinds = [stage.kind for stage in pipeline.sampling]
    assert ("greedy" in kinds) == (params["temperature"] == 0)
    assert hash(pipeline.sampling) == hash(pipeline_from_params(**params).sampling)
