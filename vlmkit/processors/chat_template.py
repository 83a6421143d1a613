"""Chat templates: where a checkpoint keeps its template, and how it is rendered.

The environment is the one that templates on the hub are written for: sandboxed and immutable,
``trim_blocks``, ``lstrip_blocks``, loop controls, a plain ``tojson``, ``raise_exception``,
``strftime_now`` and ``{% generation %}`` blocks.

Reference: https://huggingface.co/docs/transformers/chat_templating_writing
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from vlmkit.errors import VlmkitError
from vlmkit.processors.reading import (
    REASONING_KEYS,
    WatchedMessage,
    check_read,
    check_roles,
    check_tools,
)
from vlmkit.processors.template_errors import template_errors

if TYPE_CHECKING:
    from jinja2 import Environment, Template

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
            what they say, the tools, or a key of a message.

    Example:
        >>> source = "{% for m in messages %}{{ m.role }}: {{ m.content }}\\n{% endfor %}"
        >>> render_chat_template(source, [{"role": "user", "content": "Hi"}],
        ...                      add_generation_prompt=False)
        'user: Hi\\n'
    """
    known = template_variables(template, place=place)
    strings = template_strings(template, place=place)
    variables = dict(variables or {})
    for name in OWN_VARIABLES & variables.keys():
        raise VlmkitError(f"template_kwargs: {name!r} has an argument of its own; give it there")
    check_tools(tools, known)
    check_roles(messages, strings, known)
    chat = _plain_json("messages", [_given(message) for message in messages])
    watched = [WatchedMessage(_with_reasoning(message)) for message in chat]
    values = {
        "messages": watched,
        "tools": None if tools is None else _plain_json("tools", list(tools)),
        "documents": None,
        "add_generation_prompt": add_generation_prompt,
        **_plain_json("template_kwargs", variables),
    }
    with template_errors(place, has_tools=bool(tools)):
        text = str(_compile(template).render(values))
    check_read(chat, watched, strings)
    return text


@lru_cache(maxsize=8)
def template_variables(template: str, *, place: str = "chat template") -> frozenset[str]:
    """Return the names that a template reads from outside.

    Example:
        >>> sorted(template_variables("{% if enable_thinking %}{{ messages }}{% endif %}"))
        ['enable_thinking', 'messages']
    """
    from jinja2.meta import find_undeclared_variables

    environment = _environment()
    with template_errors(place):
        found = find_undeclared_variables(environment.parse(template))
    return frozenset(found) - set(environment.globals)


@lru_cache(maxsize=8)
def template_strings(template: str, *, place: str = "chat template") -> frozenset[str]:
    """Return the strings in a template's code and the names that it looks up in values.

    Example:
        >>> sorted(template_strings("{% if m.role == 'tool' %}{{ m['text'] }}{% endif %}"))
        ['role', 'text', 'tool']
    """
    from jinja2 import nodes

    with template_errors(place):
        tree = _environment().parse(template)
    constants = {node.value for node in tree.find_all(nodes.Const)}
    names = {node.attr for node in tree.find_all(nodes.Getattr)}
    return frozenset(names | {value for value in constants if isinstance(value, str)})


@lru_cache(maxsize=8)  # a pure function, and a batch renders the same template for every prompt
def _compile(source: str) -> Template:
    return _environment().from_string(source)


def _environment() -> Environment:
    import jinja2
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        # `{% generation %}` marks what the assistant writes, for training; rendering ignores it.
        tags = frozenset({"generation"})  # type: ignore[assignment]  # jinja2 asks for a set

        def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    class Namespace(jinja2.utils.Namespace):
        def __init__(*args: Any, **kwargs: Any) -> None:
            jinja2.utils.Namespace.__init__(*args, **kwargs)
            for name in dict(*args[1:], **kwargs):
                _refuse_private(name)

        def __setitem__(self, name: str, value: Any) -> None:
            _refuse_private(name)
            super().__setitem__(name, value)

    def _refuse_private(name: object) -> None:
        if isinstance(name, str) and name.startswith("_"):
            raise jinja2.exceptions.SecurityError(f"a namespace cannot store {name!r}")

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    environment.globals["namespace"] = Namespace
    return environment


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # Jinja's own filter escapes HTML characters.
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: str) -> None:
    import jinja2

    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)


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
