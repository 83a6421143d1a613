"""Every kind of stopping criterion in the loop: a row alone, streamed, and among others."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

import vlmkit
from tests.engine.running import run_steps, ticking
from vlmkit import VlmkitError, load
from vlmkit.api import stream_pipeline
from vlmkit.engine import Request, collect
from vlmkit.numeric.probabilities import entropy, log_softmax
from vlmkit.pipeline import PipelineConfig
from vlmkit.prompt_utils import apply_chat_template

IMAGE = str(Path(vlmkit.__file__).parent / "assets" / "shapes" / "samples" / "count_all.png")
QUESTIONS = ["Count the objects.", "Is there a red circle?", "Count."]
LIMIT = {"kind": "max_tokens", "max_tokens": 24}
KINDS: dict[str, list[dict[str, Any]]] = {
    "entropy_stop": [{"kind": "entropy_stop", "above": 0.1, "window": 2, "min_tokens": 3}],
    "confidence_stop": [{"kind": "confidence_stop", "below": 0.7, "min_tokens": 3}],
    "close_thinking": [
        {"kind": "confidence_stop", "above": 0.6, "window": 3, "action": "close_thinking"}
    ],
    "all_of": [
        {
            "kind": "all_of",
            "criteria": [
                {"kind": "max_tokens", "max_tokens": 5},
                {"kind": "stop_sequences", "sequences": [" ", "\n"]},
            ],
        }
    ],
    "min_tokens": [
        {"kind": "eos", "min_tokens": 9},
        {"kind": "stop_sequences", "sequences": [" ", "c"], "min_tokens": 4},
        {"kind": "stop_token_ids", "sequences": ["\n", [318]], "min_tokens": 6},
    ],
    "any_of": [
        {
            "kind": "any_of",
            "criteria": [
                {"kind": "stop_sequences", "sequences": ["c3"]},
                {"kind": "entropy_stop", "above": 0.3},
            ],
        }
    ],
}


@functools.cache
def shapes() -> tuple[Any, Any]:
    return load("shapes")


def pipelines(stopping: list[dict[str, Any]]) -> Iterator[PipelineConfig]:
    for seed in range(5):
        yield PipelineConfig(
            sampling=[{"kind": "temperature", "temperature": 1.2}],
            stopping=[LIMIT, {"kind": "eos"}, *stopping],
            seed=seed,
        )


def requests() -> Iterator[Request]:
    model, processor = shapes()
    for question in itertools.cycle(QUESTIONS):
        prompt = apply_chat_template(
            processor, model.config, question, num_images=1, enable_thinking=True
        )
        yield Request(prompt, (IMAGE,))


def run_batch(
    configs: list[PipelineConfig], batch_size: int, **options: Any
) -> list[tuple[Any, ...]]:
    """Token ids, which of them were forced, text and finish of every row."""
    rows = list(zip(requests(), configs, strict=False))
    steps = run_steps(*shapes(), rows, batch_size=batch_size, **options)
    return [
        (
            [step.token_id for step in row],
            [step.forced for step in row],
            "".join(step.text for step in row),
            row[-1].finish.kind,
        )
        for row in steps
    ]


@pytest.mark.parametrize("name", KINDS)
def test_alone_streamed_and_in_a_batch(name: str) -> None:
    configs = list(pipelines(KINDS[name]))
    alone = run_batch(configs, 1)
    plain = run_batch(list(pipelines([])), 1)
    assert alone != plain, "the criterion makes no difference"
    for batch_size in (2, 5):  # with 2, rows leave and join between steps
        assert run_batch(configs, batch_size) == alone
    for config, request, row in zip(configs, requests(), alone, strict=False):
        results = list(stream_pipeline(*shapes(), request, config))
        streamed = "".join(result.text for result in results)
        last = collect(iter(results))
        assert (last.token_ids, last.forced, last.text, last.finish_kind) == row
        assert streamed == row[2]


def test_what_is_measured_is_the_models_own_distribution() -> None:
    """Before any stage: the chain here leaves one token of many."""
    config = PipelineConfig(
        sampling=[{"kind": "temperature", "temperature": 0.2}, {"kind": "top_k", "k": 1}],
        stopping=[LIMIT, {"kind": "entropy_stop", "above": 100.0}],
    )
    request = next(requests())
    (steps,) = run_steps(*shapes(), [(request, config)])
    logprobs = mx.concatenate([log_softmax(step.logits[None]) for step in steps])
    values = [value for (value,) in entropy(logprobs).tolist()]
    # so a bound just above the first new maximum ends the row at the token that passes it
    place = max(range(len(values)), key=values.__getitem__)
    bound = (values[place] + max([0.0, *values[:place]])) / 2
    stop = {"kind": "entropy_stop", "above": bound}
    early = config.model_copy(update={"stopping": PipelineConfig(stopping=[LIMIT, stop]).stopping})
    ((token_ids, _, _, kind),) = run_batch([early], 1)
    assert (len(token_ids), kind) == (place + 1, "entropy_stop")


def test_the_clock() -> None:
    stopping = [LIMIT, {"kind": "time_limit", "seconds": 3.5}]
    config = PipelineConfig(stopping=stopping, reproducible=False)
    ((token_ids, _, _, kind),) = run_batch([config], 1, clock=ticking())
    assert kind == "time_limit"
    assert 1 <= len(token_ids) <= 4
    with pytest.raises(VlmkitError, match="time_limit depends on the clock"):
        list(stream_pipeline(*shapes(), next(requests()), PipelineConfig(stopping=stopping)))
