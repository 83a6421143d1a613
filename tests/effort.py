"""How many examples properties are tried on: as many as they ask for, a tenth in quick tests."""

from __future__ import annotations

from hypothesis import settings

EXAMPLES = 40
"""Of a property that asks for no number."""


def scaled(count: int) -> int:
    """Return a number of examples, in proportion to those of the profile that is loaded."""
    return max(2, count * settings().max_examples // EXAMPLES)
