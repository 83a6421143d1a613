"""Architectures of mlx-vlm that we lack run behind our stages, as mlx-vlm itself runs them."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from PIL import Image

import vlmkit
from tests.models.bridge_checkpoints import write
from vlmkit.cache import DenseConfig, build_cache
from vlmkit.cli.main import main
from vlmkit.contracts.inputs import Piece
from vlmkit.contracts.interface import Span
from vlmkit.errors import VlmkitError, VlmkitWarning
from vlmkit.resolve.method import build_method

PROMPT, PLAIN = "w3 <image> w5 w7", "w9 w8"
TWO = "w3 <image> w5 <image> w7"
NUM_TOKENS = 12
NUM_WORDS = 56  # of the vocabulary; what follows is special
TEMPLATE = (
    "{% for message in messages %}{% if message.content is string %}{{ message.content }}"
    "{% else %}{% for part in message.content %}{% if part.type == 'text' %}{{ part.text }}"
    "{% else %}<image> {% endif %}{% endfor %}{% endif %}{% endfor %}"
)
LIMIT = {"kind": "max_tokens", "max_tokens": NUM_TOKENS}
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


@pytest.mark.parametrize("number", [0, 1, 2])
def test_greedy_tokens_are_those_of_mlx_vlm(loaded: Loaded, number: int) -> None:
    import mlx_vlm

    folder, picture, *_ = loaded
    prompt, images = (PLAIN, PROMPT, TWO)[number], [picture] * number
    model, processor = mlx_vlm.load(str(folder))
    stream = mlx_vlm.stream_generate(
        model, processor, prompt, image=images or None, max_tokens=NUM_TOKENS, temperature=0.0
    )
    expected = [step.token for step in stream][:NUM_TOKENS]  # the last one comes twice
    assert not number or len(set(expected)) > 3
    assert tokens(loaded, prompt, images) == expected


def test_prefill_in_steps_and_batches_give_the_same(loaded: Loaded) -> None:
    _, picture, model, processor = loaded
    whole = tokens(loaded, PROMPT, [picture])
    assert tokens(loaded, PROMPT, [picture], prefill_step_size=4) == whole
    side_by_side = vlmkit.batch_generate(
        model, processor, [[picture], []], prompts=[PROMPT, PLAIN], max_tokens=NUM_TOKENS
    )
    texts = [
        vlmkit.generate(model, processor, prompt, image=images, max_tokens=NUM_TOKENS).text
        for prompt, images in ((PROMPT, [picture]), (PLAIN, []))
    ]
    assert side_by_side.texts == texts


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("dola", "reads early layers, and those of mlx-vlm's"),
        *((kind, "has to know where images stand in") for kind in ("vcd", "m3id", "icd", "cfg")),
    ],
)
def test_contrasts_that_need_more_are_refused_by_name(
    loaded: Loaded, kind: str, message: str
) -> None:
    _, _, model, processor = loaded
    pipeline = vlmkit.PipelineConfig(contrast={"kind": kind})
    with pytest.raises(VlmkitError, match=rf"^contrast: {kind} {message}"):
        build_method(model, processor, pipeline, None)


def test_layers_cannot_be_read(loaded: Loaded) -> None:
    *_, model, _ = loaded
    piece = Piece(model.embed_tokens(mx.zeros((1, 1), mx.int32)), mx.zeros((1, 1, 1), mx.int32))
    cache = build_cache(DenseConfig(), model.layer_specs, 1, model.dtype)
    with pytest.raises(VlmkitError, match=r"mlx-vlm's \w+ cannot run here: its layers cannot be"):
        model.forward(piece, cache, Span((0,), (1,), 1), taps=(0,))


def test_a_prompt_branches_and_another_cache_works(loaded: Loaded) -> None:
    _, picture, model, processor = loaded
    alone = vlmkit.generate(model, processor, PROMPT, image=picture, max_tokens=NUM_TOKENS).text
    prompt = vlmkit.start(model, processor, vlmkit.Request(PROMPT, (picture,)))
    pipeline = vlmkit.PipelineConfig(stopping=[{"kind": "eos"}, LIMIT])
    results = vlmkit.branch(prompt, [pipeline, pipeline])
    assert [result.text for (result,) in results] == [alone, alone]
    kept = tokens(loaded, PROMPT, [picture], max_kv_size=128)
    assert kept == tokens(loaded, PROMPT, [picture])


def test_the_command_line(
    loaded: Loaded, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, picture, model, processor = loaded
    copy = Path(shutil.copytree(folder, tmp_path / "copy"))
    (copy / "chat_template.jinja").write_text(TEMPLATE)
    values = [f"model={copy}", "model_source=mlx-vlm"]
    asked = ["--prompt", "w5 w7", "--image", picture, "--max-tokens", str(NUM_TOKENS)]
    assert main(["generate", *asked, *values]) == 0
    prompt = "<image> w5 w7"
    expected = vlmkit.generate(model, processor, prompt, image=picture, max_tokens=NUM_TOKENS)
    assert expected.text.strip() in capsys.readouterr().out
    assert main(["describe", *values]) == 0
    assert "mlx-vlm" in capsys.readouterr().out


def test_sampled_tokens_and_a_stop(loaded: Loaded) -> None:
    _, picture, *_ = loaded
    sampled = {"temperature": 1.5, "top_p": 0.9, "top_k": 20}
    found = [tokens(loaded, PROMPT, [picture], seed=seed, **sampled) for seed in (1, 1, 2)]
    assert found[0] == found[1] != found[2]
    whole = tokens(loaded, PROMPT, [picture])
    words = [token for token in whole if token < NUM_WORDS and token != whole[0]]
    cut = tokens(loaded, PROMPT, [picture], eos_tokens=[f"w{words[0]}"])
    assert len(cut) < len(whole)
    assert cut == whole[: len(cut)]


def test_a_load_says_that_nothing_is_verified(loaded: Loaded) -> None:
    folder, *_ = loaded
    with pytest.warns(VlmkitWarning, match=r"runs as the \w+ of mlx-vlm .* verified nothing"):
        vlmkit.load(str(folder), model_source="mlx-vlm", lazy=True)


def test_what_needs_more_than_embeddings_is_refused_by_name() -> None:
    with pytest.raises(VlmkitError, match=r"qwen2_vl cannot run here: its positions follow from"):
        vlmkit.load("shapes", model_source="mlx-vlm")
