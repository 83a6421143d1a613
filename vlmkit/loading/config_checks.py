"""What only the whole folder can tell of a config.json: which ids the tokens have that it names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from vlmkit.declare.section import Section, names_tokens


def with_token_ids(config: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return a config.json whose ``…_token_id`` are ids where they were tokens.

    The tokenizer is read only where the config names a token.

    Raises:
        VlmkitError: the tokenizer has no such token.

    Example:
        >>> from vlmkit.loading import resolve_checkpoint
        >>> with_token_ids({"eos_token_id": ["<|im_end|>"]}, resolve_checkpoint("shapes"))
        {'eos_token_id': [627]}
    """
    result = dict(config)
    nested = Section(config).mapping("text_config")

    @cache
    def lookup() -> Callable[[str], int | None]:
        from vlmkit.processors import load_tokenizer  # takes time to import

        return load_tokenizer(folder).token_to_id

    def find(token: str) -> int | None:
        return lookup()(token)

    changed = _resolved(Section(config), find)
    inner = _resolved(Section(nested, "text_config."), find)
    if inner:
        changed["text_config"] = {**nested, **inner}
    return result | changed


def _resolved(section: Section, find: Callable[[str], int | None]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key in names_tokens(section):
        ids = section.token_ids(key, find)
        found[key] = list(ids) if isinstance(section.values[key], list) else ids[0]
    return found
