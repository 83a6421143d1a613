"""Sound checkpoints in every layout give the same model; nothing is written, little is imported."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from tests.loading.checkpoints import (
    DIALECTS,
    VISION,
    logits_of,
    make_config,
    make_inputs,
    random_weights,
    relative_error,
    write_checkpoint,
)
from vlmkit.errors import VlmkitError
from vlmkit.loading import (
    load_model,
    load_model_and_report,
    read_checkpoint,
    resolve_checkpoint,
    weights_fingerprint,
)

SHARDED = ("model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors")
FILE_SETS = {
    "single": ("model.safetensors",),
    "shards": (*SHARDED, "model-00003-of-00003.safetensors"),
    "weights": ("weights.00.safetensors", "weights.01.safetensors"),
    "one-weights": ("weights.safetensors",),
}


@pytest.mark.parametrize("tied", [False, True], ids=["head", "tied"])
@pytest.mark.parametrize("model_type", VISION)
def test_every_dialect_gives_the_same_logits(model_type: str, tied: bool, tmp_path: Path) -> None:
    results = []
    for nested in (False, True):
        for dialect in DIALECTS:
            config = make_config(model_type, nested=nested, tied=tied)
            folder = tmp_path / f"{dialect}-{nested}"
            write_checkpoint(folder, config, random_weights(config), dialect=dialect)
            results.append(logits_of(load_model(folder), make_inputs()))
    assert results[0].shape == (19, 64)
    assert all(np.array_equal(result, results[0]) for result in results)


@pytest.mark.parametrize("index", [True, False], ids=["index", "no-index"])
@pytest.mark.parametrize("files", FILE_SETS.values(), ids=FILE_SETS)
def test_every_set_of_files(files: tuple[str, ...], index: bool, tmp_path: Path) -> None:
    config = make_config()
    weights = random_weights(config)
    whole = load_model(write_checkpoint(tmp_path / "whole", config, weights))
    parts = write_checkpoint(tmp_path / "parts", config, weights, files=files, index=index)
    assert len(read_checkpoint(parts).files) == len(files)
    expected = logits_of(whole, make_inputs())
    assert np.array_equal(logits_of(load_model(parts), make_inputs()), expected)


def test_a_left_over_index_is_not_followed(tmp_path: Path) -> None:
    config = make_config()
    folder = write_checkpoint(tmp_path, config, random_weights(config))
    stale = {"weight_map": {"x": "model-00001-of-00001.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(stale))
    assert [path.name for path in read_checkpoint(folder).files] == ["model.safetensors"]


def test_a_tied_head_in_the_file_is_not_needed(tmp_path: Path) -> None:
    config = make_config(tied=True)
    weights = random_weights(config)
    plain = load_model(write_checkpoint(tmp_path / "a", config, weights))
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = np.ones(8, np.float32)
    extra = load_model(write_checkpoint(tmp_path / "b", config, weights))
    assert np.array_equal(logits_of(plain, make_inputs()), logits_of(extra, make_inputs()))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_dtype(dtype: str, tmp_path: Path) -> None:
    config = make_config()
    folder = write_checkpoint(tmp_path, config, random_weights(config), dtype=mx.bfloat16)
    model, report = load_model_and_report(folder, dtype=dtype)
    assert report.dtype == dtype
    assert str(model.dtype) == f"mlx.core.{dtype}"
    on_cpu = mx.default_device().type == mx.DeviceType.cpu
    assert load_model(folder).dtype == (mx.float32 if on_cpu else mx.bfloat16)
    with pytest.raises(VlmkitError, match="did you mean 'float32'"):
        load_model(folder, dtype="float23")


def test_random_weights_are_never_computed(tmp_path: Path) -> None:
    # A vocabulary of 30 million rows would take 7.7 GB if it were drawn.
    config = make_config() | {"vocab_size": 30_000_000}
    weights = random_weights(make_config())
    mx.reset_peak_memory()
    with pytest.raises(VlmkitError, match=r"\[64, 64\] instead of \[30000000, 64\]"):
        load_model(write_checkpoint(tmp_path, config, weights))
    assert mx.get_peak_memory() < 10**9


def test_lazy_weights_stay_on_disk(tmp_path: Path) -> None:
    config = make_config()
    folder = write_checkpoint(tmp_path, config, random_weights(config))
    eager = logits_of(load_model(folder), make_inputs())
    before = mx.get_active_memory()
    model = load_model(folder, lazy=True)
    assert mx.get_active_memory() - before < 10_000
    assert np.array_equal(logits_of(model, make_inputs()), eager)


def _state(folder: Path) -> dict[str, tuple[str, int]]:
    return {
        path.name: (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for path in sorted(folder.iterdir())
    }


def test_a_read_only_checkpoint_is_left_alone(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "m", make_config(), random_weights(make_config()))
    before = _state(folder)
    for path in folder.iterdir():
        path.chmod(0o444)
    folder.chmod(0o555)
    try:
        logits_of(load_model(resolve_checkpoint(folder)), make_inputs())
        weights_fingerprint(read_checkpoint(folder))
    finally:
        folder.chmod(0o755)
    assert _state(folder) == before


def test_fingerprint_tells_checkpoints_apart(tmp_path: Path) -> None:
    config = make_config()
    prints = set()
    for seed in (0, 1):
        folder = write_checkpoint(tmp_path / str(seed), config, random_weights(config, seed))
        prints |= {weights_fingerprint(read_checkpoint(folder)) for _ in range(2)}
    copy = shutil.copytree(tmp_path / "0", tmp_path / "copy")
    prints.add(weights_fingerprint(read_checkpoint(copy)))
    assert len(prints) == 2
    (copy / "config.json").write_text(json.dumps(config | {"rope_theta": 5.0}))
    assert weights_fingerprint(read_checkpoint(copy)) not in prints


def test_embedded_model() -> None:
    folder = resolve_checkpoint("shapes")
    model, report = load_model_and_report(folder)
    assert report.family == "qwen2_vl"
    assert report.num_bytes < 24_000_000
    assert len(model.layer_specs) == read_checkpoint(folder).config["num_hidden_layers"]


def test_nothing_heavy_is_imported() -> None:
    script = (
        "import sys\n"
        "from vlmkit.loading import load_model, resolve_checkpoint\n"
        "load_model(resolve_checkpoint('shapes'))\n"
        "heavy = {'transformers', 'mlx_lm', 'huggingface_hub', 'torch', 'PIL', 'pydantic'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONPATH": str(root)},
    )
    assert done.stdout == "[]\n"


def _quantized(scheme: dict[str, Any]) -> Callable[[Mapping[str, Any]], dict[str, mx.array]]:
    def quantize(weights: Mapping[str, Any]) -> dict[str, mx.array]:
        result: dict[str, mx.array] = {}
        for name, value in weights.items():
            if not name.endswith(("_proj.weight", "embed_tokens.weight", "lm_head.weight")):
                result[name] = mx.array(value)
                continue
            parts = mx.quantize(mx.array(value), **scheme)
            base = name.removesuffix("weight")
            names = ("weight", "scales", "biases")[: len(parts)]
            result |= dict(zip([base + part for part in names], parts, strict=True))
        return result

    return quantize


SCHEMES: list[dict[str, Any]] = [
    {"group_size": 64, "bits": 4, "mode": "affine"},
    {"group_size": 32, "bits": 8, "mode": "affine"},
    {"group_size": 64, "bits": 2, "mode": "affine"},
    {"group_size": 32, "bits": 3, "mode": "affine"},
    {"group_size": 64, "bits": 5, "mode": "affine"},
    {"group_size": 64, "bits": 6, "mode": "affine"},
    {"group_size": 32, "bits": 4, "mode": "mxfp4"},
    {"group_size": 32, "bits": 8, "mode": "mxfp8"},
    {"group_size": 16, "bits": 4, "mode": "nvfp4"},
]


@pytest.mark.parametrize("key", ["quantization", "quantization_config"])
@pytest.mark.parametrize("scheme", SCHEMES, ids=lambda s: f"{s['mode']}{s['bits']}")
def test_every_scheme_packed_and_unpacked(scheme: dict[str, Any], key: str, tmp_path: Path) -> None:
    config = make_config() | {key: scheme}
    weights = _quantized(scheme)(random_weights(config))
    folder = write_checkpoint(tmp_path, config, weights, dialect="mlx")
    packed, packed_report = load_model_and_report(folder, dequantize=False, dtype="float32")
    whole, whole_report = load_model_and_report(folder, dequantize=True, dtype="float32")
    assert (packed_report.dequantized, whole_report.dequantized) == (False, True)
    assert len(packed_report.schemes) == 16
    assert {tuple(s) for s in packed_report.schemes.values()} == {tuple(scheme.values())}
    assert packed_report.num_bytes < whole_report.num_bytes
    expected = logits_of(whole, make_inputs())
    assert relative_error(logits_of(packed, make_inputs()), expected) < 1e-4


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"quant_method": "awq", "bits": 4, "group_size": 128}, "'awq' is not supported"),
        ({"quant_method": "gptq", "bits": 4, "group_size": 128}, "'gptq' is not supported"),
        ({"quant_method": "bitsandbytes", "load_in_4bit": True}, "'bitsandbytes'"),
        ({"quant_method": "fp8"}, "'fp8' is not supported"),
        ({"weird": 1}, "with keys ['weird']"),
        ([4], "needs an object"),
        ({"group_size": 64, "bits": 7}, "bits 7 is not supported by affine: use 2, 3, 4, 5, 6, 8"),
        ({"group_size": 48, "bits": 4}, "group_size 48"),
        ({"group_size": 64, "bits": 4, "mode": "mxfp4"}, "group_size 64 is not supported by mxfp4"),
        ({"group_size": 32, "bits": 4, "mode": "afine"}, "did you mean 'affine'"),
        ({"group_size": 64, "bits": 4, "lm_head": {"bits": 9}}, "quantization['lm_head']: bits 9"),
        (
            {"group_size": 64, "bits": 4, "lm_head": {"bits": 8}},
            "'language.lm_head' is affine 8-bit, group size 64, but the weights have no scales",
        ),
    ],
)
def test_refused_sections(section: Any, said: str, tmp_path: Path) -> None:
    config = make_config()
    key = "quantization_config" if "quant_method" in section else "quantization"
    folder = write_checkpoint(tmp_path, config | {key: section}, random_weights(config))
    with pytest.raises(VlmkitError) as caught:
        load_model(folder)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_packed_weights_at_odds_with_the_config(tmp_path: Path) -> None:
    config, scheme = make_config(), SCHEMES[0]
    weights = _quantized(scheme)(random_weights(config))

    def said(**changes: Any) -> str:
        folder = write_checkpoint(tmp_path, config | changes, weights)
        with pytest.raises(VlmkitError) as caught:
            load_model(folder)
        return str(caught.value)

    assert "is quantized, but config.json has no quantization section" in said()
    wrong = scheme | {"lm_head": {"group_size": 64, "bits": 8}}
    assert "'language.lm_head': weight [64, 8]" in said(quantization=wrong)
    assert "as not quantized" in said(quantization=scheme | {"lm_head": False})
    del weights["lm_head.biases"]
    assert "its biases need shape (64, 1)" in said(quantization=scheme)
    weights["lm_head.scales"] = mx.zeros((64, 3))
    assert "do not pack a matrix of [64, 64]" in said(quantization=scheme)
