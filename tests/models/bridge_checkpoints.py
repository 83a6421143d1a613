"""Small random checkpoints, written by transformers, of families that run through mlx-vlm."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

IMAGE_ID = 60
_SPECIAL = {
    "<pad>": 56,
    "</s>": 57,
    "<fake_token_around_image>": 58,
    "<global-img>": 59,
    "<image>": IMAGE_ID,
    "<row_1_col_1>": 61,
    "<row_1_col_2>": 62,
    "<row_2_col_1>": 63,
    "<row_2_col_2>": 64,
}
_TEXT: dict[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 72,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 512,
    "pad_token_id": 56,
    "bos_token_id": 55,
    "eos_token_id": 57,
    "tie_word_embeddings": False,
}
_VISION = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 16,
    "patch_size": 4,
}
_PIXELS = {
    "do_rescale": True,
    "do_normalize": True,
    "image_mean": [0.5] * 3,
    "image_std": [0.5] * 3,
}


def write(folder: Path, family: str) -> Path:
    """Write a checkpoint of ``mistral3`` or ``idefics3``, complete with tokenizer and processor."""
    import torch

    torch.manual_seed(0)
    make = {"mistral3": _mistral3, "idefics3": _idefics3}[family]
    model, image, processor = make()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3 if parameter.ndim > 1 else 1.0)
    model.save_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["rope_theta"] = 10000.0  # as on the hub, where mlx-vlm looks for it
    (folder / "config.json").write_text(json.dumps(config))
    _write_tokenizer(folder)
    contents = {"preprocessor_config.json": image | _PIXELS, "processor_config.json": processor}
    for name, value in contents.items():
        (folder / name).write_text(json.dumps(value))
    return folder


def _mistral3() -> tuple[Any, dict[str, Any], dict[str, Any]]:
    from transformers import Mistral3Config, MistralConfig, PixtralVisionConfig
    from transformers import Mistral3ForConditionalGeneration as Mistral3

    config = Mistral3Config(
        vision_config=PixtralVisionConfig(**_VISION | {"image_size": 32}, head_dim=16),
        text_config=MistralConfig(**_TEXT, head_dim=16, sliding_window=None),
        image_token_index=IMAGE_ID,
        spatial_merge_size=2,
        vision_feature_layer=-1,
        eos_token_id=57,
        tie_word_embeddings=False,
    )
    image = {
        "image_processor_type": "PixtralImageProcessor",
        "do_resize": True,
        "size": {"longest_edge": 32},
        "patch_size": {"height": 4, "width": 4},
        "do_convert_rgb": True,
        "resample": 3,
    }
    processor = {
        "processor_class": "PixtralProcessor",
        "patch_size": 4,
        "spatial_merge_size": 2,
        "image_token": "<image>",
        "image_break_token": "<row_1_col_1>",
        "image_end_token": "<row_1_col_2>",
    }
    return Mistral3(config), image, processor


def _idefics3() -> tuple[Any, dict[str, Any], dict[str, Any]]:
    from transformers import Idefics3Config, LlamaConfig
    from transformers import Idefics3ForConditionalGeneration as Idefics3

    config = Idefics3Config(
        image_token_id=IMAGE_ID,
        vision_config=_VISION,
        text_config=LlamaConfig(**_TEXT),
        scale_factor=2,
        eos_token_id=57,
        tie_word_embeddings=False,
    )
    image = {
        "image_processor_type": "Idefics3ImageProcessor",
        "do_resize": True,
        "size": {"longest_edge": 32},
        "do_image_splitting": True,
        "max_image_size": {"longest_edge": 16},
        "do_convert_rgb": True,
        "do_pad": True,
        "resample": 1,
    }
    processor = {"processor_class": "Idefics3Processor", "image_seq_len": 4}
    return Idefics3(config), image, processor


def _write_tokenizer(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = {f"w{i}": i for i in range(56)} | _SPECIAL
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(list(_SPECIAL))
    tokenizer.save(str(folder / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "</s>",
        "pad_token": "<pad>",
        "unk_token": "w0",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
