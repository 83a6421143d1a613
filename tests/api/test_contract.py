"""Names, defaults and fields of the documented public interface."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Any

import pytest

import vlmkit
from vlmkit import BatchResponse, BatchStats, GenerationResult, VlmkitError
from vlmkit.config.params import pipeline_from_params

DOCUMENTED_DEFAULTS = {
    "max_tokens": 256,
    "temperature": 0.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "repetition_penalty": None,
    "repetition_context_size": 20,
    "resize_shape": None,
    "kv_bits": None,
    "kv_group_size": 64,
    "max_kv_size": None,
    "prefill_step_size": 2048,
    "eos_tokens": None,
    "skip_special_tokens": False,
    "thinking_budget": None,
}


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (
            vlmkit.generate,
            {"image": None, "audio": None, "verbose": False},
        ),
        (vlmkit.stream_generate, {"image": None, "audio": None}),
        (
            vlmkit.batch_generate,
            {
                "images": None,
                "audios": None,
                "prompts": None,
                "max_tokens": 128,
                "verbose": False,
                "group_by_shape": True,
                "track_image_sizes": True,
            },
        ),
    ],
)
def test_signature_is_the_documented_one(function: Any, expected: dict[str, Any]) -> None:
    parameters = inspect.signature(function).parameters
    positional = [p for p in parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    required = [p.name for p in positional if p.default is p.empty]
    assert required == (["model", "processor", "prompt"] if "image" in expected else required)
    assert {p.name: p.default for p in positional if p.default is not p.empty} == expected
    assert [p.name for p in positional][-len(expected) :] == list(expected)
    assert any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def test_every_documented_default_changes_nothing_when_given() -> None:
    assert pipeline_from_params() == pipeline_from_params(**DOCUMENTED_DEFAULTS)


@pytest.mark.parametrize("name", DOCUMENTED_DEFAULTS)
def test_every_documented_parameter_is_known(name: str) -> None:
    assert pipeline_from_params(**{name: DOCUMENTED_DEFAULTS[name]}) == pipeline_from_params()
    with pytest.raises(VlmkitError, match=f"did you mean '{name}'"):
        pipeline_from_params(**{f"{name}_": DOCUMENTED_DEFAULTS[name]})


@pytest.mark.parametrize(
    ("cls", "fields"),
    [
        (
            GenerationResult,
            {
                "text": "",
                "token": None,
                "logprobs": None,
                "prompt_tokens": 0,
                "generation_tokens": 0,
                "total_tokens": 0,
                "prompt_tps": 0.0,
                "generation_tps": 0.0,
                "peak_memory": 0.0,
            },
        ),
        (
            BatchStats,
            {
                "prompt_tokens": 0,
                "prompt_tps": 0,
                "prompt_time": 0,
                "generation_tokens": 0,
                "generation_tps": 0,
                "generation_time": 0,
                "peak_memory": 0,
            },
        ),
    ],
)
def test_dataclass_starts_with_the_documented_fields(cls: type, fields: dict[str, Any]) -> None:
    assert dataclasses.is_dataclass(cls)
    names = [field.name for field in dataclasses.fields(cls)]
    assert names[: len(fields)] == list(fields)
    assert {name: getattr(cls(), name) for name in fields} == fields


def test_batch_response_fields() -> None:
    names = [field.name for field in dataclasses.fields(BatchResponse)]
    assert names[:3] == ["texts", "stats", "image_sizes"]
    assert BatchResponse(texts=[], stats=BatchStats()).image_sizes is None


def test_logprobs_take_a_list_and_give_it_back() -> None:
    assert GenerationResult(logprobs=[-0.5, -0.9]).logprobs == [-0.5, -0.9]


@pytest.mark.parametrize(
    ("given", "suggested"),
    [("temp", "temperature"), ("max_token", "max_tokens"), ("topp", "top_p")],
)
def test_defect_8_an_unknown_keyword_is_refused_and_the_nearest_named(
    shapes: tuple[Any, Any], given: str, suggested: str
) -> None:
    for function in (vlmkit.generate, vlmkit.stream_generate):
        with pytest.raises(VlmkitError, match=suggested):
            function(*shapes, "Hi", **{given: 1})
    with pytest.raises(VlmkitError, match=suggested):
        vlmkit.batch_generate(*shapes, prompts=["Hi"], **{given: 1})


@pytest.mark.parametrize(
    ("name", "value"), [("enable_thinking", "yes"), ("sample", -1), ("sample", True)]
)
def test_request_parameters_are_checked(shapes: tuple[Any, Any], name: str, value: Any) -> None:
    with pytest.raises(VlmkitError, match=name):
        vlmkit.generate(*shapes, "Hi", **{name: value})
    with pytest.raises(VlmkitError, match=name):
        vlmkit.batch_generate(*shapes, prompts=["Hi"], **{name: value})
