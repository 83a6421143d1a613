"""A small Qwen2-Audio checkpoint, complete: random weights, a tokenizer of bytes, a template."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import mlx.core as mx
from mlx.utils import tree_flatten
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from tests.models.tiny import tensor
from tests.models.tiny_audio import CONFIG
from vlmkit.models.families import find_family

SPECIAL = ("<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>")
TEMPLATE = (
    "{% set heard = namespace(count=0) %}{% for message in messages %}<|im_start|>"
    "{{ message['role'] }}\n{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}{% if part['type'] == 'audio' %}"
    "{% set heard.count = heard.count + 1 %}Audio {{ heard.count }}: "
    "<|audio_bos|><|AUDIO|><|audio_eos|>\n{% elif 'text' in part %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_audio_checkpoint(folder: Path) -> Path:
    """Write the checkpoint as on the hub: old names, the kernels of torch."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken(text, special=True) for text in SPECIAL])
    folder.mkdir(exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    config = copy.deepcopy(CONFIG)
    config["audio_token_index"] = backend.token_to_id("<|AUDIO|>")
    eos = backend.token_to_id("<|im_end|>")
    config["text_config"] |= {"vocab_size": 272, "eos_token_id": eos, "bos_token_id": eos}
    for name, values in {
        "config": config,
        "tokenizer_config": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": "<|im_end|>",
            "chat_template": TEMPLATE,
        },
        "preprocessor_config": {
            "feature_extractor_type": "WhisperFeatureExtractor",
            "feature_size": 16,
            "chunk_length": 1,
            "n_fft": 400,
            "hop_length": 160,
            "sampling_rate": 16000,
            "n_samples": 16000,
            "nb_max_frames": 100,
            "padding_value": 0.0,
        },
    }.items():
        (folder / f"{name}.json").write_text(json.dumps(values))
    family = find_family(config)
    assert family is not None
    weights = {}
    for path, value in tree_flatten(family.build(family.parse(config)).parameters()):
        array = mx.array(tensor(path, value.shape))
        if path in ("audio.conv1.weight", "audio.conv2.weight"):
            array = array.reshape(array.shape[0], 3, -1).swapaxes(1, 2)
        weights[_hub_name(path)] = mx.contiguous(array)
    mx.save_safetensors(str(folder / "model.safetensors"), weights, {"format": "pt"})
    return folder


def _hub_name(path: str) -> str:
    for ours, theirs in (
        ("language.lm_head", "language_model.lm_head"),
        ("language.", "language_model.model."),
        ("audio.projector", "multi_modal_projector.linear"),
        ("audio.pos_embed", "audio_tower.embed_positions"),
        ("audio.norm.", "audio_tower.layer_norm."),
        ("audio.blocks.", "audio_tower.layers."),
        ("audio.", "audio_tower."),
    ):
        if path.startswith(ours):
            path = theirs + path[len(ours) :]
            break
    for ours, theirs in (
        (".norm1.", ".self_attn_layer_norm."),
        (".norm2.", ".final_layer_norm."),
        (".attn.", ".self_attn."),
    ):
        path = path.replace(ours, theirs)
    return path
