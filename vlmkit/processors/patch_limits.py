"""How large what is cut into patches may become, whatever a checkpoint asks for."""

from __future__ import annotations

MAX_NUMBERS = 2**28
"""In an image's patches, 1 GiB of float32: 2.6 times the most that a checkpoint in use allows, 16.8
million pixels in two frames."""
