"""A run's prompt as the model sees it: put into the chat template, and its negative prompt too."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from vlmkit.config.conversation import begun_answer, conversation
from vlmkit.config.run import RunConfig
from vlmkit.contrast import CfgConfig
from vlmkit.pipeline import PipelineConfig
from vlmkit.processors import Processor
from vlmkit.prompt_utils import apply_chat_template


class Formatted(NamedTuple):
    """What a run asks, as the engine takes it."""

    prompt: str
    pipeline: PipelineConfig  # its negative prompt, if it has one, is formatted as the prompt is


def format_run(processor: Processor, config: RunConfig, question: str | None = None) -> Formatted:
    """Put a run's prompt, and the negative prompt of ``cfg``, into the checkpoint's chat template.

    Args:
        processor: of the run's model.
        config: the run; its ``template`` says how, or that both are formatted already.
        question: in place of the run's own ``prompt``.

    Raises:
        VlmkitError: the checkpoint has no template, or the template refuses the messages.

    Example:
        >>> from vlmkit import load
        >>> _, processor = load("shapes")
        >>> run = RunConfig(prompt="Hi", contrast={"kind": "cfg", "negative_prompt": "No"})
        >>> prompt, pipeline = format_run(processor, run)
        >>> prompt.replace("Hi", "No") == pipeline.contrast.negative_prompt
        True
    """
    num_images = len(config.images)
    messages = conversation(config, config.prompt if question is None else question)
    prompt = format_messages(processor, config, messages, num_images=num_images)
    return Formatted(
        prompt, with_negative(processor, config, config.pipeline, num_images=num_images)
    )


def format_messages(
    processor: Processor,
    config: RunConfig,
    messages: Sequence[dict[str, Any]],
    *,
    num_images: int,
    has_others: bool = True,
) -> str:
    """Put messages into the chat template as a run says, its begun answer behind them.

    Args:
        processor: of the run's model.
        config: the run.
        messages: the oldest first.
        num_images: of all messages.
        has_others: its videos and sounds belong to them too.
    """
    template, answer = config.template, begun_answer(config)
    if not template.apply:
        return str(messages[0]["content"])
    return apply_chat_template(
        processor,
        None,
        [*messages, *answer],
        num_images=num_images,
        num_audios=len(config.audio) if has_others else 0,
        num_videos=len(config.video) if has_others else 0,
        enable_thinking=template.enable_thinking,
        continue_final_message=bool(answer),
    )


def with_negative(
    processor: Processor, config: RunConfig, pipeline: PipelineConfig, *, num_images: int
) -> PipelineConfig:
    """Return a pipeline of a run with its negative prompt formatted as the prompt itself is."""
    contrast = pipeline.contrast
    if not isinstance(contrast, CfgConfig) or contrast.negative_prompt is None:
        return pipeline
    asked = [{"role": "user", "content": contrast.negative_prompt}]
    shown = num_images if contrast.negative_images else 0
    negative = format_messages(
        processor, config, asked, num_images=shown, has_others=contrast.negative_images
    )
    contrast = contrast.model_copy(update={"negative_prompt": negative})
    return pipeline.model_copy(update={"contrast": contrast})
