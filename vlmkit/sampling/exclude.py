"""Tokens that no penalty of a chain counts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from vlmkit.declare.configbase import StageConfig

Config = TypeVar("Config", bound=StageConfig)


def exclude_ids(configs: Sequence[Config], token_ids: Sequence[int]) -> tuple[Config, ...]:
    """Add ids (a model's image placeholders) to those that the stages with a history leave out.

    Example:
        >>> from vlmkit.sampling import RepetitionPenalty
        >>> exclude_ids([RepetitionPenalty(penalty=1.1)], [7])[0].excluded_ids
        (7,)
    """
    resolved: list[Config] = []
    for config in configs:
        own = getattr(config, "excluded_ids", None)
        if own is not None:
            merged = tuple(dict.fromkeys((*own, *token_ids)))
            config = config.model_copy(update={"excluded_ids": merged})
        resolved.append(config)
    return tuple(resolved)
