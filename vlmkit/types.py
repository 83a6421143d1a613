"""The values that flow through the stages; every field says its shape.

Request ─preprocess─▶ Inputs ─embed─▶ Embeddings ─prefill─▶ DecodeState ─decode step─▶ …
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

Pytree = Any
"""A nesting of tuples, NamedTuples, lists and dicts with ``mx.array`` leaves."""


class ImageGrid(NamedTuple):
    """Size of one image in patches, before the spatial merge."""

    time: int
    height: int
    width: int


class Inputs(NamedTuple):
    """One prompt after preprocessing, on the host."""

    token_ids: NDArray[np.int32]  # [T], image placeholders expanded to one id per visual token
    patches: NDArray[np.float32] | None = None  # [num_patches, channels * time * size * size]
    image_grids: tuple[ImageGrid, ...] = ()
    image_sizes: tuple[tuple[int, int], ...] = ()  # original (height, width) in pixels


def split_images(inputs: Inputs) -> list[tuple[ImageGrid, NDArray[np.float32]]]:
    """Return each image's grid and its own patches, in the order of the prompt."""
    images, start = [], 0
    for grid in inputs.image_grids:
        assert inputs.patches is not None  # grids and patches come together
        end = start + grid.time * grid.height * grid.width
        images.append((grid, inputs.patches[start:end]))
        start = end
    return images


class Embeddings(NamedTuple):
    """A batch of prompts as vectors. Row b is valid up to ``lengths[b]``, then padding."""

    hidden: mx.array  # [B, T, hidden]
    positions: mx.array  # int32 [A, B, T]; A = 3 (time, height, width) for M-RoPE, else 1
    lengths: tuple[int, ...]  # valid tokens per row
    next_positions: tuple[int, ...]  # position of the first token generated after each row


class LayerShape(NamedTuple):
    """What a layer stores per token."""

    num_kv_heads: int
    head_dim: int


class Span(NamedTuple):
    """Which tokens a forward pass adds. Row b gets tokens ``starts[b] .. starts[b]+lengths[b]-1``.

    The arrays of the forward pass are ``width`` wide; whatever lies beyond ``lengths[b]`` is
    padding that must leave no trace.
    """

    starts: tuple[int, ...]  # tokens already in the cache, per row
    lengths: tuple[int, ...]  # valid new tokens, per row; 0 <= lengths[b] <= width
    width: int


class CacheKind(NamedTuple):
    """How one kind of KV cache works: pure functions over a state that is a pytree of arrays.

    Every leaf of a state has the batch as its leading axis. A state is never changed in place:
    keep an old one and it stays valid (a branch); drop it and appending costs no copy.
    """

    name: str
    init: Callable[[int, LayerShape, mx.Dtype], Pytree]  # (batch, shape, dtype) -> state
    plan: Callable[[Pytree, Span], Pytree]  # what all layers of this kind share in one pass
    append: Callable[[Pytree, mx.array, mx.array, Pytree], Pytree]  # k, v: [B, H_kv, L, D]
    attend: Callable[[Pytree, mx.array, Pytree, float], mx.array]  # q: [B, H, L, D] -> same
    fetch: Callable[[Pytree, Pytree, mx.Dtype], tuple[mx.array, mx.array, mx.array | None]]
    # fetch(state, plan, dtype) -> keys, values [B, H_kv, S, D], mask bool [B, 1, L, S] or None
    select: Callable[[Pytree, Sequence[int]], Pytree]  # keep these rows, in this order
    join: Callable[[Sequence[Pytree]], Pytree]  # concatenate along the batch axis
    num_bytes: Callable[[Pytree], int]


class Cache(NamedTuple):
    """The KV cache of all layers for a batch of rows."""

    kinds: tuple[CacheKind, ...]  # one per layer; layers of one kind share the same object
    layers: tuple[Pytree, ...]  # one state per layer
    lengths: tuple[int, ...]  # tokens seen per row (also those a policy has dropped since)


class DecodeState(NamedTuple):
    """All that a decode step needs beside the token ids."""

    cache: Cache
    next_positions: tuple[int, ...]  # position of the next token, per row


class Hidden(NamedTuple):
    """What the decoder says of each row's last token."""

    final: mx.array  # [B, hidden], after the final norm: what the head takes
    early: tuple[mx.array, ...] = ()  # [B, hidden] each: what entered the layers asked for
    prompt: mx.array | None = None  # [B, T, hidden]: ``final`` of all tokens, where asked for


class Model(Protocol):
    """A vision-language model as functions of its inputs. It stores weights and nothing else."""

    @property
    def config(self) -> Any:
        """The model's configuration, as read from the checkpoint."""

    @property
    def layer_shapes(self) -> tuple[LayerShape, ...]:
        """What each decoder layer stores per token."""

    @property
    def dtype(self) -> mx.Dtype:
        """The dtype of activations and of a dense KV cache."""

    def embed(self, batch: Sequence[Inputs]) -> Embeddings:
        """Encode the images, embed the tokens, and lay both out as one right-padded batch."""

    def embed_tokens(self, token_ids: mx.array) -> mx.array:
        """Embed int32 ``[B, L]`` token ids to ``[B, L, hidden]``."""

    def forward(
        self, hidden: mx.array, positions: mx.array, cache: Cache, span: Span
    ) -> tuple[mx.array, Cache]:
        """Run the decoder: hidden ``[B, L, hidden]``, positions int32 ``[A, B, L]``.

        A is 3 (time, height, width) or 1, where all axes agree.
        """

    def forward_early(
        self, hidden: mx.array, positions: mx.array, cache: Cache, span: Span, layers: Sequence[int]
    ) -> tuple[mx.array, tuple[mx.array, ...], Cache]:
        """Run :meth:`forward`, and also return what enters some layers: ``[B, L, hidden]`` each.

        Layer 0 is entered by the embeddings. Raises VlmkitError where layers cannot be tapped.
        """

    def logits(self, hidden: mx.array) -> mx.array:
        """Project ``[..., hidden]`` to ``[..., vocabulary]``."""


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

    reason: str  # "stop" | "length"
    kind: str  # the stopping criterion's kind: "eos", "stop_sequences", "max_tokens", ...
    matched: str | int | tuple[int, ...] | None = None  # the stop string or token ids that matched
    text_end: int | None = None  # keep this many characters of the text; None keeps all


class Decision(NamedTuple):
    """What a stopping criterion wants to happen next."""

    forced_id: int | None = None  # the next token, whatever the sampler draws,
    forced_unless: int | None = None  # unless it draws this id
    substitute: tuple[tuple[int, ...], int] | None = None  # if the next draw is one of these: that
    finish: Finish | None = None  # end the row after this token
    hold_from: int | None = None  # text from this character on may yet become a stop: keep it back
    veto: frozenset[str] = frozenset()  # kinds whose finish does not count at this token


class StoppingCriterion(NamedTuple):
    """A reducer over the tokens of one row, on the host. States are immutable values."""

    name: str
    init: Callable[[Sequence[int]], tuple[Pytree, Decision]]  # the prompt's token ids
    step: Callable[[Pytree, TokenEvent], tuple[Pytree, Decision]]
    reads: frozenset[str] = frozenset()  # costly fields of TokenEvent that step needs
