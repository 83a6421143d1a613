"""What of a command line can be completed, read from its parser."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import NamedTuple

# What a value is, by the name that help gives it; anything else is free text.
_FILES = ("FILE", "PATH", "CONFIG key=value")
_FOLDERS = ("DIR",)
_ASKED = {"STAGE": "vlmkit stages --names"}


class Value(NamedTuple):
    """What an option or an argument takes; where all is empty, any text."""

    choices: tuple[str, ...] = ()
    files: bool = False
    folders: bool = False
    command: str = ""  # prints the words to choose from, one per line


class Option(NamedTuple):
    """A flag."""

    flags: tuple[str, ...]
    help: str
    values: tuple[Value, ...]  # one per word that follows it
    repeats: bool


class Command(NamedTuple):
    """A command, or the program itself, whose words are none."""

    words: tuple[str, ...]
    help: str
    options: tuple[Option, ...]
    arguments: tuple[Value, ...]
    takes_many: bool  # the last argument may be given again
    commands: tuple[Command, ...]


def read_parser(parser: argparse.ArgumentParser) -> Command:
    """Read a parser and, in turn, those of its subcommands.

    Example:
        >>> parser = argparse.ArgumentParser()
        >>> _ = parser.add_argument("--out", metavar="DIR", help="a folder")
        >>> read_parser(parser).options[1].values
        (Value(choices=(), files=False, folders=True, command=''),)
    """
    return _command(parser, (), "")


def each_command(command: Command) -> Iterator[Command]:
    """Yield a command and all below it."""
    yield command
    for inner in command.commands:
        yield from each_command(inner)


def _command(parser: argparse.ArgumentParser, words: tuple[str, ...], text: str) -> Command:
    options: list[Option] = []
    arguments: list[Value] = []
    commands: list[Command] = []
    takes_many = False
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            commands += [
                _command(inner, (*words, name), helps.get(name, ""))
                for name, inner in action.choices.items()
            ]
        elif action.option_strings:
            repeats = isinstance(action, argparse._AppendAction)
            flags = tuple(action.option_strings)
            options.append(Option(flags, action.help or "", _values(action), repeats))
        else:
            arguments.append(_value(action))
            takes_many = action.nargs in ("*", "+")
    return Command(words, text, tuple(options), tuple(arguments), takes_many, tuple(commands))


def _values(action: argparse.Action) -> tuple[Value, ...]:
    number = 1 if action.nargs is None else action.nargs
    assert isinstance(number, int), f"{action.option_strings}: a number of values is not known"
    return (_value(action),) * number


def _value(action: argparse.Action) -> Value:
    name = action.metavar
    return Value(
        choices=tuple(map(str, action.choices or ())),
        files=name in _FILES,
        folders=name in _FOLDERS,
        command=_ASKED.get(name, "") if isinstance(name, str) else "",
    )
