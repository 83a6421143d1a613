"""inspect_ai's messages and settings as vlmkit takes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from inspect_ai.model import ChatMessage, Content, GenerateConfig

from vlmkit.adapters.source import TaskSettings
from vlmkit.errors import VlmkitError

SETTINGS: Mapping[str, str] = {
    "max_tokens": "max_tokens",
    "temperature": "temperature",
    "top_p": "top_p",
    "top_k": "top_k",
    "frequency_penalty": "frequency_penalty",
    "presence_penalty": "presence_penalty",
    "stop_seqs": "stop",
    "seed": "seed",
    "reasoning_tokens": "thinking_budget",
}
"""inspect_ai's names of what a task may set, and ours."""

# What asks for several answers or for more about one; the provider itself reads these.
_OF_OUTPUT = frozenset({"num_choices", "logprobs", "top_logprobs"})
# What is no matter of the text: connections, tools, caches, and what inspect_ai does itself.
_ELSEWHERE = frozenset(
    {
        *("max_retries", "timeout", "attempt_timeout", "stream_idle_timeout"),
        *("max_connections", "adaptive_connections", "system_message", "fail_on_refusal"),
        *("parallel_tool_calls", "internal_tools", "max_tool_output", "extra_headers"),
        *("cache", "cache_prompt", "fallback_models"),
        *("reasoning_history", "reasoning_summary"),
    }
)
_INSTEAD: Mapping[str, str] = {
    "best_of": "put 'search: {kind: beam}' into the pipeline",
    "logit_bias": "put a logit_bias stage into the pipeline",
    "response_schema": "put a grammar stage into the pipeline",
    "reasoning_effort": "set 'template.enable_thinking' and a thinking_budget in the pipeline",
    "extra_body": "put its values into the pipeline",
}


class Conversation(NamedTuple):
    """Messages as `apply_chat_template` takes them, and the images that they mention."""

    messages: tuple[dict[str, Any], ...]
    images: tuple[str, ...]  # paths, URLs or data URIs


def read_settings(config: GenerateConfig, taken: TaskSettings) -> dict[str, Any]:
    """Return what a task sets, named as the parameters of :func:`vlmkit.generate`.

    Raises:
        VlmkitError: a setting that vlmkit does not have, unless settings are not taken.
    """
    given = {name: value for name, value in config.model_dump().items() if value is not None}
    if taken == "apply":
        for name in given:
            if name not in SETTINGS and name not in _OF_OUTPUT | _ELSEWHERE:
                instead = _INSTEAD.get(name, "leave it out")
                raise VlmkitError(f"{name}: vlmkit does not take it from a task; {instead}")
    return {ours: given[name] for name, ours in SETTINGS.items() if name in given}


def read_messages(messages: Sequence[ChatMessage]) -> Conversation:
    """Turn a chat into messages and images.

    Raises:
        VlmkitError: a tool's message or call, or content that is neither text nor an image.
    """
    images: list[str] = []
    read = []
    for message in messages:
        if message.role == "tool" or (message.role == "assistant" and message.tool_calls):
            raise VlmkitError("messages: tools and their calls are not supported; leave them out")
        parts = [_part(content, images) for content in message.content_list]
        texts = all(part["type"] == "text" for part in parts)
        content = "".join(part["text"] for part in parts) if texts else parts
        read.append({"role": message.role, "content": content})
    return Conversation(tuple(read), tuple(images))


def _part(content: Content, images: list[str]) -> dict[str, str]:
    if content.type == "text":
        return {"type": "text", "text": content.text}
    if content.type == "reasoning":
        return {"type": "text", "text": f"<think>{content.reasoning}</think>"}
    if content.type == "image":
        images.append(content.image)
        return {"type": "image"}
    raise VlmkitError(
        f"messages: content of type {content.type!r} is not supported; give text and images"
    )
