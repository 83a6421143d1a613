"""Chains that rows share although their temperatures, shares and penalties differ."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple

from vlmkit.contracts.stages import SamplerStage
from vlmkit.sampling.frequency_penalty import FrequencyPenalty, frequency_penalty_of
from vlmkit.sampling.min_p import MinP, bound, min_p_of
from vlmkit.sampling.per_row import Number, per_row
from vlmkit.sampling.presence_penalty import PresencePenalty, presence_penalty_of
from vlmkit.sampling.repetition_penalty import RepetitionPenalty, repetition_penalty_of
from vlmkit.sampling.temperature import Temperature, divisor, temperature_of
from vlmkit.sampling.top_p import TopP, top_p_of


class Split(NamedTuple):
    """A stage taken apart into what rows must share, and the number that they need not."""

    field: str  # of the config
    value: float
    shape: Hashable  # what else about the value decides how the stage computes
    stage_of: Callable[[Number], SamplerStage]


def split(config: Any) -> Split | None:
    """Take a stage apart; None for one that rows share only with all its values."""
    match config:
        case Temperature():
            value = divisor(config)
            shape = (value > 1.0) - (value < 1.0)
            return Split("temperature", value, shape, temperature_of(config))
        case TopP():
            return Split("p", config.p, config.p == 1.0, top_p_of(config))
        case MinP():
            return Split("p", bound(config), config.p == 0.0, min_p_of(config))
        case RepetitionPenalty():
            off = config.penalty == 1.0
            return Split("penalty", config.penalty, off, repetition_penalty_of(config))
        case PresencePenalty():
            return Split("penalty", config.penalty, None, presence_penalty_of(config))
        case FrequencyPenalty():
            return Split("penalty", config.penalty, None, frequency_penalty_of(config))
        case _:
            return None


def row_stage(config: Any) -> SamplerStage | None:
    """Make a stage whose number stands in its state; None where there is no such stage."""
    parts = split(config)
    return None if parts is None else per_row(parts.value, parts.stage_of)


def row_chain_key(configs: Sequence[Any]) -> tuple[Hashable, ...]:
    """Return what rows must have in common to share a chain made of these configs.

    Example:
        >>> warm, hot = Temperature(temperature=1.5), Temperature(temperature=2.0)
        >>> row_chain_key([warm]) == row_chain_key([hot])
        True
        >>> row_chain_key([warm]) == row_chain_key([Temperature(temperature=0.5)])
        False
    """
    keys: list[Hashable] = []
    for config in configs:
        parts = split(config)
        left_out = set() if parts is None else {parts.field}
        shape = None if parts is None else parts.shape
        keys.append((config.model_dump_json(exclude=left_out), shape))
    return tuple(keys)
