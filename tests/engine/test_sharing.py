"""What rows and streams share: prefill, images, forward passes."""

from __future__ import annotations

import gc
import json
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

from tests.engine.running import counted
from tests.search.toy import qwen2
from vlmkit import load
from vlmkit.api import stream_pipeline
from vlmkit.batch import batch_pipeline
from vlmkit.cache import DenseConfig, build_cache
from vlmkit.contracts.inputs import Inputs, num_equal
from vlmkit.engine import Amateur, Request, collect
from vlmkit.errors import VlmkitError
from vlmkit.passes.embed import embed_prompts
from vlmkit.passes.prefill import prefill, prefill_hidden
from vlmkit.pipeline import PipelineConfig
from vlmkit.preprocess import PreprocessConfig, prepare
from vlmkit.prompt_utils import apply_chat_template
from vlmkit.prompts import PrefillOptions, prefill_prompts

Loaded = tuple[Any, Any]
LIMIT = [{"kind": "max_tokens", "max_tokens": 12}, {"kind": "eos"}]


@pytest.fixture(scope="module")
def shapes() -> Loaded:
    return load("shapes")


def picture(seed: int, size: tuple[int, int] = (112, 112)) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 255, (*size, 3), np.uint8), "RGB")


def prompt_inputs(processor: Any, question: str, *images: Image.Image) -> Inputs:
    text = "<|vision_start|><|image_pad|><|vision_end|>" * len(images) + question
    return prepare(processor, text, images, config=PreprocessConfig())


def request(shapes: Loaded, question: str, *images: Image.Image) -> Request:
    model, processor = shapes
    text = apply_chat_template(processor, model.config, question, num_images=len(images))
    return Request(text, images)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (("Count.", 1), ("Count.", 1), "all"),
        (("Count.", 1), ("Is it?", 1), "the image"),
        (("Count.", 1), ("Count.", 2), "the start marker"),
        (("Count.", None), ("Is it?", None), "nothing"),
    ],
)
def test_what_two_prompts_begin_with_is_found(
    shapes: Loaded, first: Any, second: Any, expected: str
) -> None:
    one, two = (
        prompt_inputs(shapes[1], question, *([] if seed is None else [picture(seed)]))
        for question, seed in (first, second)
    )
    lengths = {
        "all": len(one.token_ids),
        "the image": 1 + 16 + 1,
        "the start marker": 1,
        "nothing": 0,
    }
    assert num_equal(one, two) == num_equal(two, one) == lengths[expected]


@pytest.mark.parametrize("step_size", [5, 2048])
def test_branches_of_a_shared_beginning_are_whole_prefills(shapes: Loaded, step_size: int) -> None:
    model, passes = counted(shapes[0])
    inputs = [
        prompt_inputs(shapes[1], text, picture(3)) for text in ("Count.", "Is there a red circle?")
    ]

    def new_cache(_: Any, batch: int) -> Any:
        return build_cache(DenseConfig(), model.layer_specs, batch, model.dtype)

    options = PrefillOptions(new_cache, step_size)
    state, hidden, cached, _ = prefill_prompts(model, inputs, options, keep_prompt=True)
    assert cached == (0, 18), "the shared beginning was computed for each row"
    assert [rows for rows, _ in passes.forwards].count(1) == -(-18 // step_size)
    for row, one in enumerate(inputs):
        embedded = embed_prompts(model, [one])
        alone, logits = prefill(model, embedded, new_cache(model, 1), step_size=2048)
        assert state.cache.lengths[row] == alone.cache.lengths[0]
        assert state.next_positions[row] == alone.next_positions[0]
        np.testing.assert_allclose(model.logits(hidden.final)[row], logits[0], atol=2e-4)
    embedded = embed_prompts(model, inputs[:1])
    _, whole = prefill_hidden(
        model, embedded, new_cache(model, 1), step_size=2048, keep_prompt=True
    )
    assert hidden.prompt is not None
    assert whole.prompt is not None
    assert hidden.prompt.shape == whole.prompt.shape
    np.testing.assert_allclose(hidden.prompt, whole.prompt, atol=2e-4)


def test_equal_images_are_encoded_once(shapes: Loaded) -> None:
    model, passes = counted(shapes[0])
    one, other = picture(1), picture(2, (112, 168))
    batch = [
        prompt_inputs(shapes[1], "Count.", one, other),
        prompt_inputs(shapes[1], "Is it?", other, one, other),
    ]
    alone = [embed_prompts(model, [inputs]).piece.hidden for inputs in batch]
    passes.encoded.clear()
    together = embed_prompts(model, batch)
    assert passes.encoded == [2]
    for row, hidden in enumerate(alone):
        length = together.lengths[row]
        np.testing.assert_allclose(together.piece.hidden[row, :length], hidden[0], atol=1e-5)


def test_what_enters_a_layer_can_be_read(shapes: Loaded) -> None:
    model, processor = shapes
    embeddings = embed_prompts(model, [prompt_inputs(processor, "Count.", picture(1))])
    num_layers = len(model.layer_specs)

    def run(**options: Any) -> Any:
        cache = build_cache(DenseConfig(), model.layer_specs, 1, model.dtype)
        return prefill_hidden(model, embeddings, cache, step_size=7, **options)[1]

    tapped = run(taps=(0, num_layers - 1))
    length = embeddings.lengths[0]
    np.testing.assert_array_equal(tapped.taps[0][0], embeddings.piece.hidden[0, length - 1])
    np.testing.assert_allclose(tapped.final, run().final, atol=1e-5)
    assert not np.allclose(tapped.taps[1], tapped.final)


def test_searches_share_the_forward_pass(shapes: Loaded) -> None:
    stopping = [{"kind": "max_tokens", "max_tokens": 4}]
    one = request(shapes, "Count the objects.", picture(1))
    rows = [
        (one, PipelineConfig(stopping=stopping)),
        (one, PipelineConfig(stopping=stopping, search={"kind": "beam", "num_beams": 3})),
        (one, PipelineConfig(stopping=stopping, sampling=[{"kind": "top_k", "k": 5}])),
    ]
    model, passes = counted(shapes[0])
    batch_pipeline(model, shapes[1], rows, batch_size=4)
    assert passes.steps == [1 + 3 + 1] * 3


@pytest.mark.parametrize("num_rows", [1, 3])
def test_streams_of_one_method_share_the_forward_pass(shapes: Loaded, num_rows: int) -> None:
    stopping = [{"kind": "max_tokens", "max_tokens": 4}]
    one = request(shapes, "Count the objects.", picture(1))
    contrasts = ({"kind": "vcd"}, None, {"kind": "dola"})
    pipelines = [PipelineConfig(stopping=stopping, contrast=method) for method in contrasts]
    rows = [(one, pipeline) for pipeline in pipelines for _ in range(num_rows)]
    model, passes = counted(shapes[0])
    batch_pipeline(model, shapes[1], rows)
    assert passes.steps == [n * num_rows for n in (2, 1, 1) for _ in range(3)]


def test_a_request_that_waits_takes_the_place_of_one_that_ended(shapes: Loaded) -> None:
    short, long = ([{"kind": "max_tokens", "max_tokens": n}] for n in (2, 7))
    one = request(shapes, "Count the objects.", picture(1))
    pipelines = [
        PipelineConfig(stopping=stops, **extra)
        for stops in (long, short, short)
        for extra in (
            {"contrast": {"kind": "m3id"}},
            {"search": {"kind": "beam", "num_beams": 2}},
            {"sampling": [{"kind": "temperature", "temperature": 1.0}], "seed": 5},
        )
    ]
    alone = [collect(stream_pipeline(*shapes, one, each)).token_ids for each in pipelines]
    for batch_size in (1, 2, 9):
        response = batch_pipeline(
            *shapes, [(one, each) for each in pipelines], batch_size=batch_size
        )
        assert [result.token_ids for result in response.results] == alone


def test_an_amateur_with_other_tokens_is_refused(shapes: Loaded, tmp_path: Path) -> None:
    folder = shutil.copytree(shapes[1].folder, tmp_path / "other")
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    a, b = list(vocabulary)[20:22]
    vocabulary[a], vocabulary[b] = vocabulary[b], vocabulary[a]
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    pipeline = PipelineConfig(
        contrast={"kind": "contrastive_decoding", "amateur": str(folder)}, stopping=LIMIT
    )
    with pytest.raises(VlmkitError, match=r"contrast\.amateur: .* has another vocabulary \(token"):
        stream_pipeline(*shapes, request(shapes, "Count.", picture(1)), pipeline)


def test_a_missing_amateur_names_the_key(shapes: Loaded) -> None:
    pipeline = PipelineConfig(contrast={"kind": "contrastive_decoding", "amateur": "./nowhere"})
    with pytest.raises(VlmkitError, match=r"^contrast\.amateur: .*nowhere"):
        stream_pipeline(*shapes, request(shapes, "Count.", picture(1)), pipeline)


def test_a_result_holds_its_own_logits_and_no_others(shapes: Loaded) -> None:
    rows = [
        (
            Request(f"Hi {place}"),
            PipelineConfig(stopping=[{**LIMIT[0], "max_tokens": 3 + place % 5}]),
        )
        for place in range(96)
    ]
    batch_pipeline(*shapes, rows[:16])
    gc.collect()
    before = mx.get_active_memory()
    results = batch_pipeline(*shapes, rows, batch_size=16).results
    gc.collect()
    held = (mx.get_active_memory() - before) / len(results)
    assert held < 1.5 * 4 * shapes[0].config.vocab_size


def test_an_error_names_the_row_as_the_caller_counts(shapes: Loaded) -> None:
    """Rows are prefilled in order of image size."""
    large, small = picture(1, (224, 224)), picture(2)
    none = [
        {"kind": "allowed_tokens", "token_ids": [3]},
        {"kind": "suppress_tokens", "token_ids": [3]},
    ]
    rows = [
        (
            request(shapes, "Count the objects.", large),
            PipelineConfig(sampling=none, stopping=LIMIT),
        ),
        (request(shapes, "Count the objects.", small), PipelineConfig(stopping=LIMIT)),
    ]
    for place, order in ((0, rows), (1, rows[::-1])):
        results = batch_pipeline(*shapes, order, batch_size=1).results
        assert results[place].finish_reason == "error"
        assert results[place].error is not None
        assert results[place].error.startswith(f"row {place}: no token can be drawn")
        assert results[1 - place].finish_reason != "error"


def test_a_contrast_that_leaves_the_chain_nothing_is_named(shapes: Loaded) -> None:
    only = [{"kind": "allowed_tokens", "token_ids": [3]}]
    dola = {"kind": "dola", "relative_top": 0.9}
    pipeline = PipelineConfig(sampling=only, contrast=dola)
    with pytest.raises(VlmkitError, match="contrast may also cut every token that the chain keeps"):
        collect(stream_pipeline(*shapes, Request("Hi"), pipeline))


def test_an_amateur_without_eyes_is_named(shapes: Loaded) -> None:
    amateur = Amateur(qwen2(), shapes[1])
    contrast = {"kind": "contrastive_decoding", "amateur": "given"}
    asked = request(shapes, "Count the objects.", picture(1))
    stream = stream_pipeline(*shapes, asked, PipelineConfig(contrast=contrast), amateur=amateur)
    with pytest.raises(VlmkitError, match=r"contrast\.amateur: qwen2 is a text-only model"):
        next(stream)
