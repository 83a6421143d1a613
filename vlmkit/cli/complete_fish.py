"""Completion in fish, from version 3 on."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from vlmkit.cli.completable import Command, Option, Value, each_command

_HEAD = """\
# Completion of vlmkit in fish. Load it with: vlmkit completion fish | source
function __vlmkit_at --description 'whether the words so far name this command'
    set -l found
    for word in (commandline -opc)[2..-1]
        set -l path (string join -- ' ' $found $word)
        if contains -- $path %s
            set found $found $word
        end
    end
    test "$found" = "$argv"
end
complete -c vlmkit -f
"""


def fish_script(program: Command) -> str:
    """Return the script.

    Example:
        >>> from vlmkit.cli.completable import read_parser
        >>> from vlmkit.cli.parser import build_parser
        >>> "complete -c vlmkit -f" in fish_script(read_parser(build_parser()))
        True
    """
    names = [_quote(" ".join(command.words)) for command in each_command(program) if command.words]
    lines = [line for command in each_command(program) for line in _lines(command)]
    return _HEAD % " ".join(names) + "".join(f"complete -c vlmkit {line}\n" for line in lines)


def _lines(command: Command) -> Iterator[str]:
    here = f"-n {_quote(' '.join(['__vlmkit_at', *command.words]))}"
    for inner in command.commands:
        yield f"{here} -a {inner.words[-1]} -d {_quote(inner.help)}"
    for option in command.options:
        yield f"{here} {_flags(option)} -d {_quote(option.help)}"
    for value in command.arguments:
        if offer := _offer(value):
            yield f"{here} {offer}"


def _flags(option: Option) -> str:
    names = " ".join(
        f"-l {flag[2:]}" if flag.startswith("--") else f"-s {flag[1:]}" for flag in option.flags
    )
    if not option.values:
        return names
    value = option.values[0]  # of several the first
    kind = "-r" if value.files else "-x"
    return " ".join([names, kind, _offer(value)]).strip()


def _offer(value: Value) -> str:
    if value.choices:
        return f"-a {_quote(' '.join(value.choices))}"
    if value.command:
        return f"-a {_quote(f'({value.command} 2>/dev/null)')}"
    if value.folders:
        return "-a '(__fish_complete_directories)'"
    return "-F" if value.files else ""


def _quote(text: str) -> str:
    """Quote for fish, where a backslash keeps its meaning between single quotes."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'" if shlex.quote(text) != text else text
