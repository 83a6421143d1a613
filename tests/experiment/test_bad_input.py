"""Bad experiments: one line that says what, where and what would work; nothing is written."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from PIL import Image

from tests.experiment.studies import STUDY, write_study
from vlmkit.cli.main import main
from vlmkit.errors import VlmkitError
from vlmkit.experiment.runner import run_experiment

DATA = "base: {}\ndataset: {kind: jsonl, path: data.jsonl}\n"
EXACT = "metrics: {right: {kind: exact}}\n"

# name -> (the experiment, the rows of data.jsonl, overrides, the message)
CASES: dict[str, tuple[str, list[object], list[str], str]] = {
    "unknown key": (
        STUDY.replace("seeds:", "seed_list:"),
        [],
        [],
        r":12: seed_list: unknown key; did you mean",
    ),
    "unknown override": (
        STUDY,
        [],
        ["sedes=[1]"],
        r"sedes=\[1\]: sedes: unknown key; did you mean 'seeds'",
    ),
    "no dataset": ("arms: {a: {}}", [], [], r"dataset"),
    "unknown kind of data": (STUDY.replace("kind: shapes", "kind: shaped"), [], [], r":5: dataset"),
    "arm with a missing path": (
        STUDY + "  \n",
        [],
        ["arms.warm.sampling=[{kind: greedy}]", "arms.bad={sampling.4.p: 1}"],
        r"sampling\.4: the list has 1 entries.*\(in the arm 'bad'\)",
    ),
    "arm with an unknown key": (
        STUDY.replace("kind: temperature,", "kind: temperature, temprature: 1,"),
        [],
        [],
        r":11: sampling\.0\.temprature: unknown key; did you mean 'temperature'.*in the arm 'warm'",
    ),
    "arm with a seed": (
        STUDY.replace("greedy: {}", "greedy: {seed: 3}"),
        [],
        [],
        r":9: seed: comes from 'seeds'",
    ),
    "arm with images": (
        STUDY.replace("greedy: {}", "greedy: {images: [a.png]}"),
        [],
        [],
        r":9: images: comes from 'dataset'",
    ),
    "arm with one question": (
        STUDY.replace("greedy: {}", "greedy: {prompt: Why}"),
        [],
        [],
        r":9: prompt: .*write \{question\}",
    ),
    "equal arms": (
        STUDY.replace("greedy: {}", "greedy: {}\n  same: {sampling: [{kind: greedy}]}"),
        [],
        [],
        r":10: arms 'greedy' and 'same' are the same pipeline",
    ),
    "a grid too large": (
        "base: {}\ndataset: {kind: shapes, num_samples: 3}\ngrid:\n"
        + "".join(f"  a.{key}: {list(range(10))}\n" for key in "bcdefgh"),
        [],
        [],
        r":4: grid: 10,000,000 responses to each sample are more than limits\.units=1,000,000",
    ),
    "too many arms": (
        STUDY,
        [],
        ["prefill.step_size=" + ",".join(map(str, range(1, 1002)))],
        r"grid: 2,002 arms; at most 1,000",
    ),
    "too many units": (
        STUDY,
        [],
        ["limits.units=11"],
        r"2 arms x 3 samples x 2 seeds are 12 units; limits\.units allows 11",
    ),
    "grid without values": (STUDY, [], ["grid.seed=[]"], r"grid\.seed: needs at least one value"),
    "grid of no path": (STUDY + "grid: {a..b: [1]}\n", [], [], r":13: grid: 'a\.\.b' is no path"),
    "no seeds": (STUDY.replace("[0, 1]", "[]"), [], [], r":12: seeds: needs at least 1"),
    "a seed twice": (STUDY.replace("[0, 1]", "[0, 0]"), [], [], r":12: seeds: 0 is given twice"),
    "a seed that is none": (STUDY.replace("[0, 1]", "[-1]"), [], [], r":12: seeds\.0: "),
    "unknown baseline": (
        STUDY + "baseline: gredy\n",
        [],
        [],
        r":13: baseline: 'gredy' is no arm; the arms are 'greedy', 'warm'",
    ),
    "unknown metric": (
        STUDY.replace("kind: exact", "kind: exakt"),
        [],
        [],
        r":7: metrics\.right: unknown kind",
    ),
    "missing base file": (
        DATA.replace("{}", "nowhere.yaml"),
        [{"id": "a", "question": "?"}],
        [],
        r":1: base: .*nowhere\.yaml: no such config file",
    ),
    "base that is no file": (DATA.replace("{}", "[3]"), [], [], r":1: base"),
    "empty data": (DATA, [], [], r":2: dataset: .*data\.jsonl: no samples in it"),
    "an id twice": (
        DATA,
        [{"id": "a", "question": "?"}] * 2,
        [],
        r"data\.jsonl:2: the id 'a' is taken already",
    ),
    "a missing image": (
        DATA,
        [{"id": "a", "question": "?", "image": "b.png"}],
        [],
        r"data\.jsonl:1: image .*b\.png does not exist",
    ),
    "a corrupt image": (
        DATA,
        [
            {"id": "a", "question": "?", "image": "good.png"},
            {"id": "b", "question": "?", "image": "bad.png"},
        ],
        [],
        r"data\.jsonl:2: image .*bad\.png is corrupt",
    ),
    "a row without question": (DATA, [{"id": "a"}], [], r"data\.jsonl:1: .*question"),
    "no answer to score": (
        DATA + EXACT,
        [{"id": "a", "question": "?", "answer": "b"}, {"id": "b", "question": "?"}],
        [],
        r"data\.jsonl:2: metric 'right' needs an answer",
    ),
    "a model that is not there": (STUDY, [], ["model=./nowhere"], r"model: .*nowhere"),
    "a cache that does not fit": (
        STUDY,
        [],
        ["cache={kind: affine, group_size: 128}"],
        r"cache.*\(in the arm 'greedy'\)",
    ),
}


def prepare(folder: Path, text: str, rows: list[object]) -> Path:
    Image.new("RGB", (56, 56)).save(folder / "good.png")
    (folder / "bad.png").write_text("no picture")
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return write_study(folder, text)


@pytest.mark.parametrize("case", CASES)
def test_python(tmp_path: Path, case: str) -> None:
    text, rows, overrides, message = CASES[case]
    path = prepare(tmp_path, text, rows)
    with pytest.raises(VlmkitError, match=message) as caught:
        run_experiment(path, tmp_path / "run", overrides=overrides)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("case", CASES)
def test_command_line(tmp_path: Path, case: str, capsys: pytest.CaptureFixture[str]) -> None:
    text, rows, overrides, message = CASES[case]
    path = prepare(tmp_path, text, rows)
    assert main(["run", str(path), *overrides, "--out", str(tmp_path / "run")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert re.match(rf"vlmkit: error: .*({message})", line)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("batch_size", [0, -1, True])
def test_a_batch_size_that_is_none(tmp_path: Path, batch_size: int) -> None:
    with pytest.raises(VlmkitError, match=r"batch_size is .*1 or more"):
        run_experiment(write_study(tmp_path), tmp_path / "run", batch_size=batch_size)
