"""A stream of results as records: what comes when."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from tests.trace.chains import decode, run_chain
from vlmkit import __version__
from vlmkit.errors import VlmkitError
from vlmkit.results import GenerationResult
from vlmkit.sampling import TopK
from vlmkit.tracing import TraceEnd, TraceHeader, TraceStep
from vlmkit.tracing.recording import trace_records
from vlmkit.tracing.records import Record


def results(num_tokens: int) -> list[GenerationResult]:
    rng = np.random.default_rng(3)
    found = []
    for _ in range(num_tokens):
        trace = run_chain([TopK(k=3)], rng.normal(size=20).astype(np.float32))
        token_id = trace.sampled_id
        found.append(
            GenerationResult(
                text=decode([token_id]), token=token_id, forced=[False], trace=trace,
                effective={"dtype": "float32"},
            )
        )  # fmt: skip
    found[-1].finish_reason, found[-1].finish_kind = "length", "max_tokens"
    return found


def records(given: list[GenerationResult]) -> list[Record]:
    return list(
        trace_records(given, model="shapes", prompt="Hi", config={}, decode=decode, top_n=4, seed=9)
    )


def test_header_steps_end() -> None:
    given = results(3)
    header, *steps, end = records(given)
    assert isinstance(header, TraceHeader)
    assert (header.version, header.seed, header.effective) == (__version__, 9, {"dtype": "float32"})
    assert [step.position for step in steps if isinstance(step, TraceStep)] == [0, 1, 2]
    text = "".join(result.text for result in given)
    assert end == TraceEnd(text=text, finish_reason="length", finish_kind="max_tokens")


def test_a_record_is_there_as_soon_as_its_token() -> None:
    seen = []

    def stream(given: list[GenerationResult]) -> Iterator[GenerationResult]:
        for result in given:
            seen.append(result.token)
            yield result

    made = trace_records(
        stream(results(2)), model="m", prompt="", config={}, decode=decode, top_n=1
    )
    next(made)
    next(made)
    assert len(seen) == 1


def test_a_row_that_ends_before_its_first_token() -> None:
    header, end = records([GenerationResult(finish_reason="length")])
    assert isinstance(header, TraceHeader)
    assert end == TraceEnd(text="", finish_reason="length")


def test_results_without_a_trace() -> None:
    given = results(1)
    given[0].trace = None
    with pytest.raises(VlmkitError, match="ask for it with trace=True"):
        records(given)
