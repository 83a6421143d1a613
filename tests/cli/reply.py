"""What comes out of a command."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import vlmkit

ROOT = Path(vlmkit.__file__).parent.parent


class Reply(NamedTuple):
    """Exit code, output and messages."""

    code: int
    stdout: str
    stderr: str


Command = Callable[..., Reply]
