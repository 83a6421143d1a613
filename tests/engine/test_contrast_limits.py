"""Contrast methods that end at a context's end, or that cannot be done at all."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.engine.contrasted import (
    ASSETS,
    METHODS,
    generate,
    pipeline_of,
    question,
)
from vlmkit import load
from vlmkit.api import stream_pipeline
from vlmkit.engine import Request, prepare_inputs
from vlmkit.errors import VlmkitError
from vlmkit.pipeline import PipelineConfig
from vlmkit.prompt_utils import apply_chat_template


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
