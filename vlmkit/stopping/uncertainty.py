"""End a row, or its thinking, on the model's own uncertainty: entropy, or the largest probability.

Both are of the distribution that the model gave the token, before any sampler stage.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Literal, NamedTuple, TypeVar

from pydantic import Field, model_validator

from vlmkit.contracts.stages import Decision, Finish, StoppingCriterion, TokenEvent
from vlmkit.declare.configbase import Float, Int, StageConfig
from vlmkit.errors import VlmkitError
from vlmkit.stopping.thinking_budget import ThinkingBudgetState, close_block, thinking_budget
from vlmkit.stopping.thinking_config import (
    ThinkingBudgetConfig,
    ThinkingMarkers,
    thinking_markers,
)

_MARKERS = ("start", "end", "transition")
_NOTHING = Decision()
_Bounded = TypeVar("_Bounded", "EntropyStop", "ConfidenceStop")


class UncertaintyConfig(StageConfig):
    """When a measured value counts, and what happens then."""

    window: Int = Field(
        default=1, ge=1, description="the mean over this many last tokens is what counts"
    )
    patience: Int = Field(
        default=1, ge=1, description="how many tokens in a row it has to be past the bound"
    )
    min_tokens: Int = Field(
        default=0,
        ge=0,
        description="nothing happens before this many tokens; of thinking, with close_thinking",
    )
    action: Literal["stop", "close_thinking"] = Field(
        default="stop", description="end the row, or close the thinking block that it is in"
    )
    start: Annotated[str, Field(min_length=1)] = Field(
        default="<think>", description="what opens a thinking block"
    )
    end: Annotated[str, Field(min_length=1)] = Field(
        default="</think>", description="what closes a thinking block"
    )
    transition: Annotated[str, Field(min_length=1)] | None = Field(
        default=None,
        description="what closes a block: this, then the end marker unless the text holds it",
    )

    @model_validator(mode="after")
    def _markers_have_a_use(self) -> UncertaintyConfig:
        unused = next(iter(_own_markers(self)), None)
        if self.action == "stop" and unused is not None:
            raise ValueError(f"{unused} needs action: close_thinking; set it, or drop the key")
        return self


class EntropyStop(UncertaintyConfig):
    """Act when the entropy is above, or below, a bound. Exactly one of the two is given."""

    kind: Literal["entropy_stop"] = "entropy_stop"
    above: Float | None = Field(
        default=None, ge=0.0, description="nats; act above it: the model has lost its way"
    )
    below: Float | None = Field(
        default=None, gt=0.0, description="nats; act below it: the model is sure"
    )

    @model_validator(mode="after")
    def _one_bound(self) -> EntropyStop:
        return _with_one_bound(self)


class ConfidenceStop(UncertaintyConfig):
    """Act when the largest probability is above, or below, a bound. Exactly one is given."""

    kind: Literal["confidence_stop"] = "confidence_stop"
    above: Float | None = Field(
        default=None, ge=0.0, lt=1.0, description="act above it: the model is sure"
    )
    below: Float | None = Field(
        default=None, gt=0.0, le=1.0, description="act below it: the model has lost its way"
    )

    @model_validator(mode="after")
    def _one_bound(self) -> ConfidenceStop:
        return _with_one_bound(self)


def _own_markers(config: UncertaintyConfig) -> dict[str, str]:
    """The markers that are not the usual ones."""
    fields = type(config).model_fields
    values = {name: getattr(config, name) for name in _MARKERS}
    return {name: value for name, value in values.items() if value != fields[name].default}


def _with_one_bound(config: _Bounded) -> _Bounded:
    if (config.above is None) == (config.below is None):
        raise ValueError("needs exactly one of above and below")
    return config


class UncertaintyState(NamedTuple):
    """What was measured last; with close_thinking only inside the block that the row is in."""

    recent: tuple[float, ...]  # the last `window` values
    run: int  # tokens in a row that were past the bound
    num_tokens: int  # that were measured
    thinking: ThinkingBudgetState | None  # where the row stands in its thinking


_FRESH = UncertaintyState((), 0, 0, None)


def entropy_stop(config: EntropyStop, markers: ThinkingMarkers | None = None) -> StoppingCriterion:
    """Build the criterion that acts on the entropy of the model's distribution.

    ``H = −Σ p ln p`` of the whole vocabulary, in nats. It acts at the first token from which on
    the mean of the last ``window`` entropies was past the bound ``patience`` tokens in a row.

    Args:
        config: the bound, and what happens.
        markers: the thinking markers as token ids, needed for ``action: close_thinking``.

    Raises:
        VlmkitError: in ``step``, when the event holds no entropy.

    Example:
        >>> criterion = entropy_stop(EntropyStop(above=2.0, patience=2))
        >>> state, _ = criterion.init([])
        >>> for count, entropy in enumerate([2.5, 1.0, 2.5, 3.0], 1):
        ...     event = TokenEvent(7, "a" * count, count, entropy=entropy)
        ...     state, decision = criterion.step(state, event)
        >>> decision.finish
        Finish(reason='stop', kind='entropy_stop', matched=None, text_end=None, error=None)

    Reference:
        Sharma and Chopra, "Think just enough: sequence-level entropy as a confidence signal for
        LLM reasoning", 2025, arXiv 2510.08146.
    """
    return _criterion(config, "entropy", lambda event: event.entropy, markers)


def confidence_stop(
    config: ConfidenceStop, markers: ThinkingMarkers | None = None
) -> StoppingCriterion:
    """Build the criterion that acts on the largest probability of the model's distribution.

    With ``window: 2048`` and ``below`` it is the group confidence of the first reference, but for
    the measure: there, minus the mean log probability of the k likeliest tokens.

    Args:
        config: the bound, and what happens.
        markers: the thinking markers as token ids, needed for ``action: close_thinking``.

    Raises:
        VlmkitError: in ``step``, when the event holds no confidence.

    Example:
        >>> markers = ThinkingMarkers(start=(1,), end=(2,), closing=(2,), wait=())
        >>> config = ConfidenceStop(above=0.9, action="close_thinking")
        >>> criterion = confidence_stop(config, markers)
        >>> state, _ = criterion.init([1])
        >>> state, decision = criterion.step(state, TokenEvent(7, "a", 1, confidence=0.95))
        >>> decision.forced_id
        2

    Reference:
        Fu et al., "Deep think with confidence", 2025, arXiv 2508.15260 (sliding group, early stop).
        Yang et al., "Dynamic early exit in reasoning models", 2025, arXiv 2504.15895 (closing the
        thinking of a model that is sure; there on trial answers, which this does not draw).
    """
    return _criterion(config, "confidence", lambda event: event.confidence, markers)


def uncertainty_markers(
    config: UncertaintyConfig,
    *,
    kind: str,
    encode: Callable[[str], Sequence[int]],
    decode: Callable[[Sequence[int]], str] | None = None,
) -> ThinkingMarkers | None:
    """Resolve the thinking markers of a config that closes thinking; None for one that doesn't.

    Raises:
        VlmkitError: a marker that the tokenizer does not know.
    """
    if config.action == "stop":
        return None
    block = ThinkingBudgetConfig.model_validate({"budget": None, **_own_markers(config)})
    return thinking_markers(block, encode=encode, decode=decode, kind=kind)


def _criterion(
    config: EntropyStop | ConfidenceStop,
    name: str,
    read: Callable[[TokenEvent], float | None],
    markers: ThinkingMarkers | None,
) -> StoppingCriterion:
    finish = Decision(finish=Finish("stop", config.kind))

    def measure(state: UncertaintyState, event: TokenEvent) -> tuple[UncertaintyState, bool]:
        value = read(event)
        if value is None:
            raise VlmkitError(
                f"{config.kind}: token {event.num_tokens} came without its {name}; a criterion "
                "that holds others must hand on their `reads`, and the loop fill what they name"
            )
        recent = (*state.recent, value)[-config.window :]
        run = state.run + 1 if len(recent) == config.window and _is_past(config, recent) else 0
        following = UncertaintyState(recent, run, state.num_tokens + 1, state.thinking)
        return following, run >= config.patience and following.num_tokens >= config.min_tokens

    def init(prompt_ids: Sequence[int]) -> tuple[UncertaintyState, Decision]:
        return _FRESH, _NOTHING

    def step(state: UncertaintyState, event: TokenEvent) -> tuple[UncertaintyState, Decision]:
        following, acts = measure(state, event)
        return following, finish if acts else _NOTHING

    reads = frozenset({name})
    if config.action == "stop":
        return StoppingCriterion(config.kind, init, step, reads)
    if markers is None:
        raise ValueError(f"{config.kind}: action close_thinking needs the thinking markers")
    return StoppingCriterion(config.kind, *_in_thinking(measure, markers), reads)


def _is_past(config: EntropyStop | ConfidenceStop, recent: Sequence[float]) -> bool:
    mean = math.fsum(recent) / len(recent)
    if config.above is not None:
        return mean > config.above
    return config.below is not None and mean < config.below


def _in_thinking(
    measure: Callable[[UncertaintyState, TokenEvent], tuple[UncertaintyState, bool]],
    markers: ThinkingMarkers,
) -> tuple[
    Callable[[Sequence[int]], tuple[UncertaintyState, Decision]],
    Callable[[UncertaintyState, TokenEvent], tuple[UncertaintyState, Decision]],
]:
    """Measure the tokens inside thinking blocks, each block afresh, and close them."""
    endless = ThinkingBudgetConfig(budget=None, eos_inside="stop", stop_inside="honor")
    follow = thinking_budget(endless, markers)

    def init(prompt_ids: Sequence[int]) -> tuple[UncertaintyState, Decision]:
        thinking, decision = follow.init(prompt_ids)
        return _FRESH._replace(thinking=thinking), decision

    def step(state: UncertaintyState, event: TokenEvent) -> tuple[UncertaintyState, Decision]:
        before: ThinkingBudgetState | None = state.thinking
        after, decision = follow.step(before, event)
        within = before is not None and before.inside and after.inside
        if not within or decision.forced_id is not None:
            return _FRESH._replace(thinking=after), decision
        following, acts = measure(state, event)
        # an end marker that the model has begun to write itself is waited for
        if acts and after.matched == 0:
            after = close_block(after, markers)
        return following._replace(thinking=after), after.decision

    return init, step
