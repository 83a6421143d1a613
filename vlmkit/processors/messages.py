"""Messages as chat templates want them: roles, text parts, image parts."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence, Sized
from typing import Any, SupportsIndex

from vlmkit.errors import VlmkitError, nearest
from vlmkit.processors.chat_template import Message
from vlmkit.processors.literal import mark_literal
from vlmkit.processors.processor import Processor
from vlmkit.processors.reading import is_empty

IMAGE_TYPES = ("image", "image_url", "input_image")
TEXT_TYPES = ("text", "input_text", "output_text")
TRUSTED_ROLES = ("system", "developer", "assistant", "model")
# An image's source says that there is one; the image itself is given to generate.
PART_KEYS = {
    **dict.fromkeys(IMAGE_TYPES, ("type", "image", "image_url", "url", "path", "base64", "detail")),
    **dict.fromkeys(TEXT_TYPES, ("type", "text", "content")),
}
Prompt = str | Message | Sequence[str | Message]


def build_messages(
    processor: Processor, prompt: Prompt, num_images: int = 0
) -> list[dict[str, Any]]:
    """Turn a prompt into messages as a chat template wants them, with ``num_images`` image parts.

    Vision-language templates get lists of parts, text-only ones get strings. Messages that carry
    tool calls stay as they are.

    Raises:
        VlmkitError: a message, role or part that cannot be used; a count of images that disagrees.

    Example:
        >>> from importlib.resources import files
        >>> from vlmkit.processors import load_processor
        >>> processor = load_processor(str(files("vlmkit") / "assets" / "shapes"))
        >>> build_messages(processor, "Why?", 1)
        [{'role': 'user', 'content': [{'type': 'image'}, {'type': 'text', 'text': 'Why?'}]}]
    """
    given = _as_list(prompt)
    num_images = _count(num_images)
    sees = processor.image_token_id is not None
    messages = [_message(entry, index, sees) for index, entry in enumerate(given)]
    mentioned = count_images(messages)
    if (num_images or mentioned) and not sees:
        raise VlmkitError(processor.no_images())
    if num_images < 0 or 0 < num_images < mentioned:
        raise VlmkitError(
            f"num_images={num_images}, but the messages mention {mentioned}; leave num_images out"
            f" or give {mentioned} or more"
        )
    missing = max(num_images - mentioned, 0)
    if missing:
        users = [message for message in messages if message["role"] == "user"]
        if not users:
            raise VlmkitError(f"num_images={num_images}: no user message to place the images in")
        users[-1]["content"] = [{"type": "image"}] * missing + users[-1]["content"]
    return messages


def _as_list(prompt: object) -> list[Any]:
    if isinstance(prompt, str | Mapping):
        return [prompt]
    if not isinstance(prompt, Sequence) or isinstance(prompt, bytes | bytearray | memoryview):
        shown = "None" if prompt is None else f"of type {type(prompt).__name__}"
        raise VlmkitError(
            f"prompt: {shown}; give a question, a message, or a list of messages", path=("prompt",)
        )
    if not prompt:
        raise VlmkitError("prompt: an empty list of messages; give at least one")
    if all(isinstance(entry, int) for entry in prompt):
        raise VlmkitError(
            "prompt: a list of token ids needs no chat template; give it to generate as it is"
        )
    return list(prompt)


def _count(num_images: object) -> int:
    if isinstance(num_images, Sized):
        raise VlmkitError(
            f"num_images: {type(num_images).__name__} given; it takes their number, and generate"
            " takes the images"
        )
    if isinstance(num_images, bool) or not isinstance(num_images, SupportsIndex):
        raise VlmkitError(f"num_images must be a whole number, got {num_images!r}")
    return operator.index(num_images)


def _message(entry: object, index: int, sees: bool) -> dict[str, Any]:
    if isinstance(entry, str):
        entry = {"role": "user", "content": entry}
    if not isinstance(entry, Mapping) or not isinstance(entry.get("role"), str):
        raise VlmkitError(
            f"prompt: message {index} needs the form {{'role': 'user', 'content': ...}}, not"
            f" {str(entry)[:80]!r}",
            path=("messages", index),
        )
    message = dict(entry)
    content = message.get("content")
    if content is not None and not isinstance(content, str | list | tuple):
        raise VlmkitError(
            f"prompt: the content of message {index} must be a string or a list",
            path=("messages", index),
        )
    calls = message.get("tool_calls")
    if calls and not (
        isinstance(calls, list | tuple) and all(isinstance(c, Mapping) for c in calls)
    ):
        raise VlmkitError(f"prompt: the tool_calls of message {index} must be a list of dicts")
    if message["role"] == "tool" or "tool_calls" in message or "tool_call_id" in message:
        return message
    parts = (
        [{"type": "text", "text": content or ""}] if isinstance(content, str | None) else content
    )
    normal = [_part(part, index) for part in parts]
    if sees:
        message["content"] = normal
    elif all(part["type"] == "text" for part in normal):
        message["content"] = " ".join(part["text"] for part in normal)
    else:
        message["content"] = normal
    return message


def _part(part: object, index: int) -> dict[str, str]:
    if isinstance(part, str):
        return {"type": "text", "text": part}
    kind = part.get("type") if isinstance(part, Mapping) else None
    if not isinstance(part, Mapping) or kind not in PART_KEYS:
        raise VlmkitError(
            f"prompt: message {index} has a part of type {kind!r}; supported: text, image and"
            " image_url"
        )
    for key, value in part.items():
        if key not in PART_KEYS[kind] and not is_empty(value):
            raise VlmkitError(
                f"prompt: message {index}: a part of type {kind!r} has no use for {key!r}"
                f"{nearest(str(key), PART_KEYS[kind])}; leave it out"
            )
    if kind in IMAGE_TYPES:
        return {"type": "image"}
    text = part.get("text", part.get("content"))
    if not isinstance(text, str):
        raise VlmkitError(f"prompt: message {index}: a part of text needs 'text', a string")
    return {"type": "text", "text": text}


def count_images(messages: Sequence[Message]) -> int:
    """Return how many image parts the messages have."""
    contents = [message.get("content") for message in messages]
    return sum(
        isinstance(part, Mapping) and part.get("type") in IMAGE_TYPES
        for content in contents
        if isinstance(content, list)
        for part in content
    )


def mark_texts(
    processor: Processor, messages: Sequence[Message], template: str
) -> list[dict[str, Any]]:
    """Mark what users and tools wrote, so that none of it is read as a special token.

    Everyone else may write special tokens, as in an answer with its thinking, but neither the
    placeholder of an image nor the end of a turn.

    Args:
        template: the chat template; the added tokens that it writes have a meaning as well.

    Example:
        >>> from importlib.resources import files
        >>> from vlmkit.processors import load_processor
        >>> processor = load_processor(str(files("vlmkit") / "assets" / "shapes"))
        >>> messages = [{"role": "user", "content": "What is <|im_end|>?"}]
        >>> mark_texts(processor, messages, "")[0]["content"].replace("\ufdd0", "·")
        'What is <·|im_end|>?'
    """
    reserved = processor.placeholder_ids | processor.eos_token_ids
    for_others = [token for token, index in processor.tokenizer.added_tokens if index in reserved]
    for_users = processor.control_tokens(template)
    return [
        {
            key: value
            if key == "role"
            else _marked(value, for_others if message["role"] in TRUSTED_ROLES else for_users)
            for key, value in message.items()
        }
        for message in messages
    ]


def _marked(value: Any, tokens: Sequence[str], *, joined: bool = False) -> Any:
    if isinstance(value, str):
        return mark_literal(value, tokens, joined=joined)
    if isinstance(value, Mapping):
        return {key: _marked(item, tokens, joined=joined) for key, item in value.items()}
    if isinstance(value, list | tuple):
        last = len(value) - 1
        return [_marked(item, tokens, joined=place < last) for place, item in enumerate(value)]
    return value
