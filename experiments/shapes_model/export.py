"""Write a checkpoint folder in the hub's Qwen2-VL layout.

python -m experiments.shapes_model.export --checkpoint DIR/checkpoint.pt
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer
from torch import nn

from experiments.shapes_model.model import ShapesModel
from experiments.shapes_model.samples import write_samples
from experiments.shapes_model.tokenizer import build, save
from experiments.shapes_model.vision import IMAGE_MEAN, IMAGE_STD, Size

ASSETS = Path(__file__).resolve().parents[2] / "vlmkit" / "assets" / "shapes"
MAX_POSITIONS = 2048


def config(size: Size, tokenizer: Tokenizer) -> dict[str, Any]:
    """The contents of config.json, flat as in Qwen/Qwen2-VL-2B-Instruct."""
    ids = {
        name: tokenizer.token_to_id(f"<|{name}|>")
        for name in (
            "endoftext",
            "im_end",
            "vision_start",
            "vision_end",
            "vision_pad",
            "image_pad",
            "video_pad",
        )
    }
    return {
        "architectures": ["Qwen2VLForConditionalGeneration"],
        "attention_dropout": 0.0,
        "bos_token_id": ids["endoftext"],
        "eos_token_id": ids["im_end"],
        "vision_start_token_id": ids["vision_start"],
        "vision_end_token_id": ids["vision_end"],
        "vision_token_id": ids["vision_pad"],
        "image_token_id": ids["image_pad"],
        "video_token_id": ids["video_pad"],
        "hidden_act": "silu",
        "hidden_size": size.hidden,
        "initializer_range": 0.02,
        "intermediate_size": size.mlp,
        "max_position_embeddings": MAX_POSITIONS,
        "max_window_layers": size.layers,
        "model_type": "qwen2_vl",
        "num_attention_heads": size.hidden // size.head,
        "num_hidden_layers": size.layers,
        "num_key_value_heads": size.kv_heads,
        "rms_norm_eps": 1e-06,
        "rope_theta": size.theta,
        "sliding_window": MAX_POSITIONS,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
        "vision_config": {
            "model_type": "qwen2_vl",
            "depth": size.vision_layers,
            "embed_dim": size.vision_width,
            "hidden_size": size.hidden,
            "hidden_act": "quick_gelu",
            "mlp_ratio": size.vision_mlp_ratio,
            "num_heads": size.vision_width // size.head,
            "in_channels": 3,
            "in_chans": 3,
            "patch_size": size.patch,
            "spatial_merge_size": size.merge,
            "spatial_patch_size": size.patch,
            "temporal_patch_size": 2,
        },
        "rope_scaling": {"type": "mrope", "mrope_section": list(size.mrope_section)},
        "vocab_size": size.vocabulary,
    }


def preprocessor_config(size: Size) -> dict[str, Any]:
    """The contents of preprocessor_config.json: any image becomes about 112 × 112 pixels."""
    pixels = (size.grid * size.patch) ** 2
    return {
        "image_processor_type": "Qwen2VLImageProcessor",
        "processor_class": "Qwen2VLProcessor",
        "do_resize": True,
        "do_rescale": True,
        "do_normalize": True,
        "do_convert_rgb": True,
        "resample": 3,
        "rescale_factor": 1 / 255,
        "image_mean": list(IMAGE_MEAN),
        "image_std": list(IMAGE_STD),
        "min_pixels": pixels,
        "max_pixels": pixels,
        "size": {"shortest_edge": pixels, "longest_edge": pixels},
        "patch_size": size.patch,
        "temporal_patch_size": 2,
        "merge_size": size.merge,
    }


def generation_config(tokenizer: Tokenizer) -> dict[str, Any]:
    """The contents of generation_config.json: greedy, ending at <|im_end|> or <|endoftext|>."""
    end, text_end = (tokenizer.token_to_id(t) for t in ("<|im_end|>", "<|endoftext|>"))
    return {
        "bos_token_id": text_end,
        "pad_token_id": text_end,
        "eos_token_id": [end, text_end],
        "do_sample": False,
    }


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def trained_model(checkpoint: Path) -> ShapesModel:
    """The model of a training checkpoint, without the probes."""
    state = torch.load(checkpoint, weights_only=True)["model"]
    model = ShapesModel()
    model.load_state_dict(
        {name.removeprefix("net."): w for name, w in state.items() if name.startswith("net.")}
    )
    return model.eval()


def rounded(model: ShapesModel) -> ShapesModel:
    """The same model with its weights rounded to bfloat16, still computing in float32."""
    with torch.no_grad():
        for weight in model.parameters():
            weight.copy_(weight.bfloat16().float())
    return model


def export(
    model: nn.Module, folder: Path, tokenizer: Tokenizer, size: Size, *, samples: bool = True
) -> None:
    """Write every file of the checkpoint; each one appears in `folder` complete, by rename."""
    if tokenizer.get_vocab_size() >= size.vocabulary:
        raise ValueError(
            f"{tokenizer.get_vocab_size()} tokens leave no spare row in {size.vocabulary}"
        )
    with tempfile.TemporaryDirectory(dir=folder.parent) as name:
        partial = Path(name)
        weights = {n: w.detach().bfloat16().contiguous() for n, w in model.state_dict().items()}
        save_file(weights, partial / "model.safetensors", metadata={"format": "pt"})
        write_json(partial / "config.json", config(size, tokenizer))
        write_json(partial / "preprocessor_config.json", preprocessor_config(size))
        write_json(partial / "generation_config.json", generation_config(tokenizer))
        save(tokenizer, partial)
        if samples:
            write_samples(partial)
        for path in sorted(partial.rglob("*")):
            if path.is_file():
                to = folder / path.relative_to(partial)
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copymode(Path(__file__), path)
                os.replace(path, to)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--checkpoint", type=Path, required=True, help="checkpoint.pt of a training run"
    )
    parser.add_argument("--to", type=Path, default=ASSETS, help="folder to write")
    options = parser.parse_args(argv)
    model = trained_model(options.checkpoint)
    export(model, options.to, build(), model.size)


if __name__ == "__main__":
    main()
