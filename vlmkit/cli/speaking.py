"""Which of several ranks writes: rank 0, and of the others one whose error no other knows."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator

from vlmkit.errors import VlmkitError
from vlmkit.ranks.launched import launched_rank


@contextlib.contextmanager
def one_rank_speaks() -> Iterator[None]:
    """Let what other ranks than the first write go nowhere."""
    if not launched_rank():
        yield
        return
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
    ):
        yield


def check_command_of_ranks(command: str | None) -> None:
    """Refuse a command that several processes would do several times.

    Raises:
        VlmkitError: this is one of several ranks, and the command does not generate.
    """
    if launched_rank() is not None and command != "generate":
        raise VlmkitError(
            f"{command or 'no command'}: ranks share the work of 'generate' only; "
            "run other commands without mlx.launch"
        )


def say_error(error: VlmkitError) -> None:
    """Print the error on one line, unless another rank does."""
    line: str | None = str(error)
    if launched_rank() is not None:
        from vlmkit.ranks.meeting import last_words

        line = last_words(error)
    if line is not None:
        print(f"vlmkit: error: {line}", file=sys.stderr)
