"""Encoders of what is seen and heard, and a text decoder, as one model."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from numpy.typing import NDArray

from vlmkit.backend.policy import PLAIN, Backend
from vlmkit.contracts.inputs import Embeddings, ImageGrid, Inputs, Media, Piece
from vlmkit.contracts.interface import Cache, Features, Forwarded, LayerSpec, Span
from vlmkit.errors import VlmkitError
from vlmkit.models.audio import AudioEncoder, num_audio_tokens, num_rows
from vlmkit.models.config import ModelConfig
from vlmkit.models.decoder import Decoder
from vlmkit.models.mrope_positions import mrope_positions
from vlmkit.models.tokens import check_token_ids
from vlmkit.models.vision import VisionEncoder
from vlmkit.ranks.group import join_ranks


class VisionLanguageModel(nn.Module):
    """A vision-language or audio model: media take the places of placeholders in the prompt.

    It satisfies :class:`vlmkit.contracts.interface.Model` and holds weights only.

    Args:
        config: of the checkpoint.
        backend: how it is computed.
    """

    def __init__(self, config: ModelConfig, backend: Backend = PLAIN) -> None:
        super().__init__()
        self.config = config
        self.backend = backend
        if config.vision_config is not None:
            self.vision = VisionEncoder(config.vision_config, backend.forms)
        if config.audio_config is not None:
            self.audio = AudioEncoder(config.audio_config, backend.forms)
        self.ranks = join_ranks()
        self.language = Decoder(config.text_config, backend.forms, self.ranks)

    @property
    def layer_specs(self) -> tuple[LayerSpec, ...]:
        """What each decoder layer stores."""
        return self.language.layer_specs

    @property
    def num_injected(self) -> int:
        """How many decoder layers get features of media beside the first one's input."""
        vision = self.config.vision_config
        return 0 if vision is None else len(vision.deepstack_blocks)

    @property
    def dtype(self) -> mx.Dtype:
        """The dtype of activations."""
        dtype: mx.Dtype = self.language.norm.weight.dtype
        return dtype

    def encode(self, media: Sequence[Media]) -> tuple[Features, ...]:
        """Encode images and videos in one pass, audio clips in another.

        Raises:
            VlmkitError: a medium of a kind that the model does not take, or whose data does not
                fit it.
        """
        for medium in media:
            self._check_media(medium)
        heard = [medium for medium in media if medium.kind == "audio"]
        seen = [medium for medium in media if medium.kind != "audio"]
        found = {
            medium.digest: one
            for part, encode in ((seen, self._see), (heard, self._hear))
            if part
            for medium, one in zip(part, encode(part), strict=True)
        }
        return tuple(found[medium.digest] for medium in media)

    def _see(self, media: Sequence[Media]) -> tuple[Features, ...]:
        patches = mx.array(np.concatenate([medium.data for medium in media])).astype(self.dtype)
        outputs = self.vision(patches, [ImageGrid(*medium.shape) for medium in media])
        parts = [self._split(tokens, media) for tokens in outputs]
        return tuple(
            Features(tokens, tuple(layers)) for tokens, *layers in zip(*parts, strict=True)
        )

    def _hear(self, media: Sequence[Media]) -> tuple[Features, ...]:
        rows = mx.array(np.concatenate([medium.data for medium in media])).astype(self.dtype)
        tokens = self.audio(rows, [count for medium in media for count in medium.shape])
        return tuple(Features(part) for part in self._split(tokens, media))

    def _split(self, tokens: mx.array, media: Sequence[Media]) -> list[mx.array]:
        """Return the tokens of each medium, the same on all ranks."""
        if self.ranks.size > 1:
            tokens = self.ranks.of_first(tokens)  # the same bytes, whatever each machine computes
            mx.eval(tokens)  # by itself: sums of one graph must come in one order on all ranks
        ends = np.cumsum([self._num_tokens(medium) for medium in media])[:-1].tolist()
        return list(mx.split(tokens, ends)) if ends else [tokens]

    def embed(
        self,
        batch: Sequence[Inputs],
        features: Mapping[bytes, Features],
        starts: Sequence[int] | None = None,
    ) -> Embeddings:
        """Lay the prompts out as one right-padded batch; media take their placeholders' places.

        Raises:
            VlmkitError: placeholders and media disagree, a token id is outside the vocabulary,
                or a prompt is empty.
        """
        starts = (0,) * len(batch) if starts is None else starts
        lengths = tuple(
            len(inputs.token_ids) - start for inputs, start in zip(batch, starts, strict=True)
        )
        ids = np.zeros((len(batch), max(lengths)), np.int32)
        positions = np.zeros((self.num_axes, *ids.shape), np.int32)
        blocks = np.full(ids.shape, -1, np.int32)
        after, places = [], []
        parts: list[list[mx.array]] = [[] for _ in range(1 + self.num_injected)]
        for row, (inputs, start) in enumerate(zip(batch, starts, strict=True)):
            self._check(inputs)
            ids[row, : lengths[row]] = inputs.token_ids[start:]
            own, following = self._positions(inputs)
            positions[:, row, : lengths[row]] = own[:, start:]
            after.append(following)
            for medium in inputs.media:
                first, end = medium.span
                if end > start:
                    skipped = max(start - first, 0)
                    offset = row * ids.shape[1] + first + skipped - start
                    blocks[row, first + skipped - start : end - start] = first
                    places.append(np.arange(offset, offset + end - first - skipped))
                    encoded = features[medium.digest]
                    for part, tokens in zip(
                        parts, (encoded.embedded, *encoded.layers), strict=True
                    ):
                        part.append(tokens[skipped:])
        hidden, layers = self.embed_tokens(mx.array(ids)), []
        if places:
            rows = mx.array(np.concatenate(places).astype(np.int32))
            blank = mx.zeros_like(hidden)
            layers = [_put(blank, rows, part) for part in parts[1:]]
            hidden = _put(hidden, rows, parts[0])
        piece = Piece(hidden, mx.array(positions), tuple(layers))
        if places and self.config.bidirectional_media:
            piece = piece._replace(blocks=mx.array(blocks))
        return Embeddings(piece, lengths, tuple(after))

    def embed_tokens(self, token_ids: mx.array) -> mx.array:
        """Embed int32 ``[B, L]`` token ids to ``[B, L, hidden]``."""
        hidden: mx.array = self.language.embed(token_ids)
        return hidden.astype(self.dtype)  # mxfp4 tables unpack to bfloat16

    def forward(
        self, piece: Piece, cache: Cache, span: Span, taps: Sequence[int] = ()
    ) -> Forwarded:
        """Run the decoder; see :class:`vlmkit.contracts.interface.Model`."""
        return self.language(piece, cache, span, taps)

    def logits(self, hidden: mx.array) -> mx.array:
        """Project ``[..., hidden]`` to ``[..., vocabulary]``."""
        return self.language.logits(hidden)

    @property
    def num_axes(self) -> int:
        """How many positions a token has."""
        return 3 if self.config.text_config.mrope_section else 1

    def _positions(self, inputs: Inputs) -> tuple[NDArray[np.int32], int]:
        if self.num_axes == 1:
            count = len(inputs.token_ids)
            return np.arange(count, dtype=np.int32)[None], count
        vision = self.config.vision_config
        return mrope_positions(
            len(inputs.token_ids),
            inputs.media,
            merge_size=1 if vision is None else vision.spatial_merge_size,
            video_time_step=(vision.video_time_step if vision is not None else None) or 1,
        )

    def _num_tokens(self, medium: Media) -> int:
        if medium.kind == "audio":
            return sum(map(num_audio_tokens, medium.shape))
        vision = self.config.vision_config
        assert vision is not None
        return math.prod(medium.shape) // vision.spatial_merge_size**2

    def _check(self, inputs: Inputs) -> None:
        check_token_ids(inputs, self.config.vocab_size)
        placeholders = np.isin(inputs.token_ids, self.config.placeholder_ids)
        found, expected = int(placeholders.sum()), 0
        for medium in inputs.media:
            start, end = medium.span
            num_tokens = self._num_tokens(medium)
            expected += num_tokens
            if end - start != num_tokens or not placeholders[start:end].all():
                of = "patches" if medium.kind != "audio" else "frames"
                raise VlmkitError(
                    f"the tokens {start} to {end} of the prompt are not the {num_tokens} "
                    f"placeholders that a grid of {'x'.join(map(str, medium.shape))} {of} needs"
                )
        if found != expected:
            raise VlmkitError(
                f"the prompt has {found} placeholder tokens, and its {len(inputs.media)} media "
                f"need {expected}; let the processor expand one placeholder per medium"
            )

    def _check_media(self, medium: Media) -> None:
        vision, audio = self.config.vision_config, self.config.audio_config
        if medium.kind == "audio" and audio is not None:
            rows = sum(num_rows(count, audio.max_frames) for count in medium.shape)
            is_fitting = all(0 < count <= audio.max_frames for count in medium.shape)
            if medium.data.shape != (rows, audio.num_mel_bins) or not is_fitting:
                raise VlmkitError(
                    f"the audio is {medium.data.shape[0]} frames of {medium.data.shape[-1]} "
                    f"numbers; its length needs {rows} of {audio.num_mel_bins}, and at most "
                    f"{audio.max_frames} are heard at once"
                )
            return
        if medium.kind not in ("image", "video") or vision is None:
            raise VlmkitError(f"{self.config.model_type} takes no {medium.kind}; leave it out")
        grid = ImageGrid(*medium.shape)
        expected, found = math.prod(grid), medium.data.shape
        if found != (expected, vision.patch_dim):
            raise VlmkitError(
                f"the {medium.kind} is {found[0]} patches of {found[1]} numbers; its grid needs "
                f"{expected} patches of {vision.patch_dim}"
            )
        if grid.height % vision.spatial_merge_size or grid.width % vision.spatial_merge_size:
            raise VlmkitError(
                f"an image of {grid.height}x{grid.width} patches does not divide into tokens "
                f"of {vision.spatial_merge_size}x{vision.spatial_merge_size}"
            )


def _put(hidden: mx.array, rows: mx.array, parts: list[mx.array]) -> mx.array:
    """Return ``[B, L, hidden]`` with tokens in some of its B * L places."""
    flat = hidden.reshape(-1, hidden.shape[-1])
    flat[rows] = mx.concatenate(parts).astype(flat.dtype)
    return flat.reshape(hidden.shape)
