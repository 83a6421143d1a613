"""Completion in bash, from version 3.2 on."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator

from vlmkit.cli.completable import Command, Value, each_command

_HEAD = """\
# Completion of vlmkit in bash. Load it with: eval "$(vlmkit completion bash)"
_vlmkit_words() {
    local word
    while IFS= read -r word; do COMPREPLY+=("$word"); done < <(compgen "$@" -- "$cur")
}
_vlmkit() {
    local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD - 1]}
    local command= path i IFS=$'\\n'
    COMPREPLY=()
    # --flag=value comes as three words.
    if [[ $cur == = ]]; then cur=
    elif [[ $prev == = ]] && ((COMP_CWORD > 2)); then prev=${COMP_WORDS[COMP_CWORD - 2]}; fi
    for ((i = 1; i < COMP_CWORD; i++)); do
        path="${command:+$command }${COMP_WORDS[i]}"
        case $path in
"""
_MIDDLE = """\
        esac
    done
    case "$command $prev" in
"""
_TAIL = """\
    esac
}
complete -F _vlmkit vlmkit
"""


def bash_script(program: Command) -> str:
    """Return the script.

    Example:
        >>> from vlmkit.cli.completable import read_parser
        >>> from vlmkit.cli.parser import build_parser
        >>> bash_script(read_parser(build_parser())).splitlines()[-1]
        'complete -F _vlmkit vlmkit'
    """
    commands = [_quoted(command) for command in each_command(program) if command.words]
    names = f"            {' | '.join(commands)}) command=$path ;;\n"
    lines = [*_option_cases(program), '    esac\n    case "$command" in\n', *_word_cases(program)]
    return _HEAD + names + _MIDDLE + "".join(lines) + _TAIL


def _option_cases(program: Command) -> Iterator[str]:
    """What follows an option is its value."""
    patterns: dict[Value, list[str]] = {}
    for command in each_command(program):
        for option in command.options:
            for value in option.values[:1]:  # of several the first
                words = [f"{' '.join(command.words)} {flag}" for flag in option.flags]
                patterns.setdefault(value, []).extend(map(shlex.quote, words))
    for value, names in patterns.items():
        yield f"        {' | '.join(names)})\n            {_offer([value])}return ;;\n"


def _word_cases(program: Command) -> Iterator[str]:
    for command in each_command(program):
        flags = [flag for option in command.options for flag in option.flags]
        names = [inner.words[-1] for inner in command.commands]
        values = [*([Value(choices=tuple(names))] if names else []), *command.arguments]
        yield f"        {_quoted(command)})\n"
        yield f"            if [[ $cur == -* ]]; then {_offer([Value(choices=tuple(flags))])}\n"
        yield f"            else {_offer(values) or ': '}\n            fi ;;\n"


def _offer(values: Iterable[Value]) -> str:
    """Shell code that adds what a value may be; nothing for free text."""
    code = ""
    for value in values:
        if value.choices:
            words = "\\n".join(value.choices)
            code += f"_vlmkit_words -W $'{words}'; "
        if value.command:
            code += f'_vlmkit_words -W "$({value.command} 2>/dev/null)"; '
        if value.files or value.folders:
            kind = "-f" if value.files else "-d"
            code += f"compopt -o filenames 2>/dev/null; _vlmkit_words {kind}; "
    return code


def _quoted(command: Command) -> str:
    return shlex.quote(" ".join(command.words))
