"""One section of a checkpoint's JSON, read with checks: errors name the file, section and key."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vlmkit.errors import VlmkitError

MAX_SIZE = 2**31 - 1  # MLX counts dimensions in int32
_MAX_NUMBER = 3.4e38  # of float32
_MAX_SHOWN = 80


@dataclass(frozen=True)
class Section:
    """One section of a JSON file, read with checks: errors name the file, the section, the key.

    Example:
        >>> Section({"tied": "2"}, "text_config.").flag("tied", False)
        Traceback (most recent call last):
        vlmkit.errors.VlmkitError: config.json: text_config.tied is '2'; it has to be true or false
    """

    values: Mapping[str, Any]
    path: str = ""  # "" for the top level, else "vision_config." or "text_config."
    file: str = "config.json"

    def error(self, key: str, problem: str) -> VlmkitError:
        """Return the error for one key."""
        return VlmkitError(f"{self.file}: {self.path}{key} {problem}")

    def number(self, key: str, default: float | None = None) -> float:
        """Read a finite number greater than zero."""
        value = self.values.get(key)
        value = default if value is None else value
        if value is None:
            raise self.error(key, "is missing; it has to be a number above 0")
        if not is_number(value) or not value > 0:
            raise self.error(key, f"is {shown(value)}; it has to be a number above 0")
        return float(value)

    def positive(self, key: str, default: int | None = None) -> int:
        """Read an integer from 1 to 2³¹ − 1; a list of equal integers counts as one of them."""
        value = self.values.get(key)
        if isinstance(value, list) and value and all(item == value[0] for item in value):
            value = value[0]
        value = default if value is None else value
        if value is None:
            raise self.error(key, "is missing; it has to be an integer above 0")
        if not is_integer(value) or not 1 <= value <= MAX_SIZE:
            limit = " below 2³¹" if is_integer(value) and value > 0 else ""
            raise self.error(key, f"is {shown(value)}; it has to be an integer above 0{limit}")
        return int(value)

    def flag(self, key: str, default: bool) -> bool:
        """Read true or false."""
        value = self.values.get(key)
        value = default if value is None else value
        if not isinstance(value, bool):
            raise self.error(key, f"is {shown(value)}; it has to be true or false")
        return value

    def token_id(self, key: str, default: int) -> int:
        """Read one token id."""
        value = self.values.get(key)
        value = default if value is None else value
        if not is_integer(value) or not 0 <= value <= MAX_SIZE:
            problem = f"is {shown(value)}; it has to be a token id, an integer from 0"
            raise self.error(key, problem)
        return int(value)

    def integers(self, key: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """Read a list of integers, or one integer as a list of one."""
        value = self.values.get(key)
        if value is None:
            return default
        items = value if isinstance(value, Sequence) else (value,)
        if not all(is_integer(item) and abs(item) <= MAX_SIZE for item in items):
            raise self.error(key, f"is {shown(value)}; it has to be a list of integers")
        return tuple(items)

    def names(self, key: str) -> tuple[str, ...]:
        """Read a list of names, empty when it is absent."""
        value = self.values.get(key)
        if value is None:
            return ()
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self.error(key, f"is {shown(value)}; it has to be a list of names")
        return tuple(value)

    def token_ids(self, key: str, find: Callable[[str], int | None]) -> tuple[int, ...]:
        """Read token ids or tokens, one or a list; null and numbers below 0 stand for none.

        Args:
            key: as in ``eos_token_id``.
            find: the tokenizer's id of a token, None where it has none.
        """
        value = self.values.get(key)
        items = value if isinstance(value, list) else () if value is None else (value,)
        found = []
        for item in items:
            token_id = find(item) if isinstance(item, str) else item
            if token_id is None:
                raise self.error(key, f"names {shown(item)}, which is no token of the tokenizer")
            if not is_integer(token_id) or token_id > MAX_SIZE:
                raise self.error(
                    key, f"is {shown(value)}; it has to be a token id, a token, or a list of them"
                )
            found.append(token_id)
        return tuple(token_id for token_id in found if token_id >= 0)

    def choice(self, key: str, default: str, allowed: tuple[str, ...]) -> str:
        """Read one of a few names."""
        value = self.values.get(key) or default
        if value not in allowed:
            supported = ", ".join(allowed)
            raise self.error(key, f"{shown(value)} is not supported; supported: {supported}")
        return str(value)

    def mapping(self, key: str) -> Mapping[str, Any]:
        """Read a nested section, empty when it is absent."""
        value = self.values.get(key)
        if value is None:
            return {}
        if not isinstance(value, Mapping):
            raise self.error(key, f"is {shown(value)}; it has to be a mapping")
        return value

    def divides(self, key: str, value: int, other: str, total: int) -> None:
        """Refuse a ``value`` that does not divide ``total``."""
        if total % value:
            raise self.error(key, f"is {value}; it has to divide {other}, {total}")

    def inner(self, key: str) -> Section:
        """Return a nested section."""
        return Section(self.mapping(key), f"{self.path}{key}.", self.file)


def is_integer(value: object) -> bool:
    """Tell an integer of JSON from true, false and everything else."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> bool:
    """Tell a number of JSON that float32 can hold from everything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= _MAX_NUMBER  # false for nan


def shown(value: object) -> str:
    """Return a value as an error message shows it, on one line and not too long.

    Example:
        >>> shown("a\\nb"), len(shown([0] * 1000))
        ("'a\\\\nb'", 80)
    """
    text = repr(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 2]} …"


def names_tokens(section: Section) -> list[str]:
    """Return the keys ``…_token_id`` of a section that hold tokens in place of ids.

    Example:
        >>> names_tokens(Section({"eos_token_id": [1, "</s>"], "bos_token_id": 2}))
        ['eos_token_id']
    """
    found = []
    for key, value in section.values.items():
        items = value if isinstance(value, list) else [value]
        if key.endswith("_token_id") and any(isinstance(item, str) for item in items):
            found.append(key)
    return found
