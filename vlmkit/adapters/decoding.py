"""Rows of the decode loop for requests, and the answers that they become."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from vlmkit.adapters.asking import Asked, to_pipeline, to_request
from vlmkit.api import load
from vlmkit.config.locate import located
from vlmkit.config.run import RunConfig
from vlmkit.engine import (
    Amateur,
    RowSpec,
    RunOptions,
    Step,
    build_spec,
    collect,
    prepare_inputs,
    run_specs,
    to_result,
)
from vlmkit.pipeline import PipelineConfig
from vlmkit.processors import Processor
from vlmkit.resolve import (
    Method,
    Resolved,
    Work,
    build_method,
    check_search_plan,
    load_images,
    plan_search,
    resolve,
)
from vlmkit.results import GenerationResult


class TokenLogprob(NamedTuple):
    """A token of an answer, and what the model itself said of it, before the sampler chain."""

    token: str  # its text
    logprob: float
    others: tuple[tuple[str, float], ...]  # the most likely tokens, the likeliest first


class Answer(NamedTuple):
    """One response."""

    prompt: str  # as it was formatted
    result: GenerationResult
    logprobs: tuple[TokenLogprob, ...] | None  # per token, where they were asked for


class _Open(NamedTuple):
    """A row in flight."""

    asked: Asked
    prompt: str
    resolved: Resolved
    method: Method
    results: list[GenerationResult]
    logprobs: list[TokenLogprob]


class Decoder:
    """A loaded model and what its rows share. To be used in one thread.

    Args:
        config: which model to load.
        batch_size: rows in flight at most.

    Raises:
        VlmkitError: the model cannot be loaded.
    """

    def __init__(self, config: RunConfig, batch_size: int) -> None:
        self._model, self._processor = load(
            config.model, revision=config.revision, dtype=config.dtype, backend=config.backend
        )
        self._options = RunOptions(batch_size=batch_size, keep_prompts=False)
        self._resolved: dict[str, Resolved] = {}
        self._amateurs: dict[str, Amateur] = {}
        self._open: dict[int, _Open] = {}

    def prepare(self, asked: Asked, number: int) -> RowSpec:
        """Make the row of one request.

        Args:
            asked: the request.
            number: what its steps are called.

        Raises:
            VlmkitError: an image that cannot be read, a prompt that does not fit, a pipeline that
                cannot run on this model.
        """
        model, processor = self._model, self._processor
        with located(asked.run.tree):
            pipeline = to_pipeline(processor, asked)
            request = to_request(processor, asked)
            resolved = self._resolve(pipeline)
            images = load_images(request, resolved.pipeline)
            request = request._replace(images=images)
            inputs = prepare_inputs(model, processor, request, resolved.pipeline)
            plan = plan_search(model, inputs, pipeline, num_logits=processor.num_embeddings)
            check_search_plan(plan, pipeline)
            method = build_method(model, processor, resolved.pipeline, loaded=self._amateurs)
            work = Work(request, images, resolved, number)
            spec = build_spec(method, processor, work, inputs, options=self._options, number=number)
        self._open[number] = _Open(asked, str(request.prompt), resolved, method, [], [])
        return spec._replace(reused=asked.is_shared)

    def decode(self, first: int, specs: Iterator[RowSpec]) -> Iterator[tuple[int, Answer]]:
        """Run rows that :meth:`prepare` made, all of one cache, prefill and contrast config.

        Args:
            first: the number of one of them.
            specs: asked for a row whenever one is free; may have none now and some later.

        Yields:
            The number and the answer of each row as it ends.
        """
        method, pipeline = self._open[first].method, self._open[first].resolved.pipeline
        try:
            for step in run_specs(method, specs, pipeline, self._options):
                row = self._open[step.row]
                if row.asked.num_logprobs is not None and step.token_id is not None:
                    row.logprobs.append(_logprob(step, self._processor, row.asked.num_logprobs))
                row.results.append(to_result(step._replace(logits=None)))
                if step.finish is not None:
                    yield step.row, _close(self._open.pop(step.row), step.row)
        finally:
            self._open.clear()  # of a batch that broke

    def _resolve(self, pipeline: PipelineConfig) -> Resolved:
        key = pipeline.model_dump_json()
        if key not in self._resolved:
            self._resolved[key] = resolve(self._model, self._processor, pipeline)
        return self._resolved[key]


def _close(row: _Open, number: int) -> Answer:
    result = collect(row.results)
    result.effective = row.resolved.effective
    if result.error is not None:
        result.error = result.error.removeprefix(f"row {number}: ")
    return Answer(
        row.prompt, result, None if row.asked.num_logprobs is None else tuple(row.logprobs)
    )


def _logprob(step: Step, processor: Processor, num_others: int) -> TokenLogprob:
    assert step.token_id is not None
    logits = np.array(step.logits, np.float64)  # [V]
    logprobs = logits - logits.max()
    logprobs -= np.log(np.exp(logprobs).sum())
    likeliest = np.argsort(-logprobs, kind="stable")[:num_others]
    return TokenLogprob(
        processor.decode([step.token_id]),
        float(logprobs[step.token_id]),
        tuple((processor.decode([place]), float(logprobs[place])) for place in likeliest),
    )
