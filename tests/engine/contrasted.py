"""What the tests of contrast methods generate with: every method, and the embedded model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import vlmkit
from vlmkit.api import stream_pipeline
from vlmkit.engine import Request, collect
from vlmkit.pipeline import PipelineConfig
from vlmkit.prompt_utils import apply_chat_template
from vlmkit.results import GenerationResult

ASSETS = Path(vlmkit.__file__).parent / "assets" / "shapes"
NEGATIVE = "<|im_start|>user\nSay something else.<|im_end|>\n<|im_start|>assistant\n"
METHODS: dict[str, dict[str, Any]] = {
    "cfg": {"kind": "cfg", "scale": 2.0},
    "cfg, negative prompt": {"kind": "cfg", "scale": 1.7, "negative_prompt": NEGATIVE},
    "cfg, negative prompt with images": {
        "kind": "cfg",
        "scale": 0.6,
        "negative_prompt": f"<|vision_start|><|image_pad|><|vision_end|>{NEGATIVE}",
        "negative_images": True,
    },
    "contrastive decoding": {"kind": "contrastive_decoding", "amateur": "?", "alpha": 0.01},
    "contrastive decoding, beta": {"kind": "contrastive_decoding", "amateur": "?", "beta": 2.0},
    "dola": {"kind": "dola", "layers": "high"},
    "dola, layers": {"kind": "dola", "layers": [3, 0, 1], "relative_top": 0.01},
    "vcd": {"kind": "vcd", "alpha": 2.0, "beta": 0.01, "noise_step": 900},
    "icd": {"kind": "icd", "alpha": 3.0, "beta": 0.01},
    "m3id": {"kind": "m3id", "forgetting": 0.3, "beta": 0.01},
    "external, a layer": {
        "kind": "external",
        "factory": "experiments.own_contrast:away_from_layer",
        "config": {"layer": 2, "weight": 2.0},
    },
    "external, a prompt": {
        "kind": "external",
        "factory": "tests.external_package.vlmkit_example_stages.half_prompt:half_prompt",
        "config": {"weight": 2.0},
    },
}
SAMPLING = [{"kind": "temperature", "temperature": 1.5}, {"kind": "top_p", "p": 0.95}]
each_method = pytest.mark.parametrize("name", METHODS)


def question(processor: Any, image: str, text: str, sample: int = 0) -> Request:
    prompt = apply_chat_template(processor, None, text, num_images=1)
    return Request(prompt, (str(ASSETS / "samples" / image),), sample=sample)


def pipeline_of(
    method: dict[str, Any] | None, amateur: Path, *, max_tokens: int = 24, **more: Any
) -> PipelineConfig:
    if method is not None and "amateur" in method:
        method = {**method, "amateur": str(amateur)}
    stopping = [{"kind": "max_tokens", "max_tokens": max_tokens}, {"kind": "eos"}]
    return PipelineConfig(contrast=method, stopping=stopping, **more)


def generate(
    shapes: tuple[Any, Any], request: Request, pipeline: PipelineConfig
) -> GenerationResult:
    return collect(stream_pipeline(*shapes, request, pipeline))
