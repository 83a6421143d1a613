"""The Jinja environment of chat templates, and what is asked of a template in it.

The environment is the one that templates on the hub are written for: sandboxed and immutable,
``trim_blocks``, ``lstrip_blocks``, loop controls, a plain ``tojson``, ``raise_exception``,
``strftime_now`` and ``{% generation %}`` blocks. Nothing here limits time or memory; see
:mod:`vlmkit.templates.helper`.

Reference: https://huggingface.co/docs/transformers/chat_templating_writing
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from vlmkit.templates.limits import MAX_OUTPUT_CHARS
from vlmkit.templates.template_errors import OutputLimitError
from vlmkit.templates.watched import WatchedMessage, seen_keys

if TYPE_CHECKING:
    from jinja2 import Environment, Template


class Described(NamedTuple):
    """What a template's source tells."""

    variables: frozenset[str]  # the names that it reads from outside
    strings: frozenset[str]  # those in its code, and the names that it looks up in values


class Rendered(NamedTuple):
    """What a template writes, and what it has looked at."""

    text: str
    seen: tuple[frozenset[str], ...]  # the keys of each message


def describe(source: str) -> Described:
    """Read a template's source.

    Example:
        >>> found = describe("{% if think and m.role == 'tool' %}{{ m['text'] }}{% endif %}")
        >>> sorted(found.variables), sorted(found.strings)
        (['m', 'think'], ['role', 'text', 'tool'])
    """
    from jinja2 import nodes
    from jinja2.meta import find_undeclared_variables

    environment = _environment()
    tree = environment.parse(source)
    names = {node.attr for node in tree.find_all(nodes.Getattr)}
    constants = {node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)}
    variables = frozenset(find_undeclared_variables(tree)) - set(environment.globals)
    return Described(variables, frozenset(names | constants))


def render(source: str, values: Mapping[str, Any]) -> Rendered:
    """Render a template.

    Args:
        source: the template.
        values: what it sees; plain values as JSON has them, ``messages`` among them.

    Raises:
        OutputLimitError: it writes too much.
        Exception: whatever the template does wrong.

    Example:
        >>> chat = [{"role": "user", "content": "Hi"}]
        >>> render("{{ messages[0].role }}", {"messages": chat})
        Rendered(text='user', seen=(frozenset({'role'}),))
    """
    watched = [WatchedMessage(message) for message in values["messages"]]
    parts, length = [], 0
    for part in _compile(source).generate({**values, "messages": watched}):
        parts.append(str(part))
        length += len(part)
        if length > MAX_OUTPUT_CHARS:
            raise OutputLimitError
    return Rendered("".join(parts), tuple(map(seen_keys, watched)))


@lru_cache(maxsize=8)  # a batch renders the same template for every prompt
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
