"""What the engine asks of a model and of its caches: values and signatures, no code of a family."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import mlx.core as mx

from vlmkit.backend.attention import Attention
from vlmkit.backend.policy import Backend
from vlmkit.contracts.inputs import Embeddings, Inputs, Media, Piece

Pytree = Any
"""A nesting of tuples, NamedTuples, lists and dicts with ``mx.array`` leaves."""


class KVSpec(NamedTuple):
    """What an attention layer stores per token."""

    num_kv_heads: int
    key_dim: int
    value_dim: int
    window: int | None = None  # a query sees the last ``window`` tokens only; None: all
    num_heads: int | None = None  # of the queries; None: a cache does not get to see them


class StateArray(NamedTuple):
    """One array of a recurrent layer's state."""

    name: str
    shape: tuple[int, ...]  # without the batch
    dtype: mx.Dtype | None = None  # None: that of the activations


class RecurrentSpec(NamedTuple):
    """What a recurrent layer (linear attention, convolution, state space) stores per row."""

    arrays: tuple[StateArray, ...]


LayerSpec = KVSpec | RecurrentSpec
"""What one decoder layer stores."""


class Span(NamedTuple):
    """Which tokens a forward pass adds. Row b gets tokens ``starts[b] .. starts[b]+lengths[b]-1``.

    The arrays of the forward pass are ``width`` wide; whatever lies beyond ``lengths[b]`` is
    padding that must leave no trace.
    """

    starts: tuple[int, ...]  # tokens already in the cache, per row
    lengths: tuple[int, ...]  # valid new tokens, per row; 0 <= lengths[b] <= width
    width: int

    @property
    def ends(self) -> tuple[int, ...]:
        """Tokens per row after the pass."""
        return tuple(start + new for start, new in zip(self.starts, self.lengths, strict=True))


class PromptShape(NamedTuple):
    """How long a prompt is, and which of its tokens are of images or videos."""

    length: int
    images: tuple[tuple[int, int], ...] = ()  # [start, end) each, in order

    @classmethod
    def of(cls, inputs: Inputs) -> PromptShape:
        """Return the shape of a prompt."""
        spans = (medium.span for medium in inputs.media if medium.kind in ("image", "video"))
        return cls(len(inputs.token_ids), tuple(sorted(spans)))

    @property
    def num_image_tokens(self) -> int:
        """Tokens of images and videos."""
        return sum(end - start for start, end in self.images)


class Held(NamedTuple):
    """What an attention layer holds of a row that has seen a number of tokens."""

    num_tokens: int  # whose keys and values are there
    key_bytes: int  # of their keys as stored: scales and the like included, free slots not
    value_bytes: int
    num_first: int = 0  # of these tokens, those before its last ones: its first, or chosen ones
    num_quantized: int = 0  # of these tokens, stored in fewer bits than they were computed in


class Finishing(NamedTuple):
    """What a kind of cache does once a row's whole prompt has gone through the model.

    Until then its state holds all tokens as computed, afterwards what ``finish`` leaves of them.
    """

    finish: Callable[[Pytree, Sequence[PromptShape]], Pytree]
    # (state, prompt of each row, all of which it has seen) -> state
    hold: Callable[[KVSpec, mx.Dtype, PromptShape, int], Held]
    # as ``CacheKind.hold``, of a row whose prompt is finished; tokens seen include the prompt's
    observe: Callable[[Pytree, mx.array, Pytree, float], Pytree] | None = None
    # (state after ``append``, q [B, H, L, D], plan, scale) -> state; beside each ``attend``


class CacheKind(NamedTuple):
    """How one kind of KV cache works: pure functions over a state that is a pytree of arrays.

    Every leaf of a state has the batch as its leading axis, unless rows share it. A state is never
    changed in place: keep an old one and it stays valid (a branch); drop it and appending costs no
    copy. Device arrays are not read back: where a function needs to know how long rows are, it is
    told the tokens that each has seen. What is said of a cache anywhere (its bytes, the tokens that
    it has dropped, the layers that it fits) is what ``hold`` says.
    """

    name: str
    settings: Hashable  # kinds of equal name and settings work alike: their states can be joined
    init: Callable[[int, KVSpec, mx.Dtype], Pytree]  # (batch, spec, dtype) -> state
    plan: Callable[[Pytree, Span], Pytree]  # what all layers of this kind share in one pass
    append: Callable[[Pytree, mx.array, mx.array, Pytree], Pytree]  # k, v: [B, H_kv, L, D]
    attend: Callable[[Pytree, mx.array, Pytree, float], mx.array]  # q: [B, H, L, D] -> same
    fetch: Callable[[Pytree, Pytree, mx.Dtype], tuple[mx.array, mx.array, mx.array | None]]
    # fetch(state, plan, dtype) -> keys, values [B, H_kv, S, D], mask bool [B, 1, L, S] or None
    select: Callable[[Pytree, Sequence[int], Sequence[int]], Pytree]
    # (state, rows to keep, tokens seen per row) -> these rows in this order; one may come twice
    join: Callable[[Sequence[Pytree], Sequence[Sequence[int]]], Pytree]
    # (states, tokens seen per row of each) -> concatenated along the batch axis
    trim: Callable[[Pytree, Sequence[int], Sequence[int]], Pytree]
    # (state, tokens seen per row, tokens to keep per row) -> state; VlmkitError where it forgot
    num_bytes: Callable[[Pytree], int]
    hold: Callable[[KVSpec, mx.Dtype, int], Held]
    # (layer, dtype of its keys and values, tokens seen by a row) -> what is there of that row;
    # VlmkitError where the kind cannot work for such a layer
    windowed: Callable[[int], CacheKind] | None = None
    # (tokens that a query sees, itself included) -> the kind of the model's layers with a sliding
    # window, which holds no more than that; None: it has none, and such layers are refused
    reading: Callable[[Attention], CacheKind] | None = None
    # (how queries read keys and values) -> the kind whose ``attend`` reads so; None: its own way
    keeps_all: bool = False
    # a state is a ``vlmkit.cache.compose.KVState`` with token j of a row in slot j, for good
    finishing: Finishing | None = None  # None: the end of a prompt is nothing special
    in_layer: Callable[[int, int], CacheKind] | None = None
    # (place of a layer, number of layers that get this kind) -> that layer's; None: all are alike


class StateKind(NamedTuple):
    """How a recurrent layer's state is kept: a tuple of arrays [B, *], replaced by the layer."""

    name: str
    settings: Hashable
    init: Callable[[int, RecurrentSpec, mx.Dtype], Pytree]
    select: Callable[[Pytree, Sequence[int], Sequence[int]], Pytree]
    join: Callable[[Sequence[Pytree], Sequence[Sequence[int]]], Pytree]
    trim: Callable[[Pytree, Sequence[int], Sequence[int]], Pytree]
    num_bytes: Callable[[Pytree], int]


LayerKind = CacheKind | StateKind


class Cache(NamedTuple):
    """What all layers keep of a batch of rows."""

    kinds: tuple[LayerKind, ...]  # one per layer; layers of one kind share the same object
    layers: tuple[Pytree, ...]  # one state per layer
    lengths: tuple[int, ...]  # tokens seen per row (also those a policy has dropped since)


class DecodeState(NamedTuple):
    """All that a decode step needs beside the token ids."""

    cache: Cache
    next_positions: tuple[int, ...]  # position of the next token, per row


class Forwarded(NamedTuple):
    """What one pass through the decoder gives."""

    hidden: mx.array  # [B, L, hidden], after the final norm: what the head takes
    taps: tuple[mx.array, ...]  # [B, L, hidden] each: what entered the layers asked for
    cache: Cache


class Hidden(NamedTuple):
    """What the decoder says of each row's last token."""

    final: mx.array  # [B, hidden], after the final norm: what the head takes
    taps: tuple[mx.array, ...] = ()  # [B, hidden] each: what entered the layers asked for
    prompt: mx.array | None = None  # [B, T, hidden]: ``final`` of all tokens, where asked for


class Features(NamedTuple):
    """One medium, encoded: n tokens of the decoder's width."""

    embedded: mx.array  # [n, hidden], in place of its placeholders' embeddings
    layers: tuple[mx.array, ...] = ()  # [n, hidden] each: added after the first decoder layers


class Model(Protocol):
    """A vision-language model as functions of its inputs. It stores weights and nothing else."""

    @property
    def config(self) -> Any:
        """The model's configuration, as read from the checkpoint."""

    @property
    def layer_specs(self) -> tuple[LayerSpec, ...]:
        """What each decoder layer stores."""

    @property
    def dtype(self) -> mx.Dtype:
        """The dtype of activations and of a dense KV cache."""

    @property
    def backend(self) -> Backend:
        """What computes it, and how."""

    def encode(self, media: Sequence[Media]) -> tuple[Features, ...]:
        """Encode images, videos and audio clips, each by itself but in one pass where possible."""

    def embed(
        self,
        batch: Sequence[Inputs],
        features: Mapping[bytes, Features],
        starts: Sequence[int] | None = None,
    ) -> Embeddings:
        """Lay the prompts out as one right-padded batch of vectors.

        Args:
            batch: B prompts.
            features: by digest, the media that reach beyond their row's start.
            starts: leave out so many tokens of each row; None = nothing.
        """

    def embed_tokens(self, token_ids: mx.array) -> mx.array:
        """Embed int32 ``[B, L]`` token ids to ``[B, L, hidden]``."""

    def forward(
        self, piece: Piece, cache: Cache, span: Span, taps: Sequence[int] = ()
    ) -> Forwarded:
        """Run the decoder over B pieces.

        ``taps`` are layers, ascending, whose input is wanted too; layer 0 is entered by the
        embeddings. Raises VlmkitError where layers cannot be tapped.
        """

    def logits(self, hidden: mx.array) -> mx.array:
        """Project ``[..., hidden]`` to ``[..., vocabulary]``."""
