"""What mlx-vlm's own convert writes, and mlx-vlm's logits for it, kept small as golden files.

Run ``python -m tests.loading.mlx_vlm_convert`` to write them again; it needs mlx-vlm and torch.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tests.loading import qwen3_5
from tests.loading.checkpoints import make_config, make_inputs, random_weights, write_checkpoint
from tests.media import grids_of, patches_of
from vlmkit.contracts.inputs import Inputs

GOLDENS = Path(__file__).resolve().parent.parent / "goldens" / "mlx_vlm_convert"
RECIPES: dict[str, dict[str, Any]] = {
    "unquantized": {},
    "affine4": {"quantize": True},
    "affine8": {"quantize": True, "q_bits": 8, "q_group_size": 32},
    "mxfp4": {"quantize": True, "q_mode": "mxfp4", "q_bits": None, "q_group_size": None},
    "mixed": {"quantize": True, "quant_predicate": "mixed_4_8"},
}
_SPECIAL = {
    "<|bos|>": 56,
    "<|im_end|>": 57,
    "<|vision_start|>": 58,
    "<|vision_end|>": 59,
    "<|image_pad|>": 60,
    "<|video_pad|>": 61,
}


def write_source(folder: Path, model_type: str = "qwen2_vl", *, nested: bool = False) -> Path:
    """A bfloat16 checkpoint with a tokenizer of a few words, complete enough for convert."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    config = make_config(model_type, nested=nested)
    config |= {"torch_dtype": "bfloat16"}
    write_checkpoint(folder, config, random_weights(config), dtype=mx.bfloat16)
    words = {f"w{i}": i for i in range(56)} | _SPECIAL
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="w0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(list(_SPECIAL))
    tokenizer.save(str(folder / "tokenizer.json"))
    special = {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>", "unk_token": "w0"}
    sizes = {"patch_size": 4, "temporal_patch_size": 2, "merge_size": 2}
    contents = {
        "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast", **special},
        "preprocessor_config.json": {
            "image_processor_type": "Qwen2VLImageProcessor",
            "min_pixels": 64,
            "max_pixels": 4096,
            **sizes,
        },
    }
    for name, value in contents.items():
        (folder / name).write_text(json.dumps(value))
    return folder


def convert(source: Path, folder: Path, recipe: str) -> Path:
    """Run mlx-vlm's convert with one recipe."""
    from mlx_vlm.convert import convert as mlx_vlm_convert

    mlx_vlm_convert(str(source), str(folder), trust_remote_code=False, **RECIPES[recipe])
    return folder


def mlx_vlm_logits(folder: Path, inputs: Inputs | None = None) -> NDArray[np.float32]:
    """mlx-vlm's logits for a prompt, by default :func:`make_inputs`, computed in float32."""
    from mlx_vlm.utils import load_model

    model = load_model(folder)
    model.set_dtype(mx.float32)
    if model.config.model_type == "qwen3_vl_moe":
        _put_activations_right(model.vision_tower)
    inputs = make_inputs() if inputs is None else inputs
    grids = mx.array(grids_of(inputs))
    ids = mx.array(inputs.token_ids)[None]
    out = model(ids, mx.array(patches_of(inputs)), image_grid_thw=grids)
    return np.array(out.logits[0].astype(mx.float32))


def _put_activations_right(vision: nn.Module) -> None:
    """Undo that mlx-vlm 0.7.10 exchanges the two forms of GELU in this family."""
    for block in vision.blocks:
        block.mlp.act_fn = nn.GELU(approx="tanh")
    for merger in (vision.merger, *vision.deepstack_merger_list):
        merger.act_fn = nn.GELU()


def write_packed_golden(folder: Path, family: str) -> None:
    """Write the golden files of a family's checkpoint that convert packed in 4 bits."""
    config = qwen3_5.make_config_of(family)
    source = qwen3_5.write_checkpoint(folder / family, config, dtype=mx.bfloat16)
    made, kept = convert(source, folder / f"{family}4", "affine4"), GOLDENS / f"{family}_affine4"
    kept.mkdir(parents=True, exist_ok=True)
    for name in ("config.json", "model.safetensors", "processor_config.json"):
        shutil.copyfile(made / name, kept / name)
    np.save(kept / "logits.npy", mlx_vlm_logits(made, qwen3_5.make_inputs()))


def make_images() -> list[Image.Image]:
    """One image that has to grow, one that has to shrink."""
    rng = np.random.default_rng(0)
    sizes = ((5, 7), (90, 60))
    return [Image.fromarray(rng.integers(0, 256, (*size, 3), np.uint8)) for size in sizes]


def mlx_vlm_patches(folder: Path) -> NDArray[np.float32]:
    """The patches of :func:`make_images` by mlx-vlm's processor."""
    from mlx_vlm.utils import load_processor

    result = load_processor(folder).image_processor(make_images())
    return np.asarray(result["pixel_values"], np.float32)


def main() -> None:
    """Write the golden files."""
    with tempfile.TemporaryDirectory() as temporary:
        source = write_source(Path(temporary) / "source")
        for recipe in RECIPES:
            made = convert(source, Path(temporary) / recipe, recipe)
            kept = GOLDENS / recipe
            kept.mkdir(parents=True, exist_ok=True)
            for name in ("config.json", "model.safetensors", "model.safetensors.index.json"):
                shutil.copyfile(made / name, kept / name)
            np.save(kept / "logits.npy", mlx_vlm_logits(made))
        made = Path(temporary) / "unquantized"
        shutil.copyfile(made / "processor_config.json", GOLDENS / "processor_config.json")
        np.save(GOLDENS / "patches.npy", mlx_vlm_patches(made))
        for family in ("qwen3_5", "qwen3_vl_moe"):
            write_packed_golden(Path(temporary), family)


if __name__ == "__main__":
    main()
