"""One prompt, many continuations: its prefill is computed once and branched."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vlmkit.contracts.inputs import Inputs
from vlmkit.contracts.interface import DecodeState, Hidden, Model
from vlmkit.engine import (
    Request,
    RunOptions,
    Step,
    check_requests,
    collect_rows,
    run_requests,
    to_result,
)
from vlmkit.errors import VlmkitError
from vlmkit.pipeline import PipelineConfig
from vlmkit.processors import Processor
from vlmkit.prompts import PromptCache, Started, disk
from vlmkit.resolve import prompt_store, start_request
from vlmkit.results import GenerationResult


class Prompt(NamedTuple):
    """A prompt after its prefill: a value that can be continued again and again."""

    model: Model
    processor: Processor
    request: Request  # with its images loaded
    pipeline: PipelineConfig  # that it was started under
    inputs: Inputs  # token and content ids, media
    state: DecodeState  # one row
    hidden: Hidden  # of its last token, [1, hidden]


def start(
    model: Model,
    processor: Processor,
    request: Request | str,
    pipeline: PipelineConfig | None = None,
    *,
    prompt_cache: PromptCache | None = None,
) -> Prompt:
    """Run a prompt through the model, to be continued by :func:`branch`.

    Args:
        model: from :func:`vlmkit.load`.
        processor: from :func:`vlmkit.load`.
        request: what to generate from; a formatted text stands for a request without images.
        pipeline: its preprocess, prefill and cache configs are what the prompt is computed under.
        prompt_cache: prompts of earlier calls.

    Raises:
        VlmkitError: the request or the pipeline cannot work.

    Example:
        >>> from vlmkit import load
        >>> prompt = start(*load("shapes"), "How many?")
        >>> prompt.state.cache.lengths == (len(prompt.inputs.token_ids),)
        True
    """
    pipeline = PipelineConfig() if pipeline is None else pipeline
    asked = Request(request) if isinstance(request, str) else request
    (work,) = check_requests(model, processor, [(asked, pipeline)])
    started = start_request(model, processor, work.request, pipeline, prompt_cache)
    assert started.hidden is not None
    return Prompt(
        model, processor, work.request, pipeline, started.inputs, started.state, started.hidden
    )


def branch(
    prompt: Prompt,
    pipelines: Sequence[PipelineConfig],
    seeds: Sequence[int] | None = None,
    *,
    batch_size: int | None = None,
) -> list[list[GenerationResult]]:
    """Continue a prompt under N pipelines and M seeds; its prefill is not computed again.

    All continuations run side by side, one forward pass per step for those of one contrast method.
    What a contrast method adds (a negative prompt, a noised image) is computed as far as it differs
    from the prompt. A continuation that cannot go on has ``finish_reason="error"``.

    Args:
        prompt: from :func:`start`.
        pipelines: N pipelines; preprocess and cache as the prompt was started under.
        seeds: M seeds in place of the pipelines' own; None: one continuation of each, as it is.
        batch_size: continuations in flight at most; None: all.

    Returns:
        N lists of M results.

    Raises:
        VlmkitError: a pipeline with another preprocess or cache config, or one that cannot run.

    Example:
        >>> from vlmkit import load
        >>> from vlmkit.sampling import Temperature
        >>> prompt = start(*load("shapes"), "How many?")
        >>> limit = [{"kind": "max_tokens", "max_tokens": 2}]
        >>> warm = PipelineConfig(sampling=[Temperature(temperature=1.5)], stopping=limit)
        >>> [[r.generation_tokens for r in row] for row in branch(prompt, [warm], seeds=(0, 1))]
        [[2, 2]]
    """
    rows = _rows(prompt, pipelines, seeds)
    steps = _steps(prompt, rows, batch_size)
    found = {step.row: result for step, result in collect_rows(steps)}
    width = 1 if seeds is None else len(seeds)
    ordered = [found[place] for place in range(len(rows))]
    return [ordered[start : start + width] for start in range(0, len(rows), width)]


def stream_branch(
    prompt: Prompt,
    pipelines: Sequence[PipelineConfig],
    seeds: Sequence[int] | None = None,
    *,
    batch_size: int | None = None,
) -> Iterator[tuple[int, int, GenerationResult]]:
    """Continue a prompt like :func:`branch`, token by token as they become certain.

    The pipelines are checked when the function is called, not at the first token.

    Returns:
        (pipeline, seed, result) again and again: the places in the arguments, and one token's
        result.
    """
    rows = _rows(prompt, pipelines, seeds)
    width = 1 if seeds is None else len(seeds)
    steps = _steps(prompt, rows, batch_size)
    return ((*divmod(step.row, width), to_result(step, effective)) for step, effective in steps)


def save_prompts(
    prompt_cache: PromptCache, path: str | Path, model: Model, pipeline: PipelineConfig
) -> int:
    """Write what a prompt cache holds for a model and a pipeline's KV cache to a safetensors file.

    Returns:
        How many prompts were written.

    Raises:
        VlmkitError: the file cannot be written.
    """
    prompts = prompt_store(prompt_cache, model, pipeline).prompts()
    disk.save_prompts(path, prompts, model=model, config=pipeline.cache)
    return len(prompts)


def load_prompts(
    prompt_cache: PromptCache, path: str | Path, model: Model, pipeline: PipelineConfig
) -> int:
    """Add the prompts of a file that :func:`save_prompts` wrote to a prompt cache.

    Returns:
        How many prompts were read.

    Raises:
        VlmkitError: no such file, one that is damaged, or one of other weights or another KV cache.

    Example:
        >>> import tempfile
        >>> from vlmkit import generate, load
        >>> model, processor = load("shapes")
        >>> seen, fresh = PromptCache(), PromptCache()
        >>> _ = generate(model, processor, "How many circles?", max_tokens=1, prompt_cache=seen)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     file = f"{folder}/prompts.safetensors"
        ...     saved = save_prompts(seen, file, model, PipelineConfig())
        ...     read = load_prompts(fresh, file, model, PipelineConfig())
        >>> saved == read
        True
        >>> result = generate(
        ...     model, processor, "How many circles?", max_tokens=1, prompt_cache=fresh
        ... )
        >>> result.cached_tokens == result.prompt_tokens
        True
    """
    prompts = disk.read_prompts(path, model=model, config=pipeline.cache)
    store = prompt_store(prompt_cache, model, pipeline)
    for prompt in prompts:
        store.put(prompt)
    return len(prompts)


_Row = tuple[Request, PipelineConfig]


def _rows(
    prompt: Prompt, pipelines: Sequence[PipelineConfig], seeds: Sequence[int] | None
) -> list[_Row]:
    for place, pipeline in enumerate(pipelines):
        for name in ("preprocess", "cache"):
            theirs, own = getattr(pipeline, name), getattr(prompt.pipeline, name)
            if theirs != own:
                raise VlmkitError(
                    f"pipeline {place}: {name} is {theirs!r}, but the prompt was started under "
                    f"{own!r}; start another prompt for it"
                )
    each = [
        pipeline
        if seed is None
        else PipelineConfig.model_validate({**dict(pipeline), "seed": seed})
        for pipeline in pipelines
        for seed in ([None] if seeds is None else seeds)
    ]
    return [(prompt.request, pipeline) for pipeline in each]


def _steps(
    prompt: Prompt, rows: Sequence[_Row], batch_size: int | None
) -> Iterator[tuple[Step, dict[str, Any] | None]]:
    if batch_size is not None and (
        isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1
    ):
        raise VlmkitError(f"batch_size is {batch_size!r}; it must be a whole number, 1 or more")
    known = PromptCache(max_bytes=None)
    started = Started(prompt.inputs, prompt.state, prompt.hidden)
    prompt_store(known, prompt.model, prompt.pipeline).put(started)
    options = RunOptions(
        batch_size=max(len(rows), 1) if batch_size is None else batch_size,
        prompt_cache=known,
        keep_prompts=False,
    )
    work = check_requests(prompt.model, prompt.processor, rows)
    return run_requests(prompt.model, prompt.processor, work, options)
