"""Configs that travel with the package: named from anywhere, listed, and written out."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.reply import ROOT, Command
from vlmkit.config.run import load_run
from vlmkit.declare.packaged import config_names
from vlmkit.errors import VlmkitError
from vlmkit.preprocess import load_image

NUCLEUS = "vlmkit:sampling/nucleus.yaml"
MISSING = "vlmkit:sampling/nucleu.yaml: no config of the package; did you mean 'vlmkit:sampling/nu"


def test_the_list_has_a_line_for_every_file(command: Command) -> None:
    reply = command("configs")
    assert (reply.code, reply.stderr) == (0, "")
    lines = reply.stdout.splitlines()
    files = sorted((ROOT / "configs").rglob("*.yaml"))
    assert [line.split()[0] for line in lines] == [
        f"vlmkit:{path.relative_to(ROOT / 'configs').as_posix()}" for path in files
    ]
    for line in lines:
        name, _, text = line.partition(" ")
        assert text.strip().endswith((".", "?")), f"{name}: the first comment is a sentence"


@pytest.mark.parametrize("form", ["include: {}", "include: [{}]", "include: [other.yaml, '{}']"])
def test_a_file_anywhere_includes_them(tmp_path: Path, form: str) -> None:
    (tmp_path / "other.yaml").write_text("seed: 4\n")
    path = tmp_path / "run.yaml"
    path.write_text(form.format(NUCLEUS))
    run = load_run(path)
    assert [stage.kind for stage in run.config.sampling] == ["top_p", "temperature"]
    assert load_run(NUCLEUS).config.sampling == run.config.sampling


def test_what_they_include_is_relative_to_them(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "run.yaml"
    path.write_text("include: vlmkit:runs/shapes_budget.yaml\n")
    config = load_run(path).config
    assert config.stopping[2].kind == "thinking_budget"
    assert load_image(config.images[0]).size == (112, 112)
    monkeypatch.chdir(tmp_path)
    own = command("generate", "run.yaml")
    assert (own.code, own.stdout) == (
        0,
        command("generate", "vlmkit:runs/shapes_budget.yaml").stdout,
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vlmkit:sampling/nucleu.yaml", MISSING),
        ("vlmkit:sampling/nucleus", "did you mean 'vlmkit:sampling/nucleus.yaml'? (`vlmkit config"),
        ("vlmkit:schema.json", "vlmkit:schema.json: no config of the package"),
        ("vlmkit:../pyproject.toml", "vlmkit:../pyproject.toml: no config of the package"),
        ("vlmkit:", "vlmkit:: no config of the package"),
        ("vlmkit:sampling", "vlmkit:sampling: no config of the package"),
    ],
)
def test_a_config_that_is_not_there(
    command: Command, tmp_path: Path, name: str, message: str
) -> None:
    with pytest.raises(VlmkitError) as caught:
        load_run(name)
    assert message in str(caught.value)
    path = tmp_path / "run.yaml"
    path.write_text(f"seed: 1\ninclude:\n  - '{name}'\n")
    for words in (["describe", name], ["describe", str(path)]):
        reply = command(*words)
        assert (reply.code, reply.stdout, reply.stderr.count("\n")) == (2, "", 1)
        assert message in reply.stderr
    assert f"{path}:3: include: {name}" in reply.stderr


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (
            "vlmkit:shapes/samples/count_al.png",
            "did you mean 'vlmkit:shapes/samples/count_all.png'",
        ),
        ("vlmkit:shapes/config.json", "vlmkit:shapes/config.json: no image of the package"),
    ],
)
def test_an_image_that_is_not_there(
    command: Command, tmp_path: Path, name: str, message: str
) -> None:
    with pytest.raises(VlmkitError) as caught:
        load_image(name)
    assert message in str(caught.value)
    path = tmp_path / "run.yaml"
    path.write_text(f"prompt: Count.\nimages: ['{name}']\n")
    assert f"{path}:2: images.0: " in command("generate", str(path)).stderr
    reply = command("generate", "--prompt", "Count.", "--image", name)
    assert (reply.code, reply.stdout, reply.stderr.count("\n")) == (2, "", 1)
    assert message in reply.stderr


def test_copying_writes_every_file_and_nothing_over(command: Command, tmp_path: Path) -> None:
    target = tmp_path / "new" / "configs"
    reply = command("configs", "copy", str(target))
    assert (reply.code, reply.stderr) == (0, "")
    originals = {path: path.read_bytes() for path in (ROOT / "configs").rglob("*.*")}
    copies = {target / path.relative_to(ROOT / "configs"): text for path, text in originals.items()}
    assert {path: path.read_bytes() for path in target.rglob("*.*")} == copies
    assert len(copies) == len(config_names()) + 4  # schemas: runs, experiments, kv-eval, convert
    assert command("configs", "copy", str(target)).code == 0, "the same files are in nobody's way"


@pytest.mark.parametrize("taken", ["a file", "two files", "a folder", "a link", "no folder"])
def test_a_copy_that_cannot_be_made_writes_nothing(
    command: Command, tmp_path: Path, taken: str
) -> None:
    target = tmp_path / "mine"
    place = target / "sampling" / "nucleus.yaml"
    if taken == "no folder":
        target.write_text("text")
    elif taken == "a folder":
        place.mkdir(parents=True)
    else:
        place.parent.mkdir(parents=True)
        place.symlink_to(tmp_path / "gone") if taken == "a link" else place.write_text("seed: 7\n")
    if taken == "two files":
        (target / "schema.json").write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    reply = command("configs", "copy", str(target))
    assert (reply.code, reply.stdout, reply.stderr.count("\n")) == (2, "", 1)
    message = {
        "no folder": "mine: cannot be written: is there already, and no folder",
        "two files": f"{target / 'schema.json'}: is there already (and 1 more), and wou",
    }.get(taken, f"{place}: is there already, and would be written over; give another folder")
    assert message in reply.stderr
    assert sorted(tmp_path.rglob("*")) == before
    assert not place.is_file() or place.read_text() == "seed: 7\n"


def test_the_schema_is_printed_and_nothing_written(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema = (ROOT / "configs" / "schema.json").read_text()
    monkeypatch.chdir(tmp_path)
    assert command("schema") == (0, schema, "")
    assert list(tmp_path.iterdir()) == []
    assert command("schema", "--out", "here") == (0, f"{Path('here/schema.json')}\n", "")
    assert (tmp_path / "here" / "schema.json").read_text() == schema
