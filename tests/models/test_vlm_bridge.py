"""Architectures of mlx-vlm that we lack run behind our stages, as mlx-vlm itself runs them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import vlmkit
from tests.models.bridge_checkpoints import write
from vlmkit.errors import VlmkitError, VlmkitWarning

PROMPT, PLAIN = "w3 <image> w5 w7", "w9 w8"
NUM_TOKENS = 12
Loaded = tuple[Path, str, Any, Any]

pytestmark = [pytest.mark.mlx_vlm, pytest.mark.torch]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # mlx-vlm's and transformers' own
        yield


@pytest.fixture(scope="module", params=["mistral3", "idefics3"])
def loaded(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Loaded:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = write(tmp_path_factory.mktemp("bridge") / request.param, request.param)
        pixels = np.random.default_rng(0).integers(0, 256, (40, 24, 3), np.uint8)
        picture = str(folder / "picture.png")
        Image.fromarray(pixels).save(picture)
        model, processor = vlmkit.load(str(folder), model_source="mlx-vlm")
    return folder, picture, model, processor


def tokens(loaded: Loaded, prompt: str, images: list[str], **values: Any) -> list[int]:
    _, _, model, processor = loaded
    values = {"max_tokens": NUM_TOKENS} | values
    stream = vlmkit.stream_generate(model, processor, prompt, image=images, **values)
    return [step.token for step in stream if step.token is not None]


@pytest.mark.parametrize("sees", [True, False])
def test_greedy_tokens_are_those_of_mlx_vlm(loaded: Loaded, sees: bool) -> None:
    import mlx_vlm

    folder, picture, *_ = loaded
    prompt, images = (PROMPT, [picture]) if sees else (PLAIN, [])
    model, processor = mlx_vlm.load(str(folder))
    stream = mlx_vlm.stream_generate(
        model, processor, prompt, image=images or None, max_tokens=NUM_TOKENS, temperature=0.0
    )
    expected = [step.token for step in stream][:NUM_TOKENS]  # the last one comes twice
    assert len(set(expected)) > 3
    assert tokens(loaded, prompt, images) == expected


def test_prefill_in_steps_and_batches_give_the_same(loaded: Loaded) -> None:
    _, picture, model, processor = loaded
    alone = [tokens(loaded, PROMPT, [picture]), tokens(loaded, PLAIN, [])]
    assert tokens(loaded, PROMPT, [picture], prefill_step_size=4) == alone[0]
    side_by_side = vlmkit.batch_generate(
        model, processor, [[picture], []], prompts=[PROMPT, PLAIN], max_tokens=NUM_TOKENS
    )
    texts = [processor.decode(row, skip_special_tokens=False).strip() for row in alone]
    assert [text.strip() for text in side_by_side.texts] == texts


def test_early_layers_are_refused_by_name(loaded: Loaded) -> None:
    _, picture, model, processor = loaded
    config = vlmkit.PipelineConfig(contrast={"kind": "dola"})
    request = vlmkit.Request(PROMPT, (picture,))
    with pytest.raises(VlmkitError, match=r"mlx-vlm's \w+ cannot run here: its layers cannot be"):
        run(model, processor, request, config)


@pytest.mark.parametrize("kind", ["vcd", "m3id", "icd", "cfg"])
def test_contrasts_that_change_images_are_refused_by_name(loaded: Loaded, kind: str) -> None:
    _, picture, model, processor = loaded
    config = vlmkit.PipelineConfig(contrast={"kind": kind})
    request = vlmkit.Request(PROMPT, (picture,))
    with pytest.raises(VlmkitError, match=rf"contrast: {kind} has to know where images stand"):
        run(model, processor, request, config)


def run(model: Any, processor: Any, request: Any, config: Any) -> None:
    from vlmkit.engine import run_request

    list(run_request(model, processor, request, config))


def test_a_load_says_that_nothing_is_verified(loaded: Loaded) -> None:
    folder, *_ = loaded
    with pytest.warns(VlmkitWarning, match=r"runs as the \w+ of mlx-vlm .* verified nothing"):
        vlmkit.load(str(folder), model_source="mlx-vlm", lazy=True)


def test_what_needs_more_than_embeddings_is_refused_by_name() -> None:
    with pytest.raises(VlmkitError, match=r"qwen2_vl cannot run here: its positions follow from"):
        vlmkit.load("shapes", model_source="mlx-vlm")
