"""A model with recurrent layers through the engine: every row as if it were alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.loading.qwen3_5 import write_qwen3_5
from vlmkit import apply_chat_template, load
from vlmkit.api import stream_pipeline
from vlmkit.batch import batch_pipeline
from vlmkit.cache import DenseConfig, build_cache, trim_rows
from vlmkit.contracts.interface import KVSpec, RecurrentSpec
from vlmkit.engine import Request, collect
from vlmkit.errors import VlmkitError
from vlmkit.passes.embed import embed_prompts
from vlmkit.passes.prefill import prefill
from vlmkit.pipeline import PipelineConfig
from vlmkit.preprocess import PreprocessConfig, prepare
from vlmkit.prompts import PromptCache
from vlmkit.results import GenerationResult

Loaded = tuple[Any, Any]
STOPS = [{"kind": "max_tokens", "max_tokens": 10}]
DRAWN = [{"kind": "temperature", "temperature": 0.8}, {"kind": "top_p", "p": 0.9}]
ATOL = 2e-4  # of logprobs and hidden states, which are of order one


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    return load(str(write_qwen3_5(tmp_path_factory.mktemp("qwen3_5"))))


def picture(seed: int, size: tuple[int, int] = (24, 40)) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 255, (*size, 3), np.uint8), "RGB")


def request(loaded: Loaded, question: str, *images: Image.Image) -> Request:
    model, processor = loaded
    text = apply_chat_template(processor, model.config, question, num_images=len(images))
    return Request(text, images)


def requests(loaded: Loaded) -> list[Request]:
    return [
        request(loaded, "How many objects are there in this image?", picture(1)),
        request(loaded, "Hi"),
        request(loaded, "Count.", picture(2, (16, 16)), picture(3, (48, 24))),
        request(loaded, "How many objects are there in this image?", picture(1)),
    ]


def alone(loaded: Loaded, one: Request, pipeline: PipelineConfig) -> GenerationResult:
    return collect(stream_pipeline(*loaded, one, pipeline))


def assert_same(found: GenerationResult, expected: GenerationResult) -> None:
    assert found.token_ids == expected.token_ids
    assert found.finish_reason == expected.finish_reason == "length"
    assert found.logprobs is not None
    np.testing.assert_allclose(found.logprobs, expected.logprobs, atol=ATOL)


METHODS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "drawn": {"sampling": DRAWN, "seed": 3},
    "vcd": {"contrast": {"kind": "vcd"}},
    "dola": {"contrast": {"kind": "dola"}},
    "m3id": {"contrast": {"kind": "m3id"}},
    "beam": {"search": {"kind": "beam", "num_beams": 3}},
    "contrastive search": {"search": {"kind": "contrastive_search"}},
    "affine": {"cache": {"kind": "affine", "bits": 8, "group_size": 32}},
    "rotating": {"cache": {"kind": "rotating", "max_size": 12}},
    "small steps": {"prefill": {"step_size": 5}},
}


@pytest.mark.parametrize("name", METHODS)
def test_rows_of_a_batch_are_single_runs(loaded: Loaded, name: str) -> None:
    pipeline = PipelineConfig(stopping=STOPS, **METHODS[name])
    needs_image = name in ("vcd", "m3id")
    rows = [one for one in requests(loaded)[:3] if one.images or not needs_image]
    together = batch_pipeline(*loaded, [(one, pipeline) for one in rows], batch_size=2).results
    for one, found in zip(rows, together, strict=True):
        assert_same(found, alone(loaded, one, pipeline))


def test_branches_of_one_prompt_are_single_runs(loaded: Loaded) -> None:
    one = requests(loaded)[0]
    methods = ({}, {"sampling": DRAWN, "seed": 1}, {"sampling": DRAWN, "seed": 2})
    pipelines = [PipelineConfig(stopping=STOPS, **method) for method in methods]
    together = batch_pipeline(*loaded, [(one, pipeline) for pipeline in pipelines]).results
    for pipeline, found in zip(pipelines, together, strict=True):
        assert_same(found, alone(loaded, one, pipeline))
    assert len({tuple(found.token_ids) for found in together}) == len(methods)
    assert [found.cached_tokens for found in together[1:]] == [together[0].prompt_tokens] * 2


def test_prompts_that_begin_alike_share_the_beginning(loaded: Loaded) -> None:
    rows = [request(loaded, text, picture(1)) for text in ("Count.", "Is there a red circle?")]
    pipeline = PipelineConfig(stopping=STOPS)
    together = batch_pipeline(*loaded, [(one, pipeline) for one in rows]).results
    assert together[1].cached_tokens > 8
    for one, found in zip(rows, together, strict=True):
        assert_same(found, alone(loaded, one, pipeline))


def test_a_prompt_cache_goes_on_from_whole_prompts_only(loaded: Loaded) -> None:
    first, other = (request(loaded, text, picture(1)) for text in ("Count.", "Is it?"))
    pipeline, cache = PipelineConfig(stopping=STOPS), PromptCache()

    def ask(one: Request) -> GenerationResult:
        return collect(stream_pipeline(*loaded, one, pipeline, prompt_cache=cache))

    answer = ask(first)
    assert ask(first).token_ids == answer.token_ids
    turn = Request(first.prompt + answer.text + "<|im_end|>\nAnd squares?", first.images)
    found = ask(turn)
    assert found.cached_tokens >= answer.prompt_tokens
    assert_same(found, alone(loaded, turn, pipeline))
    assert ask(other).cached_tokens == 0, "a state cannot be cut back"


def test_a_recurrent_state_is_not_cut_back(loaded: Loaded) -> None:
    model, processor = loaded
    inputs = prepare(processor, "How many?", [], config=PreprocessConfig())
    embedded = embed_prompts(model, [inputs])
    cache = build_cache(DenseConfig(), model.layer_specs, 1, model.dtype)
    state, _ = prefill(model, embedded, cache, step_size=64)
    whole = len(inputs.token_ids)
    assert trim_rows(state.cache, (whole,)).lengths == (whole,)
    with pytest.raises(VlmkitError, match="a recurrent layer cannot take tokens back"):
        trim_rows(state.cache, (whole - 1,))


def test_a_cache_policy_is_for_attention_layers(loaded: Loaded) -> None:
    model, _ = loaded
    assert [type(spec) for spec in model.layer_specs] == [RecurrentSpec] * 3 + [KVSpec]
    one = requests(loaded)[0]
    reports = {
        name: alone(loaded, one, PipelineConfig(stopping=STOPS, **METHODS[name])).effective
        for name in ("greedy", "affine")
    }
    plain, packed = (reports[name]["cache"] for name in ("greedy", "affine"))  # type: ignore[index]
    assert plain["recurrent_layers"] == packed["recurrent_layers"] == [0, 1, 2]
    assert plain["bytes_per_row"] == packed["bytes_per_row"] == 3 * 4 * (3 * 128 + 4 * 16 * 16)
    assert packed["bytes_per_token"] < plain["bytes_per_token"] == 4 * 2 * 2 * 32
