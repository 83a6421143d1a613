"""A file's wish imports nothing: not from the current folder, not from a run directory."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import vlmkit
from tests.experiment.studies import write_study
from vlmkit.cli.main import main
from vlmkit.experiment.provenance import code_hash
from vlmkit.experiment.runner import run_experiment

ROOT = Path(vlmkit.__file__).parent.parent
TOUCH = "from pathlib import Path\n(Path(__file__).parent / 'imported').touch()\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as others may send it: a config, and modules that it would like to be run."""
    for name in ("yaml", "numpy", "own_module"):
        (tmp_path / f"{name}.py").write_text(TOUCH)
    info = tmp_path / "own_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: own_package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[vlmkit.sampling]\nown_stage = own_module:stage\n")
    (tmp_path / "run.yaml").write_text("sampling: [{kind: external, factory: own_stage}]\n")
    return tmp_path


def test_nothing_comes_from_the_current_folder(folder: Path) -> None:
    reply = subprocess.run(
        [sys.executable, "-m", "vlmkit", "describe", "run.yaml"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (reply.returncode, reply.stdout) == (2, "")
    assert "factory 'own_stage': no such entry point" in reply.stderr
    assert reply.stderr.count("\n") == 1
    assert not (folder / "imported").exists()


def test_sources_are_found_without_importing_their_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "vlmkit_touching_package"
    package.mkdir()
    (package / "__init__.py").write_text(TOUCH)
    (package / "stage.py").write_text("one = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    config = {"factory": "vlmkit_touching_package.stage:make"}
    first = code_hash([config])
    (package / "stage.py").write_text("one = 22\n")
    importlib.invalidate_caches()
    assert code_hash([config]) != first != code_hash([])
    assert not (package / "imported").exists()


def test_a_run_directory_runs_no_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = write_study(tmp_path, "dataset: {kind: shapes, num_samples: 1}")
    overrides = ["stopping=[{kind: max_tokens, max_tokens: 1}]"]
    run = run_experiment(study, tmp_path / "run", overrides=overrides)
    path = run.folder / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["metrics"] = {"own": {"kind": "external", "factory": "os:abort", "config": {}}}
    path.write_text(json.dumps(manifest))
    for words in (["report"], ["compare"], ["rescore"], ["export", "--format", "every-eval-ever"]):
        assert main([words[0], str(run.folder), *words[1:]]) == 2
        error = capsys.readouterr().err
        assert "metrics.own.factory: 'os:abort' names code to run" in error
        assert error.count("\n") == 1
