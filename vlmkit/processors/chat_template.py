"""Chat templates: what they are given, what is refused for them, and what they are asked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from vlmkit.errors import VlmkitError
from vlmkit.processors.reading import REASONING_KEYS, check_read, check_roles, check_tools
from vlmkit.templates.environment import Described
from vlmkit.templates.helper import describe_anywhere, render_anywhere

Message = Mapping[str, Any]
OWN_VARIABLES = frozenset({"messages", "tools", "add_generation_prompt"})


def render_chat_template(
    template: str,
    messages: Sequence[Message],
    *,
    add_generation_prompt: bool,
    tools: Sequence[Mapping[str, Any]] | None = None,
    variables: Mapping[str, Any] | None = None,
    place: str = "chat template",
) -> str:
    """Render a chat template, equal to transformers' ``apply_chat_template``.

    Args:
        template: the Jinja source.
        messages: dicts with ``role`` and ``content``; keys with the value None are left out.
        tools: JSON schemas of the functions the model may call.
        variables: what else the template sees, such as ``bos_token`` and ``enable_thinking``.
        place: what errors call the template, such as its file.

    Raises:
        VlmkitError: the template is broken, it refuses the messages, it fails in any other way
            (with the place and, where it is known, the line of the template), or it drops some of
            what they say, the tools, or a key of a message; or it takes more time or memory, or
            writes more, than :mod:`vlmkit.templates.limits` allows.

    Example:
        >>> source = "{% for m in messages %}{{ m.role }}: {{ m.content }}\\n{% endfor %}"
        >>> render_chat_template(source, [{"role": "user", "content": "Hi"}],
        ...                      add_generation_prompt=False)
        'user: Hi\\n'
    """
    known, strings = _described(template, place)
    variables = dict(variables or {})
    for name in OWN_VARIABLES & variables.keys():
        raise VlmkitError(f"template_kwargs: {name!r} has an argument of its own; give it there")
    check_tools(tools, known)
    check_roles(messages, strings, known)
    chat = _plain_json("messages", [_given(message) for message in messages])
    values = {
        "messages": [_with_reasoning(message) for message in chat],
        "tools": None if tools is None else _plain_json("tools", list(tools)),
        "documents": None,
        "add_generation_prompt": add_generation_prompt,
        **_plain_json("template_kwargs", variables),
    }
    text, seen = render_anywhere(template, values, place)
    check_read(chat, seen, strings)
    return text


def template_variables(template: str, *, place: str = "chat template") -> frozenset[str]:
    """Return the names that a template reads from outside.

    Raises:
        VlmkitError: it is broken, or beyond a limit of :mod:`vlmkit.templates.limits`.

    Example:
        >>> sorted(template_variables("{% if enable_thinking %}{{ messages }}{% endif %}"))
        ['enable_thinking', 'messages']
    """
    return _described(template, place).variables


@lru_cache(maxsize=8)
def _described(template: str, place: str) -> Described:
    return describe_anywhere(template, place)


def _given(message: Message) -> dict[str, Any]:
    return {key: value for key, value in message.items() if value is not None}


def _plain_json(name: str, value: Any) -> Any:
    try:
        return _plain(value)
    except RecursionError as error:
        raise VlmkitError(f"{name}: nested too deeply, or a value that holds itself") from error


def _plain(value: Any) -> Any:
    # Templates are code from the hub: they see JSON values only, never objects with methods.
    if value is None or type(value) in (str, int, float, bool):
        return value
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    for base in (str, int, float):
        if isinstance(value, base):
            return base(value)
    return f"<{type(value).__name__}>"


def _with_reasoning(message: dict[str, Any]) -> dict[str, Any]:
    # Templates read the reasoning of past turns under different names.
    given = [message[key] for key in REASONING_KEYS if key in message]
    return {"thinking": given[0], **message, "reasoning_content": given[0]} if given else message
