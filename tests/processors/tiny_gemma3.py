"""A small complete checkpoint of Gemma 3: random weights, and a tokenizer of bytes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from tests.models.tiny import tensor
from vlmkit.models.families.gemma3 import GEMMA3

# "\n\n\n" is one token, as in the tokenizer of the published checkpoints.
SPECIAL = ("<pad>", "<eos>", "<bos>", "<start_of_turn>", "<end_of_turn>")
IMAGE_TOKENS = ("<start_of_image>", "<image_soft_token>", "<end_of_image>")
MERGES = [("Ċ", "Ċ"), ("ĊĊ", "Ċ")]
TEMPLATE = """\
{{ bos_token }}
{%- for message in messages -%}
{{ '<start_of_turn>' + ('model' if message.role == 'assistant' else message.role) + '\\n' }}
{%- if message.content is string -%}{{ message.content | trim }}
{%- else -%}
{%- for part in message.content -%}
{%- if part.type == 'image' -%}{{ '<start_of_image>' }}
{%- elif part.type == 'text' -%}{{ part.text | trim }}{%- endif -%}
{%- endfor -%}
{%- endif -%}
{{ '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<start_of_turn>model\\n' }}{%- endif -%}
"""
IMAGES: dict[str, Any] = {
    "image_processor_type": "Gemma3ImageProcessor",
    "processor_class": "Gemma3Processor",
    "do_pan_and_scan": None,
    "do_convert_rgb": None,
    "do_resize": True,
    "do_rescale": True,
    "do_normalize": True,
    "resample": 2,
    "rescale_factor": 0.00392156862745098,
    "image_mean": [0.5, 0.5, 0.5],
    "image_std": [0.5, 0.5, 0.5],
    "image_seq_length": 9,
    "size": {"height": 24, "width": 24},
}
NUM_TOKENS = 9
SIZES = ((5, 7), (90, 60), (24, 24))


def write_tokenizer(folder: Path) -> dict[str, int]:
    """Write the tokenizer's files; return the ids of its special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = {token: index for index, token in enumerate([*alphabet, "ĊĊ", "ĊĊĊ"])}
    backend = Tokenizer(models.BPE(words, MERGES))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    names = [*SPECIAL, *IMAGE_TOKENS]
    backend.add_special_tokens([AddedToken(name, special=True) for name in names])
    backend.save(str(folder / "tokenizer.json"))
    boi, image, eoi = IMAGE_TOKENS
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        **{f"{name[1:-1]}_token": name for name in SPECIAL[:3]},
        "extra_special_tokens": {"boi_token": boi, "image_token": image, "eoi_token": eoi},
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return {name: backend.token_to_id(name) for name in names}


def make_config(ids: dict[str, int], **text: Any) -> dict[str, Any]:
    """Return a config.json as the published ones are; its window is shorter than an image."""
    return {
        "model_type": "gemma3",
        "architectures": ["Gemma3ForConditionalGeneration"],
        "boi_token_index": ids["<start_of_image>"],
        "eoi_token_index": ids["<end_of_image>"],
        "image_token_index": ids["<image_soft_token>"],
        "eos_token_id": [ids["<eos>"], ids["<end_of_turn>"]],
        "mm_tokens_per_image": NUM_TOKENS,
        "text_config": {
            "model_type": "gemma3_text",
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "vocab_size": 320,
            "sliding_window": 6,
            "sliding_window_pattern": 3,
            "rope_theta": 1e6,
            "rope_local_base_freq": 10000.0,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
            "query_pre_attn_scalar": 24,
            "max_position_embeddings": 512,
            "mm_tokens_per_image": NUM_TOKENS,
            **text,
        },
        "vision_config": {
            "model_type": "siglip_vision_model",
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "image_size": 24,
            "patch_size": 4,
            "vision_use_head": False,
        },
    }


def hub_name(path: str) -> str:
    """Return the name that a published checkpoint gives to one of our parameters."""
    for old, new in (
        ("language.", "language_model.model."),
        ("vision.merger.proj.weight", "multi_modal_projector.mm_input_projection_weight"),
        ("vision.merger.norm.", "multi_modal_projector.mm_soft_emb_norm."),
        ("vision.patch_embed.", "vision.embeddings.patch_embedding."),
        ("vision.pos_embed.", "vision.embeddings.position_embedding."),
        ("vision.post_norm.", "vision.post_layernorm."),
        ("vision.blocks.", "vision.encoder.layers."),
        ("vision.", "vision_tower.vision_model."),
    ):
        path = path.replace(old, new)
    if path.startswith("vision_tower"):
        path = path.replace(".norm", ".layer_norm").replace(".attn.proj.", ".self_attn.out_proj.")
    return path


def make_weights(config: dict[str, Any]) -> dict[str, mx.array]:
    """Return random weights in the names and layouts of published checkpoints."""
    parsed, weights = GEMMA3.parse(config), {}
    for path, value in tree_flatten(GEMMA3.build(parsed).parameters()):
        array = tensor(path, value.shape)
        if "embed_tokens" in path:
            array = 0.05 * array  # else a tied head repeats the last token
        name = hub_name(path)
        if ".attn.qkv." in name:
            for part, piece in zip("qkv", np.split(array, 3), strict=True):
                weights[name.replace(".attn.qkv.", f".self_attn.{part}_proj.")] = piece
            continue
        if path == "vision.patch_embed.weight":
            array = array.reshape(-1, 3, 4, 4)
        if path == "vision.merger.proj.weight":
            array = array.T
        is_offset = "norm." in name and "vision_tower" not in name
        weights[name] = array - np.float32(is_offset)
    return {name: mx.array(np.ascontiguousarray(array)) for name, array in weights.items()}


def write_gemma3(folder: Path, *, dtype: mx.Dtype = mx.float32, **text: Any) -> Path:
    """Write the checkpoint: weights, config, tokenizer, chat template and image settings."""
    folder.mkdir(exist_ok=True)
    config = make_config(write_tokenizer(folder), **text)
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "preprocessor_config.json").write_text(json.dumps(IMAGES))
    made = {"processor_class": "Gemma3Processor", "image_seq_length": NUM_TOKENS}
    (folder / "processor_config.json").write_text(json.dumps(made))
    arrays = {name: value.astype(dtype) for name, value in make_weights(config).items()}
    mx.save_safetensors(str(folder / "model.safetensors"), arrays)
    return folder
