"""What the README shows is what happens."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

import vlmkit
from vlmkit.cli.main import main
from vlmkit.config.run import load_run
from vlmkit.config.schema import run_schema
from vlmkit.experiment.kv_eval.planning import load_kv_eval

ROOT = Path(vlmkit.__file__).parent.parent
TEXT = (ROOT / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", TEXT, re.DOTALL | re.MULTILINE)


def test_the_python_examples_run(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)
    assert len(blocks("python")) >= 2
    exec("\n".join(blocks("python")), {})
    right = dict(re.findall(r"^(.*): (\d) of 8 right$", capsys.readouterr().out, re.MULTILINE))
    assert int(right.pop("heat, then cut")) < 4
    assert right == {"greedy": "8", "cut, then heat": "8", "vcd": "8"}


def test_every_kind_is_in_the_table() -> None:
    table = "\n".join(line for line in TEXT.splitlines() if line.startswith("|"))
    for definition in run_schema()["$defs"].values():
        kind = definition.get("properties", {}).get("kind", {}).get("const")
        assert kind is None or re.search(rf"\b{kind}\b", table), f"README does not name {kind}"


COMMANDS = re.findall(
    r"^(?:python -m )?vlmkit (.*)$", "\n".join(blocks("sh")).replace("\\\n", ""), re.MULTILINE
)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder like a checkout, in which commands may write."""
    folder = tmp_path_factory.mktemp("checkout")
    for name in ("configs", "experiments", "vlmkit"):
        (folder / name).symlink_to(ROOT / name)
    assert main(["trace", str(ROOT / "configs/runs/shapes_sampling.yaml"), "--out",
                 str(folder / "run.jsonl")]) == 0  # fmt: skip
    return folder


@pytest.mark.parametrize("words", COMMANDS)
def test_the_commands_run(words: str, checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(checkout)
    assert main(shlex.split(words)) == 0


def test_the_stage_of_ones_own_is_the_file_it_names() -> None:
    (example,) = [block for block in blocks("python") if "def top_a" in block]
    assert (ROOT / "experiments" / "own_stage.py").read_text().endswith(example)
    assert len(example.splitlines()) <= 14


def test_the_yaml_example_loads(tmp_path: Path) -> None:
    example, tokens, cache, *_ = blocks("yaml")
    runs = tmp_path / "runs"
    runs.mkdir()
    (runs / "shapes_thinking.yaml").write_text("template: {enable_thinking: true}\n")
    (runs / "example.yaml").write_text(example)
    config = load_run(runs / "example.yaml").config
    assert (config.seed, config.cache.kind, len(config.sampling)) == (3, "affine", 2)
    (runs / "tokens.yaml").write_text("prompt: How many?\n" + tokens)
    assert load_run(runs / "tokens.yaml").config.sampling[0].kind == "dry"
    (runs / "cache.yaml").write_text(cache)
    assert load_run(runs / "cache.yaml").config.cache.kind == "per_layer"


def test_the_experiment_of_the_readme_can_be_planned(
    checkout: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(checkout)
    (checkout / "study.yaml").write_text(blocks("yaml")[3])
    assert main(["plan", "study.yaml"]) == 0
    assert "warm, enable_thinking=false" in capsys.readouterr().out


def test_the_policies_of_the_readme_can_be_evaluated(
    checkout: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(checkout)
    (checkout / "policies.yaml").write_text(blocks("yaml")[4])
    found = load_kv_eval("policies.yaml")
    assert [arm.name for arm in found.arms] == [
        "dense",
        "affine 8",
        "affine 4",
        "window 40",
    ]


def test_every_make_target_named_exists() -> None:
    targets = re.findall(r"^([a-z-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE)
    named = re.findall(r"\bmake\s+([a-z-]+)", TEXT)
    assert set(named) <= set(targets)
    assert {"demo", "test", "test-all", "bench", "lint", "types"} <= set(targets)
