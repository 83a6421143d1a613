"""A prompt on its way to the decoder: media and token ids on the host, then vectors."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

_DIGEST_BYTES = 16
_HASH_BITS = 62


class ImageGrid(NamedTuple):
    """Size of one image in patches, before the spatial merge."""

    time: int
    height: int
    width: int


class Media(NamedTuple):
    """One image, video or audio clip of a prompt, as its encoder takes it."""

    kind: str  # "image" | "video" | "audio"
    data: NDArray[np.float32]  # for images and videos patches [N, channels * time * size * size],
    # for sounds frames [N, bands], one window after another
    shape: tuple[int, ...]  # for images and videos the grid (time, height, width) in patches, for
    # sounds the frames of each window that have sound
    span: tuple[int, int]  # [start, end) of its tokens in ``Inputs.token_ids``
    digest: bytes  # of kind, shape, seconds and data: equal digests are encoded alike
    seconds: float | None = None  # between two steps of a video's grid; None: nobody asks

    @classmethod
    def of(
        cls,
        kind: str,
        data: NDArray[np.float32],
        shape: Sequence[int],
        span: tuple[int, int],
        seconds: float | None = None,
    ) -> Media:
        """Make a value of its parts, with their digest.

        Example:
            >>> blank = np.zeros((4, 6), np.float32)
            >>> one, two = (Media.of("image", blank, (1, 2, 2), (n, n + 1)) for n in (0, 5))
            >>> one.digest == two.digest
            True
        """
        told = (kind, tuple(shape)) if seconds is None else (kind, tuple(shape), seconds)
        digest = hashlib.blake2b(repr(told).encode(), digest_size=_DIGEST_BYTES)
        digest.update(np.ascontiguousarray(data).data)
        return cls(kind, data, tuple(shape), span, digest.digest(), seconds)


class Inputs(NamedTuple):
    """One prompt after preprocessing, on the host."""

    token_ids: NDArray[np.int32]  # [T], a placeholder expanded to one id per token of its medium
    content_ids: NDArray[np.int64]  # [T], equal where inputs are equal, see :meth:`of`
    media: tuple[Media, ...] = ()  # in the order of their spans

    @classmethod
    def of(cls, token_ids: NDArray[np.int32], media: Sequence[Media] = ()) -> Inputs:
        """Make a value of its parts, with what each token stands for.

        The content id of a text token is its token id; that of a medium's token is a negative
        number made of the medium's digest and the token's place in it. Prompts whose first n
        content ids agree have the same first n embeddings and positions.

        Example:
            >>> image = Media.of("image", np.zeros((4, 6), np.float32), (1, 2, 2), (1, 2))
            >>> content = Inputs.of(np.array([5, 9, 6], np.int32), [image]).content_ids
            >>> content[[0, 2]].tolist(), bool(content[1] < 0)
            ([5, 6], True)
        """
        content = token_ids.astype(np.int64)
        for medium in media:
            start, end = medium.span
            first = int.from_bytes(medium.digest[:8], "big") >> (64 - _HASH_BITS)
            places = (np.arange(end - start, dtype=np.int64) + first) % (1 << _HASH_BITS)
            content[start:end] = -1 - places
        return cls(token_ids, content, tuple(media))

    @property
    def content(self) -> bytes:
        """What is equal for equal prompts, and for no others."""
        return self.content_ids.tobytes()

    def without_data(self) -> Inputs:
        """Return the prompt without the numbers of its media: enough to compare it by content."""
        empty = np.zeros((0, 0), np.float32)
        return self._replace(media=tuple(medium._replace(data=empty) for medium in self.media))

    def followed_by(self, token_ids: Sequence[int]) -> Inputs:
        """Return the prompt with more text tokens behind it."""
        more = np.array(token_ids, np.int32)
        return Inputs(
            np.concatenate([self.token_ids, more]),
            np.concatenate([self.content_ids, more.astype(np.int64)]),
            self.media,
        )


def num_equal(first: Inputs, second: Inputs) -> int:
    """Return how many tokens two prompts begin with alike; a medium counts whole or not at all.

    Example:
        >>> one, two = Inputs.of(np.array([1, 2, 3])), Inputs.of(np.array([1, 2, 4]))
        >>> num_equal(one, two)
        2
    """
    length = min(len(first.content_ids), len(second.content_ids))
    differs = first.content_ids[:length] != second.content_ids[:length]
    equal = int(differs.argmax()) if differs.any() else length
    return whole_media(first, equal)


def whole_media(inputs: Inputs, length: int) -> int:
    """Return the longest prefix of at most ``length`` tokens that cuts no medium."""
    for medium in inputs.media:
        if medium.span[0] < length < medium.span[1]:
            return medium.span[0]
    return length


class Piece(NamedTuple):
    """Tokens of a batch as the decoder takes them: whole prompts, parts of them, one per row."""

    hidden: mx.array  # [B, L, hidden]
    positions: mx.array  # int32 [A, B, L]; A = 3 (time, height, width) for M-RoPE, else 1
    features: tuple[mx.array, ...] = ()  # [B, L, hidden] each: added after layer 0, 1, …
    blocks: mx.array | None = None  # int32 [B, L]: tokens of one block >= 0 see each other;
    # None, or −1 in a place: plain causal attention

    def slice(self, start: int, stop: int) -> Piece:
        """Return the tokens ``start`` to ``stop`` of every row."""
        return Piece(
            self.hidden[:, start:stop],
            self.positions[:, :, start:stop],
            tuple(layer[:, start:stop] for layer in self.features),
            None if self.blocks is None else self.blocks[:, start:stop],
        )


class Embeddings(NamedTuple):
    """A batch of prompts as vectors. Row b is valid up to ``lengths[b]``, then padding."""

    piece: Piece
    lengths: tuple[int, ...]  # valid tokens per row
    next_positions: tuple[int, ...]  # position of the first token generated after each row
