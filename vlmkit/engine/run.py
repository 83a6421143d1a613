"""From requests and their pipelines to the steps of the decode loop."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Sequence
from hashlib import blake2b
from typing import Any

from vlmkit.contracts.inputs import Inputs
from vlmkit.contracts.interface import Model
from vlmkit.contracts.stages import Finish
from vlmkit.engine.loop import LoopOptions, RunOptions, decode_rows
from vlmkit.engine.rows import RowSpec, Step
from vlmkit.pipeline import PipelineConfig
from vlmkit.processors import Processor
from vlmkit.prompts import PromptCache
from vlmkit.ranks.group import join_ranks, watched
from vlmkit.ranks.meeting import meet
from vlmkit.resolve.checking import Work, of_row
from vlmkit.resolve.effective import describe_run, with_held
from vlmkit.resolve.method import Amateur, Method, build_method, other_prompts
from vlmkit.resolve.request import context_left, prepare_inputs
from vlmkit.resolve.search_plan import check_search_plan, plan_search
from vlmkit.resolve.stages import Resolved
from vlmkit.resolve.starting import prefill_options, prompt_store
from vlmkit.sampling import numbered_hosts


def run_requests(
    model: Model,
    processor: Processor,
    work: Sequence[Work],
    options: RunOptions,
    *,
    amateur: Amateur | None = None,
    prepared_s: list[float] | None = None,
) -> Iterator[tuple[Step, dict[str, Any] | None]]:
    """Yield the steps of all requests; ``Step.row`` is the request's place in ``work``.

    Rows of equal cache, prefill and contrast configs share a batch. One that cannot be prepared
    has a single step, its last.

    Args:
        model: the model's functions.
        processor: its processor.
        work: from :func:`check_requests`.
        options: how requests run beside each other.
        amateur: the second model of contrastive decoding; None: loaded from where a pipeline says.
        prepared_s: takes in the seconds that preparing each request took.

    Yields:
        Each step, and with a row's last one what really ran.
    """
    _meet(work, options)
    if options.prompt_cache is None:
        options = options._replace(prompt_cache=PromptCache(), keep_prompts=False)
    loaded: dict[str, Amateur] = {}
    for places in _partition(work, options.group_by_shape):
        pipeline = work[places[0]].resolved.pipeline
        method = build_method(model, processor, pipeline, amateur, loaded=loaded)
        effective: dict[int, dict[str, Any]] = {}
        times = [] if prepared_s is None else prepared_s
        specs = _specs(method, processor, work, places, options, effective, times)
        for step in run_specs(method, specs, pipeline, options):
            if step.finish is None:
                yield step, None
            else:
                resolved = work[step.row].resolved
                yield step, _by_now(effective.pop(step.row), resolved, step)


def run_request(
    model: Model,
    processor: Processor,
    work: Work,
    options: RunOptions,
    *,
    amateur: Amateur | None = None,
) -> Iterator[tuple[Step, dict[str, Any]]]:
    """Prepare one request at once; return its steps, of which none is computed yet.

    Args:
        model: the model's functions.
        processor: its processor.
        work: from :func:`check_requests`.
        options: ``batch_size`` and ``group_by_shape`` have no effect.
        amateur: the second model of contrastive decoding; None: loaded from its path.

    Returns:
        Each step, with what really runs.
    """
    pipeline = work.resolved.pipeline
    inputs = prepare_inputs(model, processor, work.request, pipeline, options.pixels)
    plan = plan_search(model, inputs, pipeline, num_logits=processor.num_embeddings)
    check_search_plan(plan, pipeline)
    method = build_method(model, processor, pipeline, amateur)
    spec = build_spec(method, processor, work, inputs, options=options)
    _meet([work], options)
    steps = run_specs(method, [spec], pipeline, options)
    effective = describe_run(work.resolved.effective, spec.token_limit)
    return ((step, _by_now(effective, work.resolved, step)) for step in steps)


def _by_now(effective: dict[str, Any], resolved: Resolved, step: Step) -> dict[str, Any]:
    """What runs, and what the cache holds of the row by this step."""
    return with_held(
        effective,
        resolved.cache,
        prompt=step.prompt,
        num_generated=step.num_tokens,
    )


def _partition(work: Sequence[Work], group_by_shape: bool) -> Iterator[list[int]]:
    """Places of the requests that can share a batch."""
    parts: dict[Hashable, list[int]] = {}
    for place, one in enumerate(work):
        pipeline = one.resolved.pipeline
        contrast = None if pipeline.contrast is None else pipeline.contrast.model_dump_json()
        shared = pipeline.cache.model_dump_json(), pipeline.prefill.model_dump_json(), contrast
        parts.setdefault(shared, []).append(place)
    for places in parts.values():
        if group_by_shape:
            places.sort(key=lambda place: [image.size for image in work[place].images])
        yield places


def _specs(
    method: Method,
    processor: Processor,
    work: Sequence[Work],
    places: Sequence[int],
    options: RunOptions,
    effective: dict[int, dict[str, Any]],
    prepared_s: list[float],
) -> Iterator[RowSpec | Step]:
    """Prepare each row only when a slot is free for it; equal prompts are prepared once."""
    left = Counter(work[place].content for place in places)
    inputs: dict[Hashable, Inputs] = {}
    for place in places:
        started = time.perf_counter()
        one = work[place]
        left[one.content] -= 1
        spec: RowSpec | Step
        try:
            if one.failure is not None:
                raise one.failure
            if one.content not in inputs:
                pipeline = one.resolved.pipeline
                inputs[one.content] = prepare_inputs(
                    method.model, processor, one.request, pipeline, options.pixels
                )
            own = inputs[one.content] if left[one.content] else inputs.pop(one.content)
            spec = build_spec(method, processor, one, own, options=options, number=place)
            spec = spec._replace(reused=left[one.content] > 0)
        except Exception as error:  # a processor of a third party raises what it likes
            error = error if error is one.failure else of_row(place, error)
            spec = Step(place, finish=Finish("error", "error", error=error))
        limit = spec.token_limit if isinstance(spec, RowSpec) else one.resolved.max_tokens
        effective[place] = describe_run(one.resolved.effective, limit)
        prepared_s.append(time.perf_counter() - started)
        yield spec


def build_spec(
    method: Method,
    processor: Processor,
    work: Work,
    inputs: Inputs,
    *,
    options: RunOptions,
    number: int | None = None,
) -> RowSpec:
    """Turn a checked request into a row of the decode loop.

    Args:
        method: the models, and how streams are combined.
        processor: the model's processor.
        work: the request and its pipeline.
        inputs: the request, prepared.
        options: how it runs.
        number: what steps and errors call the row; different for each row of a loop. None: there
            is no other, and errors need not name it.
    """
    resolved, request = work.resolved, work.request
    others = other_prompts(method, processor, request, inputs, resolved.pipeline)
    limits = [
        resolved.max_tokens,
        context_left(method.model, [inputs]),
        context_left(method.parts[-1][0], others or ()),
    ]
    sampler = resolved.sampler._replace(sample=request.sample)
    if number is not None:
        sampler = sampler._replace(chain=numbered_hosts(sampler.chain, number))
    return RowSpec(
        inputs=inputs,
        sampler=sampler,
        stopping=resolved.stopping,
        text=resolved.text,
        token_limit=min((limit for limit in limits if limit is not None), default=None),
        others=others,
        search=resolved.search,
        num_eos=resolved.num_eos,
        trace=options.trace,
        number=number or 0,
        clock=options.clock,
    )


def run_specs(
    method: Method,
    specs: Iterable[RowSpec | Step],
    pipeline: PipelineConfig,
    options: RunOptions,
) -> Iterator[Step]:
    """Run rows through the decode loop under the pipeline's prefill and cache configs."""
    kept = options.prompt_cache
    if kept is None:
        kept, options = PromptCache(), options._replace(keep_prompts=False)
    store = prompt_store(kept, method.model, pipeline)
    loop = LoopOptions(method, prefill_options(pipeline), store, options)
    return watched(decode_rows(specs, loop))


def _meet(work: Sequence[Work], options: RunOptions) -> None:
    """Refuse ranks that do not ask for the same, which would wait for each other for ever."""
    if join_ranks().size == 1:
        return
    parts: dict[str, object] = {
        f"config ({name})": [getattr(one.resolved.pipeline, name) for one in work]
        for name in PipelineConfig.model_fields
    }
    parts["prompt or images"] = [(one.content, one.request.sample) for one in work]
    parts["batch size"] = options.batch_size
    parts["trace"] = options.trace
    hashes = {
        name: blake2b(repr(part).encode(), digest_size=8).hexdigest()
        for name, part in parts.items()
    }
    meet(hashes, is_last=True)
