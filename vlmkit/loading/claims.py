"""What a config.json claims of a model's size, held against its weights before anything is built.

A layer costs a few kilobytes before its weights are read, whether or not there are any for it.
What the other sizes claim costs nothing until then: arrays are computed when they are used, and
a weight of another shape is refused first.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from vlmkit.declare.section import Section, is_integer
from vlmkit.errors import VlmkitError

MAX_LAYERS = 1000
"""Of each kind: the deepest model in use has 126; a thousand are built in half a second."""

MAX_OVERRIDES = 100_000
"""Modules that a quantization section names: the largest mixtures of experts have some 70,000."""

MAX_SETTINGS = 100
"""Entries of a quantization section that name no module."""

_COUNTS = re.compile(r"(\w+_)?(layers?|blocks|depth|loops|groups|num_inputs)|n_block")
_LISTS = re.compile(r"\w*(layer|block|modules|pattern)\w*")  # with an entry for each layer
_MAX_NESTED = 8  # sections within sections


def check_claims(config: Mapping[str, Any], num_tensors: int) -> None:
    """Refuse a config.json that describes a model far beyond its weights.

    Args:
        config: the contents of config.json.
        num_tensors: in the weight files.

    Raises:
        VlmkitError: names the key.

    Example:
        >>> check_claims({"text_config": {"num_hidden_layers": 10**6}}, 93)
        Traceback (most recent call last):
        vlmkit.errors.VlmkitError: config.json: text_config.num_hidden_layers is 1000000, but the \
weights have 93 tensors in all; a model has at most 1,000
    """
    for key in ("quantization", "quantization_config"):
        named = config.get(key)
        most = min(num_tensors + MAX_SETTINGS, MAX_OVERRIDES)
        if isinstance(named, Mapping) and len(named) > most:
            raise Section(config).error(
                key, f"has {len(named)} entries, but the weights have only {num_tensors} tensors"
            )
    for section in _sections(Section(config), _MAX_NESTED):
        for key, value in section.values.items():
            found = _claimed(key, value)
            if found is not None and found > MAX_LAYERS:
                says = f"is {value}" if is_integer(value) else f"has {found} entries"
                raise _too_many(section, key, says, num_tensors)


def _claimed(key: str, value: object) -> int | None:
    if is_integer(value) and _COUNTS.fullmatch(key):
        assert isinstance(value, int)
        return value
    if isinstance(value, list | str) and _LISTS.fullmatch(key):
        return len(value)
    return None


def _sections(section: Section, depth: int) -> Iterator[Section]:
    yield section
    for key, value in section.values.items():
        if depth and isinstance(value, Mapping) and not key.startswith("quantization"):
            inner = Section(value, f"{section.path}{key}.", section.file)
            yield from _sections(inner, depth - 1)


def _too_many(section: Section, key: str, says: str, num_tensors: int) -> VlmkitError:
    return section.error(
        key,
        f"{says}, but the weights have {num_tensors} tensors in all; a model has at most "
        f"{MAX_LAYERS:,}",
    )
