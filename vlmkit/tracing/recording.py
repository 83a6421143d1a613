"""A stream of results as the records of a trace."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from vlmkit import __version__
from vlmkit.errors import VlmkitError
from vlmkit.results import GenerationResult
from vlmkit.tracing.measure import measure_step
from vlmkit.tracing.records import Record, TraceEnd, TraceHeader, TraceStep


def trace_records(
    results: Iterable[GenerationResult],
    *,
    model: str,
    prompt: str,
    config: Mapping[str, Any],
    decode: Callable[[Sequence[int]], str],
    top_n: int,
    images: Sequence[str] = (),
    seed: int = 0,
) -> Iterator[Record]:
    """Yield the header with the first result, a step per token, and the end after the last.

    Args:
        results: of one prompt, from ``vlmkit.api.stream_pipeline(…, trace=True)``.
        model: folder, hub id or ``"shapes"``.
        prompt: the formatted prompt.
        config: the resolved run.
        decode: token ids to text, special tokens included.
        top_n: how many tokens to list per stage, at least 1.
        images: paths or URLs.
        seed: of the draws.

    Raises:
        VlmkitError: the results carry no trace.
    """
    num_steps, text, last = 0, "", None
    for result in results:
        if last is None:
            yield TraceHeader(
                model=model,
                prompt=prompt,
                seed=seed,
                top_n=top_n,
                version=__version__,
                images=list(images),
                config=dict(config),
                effective=result.effective or {},
            )
        last = result
        text += result.text
        if result.token is None:
            continue  # the row ended before its first token
        yield _measure(result, num_steps, decode, top_n)
        num_steps += 1
    if last is not None:
        yield TraceEnd(
            text=text,
            finish_reason=last.finish_reason,
            finish_kind=last.finish_kind,
            matched_stop=last.matched_stop,
        )


def _measure(
    result: GenerationResult, position: int, decode: Callable[[Sequence[int]], str], top_n: int
) -> TraceStep:
    if result.trace is None or result.token is None:
        raise VlmkitError("these results carry no trace: ask for it with trace=True")
    return measure_step(
        result.trace,
        position=position,
        token_id=result.token,
        forced=result.forced[-1],
        decode=decode,
        top_n=top_n,
    )
