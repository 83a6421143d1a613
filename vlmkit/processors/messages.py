"""Messages as chat templates want them: roles, and parts of text, images, videos and audio."""

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
MEDIA_TYPES = {
    "image": IMAGE_TYPES,
    "video": ("video", "video_url", "input_video"),
    "audio": ("audio", "audio_url", "input_audio"),
}
"""What a part of each kind of medium may be called."""
TEXT_TYPES = ("text", "input_text", "output_text")
TRUSTED_ROLES = ("system", "developer", "assistant", "model")
# A medium's source says that there is one; the medium itself is given to generate.
_SOURCE_KEYS = ("type", "url", "path", "base64", "detail")
PART_KEYS = {
    **{
        name: (*_SOURCE_KEYS, kind, f"{kind}_url", f"input_{kind}")
        for kind, names in MEDIA_TYPES.items()
        for name in names
    },
    **dict.fromkeys(TEXT_TYPES, ("type", "text", "content")),
}
Prompt = str | Message | Sequence[str | Message]


def build_messages(
    processor: Processor,
    prompt: Prompt,
    num_images: int = 0,
    num_audios: int = 0,
    num_videos: int = 0,
) -> list[dict[str, Any]]:
    """Turn a prompt into messages as a chat template wants them, with a part for each medium.

    Templates of models that see or hear get lists of parts, text-only ones get strings. Messages
    that carry tool calls stay as they are.

    Raises:
        VlmkitError: a message, role or part that cannot be used; a count of media that disagrees.

    Example:
        >>> from importlib.resources import files
        >>> from vlmkit.processors import load_processor
        >>> processor = load_processor(str(files("vlmkit") / "assets" / "shapes"))
        >>> build_messages(processor, "Why?", 1)
        [{'role': 'user', 'content': [{'type': 'image'}, {'type': 'text', 'text': 'Why?'}]}]
    """
    given = _as_list(prompt)
    numbers = {"image": num_images, "video": num_videos, "audio": num_audios}
    counts = {kind: _count(kind, number) for kind, number in numbers.items()}
    has_senses = bool(processor.placeholder_ids)
    messages = [_message(entry, index, has_senses) for index, entry in enumerate(given)]
    added: list[dict[str, Any]] = []
    for kind, number in counts.items():
        mentioned = count_parts(messages, kind)
        if (number or mentioned) and processor.placeholder_id(kind) is None:
            raise VlmkitError(processor.takes_none(kind))
        if number < 0 or 0 < number < mentioned:
            raise VlmkitError(
                f"num_{kind}s={number}, but the messages mention {mentioned}; leave num_{kind}s out"
                f" or give {mentioned} or more"
            )
        added += [{"type": kind}] * max(number - mentioned, 0)
    if added:
        users = [message for message in messages if message["role"] == "user"]
        if not users:
            what = ", ".join(f"num_{kind}s={number}" for kind, number in counts.items() if number)
            raise VlmkitError(f"{what}: no user message to place the {added[0]['type']}s in")
        users[-1]["content"] = added + users[-1]["content"]
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


def _count(kind: str, number: object) -> int:
    if isinstance(number, Sized):
        raise VlmkitError(
            f"num_{kind}s: {type(number).__name__} given; it takes their number, and generate"
            f" takes the {kind}s"
        )
    if isinstance(number, bool) or not isinstance(number, SupportsIndex):
        raise VlmkitError(f"num_{kind}s must be a whole number, got {number!r}")
    return operator.index(number)


def _message(entry: object, index: int, has_senses: bool) -> dict[str, Any]:
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
    if has_senses:
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
            f"prompt: message {index} has a part of type {kind!r}; supported: text, image, video"
            " and audio"
        )
    for key, value in part.items():
        if key not in PART_KEYS[kind] and not is_empty(value):
            raise VlmkitError(
                f"prompt: message {index}: a part of type {kind!r} has no use for {key!r}"
                f"{nearest(str(key), PART_KEYS[kind])}; leave it out"
            )
    for medium, names in MEDIA_TYPES.items():
        if kind in names:
            return {"type": medium}
    text = part.get("text", part.get("content"))
    if not isinstance(text, str):
        raise VlmkitError(f"prompt: message {index}: a part of text needs 'text', a string")
    return {"type": "text", "text": text}


def count_parts(messages: Sequence[Message], kind: str) -> int:
    """Return how many parts of a kind of medium the messages have."""
    contents = [message.get("content") for message in messages]
    return sum(
        isinstance(part, Mapping) and part.get("type") in MEDIA_TYPES[kind]
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
    for_others += processor.image_span or ()
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
