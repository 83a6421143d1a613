"""Reading config.json with checks: every error names the section, the key and what would do."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vlmkit.errors import VlmkitError


@dataclass(frozen=True)
class Section:
    """One section of config.json, read with checks: errors name the section and the key."""

    values: Mapping[str, Any]
    path: str  # "" for the top level, else "vision_config." or "text_config."

    def error(self, key: str, problem: str) -> VlmkitError:
        """Return the error for one key."""
        return VlmkitError(f"config.json: {self.path}{key} {problem}")

    def number(self, key: str, default: float | None = None) -> float:
        """Read a number greater than zero."""
        value = self.values.get(key)
        value = default if value is None else value
        if value is None:
            raise self.error(key, "is missing; it has to be a number above 0")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
            raise self.error(key, f"is {value!r}; it has to be a number above 0")
        return value

    def positive(self, key: str, default: int | None = None) -> int:
        """Read an integer greater than zero; a list of equal integers counts as one of them."""
        value = self.values.get(key)
        if isinstance(value, Sequence) and len(value) > 0 and len(set(value)) == 1:
            value = value[0]
        value = default if value is None else value
        if value is None:
            raise self.error(key, "is missing; it has to be an integer above 0")
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.error(key, f"is {value!r}; it has to be an integer above 0")
        return value

    def token_id(self, key: str, default: int) -> int:
        """Read one token id."""
        value = self.values.get(key)
        value = default if value is None else value
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise self.error(key, f"is {value!r}; it has to be a token id, an integer from 0")
        return value

    def integers(self, key: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """Read a list of integers, or one integer as a list of one."""
        value = self.values.get(key)
        if value is None:
            return default
        items = value if isinstance(value, Sequence) else (value,)
        if not all(isinstance(item, int) and not isinstance(item, bool) for item in items):
            raise self.error(key, f"is {value!r}; it has to be a list of integers")
        return tuple(items)

    def choice(self, key: str, default: str, allowed: tuple[str, ...]) -> str:
        """Read one of a few names."""
        value = self.values.get(key) or default
        if value not in allowed:
            raise self.error(key, f"{value!r} is not supported; supported: {', '.join(allowed)}")
        return str(value)

    def mapping(self, key: str) -> Mapping[str, Any]:
        """Read a nested section, empty when it is absent."""
        value = self.values.get(key)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise self.error(key, f"is {value!r}; it has to be a mapping")
        return value

    def divides(self, key: str, value: int, other: str, total: int) -> None:
        """Refuse a ``value`` that does not divide ``total``."""
        if total % value:
            raise self.error(key, f"is {value}; it has to divide {other}, {total}")

    def inner(self, key: str) -> Section:
        """Return a nested section."""
        return Section(self.mapping(key), f"{self.path}{key}.")
