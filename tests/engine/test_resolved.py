"""What runs is what ``effective`` reports; what is read once is read once."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import pytest
from PIL import Image

from vlmkit import VlmkitError, load
from vlmkit.api import stream_pipeline
from vlmkit.batch import batch_pipeline
from vlmkit.cache import AffineConfig, DenseConfig, RotatingConfig, build_cache, join_rows
from vlmkit.contracts.interface import KVSpec
from vlmkit.engine import Request, collect
from vlmkit.pipeline import PipelineConfig
from vlmkit.prompt_utils import apply_chat_template
from vlmkit.resolve import request

Loaded = tuple[Any, Any]


@pytest.fixture(scope="module")
def shapes() -> Loaded:
    return load("shapes")


def test_effective_is_of_the_resolved_pipeline(shapes: Loaded) -> None:
    model, processor = shapes
    pipeline = PipelineConfig(
        sampling=[{"kind": "repetition_penalty", "penalty": 1.1}],
        stopping=[
            {"kind": "max_tokens", "max_tokens": 7},
            {"kind": "eos", "tokens": ["red circle"]},
            {"kind": "thinking_budget", "budget": 3},
        ],
    )
    result = collect(stream_pipeline(model, processor, Request("How many?"), pipeline))
    effective = result.effective
    assert effective is not None
    (penalty,) = effective["pipeline"]["sampling"]
    assert set(processor.placeholder_ids) <= set(penalty["excluded_ids"])
    assert effective["token_limit"] == 7
    markers = effective["stop_markers"]
    assert markers["eos"]["token_ids"] == sorted(processor.eos_token_ids)
    assert markers["eos"]["texts"] == ["red circle"]
    assert markers["thinking_budget"]["end"] == processor.encode("</think>")


def test_the_context_limits_the_tokens(shapes: Loaded) -> None:
    model, processor = shapes
    context = model.config.max_position_embeddings
    prompt = (processor.encode("red circle ") * context)[: context - 3]
    rows = [
        (Request(ids), PipelineConfig(stopping=[{"kind": "max_tokens", "max_tokens": limit}]))
        for ids, limit in (([5], 2), (prompt, 9))
    ]
    results = batch_pipeline(*shapes, rows, batch_size=1).results
    limits = [result.effective["token_limit"] for result in results if result.effective]
    assert limits == [2, 3]


def test_caches_of_other_settings_are_not_joined() -> None:
    specs = [KVSpec(1, 32, 32)]

    def cache(config: Any) -> Any:
        return build_cache(config, specs, 1, mx.float32)

    pairs = [
        (RotatingConfig(max_size=8, keep=0), RotatingConfig(max_size=16, keep=4)),
        (AffineConfig(bits=4, group_size=32), AffineConfig(bits=8, group_size=32)),
        (DenseConfig(), RotatingConfig(max_size=8)),
    ]
    for one, two in pairs:
        with pytest.raises(VlmkitError, match=r"can't be joined: layer 0 is .* in the other"):
            join_rows([cache(one), cache(two)])
        assert join_rows([cache(one), cache(one)]).lengths == (0, 0)


def test_an_image_is_read_once_whoever_looks_at_it(
    shapes: Loaded, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    model, processor = shapes
    path = tmp_path / "one.png"
    Image.new("RGB", (112, 112), (200, 30, 30)).save(path)
    read: list[Any] = []
    real = request.load_image

    def counted(source: Any, **options: Any) -> Any:
        read.append(source)
        return real(source, **options)

    monkeypatch.setattr(request, "load_image", counted)
    prompt = apply_chat_template(processor, model.config, "Count.", num_images=1)
    contrast = {"kind": "cfg", "negative_prompt": prompt + "no", "negative_images": True}
    pipeline = PipelineConfig(contrast=contrast, stopping=[{"kind": "max_tokens", "max_tokens": 1}])
    list(stream_pipeline(*shapes, Request(prompt, (str(path),)), pipeline))
    assert read == [str(path)]
