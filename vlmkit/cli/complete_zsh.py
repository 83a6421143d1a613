"""Completion in zsh, by its own ``_arguments``."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from vlmkit.cli.completable import Command, Option, Value, each_command

_HEAD = """\
#compdef vlmkit
# Completion of vlmkit in zsh. Load it with: eval "$(vlmkit completion zsh)", after compinit; or
# save it as _vlmkit in a folder of $fpath.
"""
_TAIL = """\
if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
  _vlmkit "$@"
else
  compdef _vlmkit vlmkit
fi
"""


def zsh_script(program: Command) -> str:
    """Return the script.

    Example:
        >>> from vlmkit.cli.completable import read_parser
        >>> from vlmkit.cli.parser import build_parser
        >>> zsh_script(read_parser(build_parser())).splitlines()[0]
        '#compdef vlmkit'
    """
    asked = {
        value.command
        for command in each_command(program)
        for value in command.arguments
        if value.command
    }
    helpers = [
        f'{_helper(line)}() {{\n  compadd -- ${{(f)"$({line} 2>/dev/null)"}}\n}}\n'
        for line in sorted(asked)
    ]
    functions = ["\n".join(_function(command)) + "\n" for command in each_command(program)]
    return _HEAD + "".join([*helpers, *functions]) + _TAIL


def _function(command: Command) -> Iterator[str]:
    """Yield the lines of the function that completes one command."""
    specs = [spec for option in command.options for spec in _option(option)]
    yield f"{_name(command)}() {{"
    yield "  local curcontext=$curcontext state ret=1"
    yield "  local -a line commands"
    if command.commands:
        specs += ["1: :->command", "*:: :->rest"]
    for number, value in enumerate(command.arguments, 1):
        is_last = number == len(command.arguments)
        place = "*" if command.takes_many and is_last else str(number)
        specs.append(f"{place}:value:{_action(value)}")
    yield "  _arguments -C \\"
    yield from (f"    {shlex.quote(spec)} \\" for spec in specs)
    yield "    && ret=0"
    if command.commands:
        described = [f"{inner.words[-1]}:{inner.help}" for inner in command.commands]
        cases = [f"{inner.words[-1]}) {_name(inner)} && ret=0 ;;" for inner in command.commands]
        yield "  case $state in"
        yield f"    command) commands=({' '.join(map(shlex.quote, described))})"
        yield "      _describe command commands && ret=0 ;;"
        yield "    rest) case $line[1] in"
        yield from (f"      {case}" for case in cases)
        yield "    esac ;;"
        yield "  esac"
    yield "  return ret"
    yield "}"


def _option(option: Option) -> Iterator[str]:
    text = option.help.replace("\\", "\\\\").replace("[", "\\[").replace("]", "\\]")
    others = "" if option.repeats else f"({' '.join(option.flags)})"
    for flag in option.flags:
        form = flag + "=" if option.values and flag.startswith("--") else flag
        values = "".join(f":value:{_action(value)}" for value in option.values)
        described = f"[{text}]" if text else ""
        yield f"{'*' if option.repeats else others}{form}{described}{values}"


def _action(value: Value) -> str:
    if value.choices:
        return f"({' '.join(value.choices)})"
    if value.command:
        return f" {_helper(value.command)}"
    if value.folders:
        return "_files -/"
    return "_files" if value.files else " "


def _name(command: Command) -> str:
    return "_".join(["_vlmkit", *command.words])


def _helper(command: str) -> str:
    return "_ask_" + "_".join(word.strip("-") for word in command.split())
