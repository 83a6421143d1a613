"""A cache that stores the tokens of images otherwise than those of text."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Literal, NamedTuple

import mlx.core as mx
from pydantic import Field

from vlmkit.backend.attention import Attention, matmul_attention
from vlmkit.cache.codec.affine import AffineCodecConfig
from vlmkit.cache.codec.build import CodecConfig, PlainConfig, build_codec
from vlmkit.cache.compose import KVState, cache_kind
from vlmkit.cache.finishing import Finished, Method, Noted, finishing_kind, refill
from vlmkit.cache.layout import Plan, dense_layout
from vlmkit.cache.quantized import check_side
from vlmkit.cache.rotating import windowed
from vlmkit.cache.storage import Storage
from vlmkit.contracts.interface import CacheKind, Held, KVSpec, PromptShape, Span
from vlmkit.declare.configbase import StageConfig


class SidesConfig(StageConfig):
    """How the keys and values of some tokens are stored."""

    keys: CodecConfig = Field(PlainConfig(), description="How keys are stored: a codec.")
    values: CodecConfig = Field(PlainConfig(), description="How values are stored: a codec.")


_FOUR_BITS = AffineCodecConfig(bits=4)


class ModalityConfig(StageConfig):
    """Store the tokens of images and videos by other codecs than text, once a prompt is whole."""

    kind: Literal["modality"] = "modality"
    image: SidesConfig = Field(
        SidesConfig(keys=_FOUR_BITS, values=_FOUR_BITS),
        description="How the tokens of images and videos are stored.",
    )
    text: SidesConfig = Field(
        SidesConfig(), description="How all other tokens are stored, generated ones too."
    )


class ByModality(NamedTuple):
    """Keys and values of one layer after its prompts."""

    images: KVState
    text: KVState
    num_images: tuple[int, ...]  # tokens of images, per row


class ModalityPlan(NamedTuple):
    """What all layers of one kind share in one forward pass."""

    images: Plan
    text: Plan
    mask: mx.array | None  # bool [B, 1, L, slots in use of both]; None = all is visible


def modality(config: ModalityConfig) -> CacheKind:
    """Build the cache: one softmax over tokens of images, stored by one pair of codecs, and others.

    A prompt's own queries see all of it as computed. Layers with a sliding window keep that, as
    computed.

    Example:
        >>> from vlmkit.contracts.interface import KVSpec, PromptShape
        >>> kind, prompt = modality(ModalityConfig()), PromptShape(1000, images=((10, 900),))
        >>> held = kind.finishing.hold(KVSpec(1, 64, 64), mx.float16, prompt, 1000)
        >>> held.num_tokens, held.num_quantized, held.key_bytes
        (1000, 890, 46120)

    Reference: Su et al. 2025 (AKVQ-VL), arXiv 2501.15021; Tu et al. 2024 (VL-Cache), arXiv
    2410.23317.
    """
    images, text = (_part(config, side) for side in (config.image, config.text))
    parts = _Parts(images, text, matmul_attention)

    def hold(spec: KVSpec, dtype: mx.Dtype, prompt: PromptShape, seen: int) -> Held:
        num_images = prompt.num_image_tokens
        one = images.hold(spec, dtype, num_images)
        two = text.hold(spec, dtype, seen - num_images)
        return Held(
            seen,
            one.key_bytes + two.key_bytes,
            one.value_bytes + two.value_bytes,
            num_quantized=one.num_quantized + two.num_quantized,
        )

    def check(spec: KVSpec) -> None:
        for name, side in (("image", config.image), ("text", config.text)):
            check_side("keys", side.keys, spec.key_dim, name)
            check_side("values", side.values, spec.value_dim, name)

    return finishing_kind(
        Method(
            name=config.kind,
            settings=config.model_dump_json(),
            after=_after(parts),
            finish=partial(_divide, parts),
            hold=hold,
            windowed=partial(windowed, config.kind),
            check=check,
        )
    )


def _part(config: ModalityConfig, side: SidesConfig) -> CacheKind:
    storage = Storage(keys=build_codec(side.keys), values=build_codec(side.values))
    return cache_kind(config.kind, dense_layout, storage)


class _Parts(NamedTuple):
    """The functions of what comes after a prompt, over its two parts."""

    images: CacheKind
    text: CacheKind
    attention: Attention

    def init(self, batch: int, spec: KVSpec, dtype: mx.Dtype) -> ByModality:
        images, text = (kind.init(batch, spec, dtype) for kind in (self.images, self.text))
        return ByModality(images, text, (0,) * batch)

    def plan(self, state: ByModality, span: Span) -> ModalityPlan:
        num_images, batch = state.num_images, len(span.starts)
        text = self.text.plan(state.text, span._replace(starts=_less(span.starts, state)))
        most = max(num_images)
        nothing = Span(num_images, (0,) * batch, 0)
        images = self.images.plan(state.images, nothing)._replace(num_used=most, mask=None)
        if text.mask is None and len(set(num_images)) == 1:
            return ModalityPlan(images, text, None)
        shape = (batch, 1, span.width)
        is_there = mx.arange(most) < mx.array(num_images, mx.int32)[:, None, None, None]
        seen = mx.array(True) if text.mask is None else text.mask
        own = _wide(is_there, (*shape, most))
        others = _wide(seen, (*shape, text.num_used))
        return ModalityPlan(images, text, mx.concatenate([own, others], axis=-1))

    def append(
        self, state: ByModality, keys: mx.array, values: mx.array, plan: ModalityPlan
    ) -> ByModality:
        return state._replace(text=self.text.append(state.text, keys, values, plan.text))

    def fetch(
        self, state: ByModality, plan: ModalityPlan, dtype: mx.Dtype
    ) -> tuple[mx.array, mx.array, mx.array | None]:
        keys, values, _ = self.text.fetch(state.text, plan.text, dtype)
        if plan.images.num_used == 0:
            return keys, values, plan.mask
        own_keys, own_values, _ = self.images.fetch(state.images, plan.images, dtype)
        keys = mx.concatenate([own_keys, keys], axis=2)
        return keys, mx.concatenate([own_values, values], axis=2), plan.mask

    def attend(
        self, state: ByModality, queries: mx.array, plan: ModalityPlan, scale: float
    ) -> mx.array:
        return self.attention(queries, *self.fetch(state, plan, queries.dtype), scale)

    def select(self, state: ByModality, rows: Sequence[int], seen: Sequence[int]) -> ByModality:
        return ByModality(
            self.images.select(state.images, rows, state.num_images),
            self.text.select(state.text, rows, _less(seen, state)),
            tuple(state.num_images[row] for row in rows),
        )

    def join(self, states: Sequence[ByModality], seen: Sequence[Sequence[int]]) -> ByModality:
        left = [_less(one, state) for one, state in zip(seen, states, strict=True)]
        num_images = [state.num_images for state in states]
        return ByModality(
            self.images.join([state.images for state in states], num_images),
            self.text.join([state.text for state in states], left),
            tuple(count for row in num_images for count in row),
        )

    def trim(self, state: ByModality, seen: Sequence[int], kept: Sequence[int]) -> ByModality:
        raise AssertionError("what has finished its prompt is never cut back")

    def num_bytes(self, state: ByModality) -> int:
        return self.images.num_bytes(state.images) + self.text.num_bytes(state.text)


def _wide(mask: mx.array, shape: tuple[int, ...]) -> mx.array:
    wide: mx.array = mx.broadcast_to(mask, shape)
    return wide


def _less(seen: Sequence[int], state: ByModality) -> tuple[int, ...]:
    return tuple(n - images for n, images in zip(seen, state.num_images, strict=True))


def _after(parts: _Parts) -> CacheKind:
    return CacheKind(
        name="by modality",
        settings=(),
        init=parts.init,
        plan=parts.plan,
        append=parts.append,
        attend=parts.attend,
        fetch=parts.fetch,
        select=parts.select,
        join=parts.join,
        trim=parts.trim,
        num_bytes=parts.num_bytes,
        hold=parts.text.hold,
        reading=lambda other: _after(parts._replace(attention=other)),
    )


def _divide(
    parts: _Parts,
    after: CacheKind,
    full: KVState,
    noted: Noted,
    prompts: Sequence[PromptShape],
) -> Finished:
    """Store the tokens of images in one state and all others in another."""
    places = [_places(prompt) for prompt in prompts]
    images, text = (
        _taken(kind, full, [row[side] for row in places])
        for side, kind in enumerate((parts.images, parts.text))
    )
    num_images = tuple(len(own) for own, _ in places)
    return Finished(ByModality(images, text, num_images), (0,) * len(prompts))


def _taken(kind: CacheKind, full: KVState, places: Sequence[Sequence[int]]) -> KVState:
    """A state of these tokens of each row."""
    counts = [len(row) for row in places]
    width = max(counts)
    index = mx.array([[*row, *[0] * (width - len(row))] for row in places], mx.int32)
    index = index.reshape(len(places), 1, width, 1)
    keys, values = (mx.take_along_axis(x, index, axis=2) for x in (*full.keys, *full.values))
    state: KVState = refill(kind, keys, values, counts)
    return state


def _places(prompt: PromptShape) -> tuple[list[int], list[int]]:
    """The numbers of a prompt's tokens of images, and of its others."""
    images = [place for start, end in prompt.images for place in range(start, end)]
    known = set(images)
    return images, [place for place in range(prompt.length) if place not in known]
