"""Contrast and search from the command line, as a user writes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import vlmkit
from vlmkit.cli.main import main
from vlmkit.cli.run import load_request
from vlmkit.config.run import load_run

ROOT = Path(vlmkit.__file__).parent.parent
RUN = str(ROOT / "configs" / "runs" / "shapes_thinking.yaml")


def generate(capsys: pytest.CaptureFixture[str], *overrides: str) -> dict[str, Any]:
    assert main(["generate", RUN, "--json", *overrides]) == 0
    reply: dict[str, Any] = json.loads(capsys.readouterr().out)
    return reply


@pytest.mark.parametrize("kind", ["cfg", "vcd", "icd", "m3id", "dola"])
def test_a_contrast_is_one_override(capsys: pytest.CaptureFixture[str], kind: str) -> None:
    result = generate(capsys, f"contrast.kind={kind}")
    assert result["effective"]["pipeline"]["contrast"]["kind"] == kind
    assert result["finish_kind"] == "eos"


def test_a_search_is_two_overrides_and_gives_its_other_answers(
    capsys: pytest.CaptureFixture[str],
) -> None:
    result = generate(capsys, "search.kind=beam", "search.num_beams=3", "search.num_return=3")
    assert result["effective"]["pipeline"]["sampling"] == [], "a greedy stage would decide alone"
    scores = [result["score"], *(other["score"] for other in result["alternatives"])]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    texts = {result["text"], *(other["text"] for other in result["alternatives"])}
    assert len(texts) == 3


@pytest.mark.parametrize("sees_images", [False, True])
def test_a_negative_prompt_is_formatted_like_the_prompt(sees_images: bool) -> None:
    run = load_run(
        RUN,
        overrides=[
            "contrast.kind=cfg",
            "contrast.negative_prompt=Count the circles.",
            f"contrast.negative_images={str(sees_images).lower()}",
        ],
    )
    loaded = load_request(run.config, run.config.prompt)
    contrast = loaded.pipeline.contrast
    assert contrast is not None
    assert contrast.kind == "cfg"
    negative = contrast.negative_prompt
    assert negative is not None
    assert "Count the circles.<|im_end|>" in negative
    assert negative.endswith("<think>") == str(loaded.request.prompt).endswith("<think>")
    assert negative.count("<|image_pad|>") == sees_images


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["search.kind=beam", "search.num_beams=3", "sampling=[{kind: greedy}]"],
            "sampling has a greedy stage",
        ),
        (["search.kind=beam", "search.num_beams=0"], "search.num_beams"),
        (["contrast.kind=pai"], "contrast.kind"),
        (["contrast.kind=contrastive_decoding"], "contrast.amateur"),
        (
            ["contrast.kind=cfg", "contrast.negative_images=true"],
            "negative_images: true needs a negative_prompt",
        ),
        (["stopping=[{kind: time_limit, seconds: 1}]"], "write reproducible: false"),
        (["contrast.kind=vcd", "images=[]"], "image"),
    ],
)
def test_mistakes_are_one_line(
    capsys: pytest.CaptureFixture[str], overrides: list[str], message: str
) -> None:
    assert main(["generate", RUN, *overrides]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
