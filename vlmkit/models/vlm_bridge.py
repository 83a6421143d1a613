"""Vision-language models of mlx-vlm behind the same functions as our own.

Nothing is known of an architecture but two calls: ``model.get_input_embeddings(ids, pixels)``,
which puts encoded images in their placeholders' places, and ``model.language_model(ids,
inputs_embeds=…, cache=…)``. Our caches are handed to the second as to models of mlx-lm. An
architecture that needs more between the two, such as features for several layers, a mask or
positions that it keeps itself, is refused by what it needs.

Reference: https://github.com/Blaizzy/mlx-vlm (``mlx_vlm.generate``, ``mlx_vlm.models.base``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from vlmkit.backend.policy import PLAIN, Backend
from vlmkit.checkpoints.checkpoint_json import reason
from vlmkit.contracts.inputs import Embeddings, Inputs, Media, Piece
from vlmkit.contracts.interface import Cache, CacheKind, Features, Forwarded, KVSpec, Span
from vlmkit.contracts.packed_parts import unpack_parts
from vlmkit.declare.section import Section
from vlmkit.errors import VlmkitError
from vlmkit.models.decoder import plan_kinds
from vlmkit.models.lm_body import run_body, run_head
from vlmkit.models.lm_caches import KVProbe, KVView, UnsupportedError
from vlmkit.models.tokens import check_token_ids

_NO_PARTS: Mapping[str, mx.array] = {}
_PIXELS = "pixel_values"
_NUM_TOKENS = 2  # of the calls that show what an architecture does


@dataclass(frozen=True)
class BridgeConfig:
    """A model of mlx-vlm."""

    model_type: str
    vocab_size: int
    max_position_embeddings: int
    image_token_id: int | None
    eos_token_id: tuple[int, ...] = ()


class BridgeModel(nn.Module):
    """A model of mlx-vlm as functions; satisfies :class:`vlmkit.contracts.interface.Model`.

    A medium's ``data`` are the arrays that the checkpoint's own processor gives, packed into one
    (:mod:`vlmkit.contracts.packed_parts`); its ``shape`` is the number of its placeholders, then
    how they are packed.

    Args:
        vlm: the model.
        config: the contents of its config.json.
        backend: what computes it; attention and activations are the architecture's own.

    Raises:
        VlmkitError: the architecture cannot run so; says what it needs.
    """

    def __init__(self, vlm: nn.Module, config: Mapping[str, Any], backend: Backend = PLAIN) -> None:
        super().__init__()
        # The architectures read whole rows of keys and values.
        self.backend = replace(backend, forms=backend.forms._replace(prefixed=None))
        self.vlm = vlm
        self._model_type = str(config["model_type"])
        self._specs, hidden = self._probe()
        self._width, self._dtype = hidden.shape[-1], hidden.dtype
        self.config = _parse(config, run_head(self._lm, hidden).shape[-1])

    @property
    def layer_specs(self) -> tuple[KVSpec, ...]:
        """What each decoder layer stores."""
        return self._specs

    @property
    def dtype(self) -> mx.Dtype:
        """The dtype of activations: that of the hidden state before the head."""
        return self._dtype

    def encode(self, media: Sequence[Media]) -> tuple[Features, ...]:
        """Encode images one by one.

        Raises:
            VlmkitError: the architecture gives more than one vector per token, or cannot take the
                pixels.
        """
        found = []
        for medium in media:
            if medium.kind != "image" or self.config.image_token_id is None:
                raise self._refused(f"it takes no {medium.kind} here")
            number, *shape = medium.shape
            ids = mx.full((1, number), self.config.image_token_id, mx.int32)
            parts = {name: mx.array(x) for name, x in unpack_parts(medium.data, shape).items()}
            found.append(Features(self._embedded(ids, parts)[0]))
        return tuple(found)

    def embed(
        self,
        batch: Sequence[Inputs],
        features: Mapping[bytes, Features],
        starts: Sequence[int] | None = None,
    ) -> Embeddings:
        """Lay the prompts out as one right-padded batch; images take their placeholders' places.

        Raises:
            VlmkitError: a prompt is empty, or an id is outside the vocabulary.
        """
        starts = (0,) * len(batch) if starts is None else starts
        ends = tuple(len(inputs.token_ids) for inputs in batch)
        lengths = tuple(end - start for end, start in zip(ends, starts, strict=True))
        ids = np.zeros((len(batch), max(lengths)), np.int32)
        places, parts = [], []
        for row, (inputs, start) in enumerate(zip(batch, starts, strict=True)):
            check_token_ids(inputs, self.config.vocab_size)
            ids[row, : lengths[row]] = inputs.token_ids[start:]
            for medium in inputs.media:
                first, end = medium.span
                own = inputs.token_ids[first:end] == self.config.image_token_id
                inside = first + np.flatnonzero(own)
                skipped = int((inside < start).sum())
                if skipped < len(inside):
                    places.append(row * ids.shape[1] + inside[skipped:] - start)
                    parts.append(features[medium.digest].embedded[skipped:])
        hidden = self.embed_tokens(mx.array(ids))
        if parts:
            rows = mx.array(np.concatenate(places).astype(np.int32))
            flat = hidden.reshape(-1, hidden.shape[-1])
            flat[rows] = mx.concatenate(parts).astype(flat.dtype)
            hidden = flat.reshape(hidden.shape)
        positions = np.array(starts, np.int32)[:, None] + np.arange(ids.shape[1], dtype=np.int32)
        return Embeddings(Piece(hidden, mx.array(positions[None])), lengths, ends)

    def embed_tokens(self, token_ids: mx.array) -> mx.array:
        """Embed int32 ``[B, L]`` token ids to ``[B, L, hidden]``."""
        return self._embedded(token_ids)

    def forward(
        self, piece: Piece, cache: Cache, span: Span, taps: Sequence[int] = ()
    ) -> Forwarded:
        """Run the decoder. Positions follow from the cache's lengths.

        Raises:
            VlmkitError: taps are asked for.
        """
        if taps:
            raise self._refused(
                "its layers cannot be read one by one, which early layers of a contrast need"
            )
        if span.width == 0:
            empty = mx.zeros((*piece.hidden.shape[:2], self._width), self._dtype)
            return Forwarded(empty, (), cache)
        plans = plan_kinds(cache, span)
        views = []
        for kind, state, spec in zip(cache.kinds, cache.layers, self._specs, strict=True):
            assert isinstance(kind, CacheKind)
            views.append(KVView(kind, state, plans[id(kind)], span, spec))
        hidden = self._body(piece.hidden, views)
        states = tuple(view.layer_state for view in views)
        return Forwarded(hidden, (), Cache(cache.kinds, states, span.ends))

    def logits(self, hidden: mx.array) -> mx.array:
        """Project ``[..., hidden]`` to ``[..., vocabulary]``."""
        flat = hidden.reshape(1, -1, hidden.shape[-1])
        return run_head(self._lm, flat).reshape(*hidden.shape[:-1], -1)

    @property
    def _lm(self) -> nn.Module:
        lm: nn.Module = self.vlm["language_model"]
        return lm

    def _body(self, hidden: mx.array, caches: Sequence[Any]) -> mx.array:
        nothing = mx.zeros(hidden.shape[:2], mx.int32)
        return run_body(self._lm, nothing, caches, inputs_embeds=hidden)

    def _embedded(self, ids: mx.array, parts: Mapping[str, mx.array] = _NO_PARTS) -> mx.array:
        """Return ``[B, L, hidden]`` of ids, with images in the places of their placeholders."""
        try:
            others = {name: part for name, part in parts.items() if name != _PIXELS}
            output = self.vlm.get_input_embeddings(ids, parts.get(_PIXELS), **others)
            found: dict[str, Any] = output.to_dict()
        except Exception as error:  # anything: the architectures check little themselves
            what = "an image" if parts else "a prompt"
            raise self._refused(f"it cannot embed {what} ({reason(error)})") from error
        embedded: mx.array = found.pop("inputs_embeds")
        if more := [name for name, value in found.items() if value is not None]:
            raise self._refused(f"its decoder needs {', '.join(more)} besides the embeddings")
        return embedded

    def _probe(self) -> tuple[tuple[KVSpec, ...], mx.array]:
        """Return what each layer stores and a hidden state ``[1, 2, hidden]``, never computed."""
        from mlx_vlm.models.cache import make_prompt_cache

        if "language_model" not in self.vlm:
            raise self._refused("it has no part called language_model")
        if "get_rope_index" in dir(type(self._lm)):
            raise self._refused("its positions follow from what the module keeps between calls")
        hidden = self._embedded(mx.zeros((1, _NUM_TOKENS), mx.int32))
        try:
            probes = [_probe_of(cache) for cache in make_prompt_cache(self._lm)]
            final = self._body(hidden, probes)
            return tuple(probe.spec() for probe in probes), final
        except UnsupportedError as error:
            raise self._refused(str(error)) from None
        except Exception as error:  # as above
            raise self._refused(f"it asks more of a cache ({reason(error)})") from error

    def _refused(self, said: str) -> VlmkitError:
        return VlmkitError(f"mlx-vlm's {self._model_type} cannot run here: {said}")


def _probe_of(cache: Any) -> KVProbe:
    from mlx_vlm.models.cache import KVCache, RotatingKVCache, SimpleKVCache

    kind = type(cache)
    if kind in (KVCache, SimpleKVCache):
        return KVProbe(None)
    if kind is not RotatingKVCache:
        raise UnsupportedError(f"it keeps {kind.__name__}")
    if cache.keep:
        raise UnsupportedError(f"its sliding window keeps the first {cache.keep} tokens")
    return KVProbe(cache.max_size)


def _parse(config: Mapping[str, Any], vocab_size: int) -> BridgeConfig:
    top = Section({**Section(config).mapping("text_config"), **config})
    image = top.integers("image_token_id", ()) or top.integers("image_token_index", ())
    return BridgeConfig(
        model_type=str(config["model_type"]),
        vocab_size=vocab_size,
        max_position_embeddings=top.positive("max_position_embeddings", 2**20),
        image_token_id=image[0] if image else None,
        eos_token_id=top.integers("eos_token_id", ()),
    )
