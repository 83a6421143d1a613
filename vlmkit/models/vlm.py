"""A vision encoder and a text decoder as one model."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from numpy.typing import NDArray

from vlmkit.errors import VlmkitError
from vlmkit.models.config import ModelConfig
from vlmkit.models.decoder import Decoder
from vlmkit.models.mrope_positions import mrope_positions
from vlmkit.models.tokens import check_token_ids
from vlmkit.models.vision import VisionEncoder
from vlmkit.types import Cache, Embeddings, ImageGrid, Inputs, LayerShape, Span, split_images


class VisionLanguageModel(nn.Module):
    """A vision-language model: visual tokens take the places of placeholders in the prompt.

    It satisfies :class:`vlmkit.types.Model` and holds weights only.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.vision = VisionEncoder(config.vision_config)
        self.language = Decoder(config.text_config)

    @property
    def layer_shapes(self) -> tuple[LayerShape, ...]:
        """What each decoder layer stores per token."""
        text = self.config.text_config
        return (LayerShape(text.num_key_value_heads, text.head_dim),) * text.num_hidden_layers

    @property
    def dtype(self) -> mx.Dtype:
        """The dtype of activations."""
        dtype: mx.Dtype = self.language.norm.weight.dtype
        return dtype

    def embed(self, batch: Sequence[Inputs]) -> Embeddings:
        """Encode the images, embed the tokens, and lay both out as one right-padded batch.

        Raises:
            VlmkitError: placeholders and images disagree, a token id is outside the vocabulary,
                or a prompt is empty.
        """
        lengths = tuple(len(inputs.token_ids) for inputs in batch)
        ids = np.zeros((len(batch), max(lengths)), np.int32)
        positions = np.zeros((3, *ids.shape), np.int32)
        after = []
        for row, inputs in enumerate(batch):
            self._check(inputs)
            ids[row, : lengths[row]] = inputs.token_ids
            positions[:, row, : lengths[row]], following = self._positions(inputs)
            after.append(following)
        hidden = self.embed_tokens(mx.array(ids))
        if any(inputs.image_grids for inputs in batch):
            hidden = self._place(self._encode(batch), hidden, ids)
        return Embeddings(hidden, mx.array(positions), lengths, tuple(after))

    def embed_tokens(self, token_ids: mx.array) -> mx.array:
        """Embed int32 ``[B, L]`` token ids to ``[B, L, hidden]``."""
        hidden: mx.array = self.language.embed_tokens(token_ids)
        return hidden.astype(self.dtype)  # mxfp4 tables unpack to bfloat16

    def forward(
        self, hidden: mx.array, positions: mx.array, cache: Cache, span: Span
    ) -> tuple[mx.array, Cache]:
        """Run the decoder: hidden ``[B, L, hidden]``, positions int32 ``[A, B, L]``."""
        output, _, cache = self.language(hidden, positions, cache, span)
        return output, cache

    def forward_early(
        self, hidden: mx.array, positions: mx.array, cache: Cache, span: Span, layers: Sequence[int]
    ) -> tuple[mx.array, tuple[mx.array, ...], Cache]:
        """Run the decoder and also return what enters the given layers."""
        output, early, cache = self.language(hidden, positions, cache, span, layers)
        return output, early, cache

    def logits(self, hidden: mx.array) -> mx.array:
        """Project ``[..., hidden]`` to ``[..., vocabulary]``."""
        return self.language.logits(hidden)

    def _positions(self, inputs: Inputs) -> tuple[NDArray[np.int32], int]:
        config = self.config
        return mrope_positions(
            inputs.token_ids,
            grids=inputs.image_grids,
            merge_size=config.vision_config.spatial_merge_size,
            image_id=config.image_token_id,
            video_id=config.video_token_id,
            video_time_step=config.vision_config.video_time_step,
        )

    def _encode(self, batch: Sequence[Inputs]) -> mx.array:
        """Return the visual tokens of all images in order; equal images are encoded once."""
        known: dict[tuple[ImageGrid, bytes], int] = {}
        unique: list[tuple[ImageGrid, NDArray[np.float32]]] = []
        order = []
        images = [image for inputs in batch for image in split_images(inputs)]
        num_alike = Counter(grid for grid, _ in images)
        for grid, patches in images:
            alone = num_alike[grid] == 1  # then no other can equal it
            key = grid, b"" if alone else hashlib.blake2b(patches.tobytes()).digest()
            if key not in known:
                known[key] = len(unique)
                unique.append((grid, patches))
            order.append(known[key])
        grids = [grid for grid, _ in unique]
        pixels = mx.array(np.concatenate([patches for _, patches in unique]))
        features = self.vision(pixels.astype(self.dtype), grids)
        if len(order) == len(unique):
            return features
        merge = self.config.vision_config.spatial_merge_size**2
        ends = np.cumsum([grid.time * grid.height * grid.width // merge for grid in grids])
        parts = mx.split(features, ends[:-1].tolist())
        return mx.concatenate([parts[place] for place in order])

    def _place(self, features: mx.array, hidden: mx.array, ids: NDArray[np.int32]) -> mx.array:
        config = self.config
        is_image = (ids == config.image_token_id) | (ids == config.video_token_id)
        rows = mx.array(np.flatnonzero(is_image).astype(np.int32))
        flat = hidden.reshape(-1, hidden.shape[-1])
        flat[rows] = features.astype(flat.dtype)
        return flat.reshape(hidden.shape)

    def _check(self, inputs: Inputs) -> None:
        check_token_ids(inputs, self.config.vocab_size)
        vision = self.config.vision_config
        expected = sum(t * h * w for t, h, w in inputs.image_grids)
        found = (0, vision.patch_dim) if inputs.patches is None else inputs.patches.shape
        if found != (expected, vision.patch_dim):
            raise VlmkitError(
                f"the images are {found[0]} patches of {found[1]} numbers; their grids need "
                f"{expected} patches of {vision.patch_dim}"
            )
        for grid in inputs.image_grids:
            if grid.height % vision.spatial_merge_size or grid.width % vision.spatial_merge_size:
                raise VlmkitError(
                    f"an image of {grid.height}x{grid.width} patches does not divide into tokens "
                    f"of {vision.spatial_merge_size}x{vision.spatial_merge_size}"
                )
