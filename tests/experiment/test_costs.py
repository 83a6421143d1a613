"""What a response costs: shared seconds count evenly, memory is that of its own cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.experiment.studies import write_study
from vlmkit.contracts.interface import PromptShape
from vlmkit.experiment.cachesize import cache_sizes
from vlmkit.experiment.compare import compare
from vlmkit.experiment.files import load_experiment
from vlmkit.experiment.loaded import load_group
from vlmkit.experiment.manifest import read_manifest
from vlmkit.experiment.plan import make_plan
from vlmkit.experiment.reading import read_scores
from vlmkit.experiment.reopen import rescore, run_info
from vlmkit.experiment.runner import Run, run_experiment
from vlmkit.experiment.store import RECORDS

STUDY = """
base: {stopping: [{kind: max_tokens, max_tokens: 3}]}
dataset: {kind: shapes, num_samples: 2}
arms:
  greedy: {}
  warm: {sampling: [{kind: temperature, temperature: 3.0}]}
  beam: {search: {kind: beam, num_beams: 2}}
  affine: {cache: {kind: affine, bits: 8, group_size: 32}}
  vcd: {contrast: {kind: vcd}}
  asked: {prompt: "Look closely, please, and take your time for it. {question}"}
seeds: [0, 1]
"""
THINKING = """
base: {template: {enable_thinking: true}, stopping: [{kind: max_tokens, max_tokens: 200}]}
dataset: {kind: shapes, num_samples: 1, kinds: [count all]}
metrics:
  right: {kind: contains, ignore_case: false}
  whole: {kind: contains, after_thinking: false}
arms:
  cut: {stopping: [{kind: max_tokens, max_tokens: 4}]}
  ended: {stopping: [{kind: eos}, {kind: max_tokens, max_tokens: 200}]}
  plain: {template: {enable_thinking: false}, stopping: [{kind: max_tokens, max_tokens: 4}]}
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("study")
    return run_experiment(write_study(folder, STUDY), folder / "run", batch_size=12)


def test_rows_of_one_prompt_take_even_shares_of_its_prefill(run: Run) -> None:
    for sample in ("shapes-0", "shapes-1"):
        seconds: dict[str, set[float]] = {}
        for record in run.records():
            if record.sample == sample:
                seconds.setdefault(record.arm, set()).add(record.prompt_s)
        even = [*seconds["greedy"], *seconds["warm"], *seconds["beam"]]
        np.testing.assert_allclose(even, even[0], rtol=1e-6)
        assert min(map(min, seconds.values())) > 0, "a contrast or a prompt of one's own is free"
        assert min(seconds["vcd"]) > even[0], "what it is contrasted with was computed for it"


def test_by_itself_a_row_pays_for_all(tmp_path: Path) -> None:
    path = write_study(tmp_path, STUDY)
    alone = run_experiment(path, tmp_path / "run", overrides=["limits.samples=1"], share=False)
    records = list(alone.records())
    assert all(record.alone and record.prompt_s > 0 for record in records)
    scores = read_scores(tmp_path / "run" / RECORDS)
    costs = compare([(run_info(tmp_path / "run"), scores)]).arms
    assert [cost.alone for cost in costs] == [2] * 6


def test_the_memory_of_a_response_is_that_of_its_caches(run: Run, tmp_path: Path) -> None:
    sizes = {record.arm: record.cache_bytes for record in run.records()}
    tokens = {r.arm: r.prompt_tokens + r.generation_tokens - 1 for r in run.records()}
    one = sizes["greedy"] / tokens["greedy"]
    assert sizes["warm"] == sizes["greedy"]
    assert sizes["beam"] == 2 * one * tokens["beam"]
    assert sizes["vcd"] == 2 * one * tokens["vcd"]
    assert sizes["asked"] == one * tokens["asked"]
    assert 0 < sizes["affine"] < sizes["greedy"]
    plan = make_plan(load_experiment(write_study(tmp_path, STUDY)))
    loaded = load_group(plan.groups[0], plan.experiment.arms, plan.experiment.seeds)
    prompts = {record.arm: PromptShape(record.prompt_tokens) for record in run.records()}
    for arm, size in cache_sizes(loaded).items():
        name = plan.experiment.arms[arm].name
        assert size(prompts[name], tokens[name]) == sizes[name]


def test_the_manifest_holds_the_cache_as_it_comes_out(run: Run, tmp_path: Path) -> None:
    caches = read_manifest(run.folder).caches
    assert list(caches) == ["greedy", "warm", "beam", "affine", "vcd", "asked"]
    assert caches["greedy"] == caches["beam"]
    assert caches["affine"]["key_bits_per_element"] == 9.0
    assert caches["affine"]["bytes_per_token"] < caches["greedy"]["bytes_per_token"]
    shown = run_info(run.folder).provenance["caches"]
    assert list(shown) == ["greedy, warm, beam, vcd, asked", "affine"]
    path = write_study(tmp_path, STUDY)
    again = run_experiment(path, run.folder)  # nothing is left, so no model is loaded
    assert read_manifest(again.folder).caches == caches


def test_a_response_that_is_cut_while_it_thinks_has_no_answer(tmp_path: Path) -> None:
    run = run_experiment(write_study(tmp_path, THINKING), tmp_path / "run")
    found = {record.arm: record for record in run.records()}
    assert {arm: record.answered for arm, record in found.items()} == {
        "cut": False,
        "ended": True,
        "plain": True,
    }
    assert "</think>" in found["ended"].text
    assert found["cut"].text
    assert "<think>" not in found["cut"].text
    assert found["cut"].scores["right"].value == 0.0
    rescore(tmp_path / "run")
    assert {record.arm: record.scores for record in run.records()} == {
        arm: record.scores for arm, record in found.items()
    }
    costs = compare([(run_info(tmp_path / "run"), read_scores(tmp_path / "run" / RECORDS))]).arms
    assert {cost.arm: cost.unanswered for cost in costs} == {"cut": 1, "ended": 0, "plain": 0}
