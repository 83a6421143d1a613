"""What a run asks: one question or a conversation, and an answer that may be begun."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from vlmkit.declare.configbase import StageConfig
from vlmkit.errors import VlmkitError

if TYPE_CHECKING:
    from vlmkit.config.run import RunConfig


class MessageConfig(StageConfig):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant"] = Field(
        description="who speaks; the checkpoint's chat template decides which it knows"
    )
    content: str = Field(description="what is said")


def check_conversation(config: RunConfig) -> None:
    """Refuse what cannot be asked together.

    Raises:
        VlmkitError: begins with the key.

    Example:
        >>> from vlmkit.config.run import RunConfig
        >>> check_conversation(RunConfig(template={"continue_final_message": True}))
        Traceback (most recent call last):
        vlmkit.errors.VlmkitError: template.continue_final_message: the last of 'messages' must be \
the assistant's; the answer to one question is begun with template.prefill_response
    """
    template, messages = config.template, config.messages
    ends_in_answer = bool(messages) and messages[-1].role == "assistant"
    if messages and config.prompt:
        raise VlmkitError(
            "messages: a prompt is given as well; leave one of the two out", path=("messages",)
        )
    if template.prefill_response is not None and (ends_in_answer or not template.apply):
        instead = "continue_final_message" if ends_in_answer else "the end of the prompt"
        raise VlmkitError(
            "template.prefill_response: begins the assistant's message, which is there already;"
            f" use {instead}",
            path=("template", "prefill_response"),
        )
    if template.continue_final_message and not ends_in_answer:
        raise VlmkitError(
            "template.continue_final_message: the last of 'messages' must be the assistant's; the"
            " answer to one question is begun with template.prefill_response",
            path=("template", "continue_final_message"),
        )
    if messages and not template.apply:
        raise VlmkitError(
            "template.apply: messages need the chat template; give a formatted prompt, or apply:"
            " true",
            path=("template", "apply"),
        )


def conversation(config: RunConfig, question: str) -> list[dict[str, Any]]:
    """Return the messages, without an answer that is begun.

    Example:
        >>> from vlmkit.config.run import RunConfig
        >>> conversation(RunConfig(), "How many?")
        [{'role': 'user', 'content': 'How many?'}]
    """
    messages = [message.model_dump() for message in config.messages]
    if not messages:
        return [{"role": "user", "content": question}]
    return messages[:-1] if config.template.continue_final_message else messages


def begun_answer(config: RunConfig) -> list[dict[str, Any]]:
    """Return the assistant's message that generation goes on from, if there is one.

    Example:
        >>> from vlmkit.config.run import RunConfig
        >>> begun_answer(RunConfig(template={"prefill_response": "There are"}))
        [{'role': 'assistant', 'content': 'There are'}]
    """
    text = config.template.prefill_response
    if text is not None:
        return [{"role": "assistant", "content": text}]
    goes_on = config.template.continue_final_message
    return [message.model_dump() for message in config.messages[-1:] if goes_on]
