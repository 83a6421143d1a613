"""Go on from an answer that is begun: the prompt ends in the middle of the last message."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vlmkit.errors import VlmkitError
from vlmkit.processors.chat_template import Message
from vlmkit.processors.reading import REASONING_KEYS

MARK = "THE_ANSWER_GOES_ON_HERE "  # the space shows whether the template trims what it is given
THINKING = re.compile(r"</?think>")
UNUSED_BLOCK = re.compile(r"<think>\s*(</think>\s*)?\Z")


def render_begun(
    messages: Sequence[Message], render: Callable[[Sequence[Message]], str], place: str
) -> str:
    """Render messages up to where the text of the last one ends, equal to transformers'
    ``continue_final_message``.

    Where the last message has no content, its reasoning goes on. Text with a thinking block in it
    stays as it is written: templates that move such blocks, or put an empty one in front, would
    change where the model stands.

    Args:
        messages: the last one is the assistant's.
        render: the chat template.
        place: what errors call the template.

    Raises:
        VlmkitError: the last message is not the assistant's or has no text to go on from, or the
            template leaves a part of it out.

    Example:
        >>> chat = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hel"}]
        >>> render_begun(chat, lambda chat: f"A: {chat[-1]['content']}.", "-")
        'A: Hel'

    Reference: https://huggingface.co/docs/transformers/chat_templating
    """
    *earlier, last = messages
    text = _begun_text(last)
    is_thinking = bool(THINKING.search(text))
    if is_thinking:
        _check_opened(text)
    begun = _ending_in(last, MARK if is_thinking else text + MARK)
    before, mark, after = render([*earlier, begun]).rpartition(MARK.strip())
    if is_thinking and mark:
        return UNUSED_BLOCK.sub("", before) + text
    prompt = before if after.startswith(" ") else before.rstrip()
    if not mark or not prompt.rstrip().endswith(text.strip()):
        what = "content" if _content_text(last).strip() else "reasoning"
        raise VlmkitError(
            f"continue_final_message: the chat template ({place}) does not show the {what} of the"
            " last message as it is written, so nothing can go on from it; pass chat_template=, or"
            " add the text to the formatted prompt"
        )
    return prompt


def _begun_text(message: Message) -> str:
    role = message.get("role") if isinstance(message, Mapping) else None
    if role != "assistant":
        raise VlmkitError(
            f"continue_final_message: the last message is of role {role!r}; end with"
            " {'role': 'assistant', 'content': ...}, the answer that is begun"
        )
    text = _content_text(message)
    if not text.strip() and not message.get("tool_calls"):
        text = str(next((message[key] for key in REASONING_KEYS if message.get(key)), ""))
    if not text.strip():
        raise VlmkitError(
            "continue_final_message: the last message does not end in text to go on from; leave it"
            " out, or give the beginning of the answer"
        )
    return text


def _content_text(message: Message) -> str:
    """The content, or the text that a list of parts ends in."""
    content = message.get("content")
    if isinstance(content, str):
        return content
    last = content[-1] if isinstance(content, list | tuple) and content else None
    return str(last.get("text") or "") if isinstance(last, Mapping) else ""


def _check_opened(text: str) -> None:
    found = THINKING.findall(text)
    if found[0] == "</think>":
        raise VlmkitError(
            "continue_final_message: the last message closes a thinking block that it does not"
            " open; begin it with <think>"
        )


def _ending_in(message: Message, text: str) -> dict[str, Any]:
    """The message with another text in the place of the one that it ends in."""
    content = message.get("content")
    if not _content_text(message).strip():
        return {**message, **{key: text for key in REASONING_KEYS if message.get(key)}}
    if isinstance(content, str):
        return {**message, "content": text}
    assert content is not None
    return {**message, "content": [*content[:-1], {**content[-1], "text": text}]}
