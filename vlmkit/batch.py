"""``batch_generate``: many prompts through one decode loop with continuous batching."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, List, NamedTuple, Union

import mlx.core as mx

from vlmkit.asking import check_request, read_params, read_prompt_cache
from vlmkit.contracts.interface import Model
from vlmkit.engine import Request, RunOptions, check_requests, collect_rows, run_requests
from vlmkit.errors import VlmkitError
from vlmkit.pipeline import PipelineConfig
from vlmkit.preprocess import ImageSource, as_clips, as_sources, as_videos, check_prompt
from vlmkit.preprocess.arguments import BYTES_LIKE
from vlmkit.processors import Processor
from vlmkit.prompts import PromptCache
from vlmkit.resolve import check_searches
from vlmkit.results import BatchResponse, BatchStats, GenerationResult

# A list for one of these is one value; a list of lists is one value per prompt.
_SPLITS = {"images": as_sources, "audios": as_clips, "videos": as_videos}
_SEQUENCE_PARAMS = frozenset({"eos_tokens", "stop", "resize_shape"})


class _Clock(NamedTuple):
    """Seconds spent so far, by what they were spent on; the lists grow as the batch runs."""

    preparing: list[float]
    prompts: list[float]


def batch_generate(
    model: Model,
    processor: Processor,
    images: Union[ImageSource, Sequence[Any], None] = None,
    audios: Union[str, Sequence[Any], None] = None,
    prompts: List[str] | None = None,
    max_tokens: Union[int, List[int]] = 128,
    verbose: bool = False,
    group_by_shape: bool = True,
    track_image_sizes: bool = True,
    *,
    batch_size: int = 16,
    videos: Union[str, Sequence[Any], None] = None,
    **kwargs: Any,
) -> BatchResponse:
    """Generate a response for each prompt, several at a time.

    At most ``batch_size`` rows are in flight; a finished row is replaced by the next prompt. A
    row's tokens are those of its own ``generate`` call with the same parameters. Rows that are
    equal in prompt, images and parameters are numbered as samples 0, 1, 2, … of that prompt, so
    that seeded sampling draws differently for each. A row that cannot go on (an image that cannot
    be read, a prompt that is empty or too long, a token id that the model lacks, NaN logits) ends
    with ``finish_reason="error"`` and its ``error``; the others are not touched.

    Args:
        model: from :func:`vlmkit.load`.
        processor: from :func:`vlmkit.load`.
        images: one entry per prompt: an image source, ``None``, or a list of several images.
        audios: one entry per prompt, likewise.
        prompts: formatted prompts, from :func:`vlmkit.prompt_utils.apply_chat_template`.
        max_tokens: the limit for all prompts, or one per prompt.
        verbose: print the statistics of the batch to stdout.
        group_by_shape: prefill only rows with images of equal size together, in order of size.
        track_image_sizes: report the original (height, width) of every image; none of a row with
            one that cannot be read.
        batch_size: rows in flight at most, at least 1.
        videos: one entry per prompt, likewise.
        **kwargs: every parameter of :func:`vlmkit.generate`; a list with one entry per prompt
            gives each row its own value.

    Returns:
        Texts in the order of the prompts, statistics, image sizes, and full results per prompt.

    Raises:
        VlmkitError: counts that do not match, arguments of a wrong type, or parameters that
            :func:`vlmkit.generate` refuses.

    Example:
        >>> from vlmkit import batch_generate, load
        >>> model, processor = load("shapes")
        >>> len(batch_generate(model, processor, prompts=["Hi", "How many?"], max_tokens=2).texts)
        2
    """
    started = time.perf_counter()
    mx.reset_peak_memory()
    checked = _check_prompts(prompts)
    prompt_cache = read_prompt_cache(kwargs.pop("prompt_cache", None))
    params = _split_params({"max_tokens": max_tokens, **kwargs}, len(checked))
    entries = zip(
        checked,
        _per_prompt("images", images, len(checked)),
        _per_prompt("audios", audios, len(checked)),
        params,
        _per_prompt("videos", videos, len(checked)),
        strict=True,
    )
    response = _run_batch(
        model,
        processor,
        [read_params(processor, *entry) for entry in entries],
        batch_size=batch_size,
        group_by_shape=group_by_shape,
        prompt_cache=prompt_cache,
        started=started,
    )
    if verbose:
        print(_describe(response.stats, len(checked)))
    return response if track_image_sizes else dataclasses.replace(response, image_sizes=None)


def batch_pipeline(
    model: Model,
    processor: Processor,
    rows: Sequence[tuple[Request, PipelineConfig]],
    *,
    batch_size: int = 16,
    group_by_shape: bool = True,
    prompt_cache: PromptCache | None = None,
) -> BatchResponse:
    """Run many requests, each through its own pipeline config, several at a time.

    Rows may differ in everything: sampler chain, stopping, contrast, search, KV cache. Those with
    equal cache, prefill and contrast configs share one forward pass per step. A row that cannot go
    on (an image that cannot be read, a prompt that is empty or too long, a prefill that fails, NaN
    logits, nothing left to draw, a criterion that raises) ends with ``finish_reason="error"`` and
    its ``error``; the others are not touched.

    Args:
        model: from :func:`vlmkit.load`.
        processor: from :func:`vlmkit.load`.
        rows: what to generate from, and how.
        batch_size: requests in flight at most, at least 1; a search counts as one.
        group_by_shape: prefill only rows with images of equal size together, in order of size.
        prompt_cache: prompts of earlier calls; takes in these.

    Example:
        >>> from vlmkit import load
        >>> from vlmkit.sampling import MinP
        >>> model, processor = load("shapes")
        >>> stopping = [{"kind": "max_tokens", "max_tokens": 2}]
        >>> rows = [
        ...     (Request("Hi"), PipelineConfig(stopping=stopping)),
        ...     (Request("Hi"), PipelineConfig(stopping=stopping, sampling=[MinP(p=0.1)], seed=3)),
        ... ]
        >>> [result.generation_tokens for result in batch_pipeline(model, processor, rows).results]
        [2, 2]
    """
    started = time.perf_counter()
    mx.reset_peak_memory()
    return _run_batch(
        model,
        processor,
        rows,
        batch_size=batch_size,
        group_by_shape=group_by_shape,
        prompt_cache=prompt_cache,
        started=started,
    )


def _run_batch(
    model: Model,
    processor: Processor,
    entries: Sequence[tuple[Request, PipelineConfig]],
    *,
    batch_size: int,
    group_by_shape: bool,
    prompt_cache: PromptCache | None,
    started: float,
) -> BatchResponse:
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise VlmkitError(f"batch_size is {batch_size!r}; it must be a whole number, 1 or more")
    rows = [_check_row(number, entry) for number, entry in enumerate(entries)]
    work = check_requests(model, processor, rows, is_batch=True)
    check_searches(model, processor, work, batch_size=batch_size)
    clock = _Clock(preparing=[time.perf_counter() - started], prompts=[])
    options = RunOptions(batch_size, group_by_shape, prompt_cache=prompt_cache)
    results: dict[int, GenerationResult] = {}
    steps = run_requests(model, processor, work, options, prepared_s=clock.preparing)
    for last_step, result in collect_rows(steps):
        results[last_step.row] = result
        clock.prompts.append(last_step.timing.seconds)
    ordered = [results[place] for place in range(len(work))]
    stats = _stats(ordered, time.perf_counter() - started, clock)
    images = [image for one in work for image in one.images]
    return BatchResponse(
        texts=[result.text for result in ordered],
        stats=stats,
        image_sizes=[(image.height, image.width) for image in images],
        results=ordered,
    )


def _check_prompts(prompts: object) -> list[str | tuple[int, ...]]:
    if prompts is None:
        raise VlmkitError("batch_generate needs prompts: a list of formatted strings")
    given: list[object] = [prompts]
    if isinstance(prompts, Iterable) and not isinstance(prompts, (str, Mapping, *BYTES_LIKE)):
        given = list(prompts)
    return [check_prompt(prompt, f"prompts[{n}]") for n, prompt in enumerate(given)]


def _per_prompt(name: str, value: Any, num_prompts: int) -> list[tuple[Any, ...]]:
    """One tuple of sources per prompt."""
    if value is None:
        return [()] * num_prompts
    entries = as_sources(value)
    if len(entries) != num_prompts:
        raise VlmkitError(
            f"{name} has {len(entries)} entries for {num_prompts} prompts; give one per prompt "
            "(None for a prompt without, a list for a prompt with several)"
        )
    return [_SPLITS[name](entry) for entry in entries]


def _split_params(params: dict[str, Any], num_prompts: int) -> list[dict[str, Any]]:
    """Keyword arguments per prompt: lists are dealt out, everything else is for all."""
    split: list[dict[str, Any]] = [{} for _ in range(num_prompts)]
    for name, value in params.items():
        if _is_per_prompt(name, value):
            if len(value) != num_prompts:
                raise VlmkitError(
                    f"{name} is a list of {len(value)} values for {num_prompts} prompts; give one "
                    "value for all, or one per prompt"
                )
            for one, entry in zip(split, value, strict=True):
                one[name] = entry
        else:
            for one in split:
                one[name] = value
    return split


def _is_per_prompt(name: str, value: Any) -> bool:
    if not isinstance(value, list):
        return False
    if name not in _SEQUENCE_PARAMS:
        return True
    return any(isinstance(entry, (list, tuple)) for entry in value)


def _check_row(
    number: int, entry: tuple[Request, PipelineConfig]
) -> tuple[Request, PipelineConfig]:
    if not isinstance(entry, (list, tuple)) or isinstance(entry, Request) or len(entry) != 2:
        raise VlmkitError(f"row {number}: needs a pair, as in (Request(prompt), PipelineConfig())")
    return check_request(entry[0], f"row {number}: "), entry[1]


def _stats(results: Sequence[GenerationResult], total_s: float, clock: _Clock) -> BatchStats:
    prompt_tokens = sum(result.prompt_tokens for result in results)
    cached_tokens = sum(result.cached_tokens for result in results)
    generation_tokens = sum(result.generation_tokens for result in results)
    prompt_s = sum(clock.prompts)
    generation_s = max(total_s - prompt_s - sum(clock.preparing), 0.0)
    return BatchStats(
        prompt_tokens=prompt_tokens,
        prompt_tps=(prompt_tokens - cached_tokens) / prompt_s if prompt_s else 0.0,
        prompt_time=prompt_s,
        generation_tokens=generation_tokens,
        generation_tps=generation_tokens / generation_s if generation_s else 0.0,
        generation_time=generation_s,
        peak_memory=max((result.peak_memory for result in results), default=0.0),
    )


def _describe(stats: BatchStats, num_prompts: int) -> str:
    return (
        f"Prompts: {num_prompts}, {stats.prompt_tokens} tokens, {stats.prompt_tps:.1f} tokens/s, "
        f"{stats.prompt_time:.3f} s\n"
        f"Generation: {stats.generation_tokens} tokens, {stats.generation_tps:.1f} tokens/s, "
        f"{stats.generation_time:.3f} s\n"
        f"Peak memory: {stats.peak_memory:.3f} GB"
    )
