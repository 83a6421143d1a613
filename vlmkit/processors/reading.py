"""Which parts of a conversation a chat template reads; what it would drop is refused by name."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from vlmkit.errors import VlmkitError, nearest

REASONING_KEYS = ("reasoning_content", "thinking", "reasoning")
TOOL_ROLES = ("tool", "tools", "tool_response", "tool_result", "tool_results", "function")
KNOWN_KEYS = ("role", "content", "tool_calls", *REASONING_KEYS)
MEDIA_KEYS = ("image", "images", "image_url", "audio", "audios", "video", "videos")
# What OpenAI's form of a message has beside its contents; most templates have no use for it.
LINKS = frozenset({("tool", "tool_call_id"), ("tool", "name"), ("function", "name")})


def check_switches(**switches: object) -> None:
    """Refuse a switch that is neither True nor False: any text would turn it on.

    Example:
        >>> check_switches(enable_thinking=False)
    """
    for name, value in switches.items():
        if not isinstance(value, bool):
            raise VlmkitError(f"{name} must be True or False, got {value!r}")


def check_roles(
    messages: Sequence[Mapping[str, object]], constants: frozenset[str], variables: frozenset[str]
) -> None:
    """Refuse answers of tools that a template would render as if someone spoke.

    Args:
        constants: the strings in the template's code.
        variables: the names that it reads from outside: one that lists tools knows their answers,
            even where it writes all roles alike.

    Raises:
        VlmkitError: a role of tools that the template does not know, or what is no message.
    """
    if not isinstance(messages, Sequence) or isinstance(messages, str | bytes | bytearray):
        raise VlmkitError(f"messages: a list of messages is needed, not {_kind(messages)}")
    for index, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise VlmkitError(f"message {index} is {_kind(message)}; a dict with 'role' is needed")
        role = message.get("role")
        if role in TOOL_ROLES and role not in constants and "tools" not in variables:
            raise VlmkitError(
                f"prompt: message {index}: the chat template does not know the role {role!r};"
                f" write the result into a user message{_OR_TEMPLATE}",
                path=("messages", index),
            )


def check_read(
    given: Sequence[Mapping[str, object]],
    seen: Sequence[Collection[object]],
    constants: frozenset[str],
) -> None:
    """Refuse what a template did not look at while it rendered these messages.

    Args:
        given: the messages as the caller wrote them.
        seen: the keys of each that the template looked at.
        constants: the names and strings in the template's code: reasoning that it reads in some
            turns only is left out of the others by its own rule.

    Raises:
        VlmkitError: a key of a message, or a whole message, that the text does not depend on.
    """
    optional = {"role"}
    if not any("content" in keys for keys in seen):
        optional.add("content")  # a template without contents, to whom no message is an exception
    if not constants.isdisjoint(REASONING_KEYS):
        optional.update(REASONING_KEYS)
    for index, (entry, keys) in enumerate(zip(given, seen, strict=True)):
        role = entry.get("role")
        for key, value in entry.items():
            if key in keys or key in optional or (role, key) in LINKS:
                continue
            if not is_empty(value):
                raise VlmkitError(
                    f"prompt: message {index}: {_dropped(role, key)}", path=("messages", index)
                )


def check_tools(tools: object, variables: frozenset[str]) -> None:
    """Refuse tools that are no JSON schemas, and those a template would drop.

    Args:
        variables: the names that the template reads from outside.

    Raises:
        VlmkitError: says which tool, or that the template reads none.
    """
    if tools is None:
        return
    if not isinstance(tools, Sequence) or isinstance(tools, str | bytes | bytearray):
        raise VlmkitError(f"tools: a list of JSON schemas is needed, not {_kind(tools)}")
    for index, tool in enumerate(tools):
        if not isinstance(tool, Mapping):
            raise VlmkitError(
                f"tools: entry {index} is {_kind(tool)}; give its JSON schema, as in"
                " {'type': 'function', 'function': {'name': ..., 'parameters': ...}}"
            )
    if tools and "tools" not in variables:
        raise VlmkitError(f"tools: the chat template reads none; leave them out{_OR_TEMPLATE}")


_OR_TEMPLATE = ", or pass chat_template="


def _dropped(role: object, key: object) -> str:
    if key == "content":
        return f"the chat template drops it (role {role!r}); leave it out{_OR_TEMPLATE}"
    known = f"the chat template does not read {key!r}"
    if key in MEDIA_KEYS:
        return f"{known}; images stand in the content as {{'type': 'image'}}, or set num_images="
    near = "" if key in KNOWN_KEYS else nearest(str(key), KNOWN_KEYS)
    return f"{known}{near}; leave it out{_OR_TEMPLATE}"


def _kind(value: object) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"


def is_empty(value: object) -> bool:
    """Whether a value says nothing: None, or no characters, entries or keys.

    Example:
        >>> is_empty([]), is_empty(0)
        (True, False)
    """
    return value is None or (isinstance(value, str | Sequence | Mapping) and not value)
