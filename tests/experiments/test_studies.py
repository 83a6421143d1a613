"""Every study has its question, command, plot and limits, and its numbers are of its own arms."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from experiments.plot import plot_run
from tests.experiment.studies import write_study
from vlmkit.cli.main import main
from vlmkit.experiment.files import load_experiment
from vlmkit.experiment.runner import run_experiment

ROOT = Path(__file__).parent.parent.parent
STUDIES = sorted(path.parent for path in ROOT.glob("experiments/*/README.md")
                 if (path.parent / f"{path.parent.name}.yaml").exists())  # fmt: skip
IDS = [path.name for path in STUDIES]


def test_there_are_studies() -> None:
    assert {"beam_width", "contrast", "equal_entropy", "prompt_resolution", "thinking_budget"} <= {
        *IDS
    }


@pytest.mark.parametrize("folder", STUDIES, ids=IDS)
def test_a_study_says_what_it_asks_and_what_it_shows(folder: Path) -> None:
    text = (folder / "README.md").read_text()
    for part in ("**Question.**", "**Command**", "**Result**", "**What one learns.**",
                 "**What it does not show.**"):  # fmt: skip
        assert part in text
    assert f"vlmkit run experiments/{folder.name}/{folder.name}.yaml" in text


@pytest.mark.parametrize("folder", STUDIES, ids=IDS)
def test_a_study_is_as_large_as_its_text_says(folder: Path) -> None:
    experiment = load_experiment(folder / f"{folder.name}.yaml")
    number = experiment.config.dataset.num_samples * experiment.units_per_sample
    text = (folder / "README.md").read_text()
    assert f"{number:,} responses" in text


@pytest.mark.parametrize("file", sorted(ROOT.glob("experiments/*/plot.svg")), ids=str)
def test_a_plot_names_the_arms_of_its_study(file: Path) -> None:
    drawn = {element.text for element in ET.parse(file).iter() if element.tag.endswith("}text")}
    arms = load_experiment(file.parent / f"{file.parent.name}.yaml").arms
    assert {arm.name for arm in arms} <= drawn
    readme = (file.parent / "README.md").read_text()
    assert re.search(r"!\[[^\]]+\]\(plot\.svg\)", readme)


@pytest.mark.whole
def test_a_run_is_drawn(tmp_path: Path) -> None:
    run = run_experiment(write_study(tmp_path), tmp_path / "run")
    root = ET.fromstring(plot_run(run.folder))
    words = [element.text for element in root.iter() if element.tag.endswith("}text")]
    assert {"greedy", "warm", "score", "difference to greedy"} <= {*words}
    marks = [element for element in root.iter() if element.get("class") == "mark"]
    assert len(marks) == 3  # two scores, one difference


def test_a_plan_of_every_study_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    for folder in STUDIES:
        assert main(["plan", str(folder / f"{folder.name}.yaml")]) == 0
        assert f"in runs/{folder.name}" in capsys.readouterr().out
