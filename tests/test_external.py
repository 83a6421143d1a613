"""Stages of other packages: a really installed one, the same in batches, and every mistake."""

from __future__ import annotations

import functools
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import vlmkit
from tests.engine.running import run_steps, token_ids
from vlmkit import load
from vlmkit.api import stream_pipeline
from vlmkit.cli.main import main
from vlmkit.config.formatting import format_run
from vlmkit.config.run import RunConfig, load_run
from vlmkit.declare.external import External
from vlmkit.engine import Request, collect
from vlmkit.errors import VlmkitError
from vlmkit.prompt_utils import apply_chat_template
from vlmkit.results import GenerationResult
from vlmkit.sampling import build_stage

ROOT = Path(vlmkit.__file__).parent.parent
SOURCE = ROOT / "tests" / "external_package"
MODULE = "tests.external_package.vlmkit_example_stages"
PENALTY = f"{MODULE}.fading_penalty:fading_penalty"
LINES = f"{MODULE}.max_lines:max_lines"

# Almost any token can be drawn, whatever the model has learnt, but none of them twice.
RUN = """\
prompt: Count the objects.
images: [{image}]
template: {{enable_thinking: true}}
sampling:
  - {{kind: external, factory: {penalty}, config: {{strength: 1.0e+4, decay: 0.99}}}}
  - {{kind: temperature, temperature: 50.0}}
stopping:
  - {{kind: max_tokens, max_tokens: 60}}
  - {{kind: external, factory: {lines}, config: {{num_lines: 10, newline: " "}}}}
seed: 3
"""


def write_run(folder: Path, penalty: str, lines: str) -> Path:
    image = ROOT / "vlmkit" / "assets" / "shapes" / "samples" / "count_all.png"
    path = folder / "run.yaml"
    path.write_text(RUN.format(image=image, penalty=penalty, lines=lines))
    return path


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder into which pip has installed the example package."""
    folder = tmp_path_factory.mktemp("external")
    source = shutil.copytree(SOURCE, folder / "source")  # a build writes beside its source
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    options = ["--no-index", "--no-deps", "--no-build-isolation", "--target", str(folder / "site")]
    reply = subprocess.run(
        [*pip, *options, str(source)], capture_output=True, text=True, check=False
    )
    assert reply.returncode == 0, reply.stderr
    return folder / "site"


def vlmkit_command(site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join([str(site), str(ROOT)])
    return subprocess.run(
        [sys.executable, "-m", "vlmkit", *words],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        cwd=site,
        check=False,
    )


def test_an_installed_package_runs_by_the_names_of_its_entry_points(
    site: Path, tmp_path: Path
) -> None:
    path = write_run(tmp_path, "fading_penalty", "max_lines")
    reply = vlmkit_command(site, "generate", str(path), "--json")
    assert (reply.returncode, reply.stderr) == (0, "")
    result = json.loads(reply.stdout)
    assert result["finish_kind"] == "max_lines"
    assert result["text"].count(" ") == 9
    assert result["effective"]["pipeline"]["sampling"][0] == {
        "kind": "external",
        "factory": "fading_penalty",
        "config": {"strength": 1e4, "decay": 0.99},
    }
    same = load_run(write_run(tmp_path, PENALTY, LINES), trust_code=True).config
    assert result["token_ids"] == generate([same])[0]
    plain = same.model_copy(update={"sampling": same.sampling[1:]})
    assert result["token_ids"] != generate([plain])[0], "the stage does nothing"
    assert len(set(result["token_ids"])) == len(result["token_ids"]) >= 9, "a token came twice"


METHODS = {
    "cache": ("sunk_window", "{first: 2, last: 9}"),
    "contrast": ("half_prompt", "{weight: 3.0}"),
    "search": ("likeliest_path", "{scale: 2.0}"),
}


@pytest.mark.parametrize("section", METHODS)
def test_an_installed_method_runs_by_the_name_of_its_entry_point(
    section: str, site: Path, tmp_path: Path
) -> None:
    name, arguments = METHODS[section]
    image = ROOT / "vlmkit" / "assets" / "shapes" / "samples" / "describe.png"
    path = tmp_path / "run.yaml"
    text = f"prompt: Describe this image.\nimages: [{image}]\n"
    method = f"{section}: {{kind: external, factory: FACTORY, config: {arguments}}}\n"
    path.write_text(text + method.replace("FACTORY", name))
    reply = vlmkit_command(site, "generate", str(path), "--json")
    assert reply.returncode == 0
    result = json.loads(reply.stdout)
    assert result["effective"]["pipeline"][section]["factory"] == name
    cache = result["effective"]["cache"]
    dropped = f"{result['prompt_tokens'] - 11} of {result['prompt_tokens']} prompt tokens"
    assert reply.stderr == (
        f"vlmkit: warning: the KV cache dropped {dropped}; a cache of kind dense keeps them\n"
        if section == "cache"
        else ""
    )
    path.write_text(text + method.replace("FACTORY", f"'{MODULE}.{name}:{name}'"))
    same = answer(load_run(path, trust_code=True).config)
    assert (result["token_ids"], result["score"]) == (same.token_ids, same.score)
    path.write_text(text)
    plain = answer(load_run(path).config)
    # The one path of likeliest tokens is the greedy answer, and has a score.
    assert (result["token_ids"] == plain.token_ids) == (section == "search")
    assert (result["score"] is None) == (section != "search")
    if section == "cache":
        assert (cache["held_tokens"], cache["quantized_tokens"]) == (11, 11)
        assert cache["dropped_prompt_tokens"] == result["prompt_tokens"] - 2 - max(
            0, 9 - (result["generation_tokens"] - 1)
        )


def answer(config: RunConfig) -> GenerationResult:
    """What a run says."""
    model, processor = load_shapes()
    prompt, pipeline = format_run(processor, config)
    return collect(stream_pipeline(model, processor, Request(prompt, config.images), pipeline))


def test_a_misspelt_entry_point_lists_the_installed_ones(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(site)
    message = (
        r"run\.yaml:5: sampling\.0: external: factory 'fading_penality': no such entry point in "
        r"the group 'vlmkit\.sampling'; did you mean 'fading_penalty'\? \(installed: "
        r"fading_penalty\); or write package\.module:function$"
    )
    with pytest.raises(VlmkitError, match=message):
        load_run(write_run(tmp_path, "fading_penality", "max_lines"))
    message = r"run\.yaml:9: stopping\.1: .* group 'vlmkit\.stopping' \(installed: max_lines\)"
    with pytest.raises(VlmkitError, match=message):
        load_run(write_run(tmp_path, "fading_penalty", "fading_penalty"))


def test_two_packages_with_one_name_are_refused(
    site: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "other_stages-1.0.dist-info"
    other.mkdir()
    (other / "METADATA").write_text("Metadata-Version: 2.1\nName: other-stages\nVersion: 1.0\n")
    (other / "entry_points.txt").write_text("[vlmkit.sampling]\nfading_penalty = other:penalty\n")
    monkeypatch.syspath_prepend(site)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(VlmkitError, match="several packages offer it; write one of other:penalty"):
        build_stage(External(factory="fading_penalty"))


@functools.cache
def load_shapes() -> tuple[Any, Any]:
    return load("shapes")


def generate(configs: Sequence[RunConfig], *, batch_size: int = 1) -> list[list[int]]:
    """Token ids per config; the prompts differ in length."""
    model, processor = load_shapes()
    questions = itertools.cycle(["Count the objects.", "Is there a red circle?", "Count."])
    rows = []
    for config, question in zip(configs, questions, strict=False):
        prompt = apply_chat_template(
            processor, model.config, question, num_images=1, enable_thinking=True
        )
        rows.append((Request(prompt, config.images), config))
    return [token_ids(row) for row in run_steps(model, processor, rows, batch_size=batch_size)]


def test_rows_of_a_batch_are_the_rows_alone(tmp_path: Path) -> None:
    base = load_run(write_run(tmp_path, PENALTY, LINES), trust_code=True).config
    weak = External(factory=PENALTY, config={"strength": 0.5})
    long = External(factory=LINES, config={"num_lines": 14, "newline": " "})
    configs = [
        base,
        base.model_copy(update={"sampling": base.sampling[1:]}),
        base.model_copy(update={"stopping": (base.stopping[0], long)}),
        base.model_copy(update={"sampling": (weak, *base.sampling[1:]), "seed": 4}),
        base.model_copy(update={"seed": 5}),
    ]
    alone = generate(configs, batch_size=1)
    assert len({tuple(row) for row in alone[1:]}) == 4, "the configs make no difference"
    for batch_size in (2, 5):  # with 2, rows leave and join between steps
        assert generate(configs, batch_size=batch_size) == alone


def test_a_mistake_shows_before_a_model_is_loaded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write_run(tmp_path, f"{MODULE}.fading_penalty:fading_penality", LINES)
    for command in ("generate", "describe"):
        assert main([command, str(path), "model=no/such/model", "--trust-code"]) == 2
        message = capsys.readouterr().err
        assert message.startswith(f"vlmkit: error: {path}:5: sampling.0: external: factory ")
        assert "has no 'fading_penality'; did you mean 'fading_penalty'?" in message
        assert message.count("\n") == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-2, 2) | st.text("ab", max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("ab"), inner, max_size=3),
    max_leaves=6,
)


@given(values=st.dictionaries(st.text("ab"), JSON, max_size=3))
def test_any_arguments_survive_json_and_have_a_hash(values: dict[str, Any]) -> None:
    config = External(factory="a:b", config=values)
    again = External.model_validate_json(config.model_dump_json())
    assert again == config
    assert hash(again) == hash(config)
    assert External(factory="a:b", config={"x": 1}) == External(factory="a:b", config={"x": 1.0})
    assert len({External(factory="a:b", config={"x": x}) for x in (1, 1.0, True)}) == 1


def test_an_installed_metric_scores(site: Path) -> None:
    script = (
        "from vlmkit.experiment.scoring import ExternalScorerConfig, Sample, make_scorer\n"
        "config = ExternalScorerConfig(factory='max_words', config={'num_words': 2})\n"
        "print(make_scorer(config).score(Sample('1', '?'), 'two words').value)\n"
    )
    path = os.pathsep.join([str(site), str(ROOT)])
    reply = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
        cwd=site,
        check=False,
    )
    assert (reply.stdout, reply.stderr) == ("1.0\n", "")
