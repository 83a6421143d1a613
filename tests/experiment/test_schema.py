"""The JSON Schema of experiments is current, and every experiment in the repository loads."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import vlmkit
from vlmkit.cli.main import main
from vlmkit.config.yaml_tree import INCLUDE
from vlmkit.experiment.config import ExperimentConfig
from vlmkit.experiment.files import load_experiment
from vlmkit.experiment.plan import make_plan
from vlmkit.experiment.schema import experiment_schema, experiment_schema_text

ROOT = Path(vlmkit.__file__).parent.parent
GOLDEN = ROOT / "configs" / "experiment.schema.json"
FILES = [
    path
    for path in sorted([*ROOT.glob("configs/**/*.yaml"), *ROOT.glob("experiments/**/*.yaml")])
    if GOLDEN.name in path.read_text().partition("\n")[0]
]


def test_the_schema_file_is_current(update_golden: bool) -> None:
    if update_golden:
        GOLDEN.write_text(experiment_schema_text(), encoding="utf-8")
    current = GOLDEN.read_text(encoding="utf-8") == experiment_schema_text()
    assert current, "run: pytest --update-golden"


def test_the_schema_knows_every_key_and_kind() -> None:
    schema = experiment_schema()
    assert set(schema["properties"]) == {*ExperimentConfig.model_fields, INCLUDE}
    assert schema["additionalProperties"] is False
    assert "required" not in schema
    assert json.loads(experiment_schema_text()) == schema


def test_every_key_says_what_it_is() -> None:
    schema = experiment_schema()
    sections = {"": schema, **schema["$defs"]}
    silent = [
        f"{name}.{key}"
        for name, section in sections.items()
        for key, entry in section.get("properties", {}).items()
        if key != "kind" and not ({"description", "$ref"} & entry.keys())
    ]
    assert silent == []


def test_the_command_writes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["schema", "--experiment", "--out", str(tmp_path)]) == 0
    assert (tmp_path / GOLDEN.name).read_text() == experiment_schema_text()
    capsys.readouterr()
    assert main(["schema", "--experiment"]) == 0
    assert capsys.readouterr().out == experiment_schema_text()


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_experiment_can_be_planned(path: Path) -> None:
    plan = make_plan(load_experiment(path))
    assert plan.num_units > 0
    first, _, rest = path.read_text().partition("\n")
    match = re.fullmatch(r"# yaml-language-server: \$schema=(\S+)", first)
    assert match, f"{path}: the first line names the schema"
    assert (path.parent / match[1]).resolve() == GOLDEN
    assert rest.startswith("#"), f"{path}: the second line says what it is for"


def test_there_is_an_experiment() -> None:
    assert FILES
