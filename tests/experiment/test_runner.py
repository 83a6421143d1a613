"""Runs: what is shared is computed once, whatever fails stays by itself, limits and interrupts."""

from __future__ import annotations

import io
import os
import resource
import signal
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.engine.running import counted
from tests.experiment.studies import STUDY, outcome, write_study
from vlmkit.errors import VlmkitError
from vlmkit.experiment.files import load_experiment
from vlmkit.experiment.loaded import Loaded, load_group
from vlmkit.experiment.manifest import read_manifest
from vlmkit.experiment.plan import make_plan
from vlmkit.experiment.progress import Lines, Silent
from vlmkit.experiment.records import Record
from vlmkit.experiment.runner import run_experiment
from vlmkit.experiment.running import Settings, run_group
from vlmkit.experiment.store import RECORDS

WIDE = """
base: {stopping: [{kind: max_tokens, max_tokens: 9}]}
dataset: {kind: shapes, num_samples: %d}
grid:
  sampling:
    greedy: [{kind: greedy}]
    warm: [{kind: temperature, temperature: 1.5}]
    hot: [{kind: temperature, temperature: 2.0}, {kind: min_p, p: 0.05}]
    nucleus: [{kind: temperature, temperature: 1.2}, {kind: top_p, p: 0.9}]
  stopping.0.max_tokens: [6, 7, 8, 9]
seeds: [0, 1, 2, 3]
"""

MIXED = """
base:
  template: {enable_thinking: true}
  stopping: [{kind: max_tokens, max_tokens: 8}, {kind: eos}]
dataset: {kind: shapes, num_samples: 3}
metrics: {right: {kind: exact}}
arms:
  warm: {sampling: [{kind: temperature, temperature: 3.0}]}
  beam: {search: {kind: beam, num_beams: 2}}
  affine: {cache: {kind: affine, bits: 8, group_size: 32}}
  vcd: {contrast: {kind: vcd}}
  steps: {prefill: {step_size: 16}}
  asked: {prompt: "Look closely. {question}"}
  small: {preprocess: {resize_shape: [56, 56]}}
  half: {dtype: bfloat16}
seeds: [0, 1]
"""

PICTURES = """
base: {stopping: [{kind: max_tokens, max_tokens: 4}]}
dataset: {kind: jsonl, path: data.jsonl}
arms:
  greedy: {}
  none:
    sampling:
      - {kind: allowed_tokens, token_ids: [3]}
      - {kind: suppress_tokens, token_ids: [3]}
"""


def loaded_plan(path: Path) -> tuple[Any, Loaded, Any]:
    plan = make_plan(load_experiment(path))
    loaded = load_group(plan.groups[0], plan.experiment.arms, plan.experiment.seeds)
    model, passes = counted(loaded.model)
    methods = [method._replace(model=model) for method in loaded.methods]
    return plan, loaded._replace(model=model, methods=methods), passes


def run_all(plan: Any, loaded: Loaded, settings: Settings) -> list[Record]:
    units = plan.new_units()
    steps = run_group(loaded, plan.samples, units, settings, is_over=lambda: False)
    return [one.record for one in steps if one is not None]


def test_sixteen_arms_and_four_seeds_are_one_prefill_and_one_pass_per_step(tmp_path: Path) -> None:
    plan, loaded, passes = loaded_plan(write_study(tmp_path, WIDE % 1))
    assert len(plan.experiment.arms) == 16
    assert plan.groups[0].num_prefills == 1
    records = run_all(plan, loaded, Settings(batch_size=64))
    assert len(records) == 64
    length = records[0].prompt_tokens
    assert passes.prefills == [(1, length)]
    assert passes.encoded == [1]
    # A row's last token is read while the next pass is on its way.
    assert passes.steps == [64] * 6 + [48, 32]
    assert sum(record.cached_tokens == 0 for record in records) == 1


@pytest.mark.parametrize("rows", [3, 64])
def test_prompts_are_prefilled_once_however_few_rows_fit(tmp_path: Path, rows: int) -> None:
    plan, loaded, passes = loaded_plan(write_study(tmp_path, WIDE % 2))
    records = run_all(plan, loaded, Settings(batch_size=rows))
    computed = sum(count * width for count, width in passes.prefills)
    lengths = {record.sample: record.prompt_tokens for record in records}
    assert len(lengths) == 2
    assert computed <= 2 * max(lengths.values())
    assert sum(passes.encoded) == 2


def test_arms_of_another_contrast_take_the_same_prefill(tmp_path: Path) -> None:
    study = """
    base: {stopping: [{kind: max_tokens, max_tokens: 3}]}
    dataset: {kind: shapes, num_samples: 2}
    arms: {plain: {}, layers: {contrast: {kind: dola}}}
    """
    plan, loaded, passes = loaded_plan(write_study(tmp_path, study))
    assert [len(batch.arms) for batch in plan.groups[0].batches] == [1, 1]
    records = run_all(plan, loaded, Settings(batch_size=2))
    # DoLa also needs the input of early layers, which only a pass over the last token gives.
    assert {r.arm: r.prompt_tokens - r.cached_tokens for r in records if r.arm == "layers"} == {
        "layers": 1
    }
    assert sum(passes.encoded) == 2


def test_sharing_off_gives_the_same_tokens(tmp_path: Path) -> None:
    path = write_study(tmp_path, MIXED)
    shared = run_experiment(path, tmp_path / "shared", batch_size=7)
    alone = run_experiment(path, tmp_path / "alone", share=False)
    assert shared.status == alone.status == "complete"
    assert shared.num_done == 8 * 3 * 2
    assert outcome(shared.records()) == outcome(alone.records())
    texts = {record.text for record in shared.records() if record.sample == "shapes-1"}
    assert len(texts) > 2


def pictures(folder: Path, names: list[str]) -> Path:
    Image.new("RGB", (112, 112), "red").save(folder / "good.png")
    whole = (folder / "good.png").read_bytes()
    (folder / "half.png").write_bytes(whole[: len(whole) // 2])
    Image.new("RGB", (2000, 4)).save(folder / "strip.png")
    lines = [
        f'{{"id": "{name}-{place}", "question": "How many?", "image": "{name}.png"}}\n'
        for place, name in enumerate(names)
    ]
    (folder / "data.jsonl").write_text("".join(lines))
    return write_study(folder, PICTURES)


def test_what_fails_is_a_record_and_its_neighbours_are_not_touched(tmp_path: Path) -> None:
    path = pictures(tmp_path, ["good", "half", "good", "strip", "good"])
    run = run_experiment(path, tmp_path / "run", batch_size=3)
    assert (run.status, run.num_done, run.num_errors) == ("complete", 10, 7)
    found = {record.unit: record for record in run.records()}
    good = [record for unit, record in found.items() if unit[1][:4] == "good"]
    assert [one.error is None for one in good] == [one.arm == "greedy" for one in good]
    failed = found["greedy", "half-1", 0]
    assert failed.finish_reason == "error"
    assert "half.png" in str(failed.error)
    assert "data.jsonl:4: " in str(found["greedy", "strip-3", 0].error)
    assert str(found["none", "good-0", 0].error).startswith("no token can be drawn")
    alone = run_experiment(pictures(tmp_path, ["good"]), tmp_path / "alone")
    (text,) = {record.text for record in alone.records() if record.arm == "greedy"}
    assert {one.text for one in good if one.arm == "greedy"} == {text}
    again = run_experiment(
        pictures(tmp_path, ["good", "half", "good", "strip", "good"]), tmp_path / "run"
    )
    assert again.num_done == 10


def test_fail_fast_stops_at_the_first(tmp_path: Path) -> None:
    path = pictures(tmp_path, ["good", "half"])
    with pytest.raises(VlmkitError, match=r"^sample '.*', arm '.*', seed 0: "):
        run_experiment(path, tmp_path / "run", fail_fast=True)
    run = run_experiment(path, tmp_path / "run")
    assert (run.num_done, run.num_errors) == (4, 3)


def test_a_run_goes_on_where_a_limit_stopped_it(tmp_path: Path) -> None:
    path = write_study(tmp_path, MIXED)
    stopped = run_experiment(path, tmp_path / "run", overrides=["limits.tokens=40"], batch_size=3)
    assert stopped.status == "limits.tokens"
    assert 0 < stopped.num_done < stopped.num_units
    timed = run_experiment(path, tmp_path / "run", overrides=["limits.minutes=1e-9"])
    assert (timed.status, timed.num_done) == ("limits.minutes", stopped.num_done)
    fewer = run_experiment(path, tmp_path / "run", overrides=["limits.samples=1"])
    assert (fewer.status, fewer.num_units) == ("complete", 16)
    run = run_experiment(path, tmp_path / "run")
    assert run.status == "complete"
    assert outcome(run.records()) == outcome(run_experiment(path, tmp_path / "whole").records())


def test_a_full_disk_ends_the_run_and_the_same_call_goes_on(tmp_path: Path) -> None:
    many = STUDY.replace("num_samples: 3", "num_samples: 12")
    path, folder = write_study(tmp_path, many), tmp_path / "run"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (12_000, limits[1]))
    try:
        with pytest.raises(VlmkitError, match=r"records\.jsonl: cannot be written: .*go on"):
            run_experiment(path, folder, batch_size=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    before = (folder / RECORDS).read_bytes()
    assert before.endswith(b"}\n")
    run = run_experiment(path, folder)
    assert (folder / RECORDS).read_bytes().startswith(before)
    assert outcome(run.records()) == outcome(run_experiment(path, tmp_path / "whole").records())


class Interrupting(Silent):
    """Sends SIGINT after some records."""

    def __init__(self, after: int, times: int = 1) -> None:
        self.after, self.times = after, times

    def advance(self, record: Record) -> None:
        self.after -= 1
        if self.after == 0:
            for _ in range(self.times):
                os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupt_closes_the_run_and_the_same_call_goes_on(tmp_path: Path) -> None:
    path = write_study(tmp_path)
    before = signal.getsignal(signal.SIGINT)
    run = run_experiment(path, tmp_path / "run", batch_size=2, progress=Interrupting(3))
    assert signal.getsignal(signal.SIGINT) is before
    assert run.status == "interrupted"
    assert run.num_done == 3
    with pytest.raises(KeyboardInterrupt):
        run_experiment(path, tmp_path / "run", batch_size=2, progress=Interrupting(1, times=2))
    assert signal.getsignal(signal.SIGINT) is before
    file = io.StringIO()
    run = run_experiment(path, tmp_path / "run", progress=Lines(file, every_s=0))
    assert run.status == "complete"
    first, *rest = file.getvalue().splitlines()
    assert first == "4 of 12 units are done"
    assert rest[-1].startswith("12/12 units, ")
    whole = run_experiment(path, tmp_path / "whole")
    assert outcome(run.records()) == outcome(whole.records())


def test_the_manifest_says_where_records_come_from(tmp_path: Path) -> None:
    path = write_study(tmp_path)
    run = run_experiment(path, tmp_path / "run", command=["vlmkit", "run", "study.yaml"])
    found = read_manifest(run.folder)
    assert set(found.hashes) == {"config", "data", "code", "weights of shapes"}
    assert found.command == ["vlmkit", "run", "study.yaml"]
    assert list(found.arms) == ["greedy", "warm"]
    assert found.arms["warm"]["sampling"] == [{"kind": "temperature", "temperature": 1.5}]
    assert found.versions.keys() >= {"python", "vlmkit", "mlx"}
    assert (found.seeds, found.baseline, found.folder) == ([0, 1], "greedy", str(tmp_path))


def test_a_changed_experiment_does_not_mix(tmp_path: Path) -> None:
    path = write_study(tmp_path)
    run_experiment(path, tmp_path / "run")
    changed = ["arms.warm.sampling.0.temperature=1.4"]
    with pytest.raises(VlmkitError, match="holds a run of another config"):
        run_experiment(path, tmp_path / "run", overrides=changed)
    with pytest.raises(VlmkitError, match="holds a run of another"):
        run_experiment(path, tmp_path / "run", overrides=["dataset.num_samples=4"])
    run = run_experiment(path, tmp_path / "run", overrides=changed, force_new=True)
    assert run.num_done == 12
    assert (tmp_path / "run.1" / "records.jsonl").is_file()
