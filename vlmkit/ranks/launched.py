"""What the environment says of the ranks that were started together. Imports nothing heavy."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping

from vlmkit.errors import VlmkitError

TIMEOUT_VARIABLE = "VLMKIT_RANKS_TIMEOUT"
DEFAULT_TIMEOUT_S = 300.0
GONE = "a rank has gone: see what it printed, and start all again"
_PEERS = ("MLX_HOSTFILE", "MLX_IBV_DEVICES", "MLX_WORLD_SIZE")
"""Variables of which ``mlx.launch`` sets one where there is more than one rank."""


def launched_rank(environ: Mapping[str, str] | None = None) -> int | None:
    """Return which of several ranks this process was started as; None: it is alone.

    Args:
        environ: the environment variables; None: this process's.

    Example:
        >>> launched_rank({}), launched_rank({"MLX_RANK": "1", "MLX_HOSTFILE": "hosts.json"})
        (None, 1)
    """
    found = os.environ if environ is None else environ
    rank = found.get("MLX_RANK", "")
    return int(rank) if rank.isdecimal() and any(map(found.get, _PEERS)) else None


def ranks_timeout_s(environ: Mapping[str, str]) -> float:
    """Return for how many seconds a rank waits for the others.

    Args:
        environ: the environment variables.

    Raises:
        VlmkitError: what is asked for is no number of seconds above 0.

    Example:
        >>> ranks_timeout_s({}), ranks_timeout_s({"VLMKIT_RANKS_TIMEOUT": "7.5"})
        (300.0, 7.5)
    """
    written = environ.get(TIMEOUT_VARIABLE)
    if not written:
        return DEFAULT_TIMEOUT_S
    try:
        seconds = float(written)
    except ValueError:
        seconds = math.nan
    if not (seconds > 0 and math.isfinite(seconds)):
        raise VlmkitError(f"{TIMEOUT_VARIABLE}={written!r}: give seconds above 0, such as 300")
    return seconds
