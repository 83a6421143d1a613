"""What is checked of all rows of a batch before the first one is generated."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from vlmkit.engine.request import Request, prepare_inputs
from vlmkit.engine.search_plan import check_search_plan, plan_search
from vlmkit.errors import VlmkitError
from vlmkit.interface import Model
from vlmkit.pipeline import PipelineConfig
from vlmkit.processors import Processor


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
