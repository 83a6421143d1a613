"""From a checked run to what the engine takes; for the commands that generate."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from vlmkit.cli.terminal import warn
from vlmkit.errors import VlmkitError

if TYPE_CHECKING:
    from vlmkit.config.run import ResolvedRun, RunConfig
    from vlmkit.contracts.interface import Model
    from vlmkit.engine import Request
    from vlmkit.pipeline import PipelineConfig
    from vlmkit.processors import Processor
    from vlmkit.results import GenerationResult


def read_question(run: ResolvedRun) -> str:
    """The prompt as it was given; ``-`` reads standard input. Empty where messages are given.

    Raises:
        VlmkitError: there is none, or it is empty.
    """
    from vlmkit.config.tree import DEFAULT
    from vlmkit.config.validate import nearest_origin

    prompt = run.config.prompt
    question = _read_stdin() if prompt == "-" else prompt
    if question or run.config.messages:
        return question
    origin = nearest_origin(run.tree, ("prompt",))
    if origin == DEFAULT:
        raise VlmkitError("no prompt: give --prompt TEXT, or 'prompt: …' in the config")
    what = "standard input" if prompt == "-" else "the text"
    raise VlmkitError(f"{origin}: prompt: {what} is empty; write what to ask")


def _read_stdin() -> str:
    try:
        return sys.stdin.read()
    except UnicodeDecodeError as error:
        raise VlmkitError(
            f"prompt: standard input is not {error.encoding.upper()} text (byte {error.start});"
            " give text, and images with --image"
        ) from error


class LoadedRun(NamedTuple):
    """All that generation needs."""

    model: Model
    processor: Processor
    request: Request
    pipeline: PipelineConfig


def start_run(
    run: ResolvedRun, question: str, *, trace: bool = False
) -> tuple[LoadedRun, Iterator[GenerationResult]]:
    """Load what a run names, and begin to generate; mistakes are named by their line."""
    from vlmkit.api import stream_pipeline
    from vlmkit.config.locate import located

    with located(run.tree, ("model",)):
        loaded = load_request(run.config, question)
    with located(run.tree):
        results = stream_pipeline(*loaded, trace=trace)

    def checked() -> Iterator[GenerationResult]:
        with located(run.tree):
            yield from _with_warning(results)

    return loaded, checked()


def _with_warning(results: Iterator[GenerationResult]) -> Iterator[GenerationResult]:
    """Warn once of dropped prompt tokens: before the text, or after it if the text did it."""
    first = last = None
    for last in results:
        if first is None:
            first = last
            _warn_dropped(first)
        yield last
    if first is not None and last is not None and not _num_dropped(first):
        if _num_dropped(last) and sys.stdout.isatty() and sys.stderr.isatty():
            print(file=sys.stderr)  # the text has not ended its line
        _warn_dropped(last)


def _num_dropped(result: GenerationResult) -> int:
    cache = (result.effective or {}).get("cache", {})
    num: int = cache.get("dropped_prompt_tokens", 0)
    return num


def _warn_dropped(result: GenerationResult) -> None:
    if num := _num_dropped(result):
        cache = (result.effective or {})["cache"]
        if "ratio" in cache or "budget" in cache:
            return  # that was asked for, and not by the way
        has_size = cache.get("max_size") is not None
        keeping = "a larger cache.max_size (--max-kv-size)" if has_size else "a cache of kind dense"
        warn(
            f"vlmkit: warning: the KV cache dropped {num} of {result.prompt_tokens} prompt tokens; "
            f"{keeping} keeps them"
        )


def load_request(config: RunConfig, question: str) -> LoadedRun:
    """Load the model and format the prompt, and a negative prompt likewise."""
    from vlmkit.api import load
    from vlmkit.config.formatting import format_run
    from vlmkit.engine import Request
    from vlmkit.preprocess import as_videos

    model, processor = load(
        config.model,
        revision=config.revision,
        dtype=config.dtype,
        backend=config.backend,
        model_source=config.model_source,
    )
    prompt, pipeline = format_run(processor, config, question)
    request = Request(prompt, config.images, config.audio, video=as_videos(config.video))
    return LoadedRun(model, processor, request, pipeline)
