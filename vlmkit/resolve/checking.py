"""What is checked of all rows of a batch before the first one is generated."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import NamedTuple

from PIL.Image import Image

from vlmkit.contracts.interface import Model
from vlmkit.errors import VlmkitError
from vlmkit.pipeline import PipelineConfig
from vlmkit.preprocess import check_media
from vlmkit.processors import Processor
from vlmkit.resolve.request import Request, content_key, load_media, prepare_inputs
from vlmkit.resolve.search_plan import check_search_plan, plan_search
from vlmkit.resolve.stages import Resolved, resolve


class Work(NamedTuple):
    """One request, checked, with its media loaded."""

    request: Request
    images: tuple[Image, ...]
    resolved: Resolved
    content: Hashable  # equal for requests that are one prompt
    failure: VlmkitError | None = None  # of a batch: why the row cannot be prepared


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
        is_batch: errors name their row, and a medium that cannot be read is its row's failure.

    Raises:
        VlmkitError: media that the model does not take or that are no media at all, a pipeline that
            cannot run on this model, or a medium that cannot be read.
    """
    resolved: dict[str, Resolved] = {}
    seen: Counter[Hashable] = Counter()
    work = []
    for place, (request, pipeline) in enumerate(rows):
        key = pipeline.model_dump_json()
        with named_row(place) if is_batch else nullcontext():
            if key not in resolved:
                resolved[key] = resolve(model, processor, pipeline, trace=trace)
            check_media(processor, request.images, request.audio, request.video)
        try:
            request = load_media(processor, request, pipeline)
        except VlmkitError as error:
            if not is_batch:
                raise
            work.append(Work(request, (), resolved[key], place, of_row(place, error)))
            continue
        images = tuple(image for image in request.images if isinstance(image, Image))
        content = content_key(request, pipeline)
        same = (content, resolved[key].key, request.sample)
        numbered = request._replace(sample=request.sample + seen[same])
        seen[same] += 1
        work.append(Work(numbered, images, resolved[key], content))
    return work


def check_searches(
    model: Model,
    processor: Processor,
    work: Sequence[Work],
    *,
    batch_size: int,
) -> None:
    """Find searches that cannot fit into memory; a row that cannot be prepared needs none.

    Args:
        model: the model's functions.
        processor: its processor.
        work: from :func:`check_requests`.
        batch_size: requests in flight at most.

    Raises:
        VlmkitError: names the row.
    """
    searches: dict[str, list[int]] = {}  # places by pipeline
    for place, one in enumerate(work):
        if one.failure is None and one.resolved.pipeline.search is not None:
            searches.setdefault(one.resolved.pipeline.model_dump_json(), []).append(place)
    num_searches = sum(map(len, searches.values()))
    for places in searches.values():
        # The longest prompt needs most; of those that cannot be prepared nothing is asked.
        by_length = sorted(places, key=lambda place: (len(work[place].request.prompt), place))
        for place in reversed(by_length):
            pipeline = work[place].resolved.pipeline
            try:
                inputs = prepare_inputs(model, processor, work[place].request, pipeline)
            except VlmkitError:  # the row ends with it when its turn comes
                continue
            with named_row(place):
                plan = plan_search(
                    model,
                    inputs,
                    pipeline,
                    num_logits=processor.num_embeddings,
                    num_requests=min(batch_size, num_searches),
                )
                check_search_plan(plan, pipeline)
            break


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
        raise of_row(place, error) from error


def of_row(place: int, error: Exception) -> VlmkitError:
    """Return an error that begins with the row that it is about."""
    path = error.path if isinstance(error, VlmkitError) else ()
    return VlmkitError(f"row {place}: {str(error) or type(error).__name__}", path=path)
