"""From a task's messages to the formatted prompt that the engine takes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from vlmkit.config.conversation import begun_answer
from vlmkit.config.run import ResolvedRun, RunConfig
from vlmkit.contrast import CfgConfig
from vlmkit.engine import Request
from vlmkit.pipeline import PipelineConfig
from vlmkit.preprocess import ImageSource
from vlmkit.processors import Processor
from vlmkit.prompt_utils import apply_chat_template


class Asked(NamedTuple):
    """One response that a task asks for."""

    messages: tuple[Mapping[str, Any], ...]  # as `apply_chat_template` takes them
    images: tuple[ImageSource, ...]  # in the order in which the messages mention them
    run: ResolvedRun  # of the pipeline that answers
    sample: int = 0  # which of the draws from this prompt, 0 or more
    is_shared: bool = False  # the next one asks the same
    num_logprobs: int | None = None  # most likely tokens to report beside each; None: no logprobs


def to_request(processor: Processor, asked: Asked) -> Request:
    """Put what is asked into the chat template.

    Where the last message is the assistant's, generation goes on from it.

    Raises:
        VlmkitError: messages that the template does not take.
    """
    text = _formatted(processor, asked.run.config, asked.messages, len(asked.images))
    return Request(text, asked.images, sample=asked.sample)


def to_pipeline(processor: Processor, asked: Asked) -> PipelineConfig:
    """The pipeline that answers, with its negative prompt in the chat template."""
    config = asked.run.config
    pipeline, contrast = config.pipeline, config.contrast
    if not isinstance(contrast, CfgConfig) or contrast.negative_prompt is None:
        return pipeline
    num_images = len(asked.images) if contrast.negative_images else 0
    messages = [{"role": "user", "content": contrast.negative_prompt}]
    negative = _formatted(processor, config, messages, num_images)
    contrast = contrast.model_copy(update={"negative_prompt": negative})
    return pipeline.model_copy(update={"contrast": contrast})


def _formatted(
    processor: Processor,
    config: RunConfig,
    messages: Sequence[Mapping[str, Any]],
    num_images: int,
) -> str:
    goes_on = bool(messages) and messages[-1].get("role") == "assistant"
    answer = [] if goes_on else begun_answer(config)
    return apply_chat_template(
        processor,
        None,
        [*messages, *answer],
        num_images=num_images,
        enable_thinking=config.template.enable_thinking,
        continue_final_message=goes_on or bool(answer),
    )
