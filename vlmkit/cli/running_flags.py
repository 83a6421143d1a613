"""The flags of all commands that run an experiment. Standard library only, like the parser."""

from __future__ import annotations

from typing import Any

_SWITCHES = {
    "fail_fast": "stop at the first response that cannot be had",
    "no_sharing": "every response by itself, with a prefill of its own; slow, and the same tokens",
    "trust_code": "run code that the experiment names (kind: external as package.module:function)",
}


def add_running_flags(command: Any, *names: str) -> None:
    """Add some of ``batch_size``, ``fail_fast``, ``no_sharing`` and ``trust_code`` to a command."""
    for name in names:
        flag = "--" + name.replace("_", "-")
        if name == "batch_size":
            command.add_argument(
                flag, type=int, metavar="N", help="rows in flight at most (by memory)"
            )
        else:
            command.add_argument(flag, action="store_true", help=_SWITCHES[name])
