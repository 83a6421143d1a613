"""The training of the embedded model: it learns, can be stopped, and exports what it learnt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from experiments.shapes_model import data
from vlmkit.experiment.shapes.drawing import render

NEEDS_TORCH = "torch is not installed: training needs the parity extra"


def run_training(out: Path, *extra: str) -> list[dict[str, Any]]:
    """Ten steps on four images each, in this process; the lines of the log."""
    from experiments.shapes_model.train import arguments, train

    fixed = ("--steps", "10", "--batch-size", "4", "--workers", "1", "--evaluate-samples", "4")
    train(arguments(["--out", str(out), *fixed, *extra]))
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


@pytest.mark.torch
def test_ten_steps_of_training_learn_something(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason=NEEDS_TORCH)
    lines = run_training(tmp_path, "--checkpoint-seconds", "0")
    losses = [line["loss"] for line in lines if "loss" in line]
    assert losses[-1] < losses[0]
    assert "thinking" in lines[-1]


@pytest.mark.torch
def test_a_stopped_run_goes_on_as_if_it_had_not_stopped(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason=NEEDS_TORCH)
    run_training(tmp_path / "whole")
    run_training(tmp_path / "halves", "--pause-after", "5")
    run_training(tmp_path / "halves")
    whole, halves = (
        torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)
        for name in ("whole", "halves")
    )
    assert whole["progress"][0] == halves["progress"][0] == 10
    for name, weight in whole["model"].items():
        assert torch.equal(weight, halves["model"][name]), name


@pytest.mark.torch
def test_exported_folder_gives_the_same_logits_in_transformers(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason=NEEDS_TORCH)
    from transformers import Qwen2VLForConditionalGeneration

    from experiments.shapes_model.export import export, rounded
    from experiments.shapes_model.model import ShapesModel, initialise
    from experiments.shapes_model.tokenizer import build

    model = ShapesModel()
    initialise(model, seed=1)
    export(rounded(model), tmp_path / "shapes", build(), model.size)
    theirs = Qwen2VLForConditionalGeneration.from_pretrained(
        tmp_path / "shapes", dtype=torch.float32
    ).eval()
    question = data.question_at(0, 1)
    tokens = torch.tensor([data.prompt_tokens(question.question, thinks=True)])
    image = torch.from_numpy(render(question.scene)[None])
    vision = model.visual
    patches = ((image - vision.mean) / vision.std).view(1, 4, 2, 14, 4, 2, 14, 3)
    patches = patches.permute(0, 1, 4, 2, 5, 7, 3, 6)
    both = patches[:, :, :, :, :, :, None].expand(-1, -1, -1, -1, -1, -1, 2, -1, -1)
    with torch.no_grad():
        hidden, _ = model.hidden(tokens, image)
        ours = model.logits(hidden)
        reference = theirs(
            input_ids=tokens,
            pixel_values=both.reshape(64, -1),
            image_grid_thw=torch.tensor([[1, 8, 8]]),
            mm_token_type_ids=(tokens == theirs.config.image_token_id).int(),
        ).logits
    assert (ours - reference).abs().max() <= 1e-4 * reference.abs().max()
