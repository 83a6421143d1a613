"""Sampling: stages that reshape, penalise or cut logits, in any order, and the draw at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, assert_never

from pydantic import Field

from vlmkit.contracts.stages import SamplerStage
from vlmkit.declare.external import External
from vlmkit.errors import VlmkitError, within
from vlmkit.sampling.chain import SamplerChain, chain, numbered_hosts, placed_stage
from vlmkit.sampling.draw import NO_TOKEN
from vlmkit.sampling.dry import Dry, dry
from vlmkit.sampling.dynamic_temperature import DynamicTemperature, dynamic_temperature
from vlmkit.sampling.epsilon_cutoff import EpsilonCutoff, epsilon_cutoff
from vlmkit.sampling.eta_cutoff import EtaCutoff, eta_cutoff
from vlmkit.sampling.exclude import exclude_ids
from vlmkit.sampling.external import external
from vlmkit.sampling.frequency_penalty import FrequencyPenalty, frequency_penalty
from vlmkit.sampling.grammar import grammar
from vlmkit.sampling.grammar_config import (
    Grammar,
    ThinkingBlock,
    check_grammar,
    grammar_doubts,
)
from vlmkit.sampling.greedy import Greedy, greedy
from vlmkit.sampling.history import join_states
from vlmkit.sampling.logit_bias import LogitBias, logit_bias
from vlmkit.sampling.min_p import MinP, min_p
from vlmkit.sampling.mirostat import MirostatV2, mirostat_v2
from vlmkit.sampling.mirostat_v1 import MirostatV1, mirostat_v1
from vlmkit.sampling.no_repeat_ngram import NoRepeatNgram, no_repeat_ngram
from vlmkit.sampling.p_less import PLess, p_less
from vlmkit.sampling.presence_penalty import PresencePenalty, presence_penalty
from vlmkit.sampling.quadratic import Quadratic, quadratic
from vlmkit.sampling.repetition_penalty import RepetitionPenalty, repetition_penalty
from vlmkit.sampling.row_chain import row_chain_key, row_stage
from vlmkit.sampling.tail_free import TailFree, tail_free
from vlmkit.sampling.temperature import Temperature, temperature
from vlmkit.sampling.token_sets import (
    AllowedTokens,
    MinNewTokens,
    SuppressTokens,
    allowed_tokens,
    min_new_tokens,
    suppress_tokens,
)
from vlmkit.sampling.top_h import TopH, top_h
from vlmkit.sampling.top_k import TopK, top_k
from vlmkit.sampling.top_n_sigma import TopNSigma, top_n_sigma
from vlmkit.sampling.top_p import TopP, top_p
from vlmkit.sampling.typical_p import TypicalP, typical_p
from vlmkit.sampling.xtc import Xtc, xtc
from vlmkit.tokens.vocabulary import Vocabulary

SamplerConfig = Annotated[
    Greedy
    | Temperature
    | DynamicTemperature
    | Quadratic
    | TopK
    | TopP
    | MinP
    | TypicalP
    | TopNSigma
    | EpsilonCutoff
    | EtaCutoff
    | TailFree
    | TopH
    | PLess
    | Xtc
    | MirostatV1
    | MirostatV2
    | RepetitionPenalty
    | PresencePenalty
    | FrequencyPenalty
    | Dry
    | NoRepeatNgram
    | LogitBias
    | SuppressTokens
    | AllowedTokens
    | MinNewTokens
    | Grammar
    | External,
    Field(discriminator="kind"),
]
"""Any stage's config, told apart by ``kind``."""


def build_stage(config: SamplerConfig, *, vocabulary: Vocabulary | None = None) -> SamplerStage:
    """Make the stage that a config describes.

    Args:
        config: which stage, and how.
        vocabulary: the model's tokens, which a ``grammar`` needs.

    Raises:
        VlmkitError: a grammar without a vocabulary, or one that can't be compiled; an external
            factory that can't be found or fails.

    Example:
        >>> build_stage(MinP(p=0.1)).name
        'min_p'
    """
    match config:
        case Greedy():
            return greedy(config)
        case Temperature():
            return temperature(config)
        case DynamicTemperature():
            return dynamic_temperature(config)
        case Quadratic():
            return quadratic(config)
        case TopK():
            return top_k(config)
        case TopP():
            return top_p(config)
        case MinP():
            return min_p(config)
        case TypicalP():
            return typical_p(config)
        case TopNSigma():
            return top_n_sigma(config)
        case EpsilonCutoff():
            return epsilon_cutoff(config)
        case EtaCutoff():
            return eta_cutoff(config)
        case TailFree():
            return tail_free(config)
        case TopH():
            return top_h(config)
        case PLess():
            return p_less(config)
        case Xtc():
            return xtc(config)
        case MirostatV1():
            return mirostat_v1(config)
        case MirostatV2():
            return mirostat_v2(config)
        case RepetitionPenalty():
            return repetition_penalty(config)
        case PresencePenalty():
            return presence_penalty(config)
        case FrequencyPenalty():
            return frequency_penalty(config)
        case Dry():
            return dry(config)
        case NoRepeatNgram():
            return no_repeat_ngram(config)
        case LogitBias():
            return logit_bias(config)
        case SuppressTokens():
            return suppress_tokens(config)
        case AllowedTokens():
            return allowed_tokens(config)
        case MinNewTokens():
            return min_new_tokens(config)
        case Grammar():
            return _with_vocabulary(config, vocabulary)
        case External():
            return external(config)
        case _:
            assert_never(config)


def _with_vocabulary(config: Grammar, vocabulary: Vocabulary | None) -> SamplerStage:
    if vocabulary is None:
        raise VlmkitError(
            "grammar needs the model's tokens: pass vocabulary=processor.vocabulary to build_chain"
        )
    return grammar(config, vocabulary)


def build_chain(
    configs: Sequence[SamplerConfig], *, vocabulary: Vocabulary | None = None
) -> SamplerChain:
    """Make a chain of the configs' stages, in their order.

    Args:
        configs: the stages.
        vocabulary: the model's tokens, which a ``grammar`` needs; one is meant to serve many
            chains, because it keeps what was compiled for it.

    Example:
        >>> build_chain([TopK(k=20), Greedy()]).is_greedy
        True
    """
    return chain([_build_at(index, config, vocabulary) for index, config in enumerate(configs)])


def _build_at(index: int, config: SamplerConfig, vocabulary: Vocabulary | None) -> SamplerStage:
    """Make a stage whose errors name its place in the list."""
    with within("sampling", index):
        stage = build_stage(config, vocabulary=vocabulary)
    return placed_stage(stage, index) if isinstance(config, External | Grammar) else stage


def build_row_chain(
    configs: Sequence[SamplerConfig], *, vocabulary: Vocabulary | None = None, num_added: int = 0
) -> SamplerChain:
    """Make a chain of the same tokens that rows with other temperatures and penalties can share.

    Chains with equal `row_chain_key` are one and the same, but for the numbers that their ``init``
    puts into the state: start each row with its own, join the states, and go on with any of them.

    Args:
        configs: the stages.
        vocabulary: as in `build_chain`.
        num_added: stages in front that no one wrote: errors count the places behind them.

    Example:
        >>> import mlx.core as mx
        >>> chains = [build_row_chain([Temperature(temperature=t)]) for t in (2.0, 4.0)]
        >>> state = join_states([chain.init([[]], 2) for chain in chains])
        >>> chains[0].apply(state, mx.array([[0.0, 8.0], [0.0, 8.0]]), None).tolist()
        [[0.0, 4.0], [0.0, 2.0]]
    """
    return chain(
        [
            row_stage(config) or _build_at(place - num_added, config, vocabulary)
            for place, config in enumerate(configs)
        ]
    )


__all__ = [
    "NO_TOKEN",
    "AllowedTokens",
    "Dry",
    "DynamicTemperature",
    "EpsilonCutoff",
    "EtaCutoff",
    "External",
    "FrequencyPenalty",
    "Grammar",
    "Greedy",
    "LogitBias",
    "MinNewTokens",
    "MinP",
    "MirostatV1",
    "MirostatV2",
    "NoRepeatNgram",
    "PLess",
    "PresencePenalty",
    "Quadratic",
    "RepetitionPenalty",
    "SamplerChain",
    "SamplerConfig",
    "SuppressTokens",
    "TailFree",
    "Temperature",
    "ThinkingBlock",
    "TopH",
    "TopK",
    "TopNSigma",
    "TopP",
    "TypicalP",
    "Xtc",
    "allowed_tokens",
    "build_chain",
    "build_row_chain",
    "build_stage",
    "chain",
    "check_grammar",
    "dry",
    "dynamic_temperature",
    "epsilon_cutoff",
    "eta_cutoff",
    "exclude_ids",
    "external",
    "frequency_penalty",
    "grammar",
    "grammar_doubts",
    "greedy",
    "join_states",
    "logit_bias",
    "min_new_tokens",
    "min_p",
    "mirostat_v1",
    "mirostat_v2",
    "no_repeat_ngram",
    "numbered_hosts",
    "p_less",
    "presence_penalty",
    "quadratic",
    "repetition_penalty",
    "row_chain_key",
    "suppress_tokens",
    "tail_free",
    "temperature",
    "top_h",
    "top_k",
    "top_n_sigma",
    "top_p",
    "typical_p",
    "xtc",
]
