"""Contrast methods in the decode loop: equal to whole forward passes, and blind to other rows."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

import vlmkit
from tests.contrast.write_goldens import GOLDEN_TOKENS, QUESTION
from vlmkit import load
from vlmkit.api import stream_pipeline
from vlmkit.batch import batch_pipeline
from vlmkit.cache import DenseConfig, build_cache
from vlmkit.contrast import StreamMarkers, build_contrast, other_inputs
from vlmkit.embed import embed_prompts
from vlmkit.engine import Request, collect, prepare_inputs
from vlmkit.errors import VlmkitError
from vlmkit.inputs import Inputs
from vlmkit.interface import Span
from vlmkit.pipeline import PipelineConfig
from vlmkit.prompt_utils import apply_chat_template
from vlmkit.results import GenerationResult

ASSETS = Path(vlmkit.__file__).parent / "assets" / "shapes"
NEGATIVE = "<|im_start|>user\nSay something else.<|im_end|>\n<|im_start|>assistant\n"
METHODS: dict[str, dict[str, Any]] = {
    "cfg": {"kind": "cfg", "scale": 2.0},
    "cfg, negative prompt": {"kind": "cfg", "scale": 1.7, "negative_prompt": NEGATIVE},
    "cfg, negative prompt with images": {
        "kind": "cfg",
        "scale": 0.6,
        "negative_prompt": f"<|vision_start|><|image_pad|><|vision_end|>{NEGATIVE}",
        "negative_images": True,
    },
    "contrastive decoding": {"kind": "contrastive_decoding", "amateur": "?", "alpha": 0.01},
    "contrastive decoding, beta": {"kind": "contrastive_decoding", "amateur": "?", "beta": 2.0},
    "dola": {"kind": "dola", "layers": "high"},
    "dola, layers": {"kind": "dola", "layers": [3, 0, 1], "relative_top": 0.01},
    "vcd": {"kind": "vcd", "alpha": 2.0, "beta": 0.01, "noise_step": 900},
    "icd": {"kind": "icd", "alpha": 3.0, "beta": 0.01},
    "m3id": {"kind": "m3id", "forgetting": 0.3, "beta": 0.01},
}
SAMPLING = [{"kind": "temperature", "temperature": 1.5}, {"kind": "top_p", "p": 0.95}]
each_method = pytest.mark.parametrize("name", METHODS)


@pytest.fixture(scope="module")
def shapes() -> tuple[Any, Any]:
    return load("shapes")


@pytest.fixture(scope="module")
def amateur(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The embedded checkpoint with its last block nearly switched off."""
    folder = tmp_path_factory.mktemp("amateur")
    shutil.copytree(ASSETS, folder, dirs_exist_ok=True)
    weights = mx.load(str(folder / "model.safetensors"))
    assert isinstance(weights, dict)
    touched = [name for name in weights if "layers.3" in name and "down_proj" in name]
    assert touched
    for name in touched:
        weights[name] = weights[name] * 0.2
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "mlx"})
    return folder


def question(processor: Any, image: str, text: str, sample: int = 0) -> Request:
    prompt = apply_chat_template(processor, None, text, num_images=1)
    return Request(prompt, (str(ASSETS / "samples" / image),), sample=sample)


def pipeline_of(
    method: dict[str, Any] | None, amateur: Path, *, max_tokens: int = 24, **more: Any
) -> PipelineConfig:
    if method is not None and "amateur" in method:
        method = {**method, "amateur": str(amateur)}
    stopping = [{"kind": "max_tokens", "max_tokens": max_tokens}, {"kind": "eos"}]
    return PipelineConfig(contrast=method, stopping=stopping, **more)


def generate(
    shapes: tuple[Any, Any], request: Request, pipeline: PipelineConfig
) -> GenerationResult:
    return collect(stream_pipeline(*shapes, request, pipeline))


def whole_pass(
    model: Any, inputs: Inputs, generated: Sequence[int], layers: Sequence[int] = ()
) -> tuple[mx.array, mx.array]:
    """The last token's logits ``[V]`` and those of early layers ``[N, V]``, without a cache."""
    ids = np.concatenate([inputs.token_ids, np.array(generated, np.int32)])
    embedded = embed_prompts(model, [Inputs.of(ids, inputs.media)])
    empty = build_cache(DenseConfig(), model.layer_specs, 1, model.dtype)
    span = Span((0,), (len(ids),), len(ids))
    every = tuple(range(len(model.layer_specs)))
    hidden, early, _ = model.forward(embedded.piece, empty, span, every)
    final = model.logits(hidden[0, -1]).astype(mx.float32)
    tapped = [model.logits(early[layer][0, -1]).astype(mx.float32) for layer in layers]
    return final, mx.stack(tapped) if tapped else final[None][:0]


def slow_greedy(
    shapes: tuple[Any, Any], second: Any, request: Request, pipeline: PipelineConfig
) -> list[int]:
    """Greedy decoding of a contrast, each step from nothing."""
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
    generated: list[int] = []
    while len(generated) < 24:
        final, early = whole_pass(model, inputs, generated, method.early_layers)
        streams = [whole_pass(other_model, other, generated)[0] for other in others]
        beside = mx.stack(streams) if streams else early
        combined = method.combine(final[None], beside[None], mx.array([len(generated)], mx.int32))
        generated.append(int(mx.argmax(combined[0]).item()))
        if generated[-1] in processor.eos_token_ids:
            break
    return generated


@each_method
@pytest.mark.parametrize("image", ["describe.png", "chain.png"])
def test_the_loop_equals_whole_forward_passes(shapes, amateur, name, image):
    request = question(shapes[1], image, "Describe this image.", sample=3)
    pipeline = pipeline_of(METHODS[name], amateur, seed=11)
    second = load(str(amateur))[0]
    expected = slow_greedy(shapes, second, request, pipeline)
    assert generate(shapes, request, pipeline).token_ids == expected


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
    for sample in range(4):
        request = question(shapes[1], "describe.png", "Describe this image.", sample=sample)
        more = {"sampling": SAMPLING, "seed": 5}
        plain = generate(shapes, request, pipeline_of(None, amateur, **more))
        contrasted = generate(shapes, request, pipeline_of(neutral, amateur, **more))
        assert contrasted.token_ids == plain.token_ids


def test_vcd_without_contrast_is_min_p(shapes, amateur):
    request = question(shapes[1], "describe.png", "Describe this image.")
    more = {"seed": 2}
    cut = [{"kind": "min_p", "p": 0.05}, *SAMPLING]
    expected = generate(shapes, request, pipeline_of(None, amateur, sampling=cut, **more))
    method = {"kind": "vcd", "alpha": 0.0, "beta": 0.05}
    found = generate(shapes, request, pipeline_of(method, amateur, sampling=SAMPLING, **more))
    assert found.token_ids == expected.token_ids


@pytest.fixture(scope="module")
def rows_alone(shapes, amateur):
    """Rows of every method, and what each gives by itself."""
    asked = [("describe.png", "Describe this image."), ("count_all.png", "Count the objects.")]
    methods = [None, *METHODS.values(), None, *reversed(METHODS.values())]
    rows = []
    for index, method in enumerate(methods):
        request = question(shapes[1], *asked[index % 2], sample=index)
        more = {"sampling": SAMPLING if index % 3 else [], "seed": index}
        max_tokens = 8 + 3 * (index % 5)
        rows.append((request, pipeline_of(method, amateur, max_tokens=max_tokens, **more)))
    return rows, [generate(shapes, *row) for row in rows]


@pytest.mark.parametrize("batch_size", [1, 4, 16])
def test_rows_with_other_methods_do_not_matter(shapes, rows_alone, batch_size):
    rows, results = rows_alone
    together = batch_pipeline(*shapes, rows, batch_size=batch_size).results
    for (_, pipeline), found, alone in zip(rows, together, results, strict=True):
        assert found.token_ids == alone.token_ids, pipeline.contrast
        assert found.finish_reason == alone.finish_reason


def test_a_batch_may_have_several_amateurs(shapes, amateur, tmp_path):
    shutil.copytree(amateur, tmp_path, dirs_exist_ok=True)
    weights = mx.load(str(tmp_path / "model.safetensors"))
    changed = {name: weight * 0.7 if "mlp" in name else weight for name, weight in weights.items()}
    mx.save_safetensors(str(tmp_path / "model.safetensors"), changed, {"format": "mlx"})
    method = METHODS["contrastive decoding"]
    rows = [
        (
            question(shapes[1], "describe.png", "Describe this image.", sample=sample),
            pipeline_of(method, folder, sampling=SAMPLING, max_tokens=6 + sample),
        )
        for sample, folder in enumerate([amateur, tmp_path, ASSETS, tmp_path])
    ]
    found = batch_pipeline(*shapes, rows, batch_size=3).results
    alone = [generate(shapes, *row) for row in rows]
    assert [one.token_ids for one in found] == [one.token_ids for one in alone]


def with_context(folder: Path, source: Path, length: int) -> Path:
    shutil.copytree(source, folder, dirs_exist_ok=True)
    values = json.loads((folder / "config.json").read_text())
    values["max_position_embeddings"] = length
    (folder / "config.json").write_text(json.dumps(values))
    return folder


def test_the_amateurs_context_ends_the_row(shapes, amateur, tmp_path):
    request = question(shapes[1], "describe.png", "Describe this image.")
    length = len(prepare_inputs(*shapes, request, PipelineConfig()).token_ids)
    method = METHODS["contrastive decoding"]
    short = with_context(tmp_path / "short", amateur, length + 4)
    result = generate(shapes, request, pipeline_of(method, short))
    assert (result.generation_tokens, result.finish_kind) == (4, "context")
    long = generate(shapes, request, pipeline_of(method, amateur))
    assert result.token_ids == long.token_ids[:4]
    none = with_context(tmp_path / "none", amateur, 5)
    with pytest.raises(VlmkitError, match=r"contrast.amateur: prompt: .* context is 5"):
        stream_pipeline(*shapes, request, pipeline_of(method, none))


def test_the_longest_stream_ends_the_row(shapes, amateur, tmp_path):
    request = question(shapes[1], "describe.png", "Describe this image.")
    length = len(prepare_inputs(*shapes, request, PipelineConfig()).token_ids)
    method = {"kind": "icd", "disturbance": "a b"}
    longer = len(shapes[1].tokenizer.encode("a b"))
    short = load(str(with_context(tmp_path, ASSETS, length + longer + 3)))
    result = generate(short, request, pipeline_of(method, amateur))
    assert (result.generation_tokens, result.finish_kind) == (3, "context")
    with pytest.raises(VlmkitError, match=r"contrast: icd makes a prompt of .* tokens, but"):
        stream_pipeline(*short, request, pipeline_of({"kind": "icd"}, amateur))


def test_a_text_is_guided_from_its_last_token(shapes, amateur):
    request = Request(apply_chat_template(shapes[1], None, "Hi", num_images=0))
    pipeline = pipeline_of({"kind": "cfg", "scale": 1.5}, amateur)
    expected = slow_greedy(shapes, None, request, pipeline)
    assert generate(shapes, request, pipeline).token_ids == expected


@pytest.mark.parametrize("kind", ["vcd", "icd", "m3id"])
def test_methods_that_need_an_image_say_so_before_they_start(shapes, amateur, kind):
    request = Request(apply_chat_template(shapes[1], None, "Hi", num_images=0))
    with pytest.raises(VlmkitError, match=rf"{kind}: the prompt has no image"):
        stream_pipeline(*shapes, request, pipeline_of({"kind": kind}, amateur))


def test_layers_that_the_model_does_not_have(shapes, amateur):
    request = question(shapes[1], "describe.png", "Describe this image.")
    pipeline = pipeline_of({"kind": "dola", "layers": [4]}, amateur)
    with pytest.raises(VlmkitError, match="layers has 4, but the model's layers are 0 to 3"):
        stream_pipeline(*shapes, request, pipeline)


def test_an_amateur_of_other_tokens_is_refused(shapes, amateur, tmp_path):
    shutil.copytree(amateur, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    vocab = tokenizer["model"]["vocab"]
    first, last = min(vocab, key=vocab.get), max(vocab, key=vocab.get)
    vocab[first], vocab[last] = vocab[last], vocab[first]
    file.write_text(json.dumps(tokenizer))
    request = question(shapes[1], "describe.png", "Describe this image.")
    method = METHODS["contrastive decoding"]
    with pytest.raises(VlmkitError, match=r"contrast.amateur: .* another vocabulary"):
        stream_pipeline(*shapes, request, pipeline_of(method, tmp_path))


@pytest.mark.parametrize("case", json.loads(GOLDEN_TOKENS.read_text()), ids=str)
def test_dola_generates_what_transformers_generates(shapes, amateur, case):
    request = question(shapes[1], case["image"], QUESTION)
    method = {"kind": "dola", "layers": case["layers"], "divergence": "from_mean"}
    result = generate(shapes, request, pipeline_of(method, amateur))
    assert result.token_ids == case["token_ids"]


def text_peer() -> Any:
    """The embedded model's decoder as a Qwen2 of transformers.

    Its Qwen2-VL keeps positions on the module and fails when a second stream moves them.
    """
    import torch
    from safetensors.torch import load_file
    from transformers import Qwen2Config, Qwen2ForCausalLM

    values = json.loads((ASSETS / "config.json").read_text())
    for key in ("model_type", "architectures", "vision_config", "rope_scaling", "torch_dtype"):
        del values[key]
    peer = Qwen2ForCausalLM(Qwen2Config(**values))
    arrays = load_file(str(ASSETS / "model.safetensors"))
    text = {k: v.to(torch.float32) for k, v in arrays.items() if k.startswith("model.")}
    missing, unused = peer.load_state_dict(text, strict=False)
    assert set(missing) <= {"lm_head.weight"}
    assert not unused
    peer.tie_weights()
    return peer.eval()


@pytest.mark.torch
@pytest.mark.parametrize("negative", [None, NEGATIVE])
@pytest.mark.parametrize("scale", [1.5, 3.0])
def test_guidance_generates_what_transformers_generates(shapes, amateur, negative, scale):
    import torch

    processor, peer = shapes[1], text_peer()
    prompt = apply_chat_template(processor, None, "How many red circles are there?", num_images=0)
    ids = torch.tensor([processor.encode(prompt)])
    unwanted = None if negative is None else torch.tensor([processor.encode(negative)])
    expected = peer.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        guidance_scale=scale,
        negative_prompt_ids=unwanted,
        do_sample=False,
        max_new_tokens=24,
    )[0, ids.shape[1] :].tolist()
    method = {"kind": "cfg", "scale": scale, "negative_prompt": negative}
    found = generate(shapes, Request(prompt), pipeline_of(method, amateur))
    assert found.token_ids == expected
