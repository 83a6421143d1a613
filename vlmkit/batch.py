"""``batch_generate``: many prompts through one decode loop with continuous batching."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import time
from collections import Counter
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, List, NamedTuple, Union

import mlx.core as mx
from PIL.Image import Image

from vlmkit.api import as_tuple, read_params
from vlmkit.contrast import ContrastiveDecodingConfig
from vlmkit.engine import (
    Amateur,
    Request,
    build_row,
    check_pipeline,
    check_rows,
    collect_rows,
    effective_config,
    find_amateur,
    prepare_inputs,
    run_rows,
)
from vlmkit.engine.rows import RowSpec
from vlmkit.errors import VlmkitError
from vlmkit.pipeline import PipelineConfig
from vlmkit.preprocess import ImageSource, load_image
from vlmkit.processors import Processor
from vlmkit.results import BatchResponse, BatchStats, GenerationResult
from vlmkit.sampling import numbered_hosts
from vlmkit.types import Model

# A list for one of these is one value; a list of lists is one value per prompt.
_SEQUENCE_PARAMS = frozenset({"eos_tokens", "stop", "resize_shape"})


class _Row(NamedTuple):
    """One prompt of the batch, checked and with its images loaded."""

    request: Request
    images: tuple[Image, ...]
    pipeline: PipelineConfig


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
    **kwargs: Any,
) -> BatchResponse:
    """Generate a response for each prompt, several at a time.

    At most ``batch_size`` rows are in flight; a finished row is replaced by the next prompt. A
    row's tokens are those of its own ``generate`` call with the same parameters. Rows that are
    equal in prompt, images and parameters are numbered as samples 0, 1, 2, … of that prompt, so
    that seeded sampling draws differently for each.

    Args:
        model: from :func:`vlmkit.load`.
        processor: from :func:`vlmkit.load`.
        images: one entry per prompt: an image source, ``None``, or a list of several images.
        audios: one entry per prompt, likewise.
        prompts: formatted prompts, from :func:`vlmkit.prompt_utils.apply_chat_template`.
        max_tokens: the limit for all prompts, or one per prompt.
        verbose: print the statistics of the batch to stdout.
        group_by_shape: prefill only rows with images of equal size together, in order of size.
        track_image_sizes: report the original (height, width) of every image.
        batch_size: rows in flight at most, at least 1.
        **kwargs: every parameter of :func:`vlmkit.generate`; a list with one entry per prompt
            gives each row its own value.

    Returns:
        Texts in the order of the prompts, statistics, image sizes, and full results per prompt.

    Raises:
        VlmkitError: counts that do not match, or anything :func:`vlmkit.generate` refuses.

    Example:
        >>> from vlmkit import batch_generate, load
        >>> model, processor = load("shapes")
        >>> len(batch_generate(model, processor, prompts=["Hi", "How many?"], max_tokens=2).texts)
        2
    """
    started = time.perf_counter()
    mx.reset_peak_memory()
    prompts = _check_prompts(prompts)
    params = _split_params({"max_tokens": max_tokens, **kwargs}, len(prompts))
    entries = zip(
        prompts,
        _per_prompt("images", images, len(prompts)),
        _per_prompt("audios", audios, len(prompts)),
        params,
        strict=True,
    )
    response = _run_batch(
        model,
        processor,
        [read_params(processor, *entry) for entry in entries],
        batch_size=batch_size,
        group_by_shape=group_by_shape,
        started=started,
    )
    if verbose:
        print(_describe(response.stats, len(prompts)))
    return response if track_image_sizes else dataclasses.replace(response, image_sizes=None)


def batch_pipeline(
    model: Model,
    processor: Processor,
    rows: Sequence[tuple[Request, PipelineConfig]],
    *,
    batch_size: int = 16,
    group_by_shape: bool = True,
) -> BatchResponse:
    """Run many requests, each through its own pipeline config, several at a time.

    Rows may differ in everything: sampler chain, stopping, contrast, search, KV cache. Those with
    equal cache and prefill configs share one forward pass per step.

    Args:
        model: from :func:`vlmkit.load`.
        processor: from :func:`vlmkit.load`.
        rows: what to generate from, and how.
        batch_size: requests in flight at most, at least 1; a search counts as one.
        group_by_shape: prefill only rows with images of equal size together, in order of size.

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
        started=started,
    )


def _run_batch(
    model: Model,
    processor: Processor,
    entries: Sequence[tuple[Request, PipelineConfig]],
    *,
    batch_size: int,
    group_by_shape: bool,
    started: float,
) -> BatchResponse:
    if isinstance(batch_size, bool) or not isinstance(batch_size, int) or batch_size < 1:
        raise VlmkitError(f"batch_size is {batch_size!r}; it must be a whole number, 1 or more")
    rows = _number_samples([_check_row(model, *entry) for entry in entries])
    checked = [(row.request, row.pipeline) for row in rows]
    check_rows(model, processor, checked, batch_size=batch_size)
    amateurs = _amateurs(processor, rows)
    clock = _Clock(preparing=[time.perf_counter() - started], prompts=[])
    results: dict[int, GenerationResult] = {}
    effective: dict[str, dict[str, Any]] = {}
    for places in _partition(rows, group_by_shape):
        own = [(place, rows[place]) for place in places]
        specs = _specs(model, processor, own, amateurs, clock)
        pipeline = rows[places[0]].pipeline
        steps = run_rows(
            model, specs, pipeline, batch_size=batch_size, group_by_shape=group_by_shape
        )
        for last_step, result in collect_rows(steps):
            place = places[last_step.row]
            pipeline = rows[place].pipeline
            if (key := pipeline.model_dump_json()) not in effective:
                effective[key] = effective_config(model, processor, pipeline)
            result.effective = copy.deepcopy(effective[key])
            results[place] = result
            clock.prompts.append(last_step.timing.seconds)
    ordered = [results[place] for place in range(len(rows))]
    stats = _stats(ordered, time.perf_counter() - started, clock)
    sizes = [(image.height, image.width) for row in rows for image in row.images]
    return BatchResponse(
        texts=[result.text for result in ordered],
        stats=stats,
        image_sizes=sizes,
        results=ordered,
    )


def _check_prompts(prompts: List[str] | str | None) -> list[str]:
    if prompts is None:
        raise VlmkitError("batch_generate needs prompts: a list of formatted strings")
    return [prompts] if isinstance(prompts, str) else list(prompts)


def _per_prompt(name: str, value: Any, num_prompts: int) -> list[tuple[Any, ...]]:
    """One tuple of sources per prompt."""
    if value is None:
        return [()] * num_prompts
    entries = as_tuple(value)
    if len(entries) != num_prompts:
        raise VlmkitError(
            f"{name} has {len(entries)} entries for {num_prompts} prompts; give one per prompt "
            "(None for a prompt without, a list for a prompt with several)"
        )
    return [as_tuple(entry) for entry in entries]


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


def _check_row(model: Model, request: Request, pipeline: PipelineConfig) -> _Row:
    check_pipeline(model, pipeline)
    loaded = tuple(load_image(image, config=pipeline.preprocess) for image in request.images)
    return _Row(request._replace(images=loaded), loaded, pipeline)


def _amateurs(processor: Processor, rows: Sequence[_Row]) -> dict[str, Amateur]:
    """The second models that the rows need, each loaded once, by their config."""
    found: dict[str, Amateur] = {}
    for row in rows:
        contrast = row.pipeline.contrast
        if isinstance(contrast, ContrastiveDecodingConfig) and contrast.amateur not in found:
            amateur = find_amateur(processor, row.pipeline)
            assert amateur is not None
            found[contrast.amateur] = amateur
    return found


def _number_samples(rows: Sequence[_Row]) -> list[_Row]:
    """Give repeated rows the sample numbers 0, 1, 2, … after their own."""
    seen: Counter[Hashable] = Counter()
    numbered = []
    for row in rows:
        digest = hashlib.blake2b()
        for image in row.images:
            digest.update(repr(image.size).encode() + image.tobytes())
        prompt = row.request.prompt
        key = (
            prompt if isinstance(prompt, str) else tuple(prompt),
            digest.digest(),
            row.pipeline.model_dump_json(),
            row.request.sample,
        )
        request = row.request._replace(sample=row.request.sample + seen[key])
        seen[key] += 1
        numbered.append(row._replace(request=request))
    return numbered


def _partition(rows: Sequence[_Row], group_by_shape: bool) -> Iterator[list[int]]:
    """Places of the rows that can share a batch: equal cache and prefill configs."""
    parts: dict[Hashable, list[int]] = {}
    for place, row in enumerate(rows):
        shared = row.pipeline.cache.model_dump_json(), row.pipeline.prefill.model_dump_json()
        parts.setdefault(shared, []).append(place)
    for places in parts.values():
        if group_by_shape:
            places.sort(key=lambda place: [image.size for image in rows[place].images])
        yield places


def _specs(
    model: Model,
    processor: Processor,
    rows: Sequence[tuple[int, _Row]],
    amateurs: Mapping[str, Amateur],
    clock: _Clock,
) -> Iterator[RowSpec]:
    """Prepare each row only when a slot is free for it."""
    for place, row in rows:
        started = time.perf_counter()
        inputs = prepare_inputs(model, processor, row.request, row.pipeline)
        contrast = row.pipeline.contrast
        amateur = None
        if isinstance(contrast, ContrastiveDecodingConfig):
            amateur = amateurs[contrast.amateur]
        spec = build_row(
            model, processor, row.request, inputs, row.pipeline, amateur=amateur, number=place
        )
        chain = numbered_hosts(spec.sampler.chain, place)
        clock.preparing.append(time.perf_counter() - started)
        yield spec._replace(sampler=spec.sampler._replace(chain=chain))


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
