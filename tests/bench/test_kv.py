"""The bench of KV caches: what a row holds, what is left out, and files that are compared."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from vlmkit.bench import (
    BenchRow,
    KvBenchConfig,
    load_kv_bench,
    read_rows,
    run_kv_bench,
    running,
    write_rows,
)
from vlmkit.bench.measure import layer_forms
from vlmkit.bench.running import layers_running, model_running, prefill_turn
from vlmkit.bench.tables import FORMATS, comparison, narrow_tables, tables
from vlmkit.cache import AffineConfig, DenseConfig
from vlmkit.cli.main import main
from vlmkit.contracts.interface import KVSpec
from vlmkit.errors import VlmkitError
from vlmkit.loading import load_model, resolve_checkpoint

FOUR = {"kind": "affine", "bits": 4, "group_size": 32}
POLICIES = {"4 bits": FOUR}
SMALL: dict[str, Any] = {
    "contexts": (32,),
    "batches": (2,),
    "repetitions": 3,
    "policies": POLICIES,
    "layer": {"num_layers": 2},
}


@pytest.fixture(scope="module")
def rows() -> list[BenchRow]:
    return list(run_kv_bench(KvBenchConfig(**SMALL), command=["vlmkit", "bench"]))


def test_every_test_has_a_row_for_every_policy(rows: list[BenchRow]) -> None:
    assert [row.case for row in rows] == [
        (test, policy, 32, 2)
        for test in ("layer", "decode", "prefill")
        for policy in ("dense", "4 bits")
    ]
    for row in rows:
        assert len(row.seconds) == len(row.base_seconds) == 3
        assert min(row.seconds) > 0
        assert row.ratio > 0


def test_bytes_are_those_of_the_arrays(rows: list[BenchRow]) -> None:
    dense, four = rows[:2]
    assert dense.held_bytes == dense.base_held_bytes == 2 * 32 * 2 * 2 * 2 * 64 * 4
    assert four.held_bytes == 2 * 32 * 2 * 2 * 2 * 64 * 5 // 8
    assert four.held_ratio == 5 / 32
    for row in rows[:4]:
        assert row.cache_bytes >= row.held_bytes
        assert row.peak_bytes >= row.cache_bytes


def test_a_row_holds_all_that_it_depends_on(rows: list[BenchRow]) -> None:
    setup = rows[0].setup
    assert setup["command"] == ["vlmkit", "bench"]
    assert setup["machine"]["cores"] >= 1
    assert setup["backend"]["quantized_attention"]
    assert {"versions", "date", "load_average", "model", "repetitions", "layer"} <= setup.keys()
    assert rows[1].config == AffineConfig(bits=4, group_size=32).model_dump(mode="json")


def test_a_prompt_is_finished_before_steps_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    policies: dict[str, Any] = {
        "snapkv": {"kind": "snapkv", "ratio": 0.25, "window": 8},
        "h2o": {"kind": "h2o", "ratio": 0.25},
        "keydiff": {"kind": "keydiff", "ratio": 0.25},
        "4 bits": {"kind": "quantized", "start": "after_prefill", "keys": FOUR, "values": FOUR},
    }
    # A quarter of 1,020 tokens, and one more, fill a block of 256 slots.
    own = {**SMALL, "contexts": (1020,), "batches": (1,), "repetitions": 2, "policies": policies}
    found = list(run_kv_bench(KvBenchConfig(**own, tests=("layer", "decode"))))
    assert len(found) == 2 * 5
    for row in found:
        assert row.held_bytes <= row.cache_bytes < 1.1 * row.held_bytes
        assert row.policy == "dense" or row.held_bytes < 0.3 * row.base_held_bytes
    told: list[str] = []
    most = KvBenchConfig(**{**own, "most_bytes": 2 * 2**20}, tests=("layer",))
    assert not list(run_kv_bench(most, tell=told.append))  # they hold all of it at first
    assert len(told) == 5

    finished: list[int] = []
    monkeypatch.setattr(running, "finish_rows", lambda cache, prompts: finished.append(1) or cache)
    model = load_model(resolve_checkpoint("shapes"))
    prefill_turn(model, DenseConfig(), batch=1, context=8)()
    assert finished == [1]


def test_what_is_too_large_is_left_out_and_said() -> None:
    told: list[str] = []
    config = KvBenchConfig(**{**SMALL, "contexts": (32, 4096), "longest_prefill": 64,
                              "tests": ("decode", "prefill"), "most_bytes": 2**20})  # fmt: skip
    found = list(run_kv_bench(config, tell=told.append))
    assert {row.context for row in found} == {32}
    assert len(told) == 4
    assert told[0].startswith("decode, dense, 4,096 x 2: left out: ")
    assert told[0].endswith("bytes are more than most_bytes=1,048,576")
    assert (
        told[-1] == "prefill, 4 bits, 4,096 x 2: left out: longest_prefill is 64 tokens of all rows"
    )


@pytest.mark.parametrize("policy", [DenseConfig(), AffineConfig(bits=4, group_size=32)])
def test_a_running_cache_goes_on_by_a_token_a_turn(policy: Any) -> None:
    model = load_model(resolve_checkpoint("shapes"))
    whole = model_running(model, policy, batch=2, context=300)
    layers = layers_running(
        layer_forms(), mx.float32, policy, KVSpec(2, 32, 32), 3, 4, batch=2, context=511
    )
    before = layers.num_bytes
    for cache in (whole, layers):
        assert cache.turn() > 0
    assert layers.num_bytes == before  # 512 slots hold it
    layers.turn()
    assert layers.num_bytes > before
    assert whole.lengths == (301, 301)


def test_a_file_gives_back_its_rows(rows: list[BenchRow], tmp_path: Path) -> None:
    write_rows(tmp_path / "rows.json", rows)
    assert read_rows(tmp_path / "rows.json") == rows


def test_every_format_has_every_row(rows: list[BenchRow]) -> None:
    assert FORMATS["md"](rows).count("| 4 bits | 32 | 2 |") == 3
    lines = list(csv.DictReader(io.StringIO(FORMATS["csv"](rows))))
    assert [line["policy"] for line in lines] == [row.policy for row in rows]
    assert [float(x) for x in lines[0]["seconds"].split()] == pytest.approx(rows[0].seconds, 1e-6)
    assert len(json.loads(FORMATS["json"](rows))["rows"]) == 6
    assert [len(table.columns) for table in narrow_tables(rows)] == [6] * 3
    assert [bool(table.notes) for table in tables(rows)] == [False, False, True]


def test_two_files_are_compared_case_by_case(rows: list[BenchRow]) -> None:
    old = [replace(row, seconds=(1.0, 1.1, 1.2), base_seconds=(1.0, 1.0, 1.0)) for row in rows]
    new = [replace(row, seconds=(0.4, 0.5, 0.6)) for row in old[:2]]
    [table] = comparison(old, [*new, replace(new[0], policy="other")])
    assert [row[6:9] for row in table.rows] == [("0.45", "faster", "1.10 → 0.50")] * 2
    assert table.notes[0] == "2 cases in both; 4 only in the old, 1 only in the new"
    [same] = comparison(old, old)
    assert {row[7] for row in same.rows} == {""}


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["contexts=[0]"], "contexts.0: must be at least 1"),
        (["contexts=[8,8]"], "contexts: 8 is given twice; give each once"),
        (["tests=[speed]"], "tests.0"),
        (["repetitions=1"], "repetitions: must be at least 2"),
        (["policies.a.kind=affin"], "policies.a"),
        (["polices.a.kind=affine"], "did you mean 'policies'"),
        (["policies.a.kind=external", "policies.a.factory=os:system"], "names code to run"),
    ],
)
def test_a_mistake_in_a_config_is_one_line(overrides: list[str], said: str) -> None:
    with pytest.raises(VlmkitError) as error:
        load_kv_bench(overrides=overrides)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_a_policy_that_cannot_work_is_named_before_anything_is_timed() -> None:
    config = KvBenchConfig(**{**SMALL, "policies": {"wide": {"kind": "affine", "group_size": 64}}})
    with pytest.raises(VlmkitError) as error:
        next(iter(run_kv_bench(config)))
    assert str(error.value).startswith("policies.wide: cache.group_size: 64 does not divide head")
    assert str(error.value).endswith("in the model 'shapes'")
    only = KvBenchConfig(**{**SMALL, "tests": ("layer",), "policies": dict(config.policies)})
    assert next(iter(run_kv_bench(only))).policy == "dense"


def test_the_command_measures_writes_and_compares(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["contexts=[16]", "batches=[1]", "repetitions=2", "tests=[decode]"]
    file, other = tmp_path / "a.json", tmp_path / "b.yaml"
    other.write_text("policies: {8 bits: {kind: affine, group_size: 32}}\n")
    assert main(["bench", "kv", str(other), *words, "--out", str(file), "--format", "json"]) == 0
    assert [row["policy"] for row in json.loads(capsys.readouterr().out)["rows"]] == [
        *("dense", "8 bits"),
    ]
    assert main(["bench", "kv", "--compare", str(file), str(file)]) == 0
    assert "2 cases in both" in capsys.readouterr().out
    for words, said in (
        (["--compare", str(file), str(other)], "b.yaml: is no JSON"),
        (["--compare", str(file), str(tmp_path / "c")], "cannot be read"),
        (["--compare", str(file), str(file), "repetitions=3"], "times nothing"),
        (["--compare", str(file), str(file), "--format", "csv"], "--compare has no csv"),
        ([str(other), "most_bytes=1048576", "contexts=[100000]"], "nothing was measured"),
    ):
        assert main(["bench", "kv", *words]) == 2
        assert said in capsys.readouterr().err
    file.write_text('{"format": "vlmkit bench 1", "rows": [{"test": 1}]}')
    assert main(["bench", "kv", "--compare", str(file), str(file)]) == 2
    assert "no file of this version's bench" in capsys.readouterr().err
    file.write_text("{}")
    assert main(["bench", "kv", "--compare", str(file), str(file)]) == 2
    assert "is no file of 'vlmkit bench'" in capsys.readouterr().err


def test_the_file_of_the_repository_names_every_codec() -> None:
    file = Path(__file__).parent.parent.parent / "benchmarks" / "kv_cache.yaml"
    kinds = json.dumps([one.model_dump() for one in load_kv_bench(file).policies.values()])
    for kind in ("affine", "mxfp4", "mxfp8", "nvfp4", "per_token_head", "hadamard", "turboquant"):
        assert f'"kind": "{kind}"' in kinds
