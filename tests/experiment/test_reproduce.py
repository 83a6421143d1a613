"""Runs again from their own directory: token-exact, or where they part and from what."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

import vlmkit
from tests.experiment.studies import write_study
from vlmkit.errors import VlmkitError
from vlmkit.experiment.chosen import Choice
from vlmkit.experiment.manifest import FILE
from vlmkit.experiment.reading import read_records
from vlmkit.experiment.reproduce import Reproduction, reproduce
from vlmkit.experiment.restore import Change
from vlmkit.experiment.runner import run_experiment
from vlmkit.experiment.running import Settings
from vlmkit.experiment.store import RECORDS

SHAPES = Path(vlmkit.__file__).parent / "assets" / "shapes"

STUDY = """
base:
  model: %s
  template: {enable_thinking: true}
  stopping: [{kind: max_tokens, max_tokens: 5}, {kind: eos}]
dataset: {kind: shapes, num_samples: 3}
metrics: {right: {kind: exact}}
arms:
  greedy: {}
  hot: {sampling: [{kind: temperature, temperature: 8.0}]}
  beam: {search: {kind: beam, num_beams: 2}}
  none:
    sampling:
      - {kind: allowed_tokens, token_ids: [3]}
      - {kind: suppress_tokens, token_ids: [3]}
seeds: [0, 1]
"""


def run_in(folder: Path, *overrides: str, model: str = "shapes") -> Path:
    path = write_study(folder, STUDY % model)
    run_experiment(path, folder / "run", overrides=overrides)
    return folder / "run"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run_in(tmp_path_factory.mktemp("made"), "top_logprobs=3")


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "run"))


def edit_manifest(folder: Path, **changes: Any) -> None:
    path = folder / FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def arms_of(folder: Path) -> dict[str, Any]:
    arms: dict[str, Any] = json.loads((folder / FILE).read_text())["arms"]
    return arms


def edit_records(folder: Path, edit: Any) -> None:
    path = folder / RECORDS
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for line in lines:
        edit(line)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def counts(found: Reproduction) -> dict[str, tuple[int, int]]:
    return {arm.arm: (arm.num_exact, arm.num_units) for arm in found.arms}


ALL = {"greedy": (6, 6), "hot": (6, 6), "beam": (6, 6), "none": (6, 6)}


@pytest.mark.parametrize("settings", [Settings(), Settings(batch_size=3), Settings(share=False)])
def test_a_run_is_token_exact_and_its_directory_is_left_alone(
    made: Path, settings: Settings
) -> None:
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in made.iterdir()}
    told: list[list[Change]] = []
    found = reproduce(made, settings=settings, announce=told.append)
    assert counts(found) == ALL
    assert (found.num_units, found.num_exact, found.num_recorded) == (24, 24, 24)
    assert (found.divergences, found.changes, told) == ([], [], [[]])
    after = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in made.iterdir()}
    assert before == after


CHOICES: list[tuple[Choice, dict[str, tuple[int, int]]]] = [
    (Choice(num_samples=1), dict.fromkeys(ALL, (2, 2))),
    (Choice(num_samples=2), dict.fromkeys(ALL, (4, 4))),
    (Choice(num_samples=99, arm="hot"), {"hot": (6, 6)}),
    (Choice(sample="shapes-2", arm="greedy"), {"greedy": (2, 2)}),
]


@pytest.mark.parametrize(("choice", "expected"), CHOICES)
def test_some_of_a_run(made: Path, choice: Choice, expected: dict[str, tuple[int, int]]) -> None:
    assert counts(reproduce(made, choice)) == expected


def test_an_unfinished_run_is_as_much_as_there_is(run: Path) -> None:
    lines = (run / RECORDS).read_bytes().splitlines(keepends=True)
    (run / RECORDS).write_bytes(b"".join(lines[:5]) + lines[5][:20])
    found = reproduce(run)
    assert (found.num_units, found.num_exact, found.num_recorded) == (5, 5, 5)


def test_another_seed_draws_other_tokens(run: Path) -> None:
    edit_manifest(run, seeds=[0, 7])
    edit_records(run, lambda line: line.update(seed=7 if line["seed"] else 0))
    found = reproduce(run)
    assert [change.name for change in found.changes] == ["config"]
    exact = counts(found)
    assert {**exact, "hot": ()} == {**ALL, "hot": ()}
    assert {(one.arm, one.seed, one.what) for one in found.divergences} == {("hot", 7, "token")}
    one = found.divergences[0]
    recorded, model, drawn = one.distributions
    assert [one.name for one in one.distributions] == ["recorded model", "model", "drawn from"]
    assert one.recorded.token_id != one.now.token_id
    assert drawn.recorded is not None
    assert drawn.now is not None
    assert drawn.recorded.token_id == one.recorded.token_id
    assert drawn.now.token_id == one.now.token_id
    # The model is the same, so what it said then is what it says now.
    assert [one.token_id for one in recorded.top] == [one.token_id for one in model.top[:3]]
    for then, now in zip(recorded.top, model.top, strict=False):
        assert then.logprob == pytest.approx(now.logprob, abs=1e-4)
    # A temperature of 8 divides the logits, and so the differences between logprobs.
    first, second = ([one.logprob for one in found.top[:2]] for found in (model, drawn))
    assert second[0] - second[1] == pytest.approx((first[0] - first[1]) / 8, rel=1e-4)


def test_other_weights_are_named_first_and_diverge(tmp_path: Path) -> None:
    checkpoint = Path(shutil.copytree(SHAPES, tmp_path / "model"))
    folder = run_in(tmp_path, "top_logprobs=4", model=str(checkpoint))
    assert reproduce(folder).divergences == []
    file = checkpoint / "model.safetensors"
    before = file.read_bytes()
    weights = {name: mx.array(value) for name, value in mx.load(str(file)).items()}
    name = next(name for name in weights if name.endswith("embed_tokens.weight"))
    noise = mx.random.normal(weights[name].shape, key=mx.random.key(3))
    weights[name] = (weights[name] + mx.std(weights[name]) * noise).astype(weights[name].dtype)
    mx.eval(weights)
    mx.save_safetensors(str(file), weights)
    found = reproduce(folder, top_n=4)
    (change,) = found.changes
    assert change.name == f"weights of {checkpoint}"
    assert change.was != change.now
    greedy = [one for one in found.divergences if one.arm == "greedy"]
    assert greedy, "the noise changes no token: make it larger"
    for one in greedy:
        then, model, drawn = one.distributions
        assert one.now.token_id == model.top[0].token_id
        assert one.recorded.token_id == then.top[0].token_id
        assert drawn.top[0].token_id == one.now.token_id
        records = {record.unit: record for record in read_records(folder / RECORDS)}
        record = records[one.arm, one.sample, one.seed]
        assert one.recorded.token_id == record.token_ids[one.position or 0]
    assert counts(found)["none"] == (6, 6)
    file.write_bytes(before)
    assert reproduce(folder).changes == []


def test_a_changed_arm_draws_from_another_distribution(run: Path) -> None:
    arms = arms_of(run)
    arms["hot"]["sampling"][0]["temperature"] = 1.0
    edit_manifest(run, arms=arms)
    found = reproduce(run, Choice(arm="hot"))
    assert [change.name for change in found.changes] == ["config"]
    assert found.divergences
    assert all(one.distributions[2].name == "drawn from" for one in found.divergences)


def test_versions_device_and_code_are_compared(run: Path) -> None:
    manifest = json.loads((run / FILE).read_text())
    edit_manifest(
        run,
        versions={**manifest["versions"], "mlx": "0.1", "gone": "3"},
        device="Device(gpu, 9)",
        hashes={**manifest["hashes"], "code": "0" * 32},
        git={"commit": "abc"},
    )
    changes = {change.name: change.was for change in reproduce(run, Choice(num_samples=1)).changes}
    git = changes.pop("git commit")
    assert git == "abc"
    changes.pop("git dirty", None)
    assert changes == {
        "code": "0" * 32,
        "version of gone": "3",
        "version of mlx": "0.1",
        "device": "Device(gpu, 9)",
    }


def test_a_search_that_diverges_has_no_distribution(run: Path) -> None:
    def change(line: dict[str, Any]) -> None:
        if line["arm"] == "beam":
            line["token_ids"][2] += 1

    edit_records(run, change)
    found = reproduce(run)
    assert counts(found) == {**ALL, "beam": (0, 6)}
    assert {(one.position, one.what) for one in found.divergences} == {(2, "token")}


def test_code_that_a_run_names_runs_again_where_it_is_trusted(tmp_path: Path) -> None:
    study = """
    base: {stopping: [{kind: max_tokens, max_tokens: 3}]}
    dataset: {kind: shapes, num_samples: 1}
    arms:
      own:
        sampling:
          - {kind: temperature, temperature: 4.0}
          - {kind: external, factory: "experiments.own_stage:top_a", config: {a: 0.2}}
    """
    path = write_study(tmp_path, study)
    folder = run_experiment(path, tmp_path / "run", trust_code=True).folder
    with pytest.raises(VlmkitError, match="names code to run"):
        reproduce(folder)
    found = reproduce(folder, trust_code=True)
    assert (counts(found), found.changes) == ({"own": (1, 1)}, [])


DATA = [{"id": str(number), "question": f"How many, {number}?"} for number in range(3)]


def jsonl(folder: Path, rows: Sequence[dict[str, str]]) -> None:
    (folder / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def test_other_data_are_named_and_diverge(tmp_path: Path) -> None:
    jsonl(tmp_path, DATA)
    study = """
    base: {stopping: [{kind: max_tokens, max_tokens: 4}]}
    dataset: {kind: jsonl, path: data.jsonl}
    """
    folder = run_experiment(write_study(tmp_path, study), tmp_path / "run").folder
    changed = [DATA[0], {**DATA[1], "question": "What is above the star? " * 3}, DATA[2]]
    jsonl(tmp_path, changed)
    found = reproduce(folder)
    assert [change.name for change in found.changes] == ["data"]
    assert {one.sample for one in found.divergences} == {"1"}
    jsonl(tmp_path, [*changed[:2], {"id": "3", "question": "?"}])
    assert counts(reproduce(folder, Choice(sample="0"))) == {"base": (1, 1)}


def test_recorded_logprobs_are_the_models_own(made: Path) -> None:
    records = [record for record in read_records(made / RECORDS) if record.arm == "hot"]
    assert len(records) == 6
    for record in records:
        assert len(record.logprobs) == len(record.top_logprobs) == len(record.token_ids) == 5
        for token_id, logprob, top in zip(
            record.token_ids, record.logprobs, record.top_logprobs, strict=True
        ):
            values = [value for _, value in top]
            assert values == sorted(values, reverse=True)
            assert len(top) == 3
            assert sum(map(math.exp, values)) <= 1 + 1e-5
            assert dict(top).get(token_id, logprob) == logprob
            assert logprob <= values[0]


def test_records_of_other_runs_are_refused(run: Path) -> None:
    content = json.loads((run / FILE).read_text())
    (run / FILE).write_text(json.dumps({**content, "seeds": [7, 1]}))
    with pytest.raises(VlmkitError, match="knows no such run; put the manifest"):
        reproduce(run)
