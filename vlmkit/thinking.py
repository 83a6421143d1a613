"""Switch a formatted prompt to thinking."""

from __future__ import annotations

from vlmkit.errors import VlmkitError
from vlmkit.processors import Processor


def with_thinking(processor: Processor, prompt: str) -> str:
    """Return the prompt with the generation prompt that the chat template gives for thinking.

    A prompt that was formatted with ``enable_thinking=True`` comes back as it is.

    Args:
        processor: its chat template defines both generation prompts.
        prompt: formatted text that ends in a generation prompt.

    Raises:
        VlmkitError: the template has no thinking mode, or the prompt does not end in the
            template's generation prompt.

    Example:
        >>> from vlmkit import load
        >>> model, processor = load("shapes")
        >>> with_thinking(processor, "<|im_start|>assistant\\n<think></think>")
        '<|im_start|>assistant\\n<think>'
    """
    opened = _generation_prompt(processor, enable_thinking=True)
    closed = _generation_prompt(processor, enable_thinking=False)
    if opened == closed:
        raise VlmkitError(
            f"enable_thinking: the chat template of {processor.folder} has no thinking mode; "
            "leave enable_thinking out"
        )
    if isinstance(prompt, str):
        for ending in sorted((opened, closed), key=len, reverse=True):
            if prompt.endswith(ending):
                return prompt.removesuffix(ending) + opened
    raise VlmkitError(
        "enable_thinking: the prompt does not end in the chat template's generation prompt; "
        "format it with apply_chat_template(..., enable_thinking=True)"
    )


def _generation_prompt(processor: Processor, *, enable_thinking: bool) -> str:
    """What the template appends to the conversation to make the assistant speak."""
    messages = [{"role": "user", "content": "x"}]
    history, prompt = (
        processor.apply_chat_template(
            messages, add_generation_prompt=add, enable_thinking=enable_thinking
        )
        for add in (False, True)
    )
    return prompt.removeprefix(history)
