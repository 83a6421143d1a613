"""``vlmkit completion``: a script for a shell, made from the parser."""

from __future__ import annotations

import argparse

from vlmkit.cli.completable import read_parser
from vlmkit.cli.complete_bash import bash_script
from vlmkit.cli.complete_fish import fish_script
from vlmkit.cli.complete_zsh import zsh_script
from vlmkit.cli.terminal import say

_WRITERS = {"bash": bash_script, "zsh": zsh_script, "fish": fish_script}


def run_completion(args: argparse.Namespace, parser: argparse.ArgumentParser) -> None:
    """Print the script of one shell."""
    say(_WRITERS[args.shell](read_parser(parser)), end="")
