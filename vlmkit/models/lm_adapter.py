"""Text-only checkpoints: any architecture of mlx-lm behind the same functions as our own models.

Nothing is known of an architecture but its call, ``model(ids, cache=…)``. Each forward pass gives
it one cache object per layer that appends to and reads from our states; the objects live for the
call only. The hidden state is whatever its body returns, and the head is the same model called
with a body that returns that state, so scales, soft caps and tied heads stay its own.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten

from vlmkit.checkpoint_json import reason
from vlmkit.errors import VlmkitError
from vlmkit.inputs import Embeddings, Inputs, Media, Piece
from vlmkit.interface import Cache, CacheKind, Features, Forwarded, KVSpec, Pytree, Span
from vlmkit.models.decoder import plan_kinds
from vlmkit.models.lm_build import find_culprit
from vlmkit.models.tokens import check_token_ids
from vlmkit.section import Section
from vlmkit.text_part import has_senses, text_part_note

_BODIES = ("model", "transformer", "backbone")
"""What mlx-lm's architectures call the part before the head."""


@dataclass(frozen=True)
class LmConfig:
    """A text-only model."""

    model_type: str
    vocab_size: int
    max_position_embeddings: int
    eos_token_id: tuple[int, ...]
    is_text_part: bool = False  # the checkpoint takes more than text; this model does not


class LmModel(nn.Module):
    """An mlx-lm model as functions of its inputs; satisfies :class:`vlmkit.interface.Model`.

    What it calls hidden before the decoder are the token ids, ``[B, L, 1]``: embedding them is
    the architecture's own affair.

    Args:
        lm: the mlx-lm model.
        config: the contents of its config.json.

    Raises:
        VlmkitError: the architecture keeps anything but plain keys and values of every token, as
            recurrent and sliding-window models do.
    """

    def __init__(self, lm: nn.Module, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.lm = lm
        self.config = _parse(config)
        self._layer_specs = _probe(lm, config)

    @property
    def layer_specs(self) -> tuple[KVSpec, ...]:
        """What each decoder layer stores per token."""
        return self._layer_specs

    @property
    def dtype(self) -> mx.Dtype:
        """The dtype of the norms, which quantization leaves alone, and so of activations."""
        arrays: dict[str, mx.array] = dict(tree_flatten(self.lm.parameters()))
        floats = [x for x in arrays.values() if mx.issubdtype(x.dtype, mx.floating)]
        dtype: mx.Dtype = min(floats, key=lambda x: x.ndim).dtype
        return dtype

    def encode(self, media: Sequence[Media]) -> tuple[Features, ...]:
        """Refuse: there is no encoder."""
        if media:
            raise VlmkitError(
                text_part_note(self.config.model_type)
                if self.config.is_text_part
                else f"{self.config.model_type} is a text-only model; it cannot take images"
            )
        return ()

    def embed(
        self,
        batch: Sequence[Inputs],
        features: Mapping[bytes, Features],
        starts: Sequence[int] | None = None,
    ) -> Embeddings:
        """Lay the prompts out as one right-padded batch.

        Raises:
            VlmkitError: there are images, a prompt is empty, or an id is outside the vocabulary.
        """
        starts = (0,) * len(batch) if starts is None else starts
        ends = tuple(len(inputs.token_ids) for inputs in batch)
        lengths = tuple(end - start for end, start in zip(ends, starts, strict=True))
        ids = np.zeros((len(batch), max(lengths)), np.int32)
        for row, (inputs, start) in enumerate(zip(batch, starts, strict=True)):
            self.encode(inputs.media)
            check_token_ids(inputs, self.config.vocab_size)
            ids[row, : lengths[row]] = inputs.token_ids[start:]
        positions = np.array(starts, np.int32)[:, None] + np.arange(ids.shape[1], dtype=np.int32)
        piece = Piece(self.embed_tokens(mx.array(ids)), mx.array(positions[None]))
        return Embeddings(piece, lengths, ends)

    def embed_tokens(self, token_ids: mx.array) -> mx.array:
        """Return int32 ``[B, L]`` ids as ``[B, L, 1]``."""
        return token_ids[..., None]

    def forward(
        self, piece: Piece, cache: Cache, span: Span, taps: Sequence[int] = ()
    ) -> Forwarded:
        """Run the decoder on ids ``[B, L, 1]``. Positions follow from the cache's lengths.

        Raises:
            VlmkitError: taps are asked for; nothing is known of an architecture's layers but what
                they store.
        """
        if taps:
            raise VlmkitError(
                f"{self.config.model_type}: layers of a text-only model cannot be read one by one; "
                "use a vision-language checkpoint"
            )
        plans = plan_kinds(cache, span)
        layers = [
            _LayerCache(kind, state, plans[id(kind)], span, shape)
            for kind, state, shape in zip(cache.kinds, cache.layers, self.layer_specs, strict=True)
            if isinstance(kind, CacheKind)
        ]
        output = _run_body(self.lm, piece.hidden[..., 0], layers)
        states = tuple(layer.kv_state for layer in layers)
        return Forwarded(output, (), Cache(cache.kinds, states, span.ends))

    def logits(self, hidden: mx.array) -> mx.array:
        """Project ``[..., hidden]`` to ``[..., vocabulary]``."""
        flat = hidden.reshape(1, -1, hidden.shape[-1])
        return _run_head(self.lm, flat).reshape(*hidden.shape[:-1], -1)


class _LayerCache:
    """One layer's state, as an mlx-lm cache, for one call."""

    def __init__(
        self, kind: CacheKind, state: Pytree, plan: Pytree, span: Span, shape: KVSpec
    ) -> None:
        self.kind, self.kv_state, self.plan, self.shape = kind, state, plan, shape
        self.num_rows, equal = len(span.starts), len(set(span.starts)) == 1
        self.offset: int | mx.array = span.starts[0] if equal else mx.array(span.starts, mx.int32)

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        self.kv_state = self.kind.append(self.kv_state, keys, values, self.plan)
        self.offset = self.offset + keys.shape[2]
        all_keys, all_values, _ = self.kind.fetch(self.kv_state, self.plan, keys.dtype)
        return all_keys, all_values

    def make_mask(
        self, length: int, return_array: bool = False, window_size: int | None = None
    ) -> mx.array | None:
        # The mask is part of what a kind fetches, and a mask is asked for before there are keys.
        # Zeros stand for them; as nobody reads them, they are never computed.
        blank = mx.zeros((self.num_rows, self.shape.num_kv_heads, length, self.shape.key_dim))
        state = self.kind.append(self.kv_state, blank, blank, self.plan)
        return self.kind.fetch(state, self.plan, blank.dtype)[2]


class _ProbeCache:
    """Stands in for an mlx-lm cache and notes what a layer would store."""

    def __init__(self) -> None:
        self.offset = 0
        self.shapes: set[tuple[int, int, int]] = set()
        self.has_window = False

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        self.shapes.add((keys.shape[1], keys.shape[3], values.shape[3]))
        return keys, values

    def make_mask(
        self, length: int, return_array: bool = False, window_size: int | None = None
    ) -> None:
        self.has_window = self.has_window or window_size is not None


def _probe(lm: nn.Module, config: Mapping[str, Any]) -> tuple[KVSpec, ...]:
    """Find out what each layer stores, from the graph of a call that is never computed."""
    from mlx_lm.models.cache import KVCache, make_prompt_cache

    model_type = str(config["model_type"])
    try:
        kinds = [type(cache) for cache in make_prompt_cache(lm)]
        other = sorted({kind.__name__ for kind in kinds if kind is not KVCache})
        probes = [_ProbeCache() for _ in kinds]
        if not other:
            lm(mx.zeros((1, 2), mx.int32), cache=probes)
    except Exception as error:  # anything: the architectures check little themselves
        refused = _refuse(model_type, f"it asks more of a cache ({reason(error)})")
        raise find_culprit(error, config) or refused from error
    if other:
        raise _refuse(model_type, f"it keeps {', '.join(other)}")
    if any(probe.has_window for probe in probes):
        raise _refuse(model_type, "it has sliding-window attention")
    shapes = []
    for probe in probes:
        if len(probe.shapes) != 1 or len(set(min(probe.shapes)[1:])) != 1:
            raise _refuse(model_type, "its keys and values differ in size or are shared by layers")
        shapes.append(KVSpec(*min(probe.shapes)))
    return tuple(shapes)


def _refuse(model_type: str, reason: str) -> VlmkitError:
    return VlmkitError(
        f"config.json: text model {model_type!r} is not supported: {reason}; supported are mlx-lm "
        "architectures whose layers keep plain keys and values of every token"
    )


class _Body(nn.Module):
    """Takes the place of a model's body: its children and attributes, another call."""

    def __init__(self, body: nn.Module, call: Callable[..., mx.array]) -> None:
        super().__init__()
        dict.update(self, body)
        vars(self).update(vars(body))
        self._call = call

    def __call__(self, *args: Any, **kwargs: Any) -> mx.array:
        return self._call(*args, **kwargs)


def _with_body(lm: nn.Module, call: Callable[..., mx.array], name: str) -> nn.Module:
    clone = copy.copy(lm)
    clone[name] = _Body(lm[name], call)
    return clone


def _body_name(lm: nn.Module) -> str | None:
    return next((name for name in _BODIES if name in lm), None)


def _run_body(lm: nn.Module, ids: mx.array, layers: Sequence[_LayerCache]) -> mx.array:
    """Return the hidden state before the head; the logits themselves where there is no body."""
    name = _body_name(lm)
    if name is None:
        logits: mx.array = lm(ids, cache=layers)
        return logits
    outputs: list[mx.array] = []

    def record(*args: Any, **kwargs: Any) -> mx.array:
        outputs.append(lm[name](*args, **kwargs))
        return outputs[-1]

    # The head runs too, but nobody reads its logits: they are never computed.
    _with_body(lm, record, name)(ids, cache=layers)
    return outputs[0]


def _run_head(lm: nn.Module, hidden: mx.array) -> mx.array:
    """Return the logits of a hidden state ``[1, N, hidden]``."""
    name = _body_name(lm)
    if name is None:
        return hidden
    ids = mx.zeros(hidden.shape[:2], mx.int32)
    logits: mx.array = _with_body(lm, lambda *_, **__: hidden, name)(ids)
    return logits


def _parse(config: Mapping[str, Any]) -> LmConfig:
    top = Section({**Section(config).mapping("text_config"), **config})
    return LmConfig(
        model_type=str(config["model_type"]),
        vocab_size=top.positive("vocab_size"),
        max_position_embeddings=top.positive("max_position_embeddings", 2**20),
        eos_token_id=top.integers("eos_token_id", ()),
        is_text_part=has_senses(config),
    )
