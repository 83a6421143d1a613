"""Stopping criteria: reducers over a row's tokens that end it, or force what comes next."""

from vlmkit.declare.external import External
from vlmkit.stopping.all_of import all_of
from vlmkit.stopping.any_of import any_of
from vlmkit.stopping.build import build_stopping, stop_markers
from vlmkit.stopping.config import (
    AllOfConfig,
    AnyOfConfig,
    StoppingConfig,
    clock_kinds,
    each_config,
    token_limit,
)
from vlmkit.stopping.eos import EosConfig
from vlmkit.stopping.external import external
from vlmkit.stopping.held_ids import held_ids
from vlmkit.stopping.max_tokens import MaxTokensConfig
from vlmkit.stopping.repetition_loop import RepetitionLoopConfig
from vlmkit.stopping.stop_sequences import StopSequencesConfig
from vlmkit.stopping.stop_token_ids import StopTokenIdsConfig
from vlmkit.stopping.thinking_config import (
    QWEN3_TRANSITION,
    S1_TRANSITION,
    S1_WAIT,
    ThinkingBudgetConfig,
)
from vlmkit.stopping.time_limit import TimeLimitConfig
from vlmkit.stopping.uncertainty import ConfidenceStop, EntropyStop

__all__ = [
    "QWEN3_TRANSITION",
    "S1_TRANSITION",
    "S1_WAIT",
    "AllOfConfig",
    "AnyOfConfig",
    "ConfidenceStop",
    "EntropyStop",
    "EosConfig",
    "External",
    "MaxTokensConfig",
    "RepetitionLoopConfig",
    "StopSequencesConfig",
    "StopTokenIdsConfig",
    "StoppingConfig",
    "ThinkingBudgetConfig",
    "TimeLimitConfig",
    "all_of",
    "any_of",
    "build_stopping",
    "clock_kinds",
    "each_config",
    "external",
    "held_ids",
    "stop_markers",
    "token_limit",
]
