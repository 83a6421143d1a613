"""What a search needs is known before it begins: refused if it cannot fit, said if it is much."""

from __future__ import annotations

import warnings
from typing import Any

import mlx.core as mx
import pytest

from vlmkit import load
from vlmkit.api import stream_pipeline
from vlmkit.batch import batch_pipeline
from vlmkit.cache import describe_cache
from vlmkit.cli.main import main
from vlmkit.engine import Request, collect, prepare_inputs
from vlmkit.errors import VlmkitError, VlmkitWarning
from vlmkit.pipeline import PipelineConfig
from vlmkit.resolve import check_search_plan, plan_search

REQUEST = Request("How many circles are there? " * 4)
FREE = "vlmkit.resolve.search_plan.available_bytes"


@pytest.fixture(scope="module")
def shapes() -> tuple[Any, Any]:
    return load("shapes")


@pytest.fixture(autouse=True)
def _no_spare_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    """What mlx keeps for its next arrays counts as free, and depends on the tests before."""
    monkeypatch.setattr("mlx.core.get_cache_memory", lambda: 0)


def beams(count: int, **fields: Any) -> PipelineConfig:
    return PipelineConfig(
        search={"kind": "beam", "num_beams": count},
        stopping=[{"kind": "max_tokens", "max_tokens": fields.pop("max_tokens", 20)}],
        **fields,
    )


def plan_of(shapes: tuple[Any, Any], pipeline: PipelineConfig, num_requests: int = 1) -> Any:
    model, processor = shapes
    inputs = prepare_inputs(model, processor, REQUEST, pipeline)
    num_logits = processor.num_embeddings
    return plan_search(model, inputs, pipeline, num_logits=num_logits, num_requests=num_requests)


@pytest.mark.parametrize(
    ("fields", "slots", "streams"),
    [
        ({}, 256, 1),
        ({"max_tokens": 300}, 512, 1),
        ({"max_tokens": 1900, "cache": {"kind": "rotating", "max_size": 500}}, 512, 1),
        ({"cache": {"kind": "affine", "bits": 8, "group_size": 32}}, 256, 1),
        ({"contrast": {"kind": "icd"}}, 256, 2),
        ({"contrast": {"kind": "dola"}}, 256, 1),
    ],
    ids=str,
)
def test_a_plan_counts_rows_tokens_and_bytes(
    shapes: tuple[Any, Any], fields: dict[str, Any], slots: int, streams: int
) -> None:
    model, _ = shapes
    pipeline = beams(10, **fields)
    plan = plan_of(shapes, pipeline, num_requests=3)
    length = len(prepare_inputs(*shapes, REQUEST, pipeline).token_ids)
    assert (plan.num_rows, plan.num_requests) == (10, 3)
    assert plan.num_tokens == length + fields.get("max_tokens", 20)
    per_token = describe_cache(pipeline.cache, model.layer_specs, model.dtype)["bytes_per_token"]
    shared = 256 if 9 * length >= 256 and fields.get("cache", {}).get("kind") != "rotating" else 0
    own = -(-(plan.num_tokens - length) // 256) * 256 if shared else slots
    assert plan.cache_bytes == 2.5 * 3 * streams * (10 * own + shared) * per_token
    assert plan.logits_bytes == 6 * 10 * 3 * streams * 640 * 4


def test_a_long_prompt_is_planned_once(shapes: tuple[Any, Any]) -> None:
    model, processor = shapes
    request = Request("How many circles are there? " * 80)
    for cache, times in (({}, 1), ({"kind": "rotating", "max_size": 800}, 10)):
        pipeline = beams(10, **({"cache": cache} if cache else {}))
        inputs = prepare_inputs(model, processor, request, pipeline)
        length = len(inputs.token_ids)
        assert 512 < length <= 748
        plan = plan_search(model, inputs, pipeline, num_logits=640)
        per_token = describe_cache(pipeline.cache, model.layer_specs, model.dtype)
        slots = times * 768 + (10 * 256 if times == 1 else 0)
        assert plan is not None
        assert plan.cache_bytes == 2.5 * slots * per_token["bytes_per_token"]


def test_without_a_search_there_is_no_plan(shapes: tuple[Any, Any]) -> None:
    assert plan_of(shapes, PipelineConfig()) is None
    check_search_plan(None, PipelineConfig())


@pytest.mark.parametrize(
    "search",
    [{"kind": "beam", "num_beams": 24}, {"kind": "contrastive_search", "top_k": 24}],
    ids=lambda search: search["kind"],
)
@pytest.mark.parametrize("times", [4, 80])
def test_what_a_search_takes_is_what_was_planned(
    shapes: tuple[Any, Any], search: dict[str, Any], times: int
) -> None:
    request = Request("How many circles are there? " * times)
    pipeline = beams(2).model_copy(update={"search": PipelineConfig(search=search).search})
    inputs = prepare_inputs(*shapes, request, pipeline)
    plan = plan_search(shapes[0], inputs, pipeline, num_logits=shapes[1].num_embeddings)
    assert plan is not None
    mx.clear_cache()
    before = mx.get_active_memory()
    collect(stream_pipeline(*shapes, request, pipeline))
    taken = mx.get_peak_memory() - before
    assert 0.5 * plan.num_bytes < taken <= plan.num_bytes + 3_000_000  # the prefill's own


@pytest.mark.parametrize(
    ("search", "key"),
    [
        ({"kind": "beam", "num_beams": 50}, "num_beams"),
        (
            {"kind": "diverse_beam", "num_beams": 50, "num_groups": 5, "diversity_penalty": 1.0},
            "num_beams",
        ),
        ({"kind": "contrastive_search", "top_k": 50}, "top_k"),
    ],
    ids=lambda value: value["kind"] if isinstance(value, dict) else value,
)
def test_a_search_that_cannot_fit_is_refused_with_figures(
    shapes: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, search: dict[str, Any], key: str
) -> None:
    monkeypatch.setattr(FREE, lambda: 10_000_000)
    monkeypatch.setattr("vlmkit.engine.run.run_specs", lambda *_, **__: pytest.fail("a row ran"))
    message = (
        rf"^search\.{key}: 50 rows of up to \d+ tokens may take \d+\.\d MB \(KV cache \d+\.\d MB, "
        rf"logits \d+ kB\), and 10\.0 MB are free; use {key}: \d or less, a smaller max_tokens"
    )
    with pytest.raises(VlmkitError, match=message):
        stream_pipeline(*shapes, REQUEST, PipelineConfig(search=search))
    monkeypatch.setattr(FREE, lambda: None)  # unknown: it may fit
    check_search_plan(plan_of(shapes, beams(50)), beams(50))


def test_a_run_names_the_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Any
) -> None:
    monkeypatch.setattr(FREE, lambda: 10_000)
    path = tmp_path / "run.yaml"
    path.write_text("prompt: Hi\nsearch:\n  kind: beam\n  num_beams: 50\n")
    assert main(["generate", str(path)]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"vlmkit: error: {path}:4: search.num_beams: 50 rows of up to ")
    assert shown.err.count("\n") == 1
    assert main(["generate", "--prompt", "Hi", "search={kind: beam, num_beams: 5}"]) == 2
    assert "use no search, a smaller" in capsys.readouterr().err


def test_a_batch_counts_the_requests_in_flight_and_names_the_row(
    shapes: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vlmkit.batch.run_requests", lambda *_, **__: pytest.fail("a row ran"))
    one = plan_of(shapes, beams(4)).num_bytes
    monkeypatch.setattr(FREE, lambda: 2 * one)
    rows = [(Request("Hi"), PipelineConfig()), (Request("Hi"), beams(4))]
    rows += [(REQUEST, beams(4))] * 2
    with pytest.raises(VlmkitError, match=r"^row 3: search\.num_beams: 4 rows for each of 3 req"):
        batch_pipeline(*shapes, rows)
    monkeypatch.undo()
    monkeypatch.setattr(FREE, lambda: 2 * one + 1)
    assert len(batch_pipeline(*shapes, rows, batch_size=2).results) == 4


def test_many_rows_are_warned_of(shapes: tuple[Any, Any]) -> None:
    few, many = beams(64, max_tokens=1), beams(65, max_tokens=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        stream_pipeline(*shapes, REQUEST, few)
    message = r"^search\.num_beams: 65 rows of up to \d+ tokens may take .* each step computes all"
    with pytest.warns(VlmkitWarning, match=message):
        stream_pipeline(*shapes, REQUEST, many)


@pytest.mark.filterwarnings("default::vlmkit.errors.VlmkitWarning")
def test_a_command_warns_on_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    words = [
        "generate",
        "--prompt",
        "Hi",
        "--max-tokens",
        "1",
        "search={kind: beam, num_beams: 65}",
    ]
    assert main(words) == 0
    shown = capsys.readouterr()
    assert shown.err.startswith("vlmkit: warning: search.num_beams: 65 rows of up to ")
    assert shown.err.count("\n") == 1
    assert shown.out.count("\n") == 1
