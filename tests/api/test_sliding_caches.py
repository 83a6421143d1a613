"""Caches of layers with sliding windows that images lie in: the window, whatever the policy."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.processors.tiny_gemma3 import write_gemma3
from vlmkit import PipelineConfig, Request, load
from vlmkit.api import stream_pipeline
from vlmkit.cache import build_cache
from vlmkit.cache.one_kind import build_kind
from vlmkit.engine import collect

STOP = ({"kind": "max_tokens", "max_tokens": 8},)
TEXT = "<bos>What is <start_of_image> beside <start_of_image> now?"
POLICIES: dict[str, dict[str, Any]] = {
    "dense": {"kind": "dense"},
    "a ring": {"kind": "rotating", "max_size": 24, "keep": 4},
    "affine": {
        "kind": "quantized",
        "keys": {"kind": "affine", "bits": 8, "group_size": 32},
        "values": {"kind": "affine", "bits": 4, "group_size": 32},
    },
    "snapkv": {"kind": "snapkv", "budget": 16, "window": 4},
}


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any]:
    folder: Path = tmp_path_factory.mktemp("gemma3")
    return load(str(write_gemma3(folder, head_dim=32)))


@pytest.mark.parametrize("name", POLICIES)
def test_chunks_of_any_size_give_the_same_tokens(loaded: tuple[Any, Any], name: str) -> None:
    rng = np.random.default_rng(0)
    images = tuple(Image.fromarray(rng.integers(0, 256, (20, 30, 3), np.uint8)) for _ in range(2))
    found = []
    for step_size in (1, 7, 2048):
        pipeline = PipelineConfig(
            stopping=STOP, cache=POLICIES[name], prefill={"step_size": step_size}
        )
        result = collect(stream_pipeline(*loaded, Request(TEXT, images=images), pipeline))
        found.append(list(result.token_ids))
    assert len(found[0]) == 8
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("name", POLICIES)
def test_sliding_layers_keep_their_window(loaded: tuple[Any, Any], name: str) -> None:
    model = loaded[0]
    config = PipelineConfig(cache=POLICIES[name]).cache
    cache = build_cache(config, model.layer_specs, 1, model.dtype)
    settings = [kind.settings for kind in cache.kinds]
    own = build_kind(config).windowed
    assert own is not None
    assert settings[0] == settings[1] == own(6).settings
    assert settings[2] != settings[0]
