"""Write a Qwen2-VL checkpoint with random weights, large enough for timings to mean something.

    python -m benchmarks.random_checkpoint FOLDER --size medium

The tokenizer and the image rules are those of the embedded model; the vocabulary is padded to the
real one, so the output projection costs what it costs in practice.
"""

from __future__ import annotations

import argparse
import json
import shutil
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import mlx.core as mx

VOCAB_SIZE = 151_936
GROUP_SIZE = 64
SIZES: dict[str, dict[str, int]] = {
    "tiny": {"layers": 2, "hidden": 128, "heads": 4, "kv": 2, "mlp": 384, "depth": 2, "vision": 96},
    "small": {
        "layers": 8,
        "hidden": 512,
        "heads": 8,
        "kv": 2,
        "mlp": 1536,
        "depth": 4,
        "vision": 320,
    },
    "medium": {
        "layers": 24,
        "hidden": 896,
        "heads": 14,
        "kv": 2,
        "mlp": 4864,
        "depth": 8,
        "vision": 640,
    },
}
COPIED = (
    "tokenizer_config.json",
    "chat_template.jinja",
    "chat_template.json",
    "generation_config.json",
)


def write_checkpoint(
    folder: Path,
    size: str,
    *,
    image_side: int = 448,
    seed: int = 0,
    vocab_size: int = VOCAB_SIZE,
    bits: int | None = None,
) -> None:
    """Write config, weights (bfloat16), tokenizer and image rules.

    Args:
        folder: where; made if it isn't there.
        size: one of ``SIZES``; medium has 0.54 B parameters.
        image_side: images are resized to about this many pixels squared.
        seed: of the weights.
        vocab_size: at least that of the embedded model's tokenizer.
        bits: quantize the decoder's matrices to so many, in groups of 64; None: not at all.
    """
    folder.mkdir(parents=True, exist_ok=True)
    shape = SIZES[size]
    with as_file(files("vlmkit") / "assets" / "shapes") as source:
        for name in COPIED:
            if (source / name).exists():
                shutil.copy(source / name, folder / name)
        write_tokenizer(source / "tokenizer.json", folder / "tokenizer.json", vocab_size)
        config = json.loads((source / "config.json").read_text())
        images = json.loads((source / "preprocessor_config.json").read_text())
    config.update(
        hidden_size=shape["hidden"],
        intermediate_size=shape["mlp"],
        num_hidden_layers=shape["layers"],
        max_window_layers=shape["layers"],
        num_attention_heads=shape["heads"],
        num_key_value_heads=shape["kv"],
        vocab_size=vocab_size,
        max_position_embeddings=32_768,
        rope_theta=1e6,
    )
    half = shape["hidden"] // shape["heads"] // 2
    config["rope_scaling"]["mrope_section"] = [
        half - 2 * (3 * half // 8),
        3 * half // 8,
        3 * half // 8,
    ]
    config["vision_config"].update(
        depth=shape["depth"],
        embed_dim=shape["vision"],
        hidden_size=shape["hidden"],
        mlp_ratio=4,
        num_heads=shape["vision"] // 32 if shape["vision"] < 320 else shape["vision"] // 80,
    )
    if bits is not None:
        config["quantization"] = {"group_size": GROUP_SIZE, "bits": bits}
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    pixels = image_side * image_side
    images.update(min_pixels=pixels, max_pixels=pixels)
    images["size"] = {"shortest_edge": pixels, "longest_edge": pixels}
    (folder / "preprocessor_config.json").write_text(json.dumps(images, indent=2))
    mx.random.seed(seed)
    weights = _weights(config)
    if bits is not None:
        weights = quantized(weights, bits)
    mx.save_safetensors(str(folder / "model.safetensors"), weights, metadata={"format": "pt"})


def quantized(weights: dict[str, mx.array], bits: int) -> dict[str, mx.array]:
    """Quantize the matrices of the decoder, as mlx-vlm does when it converts."""
    found: dict[str, mx.array] = {}
    for name, weight in weights.items():
        if name.startswith("model.") and weight.ndim == 2:
            parts = mx.quantize(weight, group_size=GROUP_SIZE, bits=bits)
            base = name.removesuffix(".weight")
            names = (f"{base}.weight", f"{base}.scales", f"{base}.biases")
            found |= dict(zip(names, parts, strict=True))
        else:
            found[name] = weight
    return found


def write_tokenizer(source: Path, target: Path, vocab_size: int) -> None:
    """Give every id of the vocabulary a token; mlx-vlm cannot decode an id without one."""
    tokenizer = json.loads(source.read_text())
    vocab = tokenizer["model"]["vocab"]
    # Added tokens that the model does not list get new ids after it when the file is read.
    vocab.update({token["content"]: token["id"] for token in tokenizer["added_tokens"]})
    first = 1 + max(vocab.values())
    vocab.update({f"unused{token_id}": token_id for token_id in range(first, vocab_size)})
    target.write_text(json.dumps(tokenizer))


def _weights(config: dict[str, Any]) -> dict[str, mx.array]:
    weights: dict[str, mx.array] = {}

    def matrix(name: str, rows: int, columns: int, *, bias: bool) -> None:
        weights[f"{name}.weight"] = _normal((rows, columns), columns)
        if bias:
            weights[f"{name}.bias"] = mx.zeros((rows,), mx.bfloat16)

    hidden, mlp = config["hidden_size"], config["intermediate_size"]
    kv = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    weights["model.embed_tokens.weight"] = _normal((config["vocab_size"], hidden), hidden)
    weights["model.norm.weight"] = mx.ones((hidden,), mx.bfloat16)
    for layer in range(config["num_hidden_layers"]):
        prefix = f"model.layers.{layer}"
        for norm in ("input_layernorm", "post_attention_layernorm"):
            weights[f"{prefix}.{norm}.weight"] = mx.ones((hidden,), mx.bfloat16)
        matrix(f"{prefix}.self_attn.q_proj", hidden, hidden, bias=True)
        matrix(f"{prefix}.self_attn.k_proj", kv, hidden, bias=True)
        matrix(f"{prefix}.self_attn.v_proj", kv, hidden, bias=True)
        matrix(f"{prefix}.self_attn.o_proj", hidden, hidden, bias=False)
        matrix(f"{prefix}.mlp.gate_proj", mlp, hidden, bias=False)
        matrix(f"{prefix}.mlp.up_proj", mlp, hidden, bias=False)
        matrix(f"{prefix}.mlp.down_proj", hidden, mlp, bias=False)
    vision = config["vision_config"]
    width = vision["embed_dim"]
    patch = (
        vision["in_channels"],
        vision["temporal_patch_size"],
        vision["patch_size"],
        vision["patch_size"],
    )
    weights["visual.patch_embed.proj.weight"] = _normal((width, *patch), 1176)
    for block in range(vision["depth"]):
        prefix = f"visual.blocks.{block}"
        for norm in ("norm1", "norm2"):
            weights[f"{prefix}.{norm}.weight"] = mx.ones((width,), mx.bfloat16)
            weights[f"{prefix}.{norm}.bias"] = mx.zeros((width,), mx.bfloat16)
        matrix(f"{prefix}.attn.qkv", 3 * width, width, bias=True)
        matrix(f"{prefix}.attn.proj", width, width, bias=True)
        matrix(f"{prefix}.mlp.fc1", vision["mlp_ratio"] * width, width, bias=True)
        matrix(f"{prefix}.mlp.fc2", width, vision["mlp_ratio"] * width, bias=True)
    merged = width * vision["spatial_merge_size"] ** 2
    weights["visual.merger.ln_q.weight"] = mx.ones((width,), mx.bfloat16)
    weights["visual.merger.ln_q.bias"] = mx.zeros((width,), mx.bfloat16)
    matrix("visual.merger.mlp.0", merged, merged, bias=True)
    matrix("visual.merger.mlp.2", hidden, merged, bias=True)
    return weights


def _normal(shape: tuple[int, ...], fan_in: int) -> mx.array:
    return (mx.random.normal(shape) * fan_in**-0.5).astype(mx.bfloat16)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--image-side", type=int, default=448)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--bits", type=int, choices=(4, 8), help="quantize the decoder")
    options = parser.parse_args()
    given = {name: value for name, value in vars(options).items() if name not in ("folder", "size")}
    write_checkpoint(options.folder, options.size, **given)
    print(f"wrote {options.folder} ({options.size})")


if __name__ == "__main__":
    main()
