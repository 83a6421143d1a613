"""Small sound files, written by the standard library."""

from __future__ import annotations

import io
import wave

import numpy as np


def wav(samples: np.ndarray, rate: int = 16000, width: int = 2) -> bytes:
    """Encode ``[n]`` or ``[n, channels]`` samples from −1 to 1 as whole numbers of some bytes."""
    frames = samples[:, None] if samples.ndim == 1 else samples
    full = 2 ** (8 * width - 1)
    numbers = np.clip(np.round(frames * full), -full, full - 1).astype("<i4")
    raw = numbers.reshape(-1, 1).view(np.uint8)[:, :width]
    data = (numbers + 128).astype(np.uint8).tobytes() if width == 1 else raw.tobytes()
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(frames.shape[1])
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(data)
    return buffer.getvalue()
