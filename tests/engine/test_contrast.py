"""Contrast methods in the decode loop: equal to whole forward passes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from tests.engine.contrasted import (
    METHODS,
    SAMPLING,
    each_method,
    generate,
    pipeline_of,
    question,
)
from vlmkit import load
from vlmkit.batch import batch_pipeline
from vlmkit.cache import DenseConfig, build_cache
from vlmkit.contracts.inputs import Inputs
from vlmkit.contracts.interface import Span
from vlmkit.contrast import StreamMarkers, build_contrast, other_inputs
from vlmkit.engine import Request, prepare_inputs
from vlmkit.passes.embed import embed_prompts
from vlmkit.pipeline import PipelineConfig
from vlmkit.prompt_utils import apply_chat_template


def whole_pass(
    model: Any, inputs: Inputs, generated: Sequence[int], layers: Sequence[int] = ()
) -> tuple[mx.array, mx.array]:
    """The logits ``[T, V]`` that each generated token was chosen from, in one pass from nothing.

    The second array is ``[T, N, V]``: those of early layers.
    """
    ids = np.concatenate([inputs.token_ids, np.array(generated, np.int32)])
    embedded = embed_prompts(model, [Inputs.of(ids, inputs.media)])
    empty = build_cache(DenseConfig(), model.layer_specs, 1, model.dtype)
    span = Span((0,), (len(ids),), len(ids))
    every = tuple(range(len(model.layer_specs)))
    hidden, early, _ = model.forward(embedded.piece, empty, span, every)
    chosen = slice(len(inputs.token_ids) - 1, -1)
    final = model.logits(hidden[0, chosen]).astype(mx.float32)
    tapped = [model.logits(early[layer][0, chosen]).astype(mx.float32) for layer in layers]
    return final, mx.stack(tapped, axis=1) if tapped else final[:, None][:, :0]


def best_after(
    shapes: tuple[Any, Any],
    second: Any,
    request: Request,
    pipeline: PipelineConfig,
    generated: Sequence[int],
) -> list[int]:
    """The best token of a contrast after each beginning of ``generated``, without a cache."""
    model, processor = shapes
    config = pipeline.contrast
    inputs = prepare_inputs(model, processor, request, pipeline)
    markers = StreamMarkers(
        processor.encode, frozenset({631}), frozenset({628}), frozenset({629}), (3, 2, 14)
    )
    negative = None
    if getattr(config, "negative_prompt", None) is not None:
        images = request.images if config.negative_images else ()
        asked = Request(config.negative_prompt, images)
        negative = prepare_inputs(model, processor, asked, pipeline)
    method = build_contrast(config, num_layers=4, tied_embeddings=True)
    others = other_inputs(
        config, inputs, markers, seed=pipeline.seed, sample=request.sample, negative=negative
    )
    other_model = model
    if config.kind == "contrastive_decoding":
        other_model, others = second, (inputs,)
    final, early = whole_pass(model, inputs, generated, method.early_layers)
    streams = [whole_pass(other_model, other, generated)[0] for other in others]
    beside = mx.stack(streams, axis=1) if streams else early
    combined = method.combine(final, beside, mx.arange(len(generated), dtype=mx.int32))
    return mx.argmax(combined, axis=-1).tolist()


def assert_greedy(
    shapes: tuple[Any, Any], second: Any, request: Request, pipeline: PipelineConfig
) -> None:
    """Each token is the best after those before it, and the row ends where it has to."""
    found = generate(shapes, request, pipeline).token_ids
    assert found == best_after(shapes, second, request, pipeline, found)
    ends = [token_id in shapes[1].eos_token_ids for token_id in found]
    assert not any(ends[:-1])
    assert len(found) == 24 or ends[-1]


@each_method
@pytest.mark.parametrize("image", ["describe.png", "chain.png"])
def test_the_loop_equals_whole_forward_passes(shapes, amateur, name, image):
    request = question(shapes[1], image, "Describe this image.", sample=3)
    pipeline = pipeline_of(METHODS[name], amateur, seed=11)
    second = load(str(amateur))[0]
    assert_greedy(shapes, second, request, pipeline)


@each_method
def test_the_method_makes_a_difference(shapes, amateur, name):
    """Else the comparison above would say nothing."""
    plain, contrasted = [], []
    for image in ("describe.png", "chain.png"):
        request = question(shapes[1], image, "Describe this image.", sample=3)
        more = {"sampling": SAMPLING, "seed": 11}
        plain += generate(shapes, request, pipeline_of(None, amateur, **more)).token_ids
        pipeline = pipeline_of(METHODS[name], amateur, **more)
        contrasted += generate(shapes, request, pipeline).token_ids
    assert plain != contrasted


@pytest.mark.parametrize(
    "neutral",
    [
        {"kind": "cfg", "scale": 1.0},
        {"kind": "vcd", "alpha": 0.0, "beta": 0.0},
        {"kind": "icd", "alpha": 0.0, "beta": 0.0},
    ],
    ids=["cfg", "vcd", "icd"],
)
def test_neutral_parameters_give_the_plain_tokens(shapes, amateur, neutral):
    asked = [
        question(shapes[1], "describe.png", "Describe this image.", sample=sample)
        for sample in range(4)
    ]
    more = {"sampling": SAMPLING, "seed": 5}
    plain, contrasted = (
        batch_pipeline(*shapes, [(each, pipeline) for each in asked], batch_size=4).results
        for pipeline in (pipeline_of(method, amateur, **more) for method in (None, neutral))
    )
    assert [one.token_ids for one in contrasted] == [one.token_ids for one in plain]


def test_vcd_without_contrast_is_min_p(shapes, amateur):
    request = question(shapes[1], "describe.png", "Describe this image.")
    more = {"seed": 2}
    cut = [{"kind": "min_p", "p": 0.05}, *SAMPLING]
    expected = generate(shapes, request, pipeline_of(None, amateur, sampling=cut, **more))
    method = {"kind": "vcd", "alpha": 0.0, "beta": 0.05}
    found = generate(shapes, request, pipeline_of(method, amateur, sampling=SAMPLING, **more))
    assert found.token_ids == expected.token_ids


def test_a_text_is_guided_from_its_last_token(shapes, amateur):
    request = Request(apply_chat_template(shapes[1], None, "Hi", num_images=0))
    pipeline = pipeline_of({"kind": "cfg", "scale": 1.5}, amateur)
    assert_greedy(shapes, None, request, pipeline)
