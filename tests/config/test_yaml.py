"""Files, includes and overrides."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlmkit.cli.main import main
from vlmkit.config.document import parse_yaml
from vlmkit.config.tree import find, to_plain
from vlmkit.config.yaml_tree import load_yaml, parse_overrides
from vlmkit.errors import VlmkitError


def write(folder: Path, **files: str) -> Path:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    return folder / f"{next(iter(files))}.yaml"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "f:3: key 'a' is given twice (first in line 1)"),
        ("a:\n  b: 1\n  b: 2", "f:3: key 'b' is given twice (first in line 2)"),
        ("off: 1", "YAML reads off, no, yes and on as booleans"),
        ("1.5: 2", "f:1: a key must be text or a whole number"),
        ("? [a]\n: 2", "f:1: a key must be text or a whole number"),
        ("a: [1", "f:1: not valid YAML"),
        ("a: 'x", "not valid YAML"),
        ("a: &x [*x]", "f:1: an alias that contains itself"),
        ("a: *nothing", "not valid YAML"),
        ("a: !!python/object:os.system {}", "not valid YAML"),
        ("a: 1\n---\nb: 2", "not valid YAML"),
    ],
)
def test_mistakes_in_the_text(text: str, message: str) -> None:
    with pytest.raises(VlmkitError) as caught:
        parse_yaml(text, "f")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_aliases_and_merge_keys() -> None:
    tree = parse_yaml("a: &x {b: 1, c: 2}\nd: {<<: *x, c: 3}", "f")
    assert to_plain(tree)["d"] == {"b": 1, "c": 3}


def test_lines_are_those_of_the_values() -> None:
    tree = parse_yaml("a: 1\nb:\n  - x\n  - c: 2\n", "f")
    lines = {path: find(tree, path) for path in [("a",), ("b", 0), ("b", 1, "c")]}
    assert [str(node.origin) for node in lines.values() if node] == ["f:1", "f:3", "f:4"]


def test_includes_are_relative_and_later_ones_win(tmp_path: Path) -> None:
    (tmp_path / "parts").mkdir()
    write(tmp_path / "parts", low="a: low\nb: low\nc: low\n", high="include: low.yaml\nb: high\n")
    path = write(tmp_path, main="include: [parts/low.yaml, parts/high.yaml]\nc: main\n")
    tree = load_yaml(path)
    assert to_plain(tree) == {"a": "low", "b": "high", "c": "main"}
    b = find(tree, ("b",))
    assert b is not None
    assert str(b.origin) == f"{tmp_path / 'parts' / 'high.yaml'}:2"


def test_include_cycles_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path, one="include: two.yaml\n", two="include: one.yaml\n")
    with pytest.raises(VlmkitError, match=r"includes itself: one\.yaml -> two\.yaml -> one\.yaml"):
        load_yaml(path)


def test_the_same_file_may_be_included_twice(tmp_path: Path) -> None:
    write(tmp_path, base="a: 1\n", left="include: base.yaml\n", right="include: base.yaml\n")
    path = write(tmp_path, top="include: [left.yaml, right.yaml]\nb: 2\n")
    assert to_plain(load_yaml(path)) == {"a": 1, "b": 2}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("- 1\n", "a config is a mapping"),
        ("include: 3\n", "include: needs file names, not 3"),
        ("include: {a: 1}\n", "include: needs file names, not {'a': 1}"),
        ("a: 1\ninclude: [gone.yaml]\n", "gone.yaml: no such config file"),
        ("a: 1\ninclude: [gone.yaml]\n", "main.yaml:2: include: "),
        ("include: main.yaml\n", "main.yaml:1: include: "),
        ("a: 1\nb: \x07\n", "main.yaml:2: not valid YAML: it holds the character U+0007"),
    ],
)
def test_mistakes_in_a_file(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(VlmkitError) as caught:
        load_yaml(write(tmp_path, main=text))
    assert message in str(caught.value)


def test_mistakes_in_a_path(tmp_path: Path) -> None:
    write(tmp_path, present="a: 1")
    with pytest.raises(VlmkitError, match=r"no such config file; .* has present\.yaml"):
        load_yaml(tmp_path / "absent.yaml")
    write(tmp_path, **{f"a{number}": "a: 1" for number in range(9)})
    with pytest.raises(VlmkitError, match=r"no such config file; .* has present\.yaml, "):
        load_yaml(tmp_path / "presence.yaml")  # the likeliest first
    with pytest.raises(VlmkitError, match=r"is a folder; a config is a YAML file$"):
        load_yaml(tmp_path)
    (tmp_path / "config.json").touch()
    with pytest.raises(VlmkitError, match=r"a checkpoint is given as model, or --model$"):
        load_yaml(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(VlmkitError, match=r"cannot be read as a config: it is no text in UTF-8$"):
        load_yaml(tmp_path / "binary.yaml")


def test_an_empty_file_is_an_empty_config(tmp_path: Path) -> None:
    assert to_plain(load_yaml(write(tmp_path, main="# nothing\n"))) == {}


def test_override_values_are_yaml() -> None:
    tree = parse_overrides(["a=1", "b.c=[x, {y: 2}]", "d=", "e=text with = sign", "f.0.g=null"])
    assert to_plain(tree) == {
        "a": 1,
        "b": {"c": ["x", {"y": 2}]},
        "d": None,
        "e": "text with = sign",
        "f": {0: {"g": None}},
    }


def test_the_last_override_wins() -> None:
    assert to_plain(parse_overrides(["a.b=1", "a.b=2", "a.c=3"])) == {"a": {"b": 2, "c": 3}}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "stopping.-1.budget=4",
            "stopping.-1.budget: entries of a list count from 0, and there a",
        ),
        ("sampling+=x", "sampling+: an override only sets values: write key=value; a list is giv"),
        ("++seed=3", "++seed: an override only sets values"),
        ("~seed=3", "~seed: an override only sets values"),
        ("sampling[0].p=1", "sampling[0].p: write sampling.0.p=…"),
    ],
)
def test_overrides_in_the_spelling_of_other_tools(
    text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(VlmkitError) as caught:
        parse_overrides([text])
    assert str(caught.value).startswith(f"{text}: {message}")
    assert main(["describe", text]) == 2
    assert capsys.readouterr().err == f"vlmkit: error: {caught.value}\n"


@pytest.mark.parametrize("text", ["seed", "=3", "a..b=1", ".a=1"])
def test_what_is_no_override(text: str) -> None:
    with pytest.raises(VlmkitError, match="is no override; write key=value"):
        parse_overrides([text])
