"""Small video files; they need PyAV."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image


def frames(count: int, height: int = 32, width: int = 48) -> np.ndarray:
    """Grey frames ``[count, height, width, 3]``, each brighter than the one before."""
    levels = np.linspace(20, 230, count).astype(np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (count, height, width, 3)).copy()


def encode(
    count: int, rate: int = 8, *, kind: str = "mp4", codec: str = "mpeg4", size: int = 32
) -> bytes:
    """Encode such frames; skips the test where PyAV is not installed."""
    av = pytest.importorskip("av", reason="not installed: vlmkit[video]")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=kind) as container:
        track = container.add_stream(codec, rate=rate)
        track.height, track.width, track.pix_fmt = size, 48, "yuv420p"
        for pixels in frames(count, size):
            container.mux(track.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(track.encode(None))
    return buffer.getvalue()


def gif(count: int) -> bytes:
    """Encode such frames as an animation of 10 frames per second."""
    buffer = io.BytesIO()
    first, *rest = map(Image.fromarray, frames(count))
    first.save(buffer, "GIF", save_all=True, append_images=rest, duration=100)
    return buffer.getvalue()
