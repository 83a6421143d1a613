"""Prompts after their prefill: shared, cached across calls, saved to disk."""

from vlmkit.prompts.cache import PromptCache, PromptStore
from vlmkit.prompts.prefill import (
    Prefilled,
    PrefillOptions,
    Started,
    prefill_prompts,
)
from vlmkit.prompts.states import join_states, select_hidden, select_state

__all__ = [
    "PrefillOptions",
    "Prefilled",
    "PromptCache",
    "PromptStore",
    "Started",
    "join_states",
    "prefill_prompts",
    "select_hidden",
    "select_state",
]
