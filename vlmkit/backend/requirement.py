"""Is there an MLX to compute with?"""

from __future__ import annotations

import importlib
import sys

from vlmkit.errors import VlmkitError


def require_mlx() -> None:
    """Check that MLX has a backend. Call it before anything that computes is imported.

    On Linux the ``mlx`` package comes without one: a backend is an extra of its own.

    Raises:
        VlmkitError: names the extra to install.
    """
    try:
        importlib.import_module("mlx.core")
    except ImportError as error:
        extra = "" if sys.platform == "darwin" else "[cpu]"
        gpu = "" if sys.platform == "darwin" else " (or 'vlmkit[cuda]' with an NVIDIA GPU)"
        cause = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise VlmkitError(
            f"MLX has no working backend ({cause}): pip install 'vlmkit{extra}'{gpu}"
        ) from None
