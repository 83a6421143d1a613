"""Text-only checkpoints: any architecture of mlx-lm behind the same functions as our own models.

Nothing is known of an architecture but its call, ``model(ids, cache=…)``. Each forward pass gives
it one cache object per layer that reads from and writes to our states; the objects live for the
call only. The hidden state is whatever its body returns: see :mod:`vlmkit.models.lm_body`.

A recurrent layer runs over a row's padding as over its tokens unless it is masked. The
architectures in ``_MASKED`` do that by the lengths they are given; the others, which have no mask
or lose the state of a padded row, get the rows of each length by themselves, without padding.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn
import numpy as np

from vlmkit.backend.policy import PLAIN, Backend
from vlmkit.checkpoints.text_part import has_senses, text_part_note
from vlmkit.contracts.inputs import Embeddings, Inputs, Media, Piece
from vlmkit.contracts.interface import (
    Cache,
    CacheKind,
    Features,
    Forwarded,
    KVSpec,
    LayerSpec,
    Pytree,
    RecurrentSpec,
    Span,
)
from vlmkit.declare.section import Section
from vlmkit.errors import VlmkitError
from vlmkit.models.decoder import plan_kinds
from vlmkit.models.lm_body import run_body, run_head
from vlmkit.models.lm_caches import KVView, join, probe, read_back, recurrent_view, select
from vlmkit.models.tokens import check_token_ids

_MODULES = "mlx_lm.models."
_MASKED = frozenset(
    {"granitemoehybrid", "kimi_linear", "lfm2", "lfm2_moe", "mamba2", "qwen3_5", "qwen3_next"}
)
"""Modules of mlx-lm whose recurrent layers leave out padding, given the rows' lengths."""


@dataclass(frozen=True)
class LmConfig:
    """A text-only model."""

    model_type: str
    vocab_size: int
    max_position_embeddings: int
    eos_token_id: tuple[int, ...]
    is_text_part: bool = False  # the checkpoint takes more than text; this model does not


class LmModel(nn.Module):
    """An mlx-lm model as functions; satisfies :class:`vlmkit.contracts.interface.Model`.

    What it calls hidden before the decoder are the token ids, ``[B, L, 1]``: embedding them is
    the architecture's own affair.

    Args:
        lm: the mlx-lm model.
        config: the contents of its config.json.
        backend: what computes it; attention and activations are the architecture's own.

    Raises:
        VlmkitError: the architecture keeps anything but keys and values, of every token or of a
            sliding window, and recurrent arrays; or layers share what they keep.
    """

    def __init__(self, lm: nn.Module, config: Mapping[str, Any], backend: Backend = PLAIN) -> None:
        super().__init__()
        # The architectures read whole rows of keys and values.
        self.backend = replace(backend, forms=backend.forms._replace(prefixed=None))
        self.lm = lm
        self.config = _parse(config)
        self._probed = probe(lm, config, run_body)
        self._is_masked = type(lm).__module__.removeprefix(_MODULES) in _MASKED

    @property
    def layer_specs(self) -> tuple[LayerSpec, ...]:
        """What each decoder layer stores."""
        return self._probed.specs

    @property
    def dtype(self) -> mx.Dtype:
        """The dtype of activations: that of the hidden state before the head."""
        return self._probed.dtype

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
        ids = piece.hidden[..., 0]
        groups = self._groups(span)
        if len(groups) == 1 and groups[0].span == span:
            hidden, cache = self._run(ids, cache, span)
            return Forwarded(hidden, (), cache)
        outputs, caches = [], []
        for rows, part in groups:
            new = ids[mx.array(rows)][:, : part.width]
            output, held = self._run(new, select(cache, rows), part)
            outputs.append(mx.pad(output, [(0, 0), (0, span.width - part.width), (0, 0)]))
            caches.append(held)
        given = [row for rows, _ in groups for row in rows]
        order = sorted(range(len(given)), key=given.__getitem__)
        hidden = mx.concatenate(outputs)[mx.array(order)]
        return Forwarded(hidden, (), select(join(caches), order))

    def _groups(self, span: Span) -> list[_Group]:
        """Return the rows that one call may take together, and what it adds to them."""
        if not any(isinstance(spec, RecurrentSpec) for spec in self.layer_specs):
            return [_Group(list(range(len(span.starts))), span)]
        groups: dict[tuple[bool, int], list[int]] = {}
        for row, (start, length) in enumerate(zip(span.starts, span.lengths, strict=True)):
            width = span.width if self._is_masked else length
            groups.setdefault((start == 0, width), []).append(row)
        return [_Group(rows, _part(span, rows, width)) for (_, width), rows in groups.items()]

    def _run(self, ids: mx.array, cache: Cache, span: Span) -> tuple[mx.array, Cache]:
        if span.width == 0:
            empty = mx.zeros((*ids.shape, self._probed.width), self._probed.dtype)
            return empty, cache
        plans = plan_kinds(cache, span)
        views: list[Any] = []
        for kind, state, spec in zip(cache.kinds, cache.layers, self.layer_specs, strict=True):
            if isinstance(spec, RecurrentSpec):
                views.append(recurrent_view(state, span))
            else:
                assert isinstance(kind, CacheKind)
                views.append(KVView(kind, state, plans[id(kind)], span, spec))
        hidden = run_body(self.lm, ids, views)
        states: list[Pytree] = [
            view.layer_state if isinstance(spec, KVSpec) else read_back(view, spec)
            for view, spec in zip(views, self.layer_specs, strict=True)
        ]
        return hidden, Cache(cache.kinds, tuple(states), span.ends)

    def logits(self, hidden: mx.array) -> mx.array:
        """Project ``[..., hidden]`` to ``[..., vocabulary]``."""
        flat = hidden.reshape(1, -1, hidden.shape[-1])
        return run_head(self.lm, flat).reshape(*hidden.shape[:-1], -1)


class _Group(NamedTuple):
    """Rows that go through the architecture together."""

    rows: list[int]
    span: Span


def _part(span: Span, rows: Sequence[int], width: int) -> Span:
    starts, lengths = (tuple(of[row] for row in rows) for of in (span.starts, span.lengths))
    return Span(starts, lengths, width)


def _parse(config: Mapping[str, Any]) -> LmConfig:
    top = Section({**Section(config).mapping("text_config"), **config})
    return LmConfig(
        model_type=str(config["model_type"]),
        vocab_size=top.positive("vocab_size"),
        max_position_embeddings=top.positive("max_position_embeddings", 2**20),
        eos_token_id=top.integers("eos_token_id", ()),
        is_text_part=has_senses(config),
    )
