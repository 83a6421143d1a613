"""``sampling: checkpoint``: what generation_config.json recommends, in runs, calls and batches."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import vlmkit
from tests.cli.reply import Command
from vlmkit import batch_generate, generate, load
from vlmkit.api import stream_pipeline
from vlmkit.cli.main import main
from vlmkit.config.describe import describe_run
from vlmkit.config.recommended import checkpoint_sampling
from vlmkit.config.run import load_run
from vlmkit.config.tree import format_path
from vlmkit.engine import Request, collect
from vlmkit.errors import VlmkitError
from vlmkit.pipeline import PipelineConfig

SHAPES = Path(vlmkit.__file__).parent / "assets" / "shapes"
PRESET = SHAPES.parents[2] / "configs" / "sampling" / "presets" / "transformers.yaml"
QWEN = {"do_sample": True, "temperature": 0.1, "top_k": 1, "top_p": 0.001}
GREEDY = {"kind": "greedy"}
TOP_50 = {"kind": "top_k", "k": 50, "ties": "all"}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """The embedded model in a folder of its own, without a recommendation."""
    folder = tmp_path / "model"
    shutil.copytree(SHAPES, folder, ignore=shutil.ignore_patterns("samples"))
    (folder / "generation_config.json").unlink()
    return folder


def recommend(folder: Path, values: Any) -> Path:
    path = folder / "generation_config.json"
    path.write_text(values if isinstance(values, str) else json.dumps(values))
    return path


def run_file(folder: Path, text: str = "") -> Path:
    path = folder.parent / "run.yaml"
    path.write_text(f"model: ./{folder.name}\nprompt: Hi\nsampling: checkpoint\n{text}")
    return path


@pytest.mark.parametrize(
    ("values", "stages"),
    [
        ({}, [GREEDY]),
        ({"do_sample": False, "temperature": 0.7, "top_p": 0.5}, [GREEDY]),
        ({"temperature": 0.7}, [GREEDY]),  # transformers samples only where do_sample says so
        ({"do_sample": True}, [TOP_50]),
        ({"do_sample": True, "top_k": None, "top_p": None, "min_p": None}, [TOP_50]),
        ({"do_sample": True, "top_k": 0, "temperature": 1}, []),
        (
            QWEN,
            [
                {"kind": "temperature", "temperature": 0.1},
                {"kind": "top_k", "k": 1, "ties": "all"},
                {"kind": "top_p", "p": 0.001},
            ],
        ),
        (
            {"repetition_penalty": 1.05, "no_repeat_ngram_size": 3, "suppress_tokens": [5]},
            [
                {"kind": "repetition_penalty", "penalty": 1.05, "context_size": None},
                {"kind": "no_repeat_ngram", "n": 3, "context_size": None},
                {"kind": "suppress_tokens", "token_ids": [5]},
                GREEDY,
            ],
        ),
        (
            {"min_new_tokens": 4, "eos_token_id": 627, "begin_suppress_tokens": [7, 8]},
            [
                {"kind": "min_new_tokens", "num_tokens": 4, "token_ids": [627]},
                {"kind": "min_new_tokens", "num_tokens": 1, "token_ids": [7, 8]},
                GREEDY,
            ],
        ),
        ({"min_new_tokens": 4}, [GREEDY]),  # without an end token nothing is held back
        (
            {"do_sample": True, "top_k": 0, "epsilon_cutoff": 3e-4, "eta_cutoff": 6e-4},
            [
                {"kind": "epsilon_cutoff", "epsilon": 3e-4},
                {"kind": "eta_cutoff", "epsilon": 6e-4},
            ],
        ),
        (
            {"guidance_scale": 1.0, "min_length": 0, "num_beams": 1, "bad_words_ids": None},
            [GREEDY],
        ),
    ],
    ids=str,
)
def test_the_file_becomes_a_chain(checkpoint: Path, values: Any, stages: list[Any]) -> None:
    recommend(checkpoint, values)
    expected = PipelineConfig(sampling=stages).sampling
    assert checkpoint_sampling(load(str(checkpoint))[1]) == expected
    assert load_run(run_file(checkpoint)).config.sampling == expected
    by_override = load_run(overrides=[f"model={checkpoint}", "sampling=checkpoint"])
    assert by_override.config.sampling == expected


def test_the_order_is_that_of_the_preset(checkpoint: Path) -> None:
    every = {**QWEN, "typical_p": 0.9, "min_p": 0.1, "top_h": 0.5, "eta_cutoff": 1e-3}
    every |= {"epsilon_cutoff": 1e-3, "suppress_tokens": [1], "min_new_tokens": 1}
    every |= {"no_repeat_ngram_size": 4, "repetition_penalty": 1.1, "eos_token_id": [627]}
    recommend(checkpoint, dict(sorted(every.items())))
    kinds = [stage.kind for stage in load_run(run_file(checkpoint)).config.sampling]
    preset = load_run(PRESET).config.sampling
    assert kinds == [stage.kind for stage in preset if stage.kind != "logit_bias"]
    ties = {stage.kind: stage.ties for stage in preset if stage.kind in ("top_k", "typical_p")}
    assert ties == {"top_k": "all", "typical_p": "all"}


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"do_sample": "yes"}, "do_sample: must be true or false, got 'yes'"),
        ({**QWEN, "temperature": 0}, "temperature: sampling.0.temperature: must be greater than"),
        ({**QWEN, "temperature": "hot"}, "temperature: sampling.0.temperature: must be a number"),
        ({**QWEN, "temperature": True}, "temperature: sampling.0.temperature: needs a number"),
        ({**QWEN, "top_k": 2.5}, "top_k: sampling.1.k: must be a whole number"),
        ({**QWEN, "top_k": -1}, "top_k: sampling.1.k: must be at least 1, got -1"),
        ({**QWEN, "top_p": 1.5}, "top_p: sampling.2.p: must be greater than 0.0 and at most 1.0"),
        ({**QWEN, "min_p": [1]}, "min_p: sampling.3.p: must be a number"),
        ({"repetition_penalty": -1}, "repetition_penalty: sampling.0.penalty: must be greater"),
        ({"no_repeat_ngram_size": 1}, "no_repeat_ngram_size: sampling.0.n: must be at least 2"),
        ({"suppress_tokens": "x"}, "suppress_tokens: sampling.0.token_ids: must be a list"),
        ({"bad_words_ids": [[5]]}, "bad_words_ids: [[5]] has no stage here; list the stages"),
        ({"num_beams": 4}, "num_beams: 4 has no stage here; give a search of your own"),
        ([1], "needs a JSON object, not list"),
        ('{"do_sample": tr', "not valid JSON"),
    ],
    ids=str,
)
def test_a_bad_value_names_file_and_key(
    checkpoint: Path, capsys: pytest.CaptureFixture[str], values: Any, message: str
) -> None:
    processor = load(str(checkpoint))[1]  # the file is read again where it is asked for
    path = recommend(checkpoint, values)
    with pytest.raises(VlmkitError) as in_python:
        checkpoint_sampling(processor)
    with pytest.raises(VlmkitError) as in_yaml:
        load_run(run_file(checkpoint))
    assert main(["describe", str(run_file(checkpoint))]) == 2
    output = capsys.readouterr()
    for shown in (str(in_python.value), str(in_yaml.value), output.err.rstrip("\n")):
        assert f"{path}: {message}" in shown
        assert "\n" not in shown
    assert output.out == ""
    assert main(["describe", "--model", str(checkpoint)]) == 0, "who asks for greedy gets it"
    assert f"own sampling cannot be used: {path}: {message}" in capsys.readouterr().out


def test_a_checkpoint_without_the_file_recommends_nothing(checkpoint: Path) -> None:
    message = "no generation_config.json, so it recommends no sampling; leave sampling out"
    with pytest.raises(VlmkitError, match=f"run.yaml:3: sampling: .*{message}"):
        load_run(run_file(checkpoint))
    with pytest.raises(VlmkitError, match=message):
        generate(*load(str(checkpoint)), "Hi", sampling="checkpoint")


def test_describe_shows_file_and_key(checkpoint: Path, command: Command) -> None:
    path = recommend(checkpoint, {"do_sample": True, "temperature": 0.7})
    run = load_run(run_file(checkpoint), flags={"temperature": 0.5}, overrides=["sampling.1.k=9"])
    shown = {format_path(item.path): (item.value, str(item.origin)) for item in describe_run(run)}
    assert shown["sampling.0.kind"] == ("temperature", f"{path}: temperature")
    assert shown["sampling.0.temperature"] == (0.5, "--temperature")
    assert shown["sampling.1.kind"] == ("top_k", f"{path}: top_k (transformers' default)")
    assert shown["sampling.1.k"] == (9, "sampling.1.k=9")
    note = "the checkpoint recommends temperature, top_k; take it with sampling: checkpoint"
    lines = command("describe", "--model", str(checkpoint)).stdout.splitlines()
    assert f"sampling  ({note})" in lines
    words = ["describe", "--model", str(checkpoint), "--json"]
    assert json.loads(command(*words).stdout)["notes"] == [note]
    assert "recommends" not in command("describe", str(run_file(checkpoint))).stdout
    assert "recommends" not in command("describe").stdout, "shapes recommends what is the default"


def test_a_search_has_no_argmax(checkpoint: Path) -> None:
    recommend(checkpoint, {"repetition_penalty": 1.1, "num_beams": 4})
    config = load_run(run_file(checkpoint, "search: {kind: beam, num_beams: 2}")).config
    assert [stage.kind for stage in config.sampling] == ["repetition_penalty"]
    override = ["search={kind: beam, num_beams: 2}"]
    assert load_run(run_file(checkpoint), overrides=override).config.sampling == config.sampling
    processor = load(str(checkpoint))[1]
    assert checkpoint_sampling(processor, search=True) == config.sampling


def test_a_call_and_a_batch_take_it_row_by_row(checkpoint: Path, command: Command) -> None:
    recommend(checkpoint, {"do_sample": True, "temperature": 3.0})
    model, processor = load(str(checkpoint))
    own = PipelineConfig(
        sampling=checkpoint_sampling(processor),
        stopping=[{"kind": "max_tokens", "max_tokens": 8}, {"kind": "eos"}],
        seed=5,
    )
    stages = collect(stream_pipeline(model, processor, Request("Hi"), own))
    asked = generate(model, processor, "Hi", max_tokens=8, seed=5, sampling="checkpoint")
    plain = generate(model, processor, "Hi", max_tokens=8, seed=5)
    assert asked.token_ids == stages.token_ids != plain.token_ids
    assert asked.effective is not None
    assert [stage["kind"] for stage in asked.effective["pipeline"]["sampling"]] == [
        "temperature",
        "top_k",
    ]
    rows = batch_generate(
        model, processor, prompts=["Hi"] * 2, max_tokens=8, seed=5, sampling=["checkpoint", None]
    )
    assert [row.token_ids for row in rows.results] == [asked.token_ids, plain.token_ids]
    text = "template: {apply: false}\nseed: 5\n" + "stopping: [{kind: max_tokens, max_tokens: 8}]\n"
    path = run_file(checkpoint, text.replace("}]", "}, {kind: eos}]"))
    assert command("generate", str(path)).stdout == asked.text + "\n"


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"sampling": "chekpoint"}, r"sampling must be 'checkpoint', got 'chekpoint'; give a list"),
        (
            {"sampling": "checkpoint", "top_p": 0.5, "temperature": 1.0},
            "leave out temperature",
        ),
        ({"samplin": "checkpoint"}, "did you mean 'sampling'"),
    ],
    ids=str,
)
def test_wrong_parameters(params: dict[str, Any], message: str) -> None:
    with pytest.raises(VlmkitError, match=message):
        generate(*load("shapes"), "Hi", **params)


def test_wrong_text_in_a_run_or_a_config() -> None:
    with pytest.raises(VlmkitError, match="sampling=chekpoint: sampling: must be a list"):
        load_run(overrides=["sampling=chekpoint"])
    with pytest.raises(ValueError, match=r"checkpoint_sampling\(processor\)"):
        PipelineConfig(sampling="checkpoint")


def test_of_a_hub_checkpoint_one_file_is_fetched(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recommend(checkpoint, QWEN)
    asked: list[Any] = []

    def download(hub_id: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        asked.append((hub_id, revision, allow_patterns))
        return str(checkpoint)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    overrides = ["model=some/model", "revision=v2", "sampling=checkpoint"]
    assert len(load_run(overrides=overrides).config.sampling) == 3
    assert asked == [("some/model", "v2", ["generation_config.json"])]
