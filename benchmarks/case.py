"""What all systems are asked: a checkpoint with random weights, an image and a question."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from benchmarks.bench_experiment import write_data
from benchmarks.random_checkpoint import VOCAB_SIZE
from vlmkit.processors import load_processor
from vlmkit.prompt_utils import apply_chat_template

ROOT = Path(tempfile.gettempdir()) / "vlmkit-benchmarks"
QUESTION = "Describe the image."
TEXT = "Hi"


class Case(NamedTuple):
    """Where it lies, and the arguments of the task ``generate``."""

    model: Path
    image: Path
    with_image: dict[str, Any]
    text_only: dict[str, Any]


def make_case(
    size: str, *, root: Path = ROOT, bits: int | None = None, vocab_size: int | None = None
) -> Case:
    """Write a case, or find it where an earlier run left it.

    Args:
        size: of the checkpoint; ``tiny``, for trials, has small images and a small vocabulary too.
        root: where cases are.
        bits: of the decoder's matrices; None: bfloat16.
        vocab_size: None: the real one.
    """
    is_tiny = size == "tiny"
    vocab_size = vocab_size or (2048 if is_tiny else VOCAB_SIZE)
    folder = root / f"{size}-{vocab_size}-{'bfloat16' if bits is None else f'{bits}-bit'}"
    if not (folder / "case").exists():
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        options: dict[str, Any] = {"vocab_size": vocab_size, "bits": bits}
        write_data(folder, size, **options, **({"image_side": 112} if is_tiny else {}))
        _write_arrays(folder)
        (folder / "case").write_text("complete\n")
    processor = load_processor(folder / "model")
    eos = sorted(processor.eos_token_ids)

    def arguments(name: str, question: str, image: Path | None) -> dict[str, Any]:
        number = 0 if image is None else 1
        prompt = apply_chat_template(processor, None, question, num_images=number)
        path = None if image is None else str(image)
        return {"prompt": prompt, "image": path, "eos": eos, "arrays": str(folder / f"{name}.npz")}

    image = folder / "image.png"
    with_image = arguments("image", QUESTION, image)
    return Case(folder / "model", image, with_image, arguments("text", TEXT, None))


def _write_arrays(folder: Path) -> None:
    """The same prompts as arrays, for the systems that take no text."""
    processor = load_processor(folder / "model")
    for name, question, images in (
        ("image", QUESTION, [Image.open(folder / "image.png").convert("RGB")]),
        ("text", TEXT, []),
    ):
        prompt = apply_chat_template(processor, None, question, num_images=len(images))
        arrays = processor(text=[prompt], images=images or None)
        np.savez(folder / f"{name}.npz", **arrays)


class Work(NamedTuple):
    """Operations of a prefill, and bytes that a decode step reads; of float32 or bfloat16."""

    gflop: float  # of the decoder, the vision encoder and one row of logits
    step_gb: float


def work_of(
    model: Path, *, num_tokens: int, num_images: int = 0, bytes_per_number: int = 4
) -> Work:
    """Count from the checkpoint's config. Biases, norms and activations are left out.

    Args:
        model: folder of a Qwen2-VL checkpoint.
        num_tokens: of the prompt, visual tokens included.
        num_images: of the size that the checkpoint resizes to.
        bytes_per_number: of weights and of the KV cache.
    """
    config = json.loads((model / "config.json").read_text())
    vision = config["vision_config"]
    size = json.loads((model / "preprocessor_config.json").read_text())
    hidden, mlp, layers = (
        config[name] for name in ("hidden_size", "intermediate_size", "num_hidden_layers")
    )
    kv = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    decoder = layers * (2 * hidden * hidden + 2 * hidden * kv + 3 * hidden * mlp)
    head = hidden * config["vocab_size"]
    attention = 2 * layers * num_tokens**2 * hidden  # causal: half of the products
    width, depth = vision["embed_dim"], vision["depth"]
    patches = size["max_pixels"] // vision["patch_size"] ** 2
    merged = width * vision["spatial_merge_size"] ** 2
    per_patch = depth * (4 + 2 * vision["mlp_ratio"]) * width**2 + width * 1176
    per_token = merged * (merged + hidden)
    image = 2 * patches * per_patch + 2 * patches // 4 * per_token + 4 * depth * patches**2 * width
    operations = 2 * decoder * num_tokens + attention + 2 * head + num_images * image
    step_bytes = (decoder + head + 2 * layers * kv * num_tokens) * bytes_per_number
    return Work(operations / 1e9, step_bytes / 1e9)
