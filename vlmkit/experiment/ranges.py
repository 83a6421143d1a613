"""Ranges of statistical settings, checked with one line."""

from __future__ import annotations

from vlmkit.errors import VlmkitError


def in_unit_interval(name: str, value: float) -> None:
    """Raise a `VlmkitError` unless 0 < value < 1."""
    if not 0 < value < 1:
        raise VlmkitError(f"{name}: {value} is not between 0 and 1")


def at_least_one(name: str, value: int) -> None:
    """Raise a `VlmkitError` for less than 1."""
    if value < 1:
        raise VlmkitError(f"{name}: {value} is not at least 1")
