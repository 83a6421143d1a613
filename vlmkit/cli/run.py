"""From a checked run to what the engine takes; for the commands that generate."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

from vlmkit.errors import VlmkitError

if TYPE_CHECKING:
    from vlmkit.config.run import ResolvedRun, RunConfig
    from vlmkit.engine import Request
    from vlmkit.pipeline import PipelineConfig
    from vlmkit.processors import Processor
    from vlmkit.results import GenerationResult
    from vlmkit.types import Model


def read_question(run: ResolvedRun) -> str:
    """The prompt as it was given; ``-`` reads standard input.

    Raises:
        VlmkitError: there is none, or it is empty.
    """
    from vlmkit.config.tree import DEFAULT
    from vlmkit.config.validate import nearest_origin

    prompt = run.config.prompt
    question = sys.stdin.read() if prompt == "-" else prompt
    if question:
        return question
    origin = nearest_origin(run.tree, ("prompt",))
    if origin == DEFAULT:
        raise VlmkitError("no prompt: give --prompt TEXT, or 'prompt: …' in the config")
    what = "standard input" if prompt == "-" else "the text"
    raise VlmkitError(f"{origin}: prompt: {what} is empty; write what to ask")


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
            yield from results

    return loaded, checked()


def load_request(config: RunConfig, question: str) -> LoadedRun:
    """Load the model and format the prompt, and a negative prompt likewise."""
    from vlmkit.api import load
    from vlmkit.contrast import CfgConfig
    from vlmkit.engine import Request
    from vlmkit.prompt_utils import apply_chat_template

    model, processor = load(config.model, revision=config.revision, dtype=config.dtype)
    pipeline = config.pipeline

    def formatted(text: str, num_images: int) -> str:
        if not config.template.apply:
            return text
        return apply_chat_template(
            processor,
            model.config,
            text,
            num_images=num_images,
            num_audios=len(config.audio),
            enable_thinking=config.template.enable_thinking,
        )

    contrast, num_images = pipeline.contrast, len(config.images)
    if isinstance(contrast, CfgConfig) and contrast.negative_prompt is not None:
        negative = formatted(
            contrast.negative_prompt, num_images if contrast.negative_images else 0
        )
        contrast = contrast.model_copy(update={"negative_prompt": negative})
        pipeline = pipeline.model_copy(update={"contrast": contrast})
    prompt = formatted(question, num_images)
    return LoadedRun(model, processor, Request(prompt, config.images, config.audio), pipeline)
