"""What the stages of a decode step are made of: sampler stages, contrasts, stopping criteria."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from vlmkit.contracts.inputs import Inputs
from vlmkit.contracts.interface import Pytree


class HostReducer(NamedTuple):
    """What a sampler stage keeps on the host for one row; states are immutable values."""

    init: Callable[[Sequence[int]], Any]  # the prompt's token ids -> state
    step: Callable[[Any, int], Any]  # (state, the token really taken) -> state
    value: Callable[[Any], NDArray[Any]]  # what apply reads at the next draw; one shape, one dtype


class SamplerStage(NamedTuple):
    """One stage of a sampler chain: pure functions over float32 logits.

    Every leaf of the state has the batch as its leading axis; a stateless stage uses ``()``.
    """

    name: str
    init: Callable[[Sequence[NDArray[np.int32]], int], Pytree]  # (prompt ids per row, vocabulary)
    apply: Callable[[Pytree, mx.array, mx.array | None], mx.array]  # (state, [B, V], uniform [B])
    update: Callable[[Pytree, mx.array], Pytree]  # (state, the tokens int32 [B] really taken)
    is_random: bool = False  # True: apply gets one uniform number in [0, 1) per row
    is_greedy: bool = False  # True: keeps one token, so that nothing is left to draw
    by_value: bool = False  # True: ids don't matter, so it may run on any ascending subset of them
    shortlist: Callable[[Pytree, mx.array], tuple[mx.array, mx.array] | None] | None = None
    # shortlist(state, logits) -> ascending ids [B, K] and their logits [B, K], equal to what apply
    # leaves, every other token removed; None when K would not be small
    observe: Callable[[Pytree, mx.array], Pytree] | None = None
    # observe(state, the logits [B, V] that enter the stage) -> state, before the token is known
    host: HostReducer | None = None  # set: before each draw the stage's state becomes the rows'
    # host values, stacked to [B, ...]; init gives a state of that shape, update returns it as it is
    # (unless it is random, such a stage of a contrasted row applies before the contrast instead)


class Contrast(NamedTuple):
    """How the logits of a row's several streams become the logits that enter the sampler chain.

    The other streams are the same model on other inputs, a second model, or early layers.
    """

    name: str
    combine: Callable[[mx.array, mx.array, mx.array], mx.array]
    # (logits [B, V], the other streams' logits [B, N, V], tokens generated so far int32 [B])
    # -> logits [B, V]; all float32, pure, row-independent
    early_layers: tuple[int, ...] = ()  # N layers: what enters them, put through the head,
    # is the N other streams
    other_prompt: Callable[[Inputs], Inputs] | None = None  # of a third party's method without
    # early layers: the prompt that a row is compared with; None: its own without the images


class StepTrace(NamedTuple):
    """One row's logits on their way through a decode step."""

    names: tuple[str, ...]  # "model", "contrast" if there is one, then each sampler stage
    logits: tuple[mx.array, ...]  # float32 [V] each, after what the name says
    sampled_id: int  # what the sampler drew, before a Decision replaced it


class TokenEvent(NamedTuple):
    """What a stopping criterion sees of each new token."""

    token_id: int
    text: str  # all text decoded so far, special tokens included, UTF-8 never split
    num_tokens: int  # generated so far, this one included
    drawn_id: int | None = (
        None  # what the sampler drew before a Decision replaced it; None: unknown
    )
    vetoed: frozenset[str] = frozenset()  # kinds whose finish does not count here (set by any_of)
    # The rest is there only for criteria whose ``reads`` asks for it:
    entropy: float | None = None  # nats, of the model's own distribution for this token
    confidence: float | None = None  # the largest probability of that distribution
    elapsed_s: float | None = None  # since the row's prefill began


class Finish(NamedTuple):
    """Why a row ended."""

    reason: str  # "stop" | "length" | "error"
    kind: str  # the stopping criterion's kind: "eos", "stop_sequences", "max_tokens", ...
    matched: str | int | tuple[int, ...] | None = None  # the stop string or token ids that matched
    text_end: int | None = None  # keep this many characters of the text; None keeps all
    error: Exception | None = None  # why the row could not go on; kind is "error" then


class Decision(NamedTuple):
    """What a stopping criterion wants to happen next.

    Example:
        >>> [Decision(forced_id=4, overrides=((6, 6),)).taken(drawn_id) for drawn_id in (5, 6)]
        [4, 6]
    """

    forced_id: int | None = None  # the next token, whatever is drawn that ``overrides`` lacks
    overrides: tuple[tuple[int, int], ...] = ()  # (an id that may be drawn, what is taken then)
    finish: Finish | None = None  # end the row after this token
    hold_from: int | None = None  # text from this character on may yet become a stop: keep it back
    veto: frozenset[str] = frozenset()  # kinds whose finish does not count at this token

    def taken(self, drawn_id: int) -> int:
        """Return the token that is taken where this one is drawn."""
        otherwise = drawn_id if self.forced_id is None else self.forced_id
        return dict(self.overrides).get(drawn_id, otherwise)

    @property
    def overrides_draws(self) -> bool:
        """Whether any token can be taken that was not drawn."""
        return self.forced_id is not None or bool(self.overrides)


class StoppingCriterion(NamedTuple):
    """A reducer over the tokens of one row, on the host. States are immutable values."""

    name: str
    init: Callable[[Sequence[int]], tuple[Pytree, Decision]]  # the prompt's token ids
    step: Callable[[Pytree, TokenEvent], tuple[Pytree, Decision]]
    reads: frozenset[str] = frozenset()  # costly fields of TokenEvent that step needs
