"""The log-mel features of Whisper's feature extractor, on numpy alone.

Reference: Radford et al. (2022), "Robust Speech Recognition via Large-Scale Weak Supervision",
arXiv:2212.04356; the mel filters are those of Slaney's Auditory Toolbox (1998), scaled to equal
area. Equal to ``WhisperFeatureExtractor`` of transformers.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vlmkit.declare.section import Section

MAX_WINDOW_SAMPLES = 2**24
"""Samples that a model hears at once: 17 minutes at 16 kHz; models in use hear 30 seconds."""
MAX_MELS = 1024
_MAX_FREQUENCY = 8000.0
_FLOOR = 1e-10


class WhisperFeatures(NamedTuple):
    """How samples become features. The defaults are those of the transformers class."""

    feature_size: int = 80  # mel bands
    sampling_rate: int = 16000  # samples per second
    hop_length: int = 160  # samples between frames
    chunk_length: int = 30  # seconds that are heard at once
    n_fft: int = 400  # samples of a frame

    @property
    def max_samples(self) -> int:
        """Samples of one window, to which shorter ones are padded with silence."""
        return self.chunk_length * self.sampling_rate

    @property
    def max_frames(self) -> int:
        """Frames of one window."""
        return self.max_samples // self.hop_length


def read_whisper(section: Section) -> WhisperFeatures:
    """Read a ``preprocessor_config.json``; what is missing has its default.

    Raises:
        VlmkitError: a value cannot be used, named with its key.

    Example:
        >>> read_whisper(Section({"feature_size": 128})).max_frames
        3000
    """
    default = WhisperFeatures()
    config = WhisperFeatures(
        *(section.positive(key, getattr(default, key)) for key in WhisperFeatures._fields)
    )
    if section.values.get("dither"):
        raise section.error("dither", "asks for noise, which changes the answers; set it to 0")
    if config.max_samples > MAX_WINDOW_SAMPLES:
        raise section.error(
            "chunk_length", f"is {config.chunk_length} s; {MAX_WINDOW_SAMPLES:,} samples at most"
        )
    if config.feature_size > MAX_MELS or not config.hop_length <= config.n_fft <= 2**16:
        raise section.error("feature_size, hop_length, n_fft", "are no sizes that frames can have")
    if config.max_samples <= config.n_fft:
        raise section.error("n_fft", "is longer than the window of chunk_length seconds")
    return config


def log_mel(
    samples: NDArray[np.float32], config: WhisperFeatures
) -> tuple[NDArray[np.float32], int]:
    """Return the features of one window.

    Frames are centred, with the window mirrored at both ends, weighted by a Hann window; powers
    are summed to mel bands, in log10, at most 8 below the largest, shifted and scaled to about ±1.

    Args:
        samples: float32 ``[n]`` at the config's rate, at most ``max_samples``.
        config: the sizes.

    Returns:
        Features float32 ``[max_frames, feature_size]``, silence behind the sound included, and the
        number of frames that have sound: ``ceil(n / hop_length)``.

    Example:
        >>> features, count = log_mel(np.zeros(1600, np.float32), WhisperFeatures())
        >>> features.shape, count
        ((3000, 80), 10)
    """
    padded = np.zeros(config.max_samples, np.float32)
    padded[: len(samples)] = samples
    half = config.n_fft // 2
    mirrored = np.pad(padded, half, mode="reflect").astype(np.float64)
    frames = np.lib.stride_tricks.sliding_window_view(mirrored, config.n_fft)
    frames = frames[:: config.hop_length][: config.max_frames]
    # Silence behind the sound: no frame of it has power, so its transform is not computed.
    sounding = min(len(frames), (len(samples) + half) // config.hop_length + 1)
    if len(samples) + half >= config.max_samples:
        sounding = len(frames)
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(config.n_fft) / config.n_fft)
    powers = np.abs(np.fft.rfft(frames[:sounding] * hann).astype(np.complex64), dtype=np.float64)
    mel = np.full((len(frames), config.feature_size), _FLOOR)
    filters = mel_filters(config.feature_size, config.sampling_rate, config.n_fft)
    np.maximum(powers**2 @ filters, _FLOOR, out=mel[:sounding])
    log = np.log10(mel).astype(np.float32)
    log = np.maximum(log, log.max() - np.float32(8))
    return (log + np.float32(4)) / np.float32(4), math.ceil(len(samples) / config.hop_length)


@cache
def mel_filters(feature_size: int, sampling_rate: int, n_fft: int) -> NDArray[np.float64]:
    """Return triangles on the mel scale, ``[n_fft // 2 + 1, feature_size]``.

    Args:
        feature_size: mel bands from 0 to 8 kHz.
        sampling_rate: samples per second.
        n_fft: samples of a frame.

    Example:
        >>> mel_filters(80, 16000, 400).shape
        (201, 80)
    """
    bins = np.linspace(0, sampling_rate // 2, n_fft // 2 + 1)
    edges = _hertz(np.linspace(0, _mel(_MAX_FREQUENCY), feature_size + 2))
    widths = np.diff(edges)
    slopes = edges[None] - bins[:, None]
    down, up = -slopes[:, :-2] / widths[:-1], slopes[:, 2:] / widths[1:]
    triangles = np.maximum(0, np.minimum(down, up))
    filters: NDArray[np.float64] = triangles * (2 / (edges[2:] - edges[:-2]))
    return filters


def _mel(hertz: float) -> float:
    # Slaney's scale: linear up to 1 kHz, logarithmic above.
    return 15 + math.log(hertz / 1000) * 27 / math.log(6.4)


def _hertz(mels: NDArray[np.float64]) -> NDArray[np.float64]:
    above = 1000 * np.exp(math.log(6.4) / 27 * (mels - 15))
    return np.asarray(np.where(mels < 15, 200 * mels / 3, above))


class AudioRules(NamedTuple):
    """How a family hears."""

    sampling_rate: int
    max_samples: int  # of one window
    features: Callable[[NDArray[np.float32]], tuple[NDArray[np.float32], int]]
    # samples of a window -> the rows of features that its encoder reads, frames that have sound
    num_tokens: Callable[[int], int]  # of a window with so many frames of sound


def pooled_rules(config: WhisperFeatures) -> AudioRules:
    """Return the rules of a Whisper encoder behind which pairs of frames are averaged.

    Its two convolutions look one frame ahead each, so two frames of what follows the sound are
    kept.

    Example:
        >>> rules = pooled_rules(WhisperFeatures())
        >>> rules.features(np.zeros(1600, np.float32))[0].shape, rules.num_tokens(10)
        ((12, 80), 2)
    """

    def features(
        samples: NDArray[np.float32], config: WhisperFeatures
    ) -> tuple[NDArray[np.float32], int]:
        rows, count = log_mel(samples, config)
        return np.ascontiguousarray(rows[: count + 2]), count

    return AudioRules(
        sampling_rate=config.sampling_rate,
        max_samples=config.max_samples,
        features=partial(features, config=config),
        num_tokens=lambda count: ((count - 1) // 2 + 1) // 2,
    )
