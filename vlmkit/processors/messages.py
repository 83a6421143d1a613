"""Messages as chat templates want them: roles, text parts, image parts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from vlmkit.errors import VlmkitError
from vlmkit.processors.chat_template import Message
from vlmkit.processors.processor import Processor

IMAGE_TYPES = ("image", "image_url", "input_image")
TEXT_TYPES = ("text", "input_text", "output_text")
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
    given = [prompt] if isinstance(prompt, str | Mapping) else list(prompt)
    if not given:
        raise VlmkitError("prompt: an empty list of messages; give at least one")
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


def _message(entry: str | Message, index: int, sees: bool) -> dict[str, Any]:
    if isinstance(entry, str):
        entry = {"role": "user", "content": entry}
    if not isinstance(entry, Mapping) or "role" not in entry:
        raise VlmkitError(
            f"prompt: message {index} needs the form {{'role': 'user', 'content': ...}}, not"
            f" {str(entry)[:80]!r}"
        )
    message = dict(entry)
    if message["role"] == "tool" or "tool_calls" in message or "tool_call_id" in message:
        return message
    content = message.get("content") or ""
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    if not isinstance(parts, Sequence):
        raise VlmkitError(f"prompt: the content of message {index} must be a string or a list")
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
    if isinstance(part, Mapping) and kind in TEXT_TYPES:
        return {"type": "text", "text": str(part.get("text") or part.get("content") or "")}
    if kind in IMAGE_TYPES:
        return {"type": "image"}
    raise VlmkitError(
        f"prompt: message {index} has a part of type {kind!r}; supported: text, image and image_url"
    )


def count_images(messages: Sequence[Message]) -> int:
    """Return how many image parts the messages have."""
    contents = [message.get("content") for message in messages]
    return sum(
        isinstance(part, Mapping) and part.get("type") in IMAGE_TYPES
        for content in contents
        if isinstance(content, list)
        for part in content
    )
