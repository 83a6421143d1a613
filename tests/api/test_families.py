"""Every way to generate, for a checkpoint of each family: pictures, batches, methods."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.loading.qwen3_5 import make_config_of, write_checkpoint
from tests.loading.three_ways import complete
from tests.processors.tiny_gemma3 import write_gemma3
from vlmkit import (
    PipelineConfig,
    PromptCache,
    Request,
    batch_generate,
    branch,
    generate,
    load,
    start,
    stream_generate,
)
from vlmkit.api import stream_pipeline
from vlmkit.engine import collect
from vlmkit.models import families

STOP = ({"kind": "max_tokens", "max_tokens": 6},)
METHODS: dict[str, dict[str, Any]] = {
    "vcd": {"contrast": {"kind": "vcd"}},
    "icd": {"contrast": {"kind": "icd"}},
    "m3id": {"contrast": {"kind": "m3id"}},
    "dola": {"contrast": {"kind": "dola", "layers": [0, 1]}},
    "beam": {"search": {"kind": "beam", "num_beams": 3}},
    "contrastive search": {"search": {"kind": "contrastive_search"}},
    "a ring": {"cache": {"kind": "rotating", "max_size": 24}},
}
Loaded = tuple[Any, Any]


FAMILIES = tuple(one.name for one in families.FAMILIES if "image" in one.takes)
# what hears alone has its own tests: test_audio.py


@pytest.fixture(scope="module", params=FAMILIES)
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    folder: Path = tmp_path_factory.mktemp("families") / request.param
    if request.param.startswith("qwen2"):
        return load(str(complete(folder, request.param)), dtype="float32")
    if request.param == "gemma3":
        return load(str(write_gemma3(folder)))
    folder.mkdir()
    return load(str(write_checkpoint(folder, make_config_of(request.param))))


def picture(seed: int, width: int = 40) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 255, (24, width, 3), np.uint8), "RGB")


def ask(loaded: Loaded, num_images: int) -> str:
    opening = loaded[1].image_span
    place = "<|vision_start|><|image_pad|><|vision_end|> " if opening is None else opening[0]
    return place * num_images + "w1 w2"


def test_one_by_one_streamed_and_in_a_batch(loaded: Loaded) -> None:
    images: list[Any] = [picture(0), [picture(1), picture(2, 56)], None, picture(0)]
    prompts = [ask(loaded, n) for n in (1, 2, 0, 1)]
    alone = [
        generate(*loaded, prompt, image, max_tokens=6)
        for prompt, image in zip(prompts, images, strict=True)
    ]
    together = batch_generate(*loaded, images, None, prompts, max_tokens=6).results
    assert [one.token_ids for one in together] == [one.token_ids for one in alone]
    assert len({tuple(one.token_ids) for one in alone}) == 3, "pictures make no difference"
    streamed = [part.text for part in stream_generate(*loaded, prompts[1], images[1], max_tokens=6)]
    assert "".join(streamed) == alone[1].text
    chunked = generate(*loaded, prompts[1], images[1], max_tokens=6, prefill_step_size=5)
    assert chunked.token_ids == alone[1].token_ids
    seen = PromptCache()
    for _ in range(2):
        cached = generate(*loaded, prompts[1], images[1], max_tokens=6, prompt_cache=seen)
        assert cached.token_ids == alone[1].token_ids
    assert cached.cached_tokens == cached.prompt_tokens
    longer = generate(*loaded, ask(loaded, 2) + "A", images[1], max_tokens=6, prompt_cache=seen)
    fresh = generate(*loaded, ask(loaded, 2) + "A", images[1], max_tokens=6)
    assert longer.token_ids == fresh.token_ids


@pytest.mark.parametrize("name", METHODS)
def test_methods_alone_and_from_a_prompt(loaded: Loaded, name: str) -> None:
    pipeline = PipelineConfig(stopping=STOP, **METHODS[name])
    request = Request(ask(loaded, 1), images=(picture(3),))
    alone = collect(stream_pipeline(*loaded, request, pipeline))
    assert len(alone.token_ids) > 0
    started = start(*loaded, request, PipelineConfig(cache=pipeline.cache))
    ((branched,),) = branch(started, [pipeline])
    assert branched.token_ids == alone.token_ids
