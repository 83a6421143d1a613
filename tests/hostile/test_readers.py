"""What is no file, or too large a one, is refused at once, wherever a file is read."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.experiment.studies import write_study
from tests.hostile.limited import Call, Outcome, is_one_line, message_of, run_limited
from vlmkit.declare.packaged import ASSETS
from vlmkit.errors import VlmkitError
from vlmkit.experiment.manifest import read_manifest
from vlmkit.experiment.reading import read_records, read_scores
from vlmkit.experiment.runner import run_experiment

IMPORTS = (
    *("vlmkit.cli.main", "vlmkit.cli.generate", "vlmkit.cli.tracing", "vlmkit.cli.run"),
    *("vlmkit.experiment.runner", "vlmkit.experiment.reporting", "vlmkit.api", "vlmkit.config.run"),
    *("vlmkit.cli.compare", "vlmkit.cli.report", "vlmkit.cli.experiment", "vlmkit.engine"),
    *("vlmkit.config.formatting", "vlmkit.preprocess.fetch", "vlmkit.loading"),
)


def sparse(path: Path) -> None:
    path.touch()
    os.truncate(path, 10**11)


DEVICE = "device|regular|symbolic link|no such file|config.json"
KINDS: dict[str, tuple[Callable[[Path], object], str]] = {
    "pipe": (os.mkfifo, "pipe|regular|config.json"),
    "zero": (
        lambda path: path.symlink_to("/dev/zero"),
        "device|regular|symbolic link|no such file|config.json",
    ),
    "folder": (Path.mkdir, "folder|directory|no such file|does not exist|no run directory"),
    "huge": (sparse, "larger than|more than|not a Parquet file"),
}


UNUSED = ("model", "config")  # of what is read


def command(*words: object) -> Call:
    return Call("vlmkit.cli.main:main", ([str(word) for word in words],))


def build(folder: Path, make: Callable[[Path], object], run: Path) -> dict[str, Call]:
    """A call per reader, each of a file that is none."""
    file = folder / "file.yaml"
    make(file)
    for suffix in ("png", "jsonl", "tsv", "json", "parquet"):
        (folder / f"file.{suffix}").symlink_to("file.yaml")
    (folder / "include.yaml").write_text("include: file.yaml\n")
    (folder / "base.yaml").write_text("base: file.yaml\ndataset: {kind: shapes}\n")
    data = {
        "jsonl": "{kind: jsonl, path: file.jsonl}",
        "tsv": "{kind: tsv, path: file.tsv}",
        "parquet": "{kind: parquet, path: file.parquet}",
        "answers": "{kind: images, path: images, question: x, answers: file.json}",
    }
    (folder / "images").mkdir()
    shutil.copy(ASSETS / "shapes" / "samples" / "sum.png", folder / "images")
    for name, text in data.items():
        (folder / f"{name}.study.yaml").write_text(f"dataset: {text}\n")
    run_folders = {}
    for name in ("manifest.json", "records.jsonl", "lock"):
        run_folders[name] = folder / f"run-{name}"
        shutil.copytree(run, run_folders[name])
        (run_folders[name] / name).unlink(missing_ok=True)
        make(run_folders[name] / name)
    models = {}
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        models[name] = folder / f"model-{name}"
        shutil.copytree(ASSETS / "shapes", models[name], ignore=shutil.ignore_patterns("samples"))
        (models[name] / name).unlink(missing_ok=True)
        make(models[name] / name)
    return {
        "config": command("describe", file),
        "include": command("describe", folder / "include.yaml"),
        "base": command("plan", folder / "base.yaml"),
        "saved trace": command("trace", "--from", file),
        "image": Call("vlmkit.preprocess:load_image", (str(folder / "file.png"),)),
        **{f"data set {name}": command("plan", folder / f"{name}.study.yaml") for name in data},
        "manifest": command("compare", run_folders["manifest.json"]),
        "records": command("compare", run_folders["records.jsonl"]),
        "lock": command("rescore", run_folders["lock"]),
        **{f"checkpoint {name}": command("generate", "--model", models[name], "--prompt", "x")
           for name in models},
        "prompts": Call("vlmkit.prompts.disk:read_prompts", (file,), dict.fromkeys(UNUSED)),
    }  # fmt: skip


# A folder in place of an optional file is as if there were none; a lock's contents are not read.
FINE = {
    ("folder", "checkpoint tokenizer_config.json"),
    ("folder", "checkpoint chat_template.jinja"),
    ("huge", "lock"),
    ("huge", "prompts"),
}


def outcomes(root: Path) -> dict[tuple[str, str], Outcome]:
    study = write_study(root, "dataset: {kind: shapes, num_samples: 1}")
    overrides = ["stopping=[{kind: max_tokens, max_tokens: 1}]"]
    run = run_experiment(study, root / "run", overrides=overrides).folder
    calls: dict[tuple[str, str], Call] = {}
    for kind, (make, _) in KINDS.items():
        (root / kind).mkdir()
        calls |= {(kind, name): call for name, call in build(root / kind, make, run).items()}
    del calls["folder", "checkpoint tokenizer.json"]  # asks transformers, which takes seconds
    found = run_limited(list(calls.values()), imports=IMPORTS)
    return dict(zip(calls, found, strict=True))


def test_only_files_are_read(tmp_path: Path) -> None:
    for (kind, name), outcome in outcomes(tmp_path).items():
        assert outcome.is_lawful(), (kind, name, outcome)
        if (kind, name) not in FINE:
            assert outcome.kind in ("error", "exit"), (kind, name, outcome)
            assert re.search(KINDS[kind][1], outcome.text), (kind, name, outcome.text)


LONG = "n" * 300


def test_names_that_no_file_has() -> None:
    calls = [
        command(*words, name, *rest)
        for name in (LONG, "~nobody-of-this-name/x", "a\0b.yaml", "\udc80.yaml")
        for words, rest in (
            (["describe"], []),
            (["describe", "--model"], []),
            (["generate", "--prompt", "x", "--model"], []),
            (["generate", "--prompt", "x", "--max-tokens", "1", "--image"], []),
            (["trace", "--from"], []),
            (["trace", "--prompt", "x", "--max-tokens", "1", "--out"], []),
            (["plan"], []),
            (["compare"], []),
            (["report"], []),
            (["rescore"], []),
            (["reproduce"], []),
            (["export"], []),
            (["worker"], []),
            (["configs", "copy"], []),
            (["schema", "--out"], []),
        )
    ]
    for call, outcome in zip(calls, run_limited(calls, imports=IMPORTS), strict=True):
        assert outcome.is_lawful(), (call, outcome)


@given(st.binary(max_size=80) | st.text(max_size=40).map(str.encode))
def test_any_bytes_as_a_run_directory(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    folder = tmp_path_factory.getbasetemp() / "any"
    folder.mkdir(exist_ok=True)
    for name in ("manifest.json", "records.jsonl"):
        (folder / name).write_bytes(content)
    records = folder / "records.jsonl"
    for call in (
        lambda: read_manifest(folder),
        lambda: list(read_records(records)),
        lambda: list(read_scores(records)),
    ):
        message = message_of(call)
        assert message is None or is_one_line(message)


def test_a_record_without_an_end(tmp_path: Path) -> None:
    path = tmp_path / "records.jsonl"
    sparse(path)
    with pytest.raises(VlmkitError, match="has a line of more than 32 MiB"):
        list(read_records(path))
