"""The JSON Schema is current, and every YAML file in the repository loads."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import vlmkit
from vlmkit.config.run import RunConfig, load_run
from vlmkit.config.schema import run_schema, schema_text
from vlmkit.config.yaml_tree import INCLUDE
from vlmkit.mistakes.jsonschema import json_schema
from vlmkit.preprocess import load_image

ROOT = Path(vlmkit.__file__).parent.parent
GOLDEN = ROOT / "configs" / "schema.json"
FILES = [
    path
    for path in sorted([*ROOT.glob("configs/**/*.yaml"), *ROOT.glob("experiments/**/*.yaml")])
    if not re.search(r"\w\.schema\.json", path.read_text().partition("\n")[0])
]


def numbers(part: Any) -> list[dict[str, Any]]:
    """Every number schema inside a schema."""
    if isinstance(part, list):
        return [found for item in part for found in numbers(item)]
    if not isinstance(part, dict):
        return []
    inside = [found for item in part.values() for found in numbers(item)]
    return inside + [part] * (part.get("type") in ("integer", "number"))


def test_the_schema_file_is_current(update_golden: bool) -> None:
    if update_golden:
        GOLDEN.write_text(schema_text(), encoding="utf-8")
    assert GOLDEN.read_text(encoding="utf-8") == schema_text(), "run: pytest --update-golden"


def test_the_schema_knows_every_key_and_kind() -> None:
    schema = run_schema()
    assert set(schema["properties"]) == {*RunConfig.model_fields, INCLUDE}
    assert schema["additionalProperties"] is False
    assert "required" not in schema
    kinds = schema["properties"]["sampling"]["items"]["discriminator"]["mapping"]
    assert {"greedy", "temperature", "top_k", "top_p", "min_p"} <= set(kinds)


def test_every_key_says_what_it_is() -> None:
    silent = [
        f"{name}.{key}"
        for name, section in run_schema()["$defs"].items()
        for key, entry in section.get("properties", {}).items()
        if key != "kind" and not ({"description", "$ref"} & entry.keys())
    ]
    assert silent == []


def test_bounds_are_spelled_as_the_standard_does() -> None:
    assert not [part for part in numbers(run_schema()) if {"ge", "gt", "le", "lt"} & part.keys()]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_loads(path: Path) -> None:
    run = load_run(path, trust_code=True)
    for name in run.config.images:
        load_image(name)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_file_names_its_schema(path: Path) -> None:
    first, _, rest = path.read_text().partition("\n")
    match = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
    assert match, f"{path}: the first line names the schema"
    assert (path.parent / match[1]).resolve() == GOLDEN
    assert rest.startswith("#"), f"{path}: the second line says what it is for"


def test_every_kind_has_an_example() -> None:
    shown = "\n".join(path.read_text() for path in FILES)
    for definition in run_schema()["$defs"].values():
        kind = definition.get("properties", {}).get("kind", {}).get("const")
        if kind is not None:
            assert re.search(rf"kind: {kind}\b", shown), f"no file in configs/ shows kind: {kind}"


def test_the_schema_text_is_json() -> None:
    assert json.loads(schema_text()) == run_schema()


def test_what_files_may_hold_besides_is_not_in_the_schema_that_errors_are_explained_by() -> None:
    assert "include" in run_schema()["properties"]
    assert "include" not in json_schema(RunConfig)["properties"]
