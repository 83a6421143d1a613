"""What is checked of all rows of a batch before the first one is generated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

from PIL.Image import Image

from vlmkit.errors import VlmkitError
from vlmkit.interface import Model
from vlmkit.pipeline import PipelineConfig
from vlmkit.processors import Processor
from vlmkit.resolve.request import Request, content_key, load_images, prepare_inputs
from vlmkit.resolve.search_plan import check_search_plan, plan_search
from vlmkit.resolve.stages import Resolved, resolve


class Work(NamedTuple):
    """One request, checked, with its images loaded."""

    request: Request
    images: tuple[Image, ...]
    resolved: Resolved
    content: Hashable  # equal for requests that are one prompt


def check_requests(
    model: Model,
    processor: Processor,
    rows: Sequence[tuple[Request, PipelineConfig]],
    *,
    trace: bool = False,
    is_batch: bool = False,
) -> list[Work]:
    """Build each pipeline and load each image once, before anything is computed.

    Requests that are equal in all are numbered as samples 0, 1, 2, … after their own number.

    Args:
        model: the model's functions.
        processor: its processor.
        rows: what to generate from, and how.
        trace: the logits after each stage will be asked for.
        is_batch: errors name their row.

    Raises:
        VlmkitError: an image that cannot be read, or a pipeline that cannot run on this model.
    """
    resolved: dict[str, Resolved] = {}
    seen: Counter[Hashable] = Counter()
    work = []
    for place, (request, pipeline) in enumerate(rows):
        key = pipeline.model_dump_json()
        with named_row(place) if is_batch else nullcontext():
            if key not in resolved:
                resolved[key] = resolve(model, processor, pipeline, trace=trace)
            images = load_images(request, pipeline)
        request = request._replace(images=images)
        content = content_key(request, images, pipeline)
        same = (content, resolved[key].key, request.sample)
        numbered = request._replace(sample=request.sample + seen[same])
        seen[same] += 1
        work.append(Work(numbered, images, resolved[key], content))
    return work


def check_searches(
    model: Model,
    processor: Processor,
    rows: Sequence[tuple[Request, PipelineConfig]],
    *,
    batch_size: int,
) -> None:
    """Find searches that cannot fit into memory.

    Args:
        model: the model's functions.
        processor: its processor.
        rows: what to generate from, and how.
        batch_size: requests in flight at most.

    Raises:
        VlmkitError: names the row.
    """
    longest: dict[str, int] = {}  # by pipeline: its row with the longest prompt
    for place, (request, pipeline) in enumerate(rows):
        if pipeline.search is not None:
            key = pipeline.model_dump_json()
            if len(request.prompt) >= len(rows[longest.setdefault(key, place)][0].prompt):
                longest[key] = place
    num_searches = sum(pipeline.search is not None for _, pipeline in rows)
    for place in longest.values():
        request, pipeline = rows[place]
        with named_row(place):
            inputs = prepare_inputs(model, processor, request, pipeline)
            plan = plan_search(
                model,
                inputs,
                pipeline,
                num_logits=processor.num_embeddings,
                num_requests=min(batch_size, num_searches),
            )
            check_search_plan(plan, pipeline)


@contextmanager
def named_row(place: int) -> Iterator[None]:
    """Let errors begin with the row that they are about.

    Example:
        >>> with named_row(3):
        ...     raise VlmkitError("no such image")
        Traceback (most recent call last):
        vlmkit.errors.VlmkitError: row 3: no such image
    """
    try:
        yield
    except VlmkitError as error:
        raise VlmkitError(f"row {place}: {error}", path=error.path) from error
