"""The arguments of the commands that look something up. Standard library only, like the parser."""

from __future__ import annotations

from typing import Any

SHELLS = ("bash", "zsh", "fish")


def add_lookup_commands(commands: Any) -> None:
    """Add the subcommands that only read: from ``configs`` to ``completion``."""
    _add_configs(commands)
    _add_stages(commands)
    _add_doctor(commands)
    _add_inspect(commands)
    completion = commands.add_parser(
        "completion",
        help="print a script that completes commands and options in a shell",
        description='For this shell: eval "$(vlmkit completion bash)", the same with zsh (after '
        "compinit), or vlmkit completion fish | source. For good: put that line into ~/.bashrc, "
        "~/.zshrc or ~/.config/fish/config.fish.",
        allow_abbrev=False,
    )
    completion.add_argument("shell", choices=SHELLS, help="the shell")


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


def _add_stages(commands: Any) -> None:
    stages = commands.add_parser(
        "stages",
        help="list the kinds of every stage that a config can name, or explain one",
        description="List the kinds of every stage, or explain one: what it does, its parameters, "
        "an example, related kinds and the source.",
        allow_abbrev=False,
    )
    stages.add_argument(
        "name", nargs="?", metavar="STAGE", help="a kind such as top_p, or a stage such as sampling"
    )
    stages.add_argument("--names", action="store_true", help="print the names alone")


def _add_doctor(commands: Any) -> None:
    doctor = commands.add_parser(
        "doctor",
        help="show what computes on this machine, why, how fast, and what would be faster",
        description="Show the device and all that is chosen for it, with the reasons; measure "
        "products and memory for about a second; say what would be faster. Choices are made under "
        "'backend:' in a config, or by environment variables such as VLMKIT_BACKEND=cpu.",
        allow_abbrev=False,
    )
    doctor.add_argument("--model", metavar="PATH", help="folder or hub id: does it fit, and how")
    doctor.add_argument("--revision", metavar="REV", help="branch, tag or commit of a hub id")
    doctor.add_argument("--dtype", choices=("float32", "float16", "bfloat16"))
    doctor.add_argument("--json", action="store_true", help="print JSON")


def _add_inspect(commands: Any) -> None:
    inspect = commands.add_parser(
        "inspect",
        help="say what a checkpoint is, whether it runs here, and what is missing",
        description="Go through a checkpoint as loading it would, without reading its weights. "
        "Exit code 1 where it does not run.",
        allow_abbrev=False,
    )
    inspect.add_argument("model", metavar="FOLDER", help="folder, hub id, or shapes")
    inspect.add_argument("--revision", metavar="REV", help="branch, tag or commit of a hub id")
    inspect.add_argument("--json", action="store_true", help="print JSON")
