"""How large a JSON schema, a regex or a Lark grammar may be, before anything reads it.

llguidance stops at limits of its own while it compiles and runs a grammar. What it takes more than
a few seconds for, and what is rewritten here first, is limited by these.
"""

from __future__ import annotations

from typing import Any

from vlmkit.errors import brief

MAX_CHARS = 1_000_000
"""Of a regex, a Lark grammar, or all texts of a schema: 1 s to compile."""
MAX_NODES = 100_000
"""Values in a schema, those that are used in several places counted in each."""
MAX_DEPTH = 200
"""Mappings and lists in one another."""
MAX_PROPERTIES = 2_000
"""In one object; in several, the root of the sum of their squares: 3 s, for llguidance compares
each with each."""
MAX_PATTERN_PAIRS = 1_000
"""``patternProperties`` times names of properties: each is tried on each, in 3 ms."""
MAX_PATTERNS = 100
"""``patternProperties``: llguidance compares each with each."""
_MAX_BITS = 3_400  # of a whole number: 1,000 digits


def check_size(schema: Any) -> Any:
    """Return a schema as it is.

    Raises:
        ValueError: says which limit it is beyond.

    Example:
        >>> check_size({"enum": ["a" * 2_000_000]})
        Traceback (most recent call last):
        ValueError: the schema has more than 1,000,000 characters; make it smaller
    """
    num_nodes = num_chars = num_names = num_patterns = squares = 0
    waiting: list[tuple[Any, int]] = [(schema, 1)]
    while waiting:
        value, depth = waiting.pop()
        num_nodes += 1
        if isinstance(value, str):
            num_chars += len(value)
        elif isinstance(value, int) and value.bit_length() > _MAX_BITS:
            raise ValueError(f"the schema holds {brief(value)}; numbers have at most 1,000 digits")
        elif isinstance(value, dict):
            num_chars += sum(len(key) for key in value if isinstance(key, str))
            properties = _size(value.get("properties"))
            squares += properties**2
            num_names += properties + _size(value.get("required"))
            num_patterns += _size(value.get("patternProperties"))
        if isinstance(value, dict | list):
            if depth > MAX_DEPTH:
                raise ValueError(f"the schema is nested more than {MAX_DEPTH} deep; make it flat")
            inner = value.values() if isinstance(value, dict) else value
            if len(inner) + len(waiting) + num_nodes > MAX_NODES:
                raise _too_large(f"{MAX_NODES:,} values")
            waiting += [(item, depth + 1) for item in inner]
        if num_chars > MAX_CHARS:
            raise _too_large(f"{MAX_CHARS:,} characters")
    if squares > MAX_PROPERTIES**2:
        raise _too_large(f"{MAX_PROPERTIES:,} properties in an object")
    if num_patterns > MAX_PATTERNS:
        raise _too_large(f"{MAX_PATTERNS} patternProperties")
    if num_patterns * num_names > MAX_PATTERN_PAIRS:
        raise _too_large(
            f"{MAX_PATTERN_PAIRS:,} pairs of one of its {num_patterns:,} patternProperties and one"
            f" of its {num_names:,} names"
        )
    return schema


def _size(value: Any) -> int:
    return len(value) if isinstance(value, dict | list) else 0


def _too_large(what: str) -> ValueError:
    return ValueError(f"the schema has more than {what}; make it smaller")
