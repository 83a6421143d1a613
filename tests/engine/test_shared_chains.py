"""Rows of one batch under one chain: other temperatures, and histories of other lengths."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

import vlmkit
from tests.engine.running import run_steps, token_ids
from vlmkit import load
from vlmkit.engine import Request, check_requests
from vlmkit.pipeline import PipelineConfig
from vlmkit.prompt_utils import apply_chat_template

IMAGE = str(Path(vlmkit.__file__).parent / "assets" / "shapes" / "samples" / "count_all.png")
QUESTIONS = ["Count the objects.", "Is there a red circle? Look twice.", "Count."]


@pytest.fixture(scope="module")
def shapes() -> tuple[Any, Any]:
    return load("shapes")


def run(shapes: tuple[Any, Any], configs: list[PipelineConfig], batch_size: int) -> list[list[int]]:
    model, processor = shapes
    rows = []
    for config, question in zip(configs, itertools.cycle(QUESTIONS), strict=False):
        prompt = apply_chat_template(
            processor, model.config, question, num_images=1, enable_thinking=True
        )
        rows.append((Request(prompt, (IMAGE,)), config))
    keys = {one.resolved.sampler.key for one in check_requests(model, processor, rows)}
    assert len(keys) == 1, "these rows share a chain"
    return [token_ids(row) for row in run_steps(model, processor, rows, batch_size=batch_size)]


@pytest.mark.parametrize("kind", ["numbers", "whole history"])
def test_rows_under_one_chain_are_the_rows_alone(shapes: tuple[Any, Any], kind: str) -> None:
    configs = []
    for row in range(6):
        history: list[dict[str, Any]] = [
            {"kind": "repetition_penalty", "penalty": 1.2, "context_size": None},
            {"kind": "dry", "multiplier": 0.8, "allowed_length": 1, "context_size": None},
            {"kind": "no_repeat_ngram", "n": 3, "context_size": None},
        ]
        numbers: list[dict[str, Any]] = [
            {"kind": "repetition_penalty", "penalty": 1.1 + row / 4, "context_size": None},
            {"kind": "top_p", "p": 0.9 + row / 100},
            {"kind": "min_p", "p": 0.001 * (row + 1)},
        ]
        stages = history if kind == "whole history" else numbers
        temperature = 3.0 + row if kind == "numbers" else 2.0
        configs.append(
            PipelineConfig(
                sampling=[{"kind": "temperature", "temperature": temperature}, *stages],
                stopping=[{"kind": "max_tokens", "max_tokens": 12 + row}, {"kind": "eos"}],
                seed=row,
            )
        )
    alone = run(shapes, configs, 1)
    assert len({tuple(row) for row in alone}) > 3
    for batch_size in (2, 3, 6):  # below 6, rows leave and join between steps
        assert run(shapes, configs, batch_size) == alone
