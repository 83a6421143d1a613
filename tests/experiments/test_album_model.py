"""Albums and their training: batches, heads that are set, and what is exported."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from experiments.album_model import data
from vlmkit.experiment.album.names import NAMES

NEEDS_TORCH = "torch is not installed: training needs the parity extra"


def test_every_name_is_one_token_and_part_of_no_other() -> None:
    assert len(set(NAMES)) == len(NAMES) == 160
    assert all(len(data.encode(name)) == 1 for name in NAMES)
    assert not [(a, b) for a in NAMES for b in NAMES if a != b and a in b]


def test_a_batch_is_a_function_of_its_step() -> None:
    for first, again in zip(data.batch_at(3, 7, 2), data.batch_at(3, 7, 2), strict=True):
        np.testing.assert_array_equal(first, again)
    other, same = data.batch_at(3, 8, 2), data.batch_at(3, 7, 2)
    assert not np.array_equal(other.images, same.images)


@pytest.mark.parametrize("step", range(4))
def test_every_answer_is_in_the_album(step: int) -> None:
    batch, words = data.batch_at(0, step, 2), data.tokenizer()
    pictures = data.LEVELS[2][0]
    assert len(batch.images) == pictures * len(batch.tokens)
    for tokens, targets, blocks in zip(batch.tokens, batch.targets, batch.blocks, strict=True):
        said = words.decode([int(t) for t in tokens[blocks == 0]], skip_special_tokens=False)
        notes = {f"{name}:" for name in NAMES if f"{name}:" in said.partition("What")[0]}
        assert len(notes) == data.LEVELS[2][1]
        for place in np.flatnonzero(targets == 2):
            answer = words.decode([int(t) for t in tokens[place - 2 : place + 1]])
            assert answer.replace(" ", "") in said.partition("What")[0].replace(" ", "")


def test_the_longest_album_is_longer_than_a_thousand_tokens() -> None:
    batch = data.batch_at(0, 0, len(data.LEVELS) - 1)
    assert (batch.blocks[0] == 0).sum() > 1000


@pytest.mark.torch
def test_the_heads_that_are_set_look_one_and_two_tokens_back() -> None:
    torch = pytest.importorskip("torch", reason=NEEDS_TORCH)
    from experiments.album_model.model import begun, rotary
    from experiments.shapes_model.export import ASSETS
    from experiments.shapes_model.vision import rotate

    model, batch = begun(ASSETS / "model.safetensors", 0), data.batch_at(1, 0, 1)
    layer, head = model.model.layers[0], model.size.head
    with torch.no_grad():
        x = layer.input_layernorm(model.model.embed_tokens(torch.from_numpy(batch.tokens[:1])))
        cos, sin = rotary(torch.from_numpy(batch.positions[:, :1]))
        keys = rotate(layer.self_attn.k_proj(x)[..., :head], cos[:, 0], sin[:, 0])[0]
        for place, back in enumerate((1, 2)):
            own = layer.self_attn.q_proj(x)[..., place * head : (place + 1) * head]
            scores = rotate(own, cos[:, 0], sin[:, 0])[0] @ keys.T / head**0.5
            hidden = torch.ones_like(scores).triu(1).bool()
            weights = scores.masked_fill(hidden, -torch.inf).softmax(-1)[:100, :100]
            assert torch.diagonal(weights, -back)[2:].mean() > 0.9


@pytest.mark.torch
def test_what_is_exported_gives_the_logits_of_training(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason=NEEDS_TORCH)

    from experiments.album_model.model import begun
    from experiments.shapes_model.export import ASSETS, export, rounded
    from vlmkit import apply_chat_template, load
    from vlmkit.cache import DenseConfig, new_cache
    from vlmkit.engine import Request, prepare_inputs
    from vlmkit.experiment.data.album import AlbumConfig, albums, sample_at
    from vlmkit.passes.embed import embed_prompts
    from vlmkit.passes.prefill import prefill
    from vlmkit.pipeline import PipelineConfig
    from vlmkit.resolve import load_images

    made = rounded(begun(ASSETS / "model.safetensors", 0))
    export(made, tmp_path / "album", data.tokenizer(), made.size, samples=False)
    model, processor = load(str(tmp_path / "album"), dtype="float32")
    config = AlbumConfig(num_samples=1, num_pictures=3, num_notes=4)
    sample = albums(config, Path()).read(0)
    pipeline = PipelineConfig()
    text = apply_chat_template(processor, model.config, sample.question, num_images=3)
    images = load_images(Request("", sample.images), pipeline)
    inputs = prepare_inputs(model, processor, Request(text, images), pipeline)
    book, needle = sample_at(config, 0)
    tokens, places = data.layout(book)
    whole = [*tokens, *data.encode(needle.question + data.TURN_END)]
    assert inputs.token_ids.tolist() == whole
    _, logits = prefill(
        model, embed_prompts(model, [inputs]), new_cache(DenseConfig(), model, 1), step_size=64
    )
    rest = np.tile(places.max() + 1 + np.arange(len(whole) - len(tokens)), (3, 1))
    end = np.zeros(len(whole) + 1, np.int64)
    end[-1] = 3
    batch = data.Batch(
        np.stack([data.draw(picture) for picture in book.pictures]),
        np.array([[*whole, 0]]),
        np.concatenate([places, rest, rest[:, -1:] + 1], 1)[:, None],
        np.zeros((1, len(whole) + 1), np.int64),
        end[None],
    )
    with torch.no_grad():
        wanted, _ = made(batch)
    np.testing.assert_allclose(np.array(logits), wanted.numpy(), rtol=1e-3, atol=2e-3)


@pytest.mark.torch
def test_training_learns_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason=NEEDS_TORCH)
    from experiments.album_model.train import arguments, train

    def run(out: Path, stop: int | None) -> None:
        words = ["--out", str(out), "--steps", "8", "--checkpoint-steps", "4"]
        train(arguments(words + ([] if stop is None else ["--pause-after", str(stop)])))

    run(tmp_path / "whole", None)
    run(tmp_path / "halves", 4)
    run(tmp_path / "halves", None)
    whole, halves = (
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["model"]
        for name in ("whole", "halves")
    )
    for name, weight in whole.items():
        assert torch.equal(weight, halves[name]), name
    lines = [json.loads(x) for x in (tmp_path / "whole" / "log.jsonl").read_text().splitlines()]
    assert lines[1]["loss"] < lines[0]["loss"]
