"""Checkpoints with sliding windows or recurrent state, from the folder to the text."""

from __future__ import annotations

import json
from itertools import islice
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mlx.utils import tree_flatten
from mlx_lm.generate import generate_step
from mlx_lm.utils import load_model as load_with_mlx_lm

from tests.loading.three_ways import complete, edit, refusal
from tests.models.text_models import WINDOW, config
from vlmkit import batch_generate, generate, load
from vlmkit.batch import batch_pipeline
from vlmkit.cli.main import main
from vlmkit.engine import Request
from vlmkit.models.lm_build import build_lm
from vlmkit.pipeline import PipelineConfig
from vlmkit.prompts import PromptCache

NUM_TOKENS = 12
PROMPTS = ["w3 w1 w4", " ".join(f"w{n}" for n in (2, 7, 1, 8, 2, 8, 1, 8, 2, 8, 4, 5, 9)), "w6"]
NAMES = ["gemma3_text", "lfm2", "qwen3_next", "recurrent_gemma"]
HEAD_DIM = 32


def write(folder: Path, name: str) -> Path:
    complete(folder)
    values = config(
        name, vocab_size=64, head_dim=HEAD_DIM, hidden_size=128, block_dim=128, eos_token_id=[57]
    )
    rng = np.random.default_rng(0)
    weights = {
        path: mx.array(rng.standard_normal(value.shape, dtype=np.float32) / 4)
        for path, value in tree_flatten(build_lm(values).parameters())
    }
    mx.save_safetensors(str(folder / "model.safetensors"), weights)
    (folder / "config.json").write_text(json.dumps(values))
    return folder


@pytest.fixture(scope="module", params=NAMES)
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("checkpoint") / request.param, request.param)


@pytest.fixture(scope="module")
def loaded(folder: Path) -> tuple[Any, Any]:
    return load(str(folder), dtype="float32")


def by_mlx_lm(folder: Path, ids: list[int]) -> list[int]:
    """What mlx-lm generates greedily, up to the end-of-sequence token."""
    theirs, _ = load_with_mlx_lm(folder)
    tokens = []
    for token, _ in islice(generate_step(mx.array(ids), theirs), NUM_TOKENS):
        tokens.append(int(token))
        if tokens[-1] == 57:
            break
    return tokens


def test_greedy_tokens_are_those_of_mlx_lm(folder: Path, loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    expected = [by_mlx_lm(folder, processor.encode(prompt)) for prompt in PROMPTS]
    assert max(len(tokens) for tokens in expected) > WINDOW
    for step_size in (2, 2048):
        options: dict[str, Any] = {"max_tokens": NUM_TOKENS, "prefill_step_size": step_size}
        alone = [generate(model, processor, prompt, **options) for prompt in PROMPTS]
        assert [result.token_ids for result in alone] == expected
        for size in (2, 16):  # with two in flight, the third joins rows that run
            batch = batch_generate(model, processor, prompts=PROMPTS, batch_size=size, **options)
            assert [result.token_ids for result in batch.results or ()] == expected


def test_branches_and_searches_are_those_of_single_runs(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    stopping = [{"kind": "max_tokens", "max_tokens": 6}, {"kind": "eos"}]
    seeds = [
        PipelineConfig(
            stopping=stopping, sampling=[{"kind": "temperature", "temperature": 1.0}], seed=seed
        )
        for seed in (1, 2, 3)
    ]
    others = [
        PipelineConfig(stopping=stopping, search={"kind": "beam", "num_beams": 3}),
        PipelineConfig(stopping=stopping, search={"kind": "contrastive_search", "top_k": 3}),
        PipelineConfig(stopping=stopping, contrast={"kind": "cfg", "scale": 1.5}),
    ]
    rows = [(Request(prompt), one) for prompt in PROMPTS[:2] for one in (*seeds, *others)]
    together = batch_pipeline(model, processor, rows).results or []
    for row, result in zip(rows, together, strict=True):
        [alone] = batch_pipeline(model, processor, [row]).results or []
        assert result.token_ids == alone.token_ids


def test_a_prompt_cache_serves_what_goes_on_and_nothing_else(loaded: tuple[Any, Any]) -> None:
    model, processor = loaded
    held = PromptCache()
    first = PROMPTS[1]
    for prompt in (first, f"{first} w5 w5", f"{' '.join(first.split()[:-2])} w9 w9 w9"):
        expected = generate(model, processor, prompt, max_tokens=6).token_ids
        result = generate(model, processor, prompt, max_tokens=6, prompt_cache=held)
        assert result.token_ids == expected
        if prompt == f"{first} w5 w5":
            assert result.cached_tokens >= 13


@pytest.mark.parametrize(
    "cache",
    [
        {"kind": "dense"},
        {"kind": "rotating", "max_size": 64, "keep": 0},
        {"kind": "affine", "bits": 8, "group_size": 32},
    ],
    ids=lambda cache: cache["kind"],
)
def test_cache_policies_apply_to_attention_layers(
    loaded: tuple[Any, Any], cache: dict[str, Any]
) -> None:
    model, processor = loaded
    pipeline = PipelineConfig(cache=cache, stopping=[{"kind": "max_tokens", "max_tokens": 4}])
    [result] = batch_pipeline(model, processor, [(Request(PROMPTS[1]), pipeline)]).results or []
    assert result.effective is not None
    facts = result.effective["cache"]
    sliding = [n for n, one in enumerate(model.layer_specs) if getattr(one, "window", None)]
    recurrent = [n for n, one in enumerate(model.layer_specs) if hasattr(one, "arrays")]
    assert facts["kind"] == cache["kind"]
    assert facts.get("sliding_windows", {}) == ({str(WINDOW): sliding} if sliding else {})
    assert facts.get("recurrent_layers", []) == recurrent
    if cache["kind"] != "affine":
        assert result.token_ids == generate(model, processor, PROMPTS[1], max_tokens=4).token_ids


def test_the_command_line_runs_them(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    argv = ["generate", "--model", str(folder), "--prompt", PROMPTS[1], "--max-tokens", "3"]
    assert main([*argv, "--kv-bits", "8", "--kv-group-size", "32"]) == 0
    assert capsys.readouterr().out.strip()


def test_what_no_cache_can_hold_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path / "model", "llama_sliding")
    edit(folder / "config.json", sliding_window=None)
    message = refusal(folder, capsys)
    assert "'llama' is not supported: its sliding window is None" in message
