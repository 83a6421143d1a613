"""A text-only checkpoint of an mlx-lm architecture, from the folder to the text."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx.utils import tree_flatten

import vlmkit
from vlmkit import VlmkitError, batch_generate, generate, load

ASSETS = Path(vlmkit.__file__).parent / "assets" / "shapes"
CONFIG: dict[str, Any] = {
    "model_type": "qwen3",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "rms_norm_eps": 1e-6,
    "vocab_size": 640,
    "max_position_embeddings": 512,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "eos_token_id": 627,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from mlx_lm.models.qwen3 import Model, ModelArgs

    target = tmp_path_factory.mktemp("text_only")
    mx.random.seed(3)
    model = Model(ModelArgs.from_dict(CONFIG))
    weights = {
        name: mx.random.normal(leaf.shape) * leaf.shape[-1] ** -0.5 if leaf.ndim > 1 else leaf
        for name, leaf in tree_flatten(model.parameters())
    }
    mx.save_safetensors(str(target / "model"), weights)
    (target / "config.json").write_text(json.dumps(CONFIG))
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(ASSETS / name, target / name)
    return target


def test_tokens_are_those_of_mlx_lm(folder: Path) -> None:
    from mlx_lm import load as peer_load
    from mlx_lm import stream_generate as peer_stream

    loaded = load(str(folder))
    prompts = ["How many red circles are there?", "Hi"]
    singles = [generate(*loaded, prompt, max_tokens=24) for prompt in prompts]
    model, tokenizer = peer_load(str(folder))
    for prompt, result in zip(prompts, singles, strict=True):
        ids = loaded[1].encode(prompt)
        theirs = [chunk.token for chunk in peer_stream(model, tokenizer, ids, max_tokens=24)]
        assert result.token_ids == theirs[: len(result.token_ids)]
        assert len(theirs) - len(result.token_ids) <= 1
    batch = batch_generate(*loaded, prompts=prompts, max_tokens=24)
    assert [row.token_ids for row in batch.results] == [row.token_ids for row in singles]


def test_cache_policies_reach_the_architecture(folder: Path) -> None:
    loaded = load(str(folder))
    prompt = "How many red circles are there?"
    dense = generate(*loaded, prompt, max_tokens=24)
    rotating = generate(*loaded, prompt, max_tokens=24, max_kv_size=8)
    assert rotating.token_ids != dense.token_ids
    assert rotating.effective is not None
    assert rotating.effective["cache"]["kind"] == "rotating"
    with pytest.raises(VlmkitError, match="head_dim"):
        generate(*loaded, "Hi", kv_bits=8)


def test_images_are_refused_by_name(folder: Path) -> None:
    picture = ASSETS / "samples" / "count_all.png"
    with pytest.raises(VlmkitError, match="qwen3"):
        generate(*load(str(folder)), "Hi", image=picture)
