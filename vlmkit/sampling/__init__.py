"""Sampling: stages that reshape, penalise or cut logits, in any order, and the draw at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, assert_never

from pydantic import Field

from vlmkit.sampling._chain import SamplerChain, chain
from vlmkit.sampling._draw import NO_TOKEN
from vlmkit.sampling._frequency_penalty import FrequencyPenalty, frequency_penalty
from vlmkit.sampling._greedy import Greedy, greedy
from vlmkit.sampling._logit_bias import LogitBias, logit_bias
from vlmkit.sampling._min_p import MinP, min_p
from vlmkit.sampling._presence_penalty import PresencePenalty, presence_penalty
from vlmkit.sampling._repetition_penalty import RepetitionPenalty, repetition_penalty
from vlmkit.sampling._temperature import Temperature, temperature
from vlmkit.sampling._top_k import TopK, top_k
from vlmkit.sampling._top_p import TopP, top_p
from vlmkit.types import SamplerStage

SamplerConfig = Annotated[
    Greedy
    | Temperature
    | TopK
    | TopP
    | MinP
    | RepetitionPenalty
    | PresencePenalty
    | FrequencyPenalty
    | LogitBias,
    Field(discriminator="kind"),
]
"""Any stage's config, told apart by ``kind``."""


def build_stage(config: SamplerConfig) -> SamplerStage:
    """Make the stage that a config describes.

    Example:
        >>> build_stage(MinP(p=0.1)).name
        'min_p'
    """
    match config:
        case Greedy():
            return greedy(config)
        case Temperature():
            return temperature(config)
        case TopK():
            return top_k(config)
        case TopP():
            return top_p(config)
        case MinP():
            return min_p(config)
        case RepetitionPenalty():
            return repetition_penalty(config)
        case PresencePenalty():
            return presence_penalty(config)
        case FrequencyPenalty():
            return frequency_penalty(config)
        case LogitBias():
            return logit_bias(config)
        case _:
            assert_never(config)


def build_chain(configs: Sequence[SamplerConfig]) -> SamplerChain:
    """Make a chain of the configs' stages, in their order.

    Example:
        >>> build_chain([TopK(k=20), Greedy()]).is_greedy
        True
    """
    return chain([build_stage(config) for config in configs])


def exclude_ids(
    configs: Sequence[SamplerConfig], token_ids: Sequence[int]
) -> tuple[SamplerConfig, ...]:
    """Add ids (a model's image placeholders) to those that no penalty counts.

    Example:
        >>> exclude_ids([RepetitionPenalty(penalty=1.1)], [7])[0].excluded_ids
        (7,)
    """
    resolved: list[SamplerConfig] = []
    for config in configs:
        if isinstance(config, RepetitionPenalty | PresencePenalty | FrequencyPenalty):
            merged = tuple(dict.fromkeys((*config.excluded_ids, *token_ids)))
            config = config.model_copy(update={"excluded_ids": merged})
        resolved.append(config)
    return tuple(resolved)


__all__ = [
    "NO_TOKEN",
    "FrequencyPenalty",
    "Greedy",
    "LogitBias",
    "MinP",
    "PresencePenalty",
    "RepetitionPenalty",
    "SamplerChain",
    "SamplerConfig",
    "Temperature",
    "TopK",
    "TopP",
    "build_chain",
    "build_stage",
    "chain",
    "exclude_ids",
    "frequency_penalty",
    "greedy",
    "logit_bias",
    "min_p",
    "presence_penalty",
    "repetition_penalty",
    "temperature",
    "top_k",
    "top_p",
]
