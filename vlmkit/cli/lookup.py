"""The arguments of the commands that look something up. Standard library only, like the parser."""

from __future__ import annotations

from typing import Any


def add_lookup_commands(commands: Any) -> None:
    """Add ``configs`` to the subcommands."""
    _add_configs(commands)


def _add_configs(commands: Any) -> None:
    configs = commands.add_parser(
        "configs",
        help="list the configs that come with the package, or copy them",
        description="List the configs that come with the package. Any of them can be named as "
        "vlmkit:PATH on the command line and under include: in a file.",
        allow_abbrev=False,
    )
    actions = configs.add_subparsers(dest="action", metavar="ACTION", parser_class=type(configs))
    copy = actions.add_parser(
        "copy", help="write all of them into a folder; nothing is written over", allow_abbrev=False
    )
    copy.add_argument("folder", metavar="DIR", help="folder to write to; made if it is missing")
