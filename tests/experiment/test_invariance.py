"""One response beside others: what comes out, and that a device which lets rows mix is seen."""

from __future__ import annotations

from typing import Any

import pytest

from tests.engine.running import counted
from tests.experiment.drifting import drifting
from vlmkit import load
from vlmkit.engine import Request
from vlmkit.errors import VlmkitError
from vlmkit.experiment.invariance import Invariance, check_batch_invariance, settings
from vlmkit.pipeline import PipelineConfig
from vlmkit.prompt_utils import apply_chat_template

IMAGE = "vlmkit:shapes/samples/count_all.png"
LIMIT = [{"kind": "max_tokens", "max_tokens": 5}]
WARM = [{"kind": "temperature", "temperature": 3.0}]


@pytest.fixture(scope="module")
def shapes() -> tuple[Any, Any]:
    return load("shapes")


def asked(processor: Any, *, num_images: int = 1) -> Request:
    prompt = apply_chat_template(processor, None, "How many circles?", num_images=num_images)
    return Request(prompt, (IMAGE,) * num_images)


def check(model: Any, processor: Any, request: Request, *sizes: int, **config: Any) -> Invariance:
    pipeline = PipelineConfig(**{"stopping": LIMIT, "sampling": WARM, **config})
    return check_batch_invariance(model, processor, request, pipeline, batch_sizes=sizes)


@pytest.mark.parametrize("num_images", [0, 1])
def test_rows_really_run_side_by_side(shapes: tuple[Any, Any], num_images: int) -> None:
    model, passes = counted(shapes[0])
    found = check(model, shapes[1], asked(shapes[1], num_images=num_images), 4)
    assert (found.num_outputs, len(found.outputs), found.generation_tokens) == (1, 1, 5)
    assert all((one.max_logprob_difference or 0.0) < 1e-4 for one in found.outcomes)
    assert passes.steps == [1] * 8 + [4] * 4 * 9
    widths = [width for rows, width in passes.prefills if rows == 4]
    assert len(widths) == 9
    assert sorted(set(widths))[-1] > found.prompt_tokens - 8, "longer prompts pad the response"


def test_a_device_that_mixes_rows_is_seen(shapes: tuple[Any, Any]) -> None:
    model = drifting(shapes[0], 0.3)
    found = check(model, shapes[1], asked(shapes[1]), 2, 3)
    assert found.num_outputs == len(found.outputs) > 1
    alone, *others = found.outcomes
    assert (alone.batch_size, alone.output, alone.first_difference) == (1, 0, None)
    for one in others:
        assert (one.output == 0) == (one.first_difference is None)
    assert {one.batch_size for one in others if one.output} <= {2, 3}
    assert max(one.output for one in others) == found.num_outputs - 1


def test_a_small_error_changes_logprobs_before_it_changes_tokens(shapes: tuple[Any, Any]) -> None:
    found = check(drifting(shapes[0], 1e-4), shapes[1], asked(shapes[1]), 2, sampling=[])
    assert found.num_outputs == 1
    alone, *others = found.outcomes
    assert alone.max_logprob_difference == 0
    assert all(0 < (one.max_logprob_difference or 0) < 0.1 for one in others)


CONFIGS: dict[str, dict[str, Any]] = {
    "search": {"search": {"kind": "beam", "num_beams": 2}, "sampling": []},
    "contrast": {"contrast": {"kind": "vcd"}},
    "layers": {"contrast": {"kind": "dola"}},
    "cache": {"cache": {"kind": "affine", "bits": 8, "group_size": 32}},
    "steps": {"prefill": {"step_size": 16}},
    "small": {"preprocess": {"resize_shape": [56, 56]}},
    "no limit": {"stopping": [{"kind": "eos"}], "sampling": []},
}


@pytest.mark.parametrize("case", CONFIGS)
def test_any_pipeline(shapes: tuple[Any, Any], case: str) -> None:
    found = check(*shapes, asked(shapes[1]), 3, **CONFIGS[case])
    assert found.num_outputs == 1
    kinds = {one.neighbours for one in found.outcomes}
    expected = {"none", "equal", "shorter", "longer"}
    assert kinds == (expected - {"shorter"} if "contrast" in CONFIGS[case] else expected)


def test_token_ids_are_a_prompt_too(shapes: tuple[Any, Any]) -> None:
    ids = tuple(shapes[1].tokenizer.encode("How many?"))
    assert check(*shapes, Request(ids), 2).num_outputs == 1


def test_every_size_has_every_place_and_kind_of_neighbour() -> None:
    assert [tuple(one) for one in settings([2, 1, 2])] == [
        (1, 0, "none"),
        *((2, place, kind) for kind in ("equal", "shorter", "longer") for place in (0, 1)),
    ]
    assert {one.place for one in settings([8]) if one.batch_size == 8} == {0, 4, 7}


@pytest.mark.parametrize("size", [0, -1, 257, True, 2.0])
def test_a_size_that_is_none(shapes: tuple[Any, Any], size: Any) -> None:
    with pytest.raises(VlmkitError, match=r"batch_sizes: .* is no number of rows"):
        check(*shapes, asked(shapes[1]), size)


def test_a_response_that_cannot_be(shapes: tuple[Any, Any]) -> None:
    none = [
        {"kind": "allowed_tokens", "token_ids": [3]},
        {"kind": "suppress_tokens", "token_ids": [3]},
    ]
    with pytest.raises(VlmkitError, match="no token can be drawn"):
        check(*shapes, asked(shapes[1]), 2, sampling=none)
