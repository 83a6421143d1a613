"""What the tokenizers library raises, told in one line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from vlmkit.checkpoints.checkpoint_json import reason
from vlmkit.errors import VlmkitError

_PANIC = "PanicException"  # of Rust; pyo3 makes it a BaseException


def is_of_library(error: BaseException) -> bool:
    """Whether an exception may be a library's, and not an interrupt."""
    return isinstance(error, Exception) or type(error).__name__ == _PANIC


@contextmanager
def library_errors(what: str) -> Iterator[None]:
    """Turn what the tokenizers library raises into one line.

    It raises plain exceptions, and panics of Rust that are not even those.

    Example:
        >>> with library_errors("tokenizer.json: it cannot encode 'a'"):
        ...     raise Exception("no such token")
        Traceback (most recent call last):
        vlmkit.errors.VlmkitError: tokenizer.json: it cannot encode 'a' (Exception: no such token)\
; take the one of the original checkpoint
    """
    try:
        yield
    except VlmkitError:
        raise
    except BaseException as error:
        if not is_of_library(error):
            raise
        raise VlmkitError(
            f"{what} ({reason(error)}); take the one of the original checkpoint"
        ) from error
