"""Any audio source to one channel of samples, at the rate that a model hears.

WAV files of whole numbers are read by the standard library, other sound files by soundfile, the
sound tracks of videos by PyAV.
"""

from __future__ import annotations

import io
import operator
import wave
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from vlmkit.errors import VlmkitError
from vlmkit.preprocess.config import PreprocessConfig
from vlmkit.preprocess.containers import NeedsPackage, audio_blocks, find_package
from vlmkit.preprocess.sources import READABLE_TYPES, open_source, source_name

MAX_AUDIO_BYTES = 640 * 2**20
"""Of a sound file: an hour of two channels at 48 kHz with 24 bits, and some more."""
MAX_RATE = 1_000_000
"""Samples per second and channel; the most in use are 768,000."""
MAX_CHANNELS = 64
_BLOCK = 2**18  # frames read at once
_FULL_SCALE = {1: 2.0**7, 2: 2.0**15, 3: 2.0**23, 4: 2.0**31}  # by bytes per sample


class Clip(NamedTuple):
    """A sound after loading."""

    samples: NDArray[np.float32]  # [n], one channel, full scale from −1 to 1
    rate: int  # samples per second
    name: str  # where it is from, for errors

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.samples) / self.rate


AudioSource: TypeAlias = (
    str | Path | bytes | bytearray | memoryview | io.BytesIO | tuple[Any, int] | Mapping[str, Any]
)
"""A path, an http(s) URL, a ``data:`` URI, an encoded sound in memory, or samples with their rate:
``(array, rate)`` or ``{"array": …, "sampling_rate": …}``."""


def as_clips(value: Any) -> tuple[Any, ...]:
    """Nothing, one audio source or a list of sources as a tuple.

    Example:
        >>> len(as_clips((np.zeros(8), 16000))), len(as_clips(["a.wav", (np.zeros(8), 16000)]))
        (1, 2)
    """
    if value is None:
        return ()
    if isinstance(value, Clip) or _is_pair(value):
        return (value,)
    return tuple(value) if isinstance(value, list | tuple) else (value,)


def _is_pair(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 2 and _is_array(value[0])


def _is_array(value: object) -> bool:
    is_list = isinstance(value, list) and len(value) > 0 and isinstance(value[0], int | float)
    return is_list or (hasattr(value, "__array__") and hasattr(value, "shape"))


def check_clip(source: object) -> None:
    """Refuse what is of no type that a sound can be read from.

    Raises:
        VlmkitError: says what came and what to give.
    """
    if isinstance(source, (Clip, Mapping, *READABLE_TYPES)) or _is_pair(source):
        return
    what = "without its rate" if _is_array(source) else f"of type {type(source).__name__}"
    raise VlmkitError(
        f"audio {what} cannot be read; give a path, a URL, a data: URI, bytes, or (samples, rate)"
    )


def load_clip(source: AudioSource | Clip, *, config: PreprocessConfig | None = None) -> Clip:
    """Load a sound and mix it to one channel; its rate stays.

    Args:
        source: see :data:`AudioSource`.
        config: the limits; None takes the defaults.

    Raises:
        VlmkitError: the source cannot be read as a sound, named with what would work.

    Example:
        >>> load_clip((np.array([[0, 16384], [0, 0]], np.int16), 8000)).samples.tolist()
        [0.0, 0.25]
    """
    limits = PreprocessConfig() if config is None else config
    check_clip(source)
    if isinstance(source, Clip):
        return source
    if isinstance(source, Mapping):
        if not {"array", "sampling_rate"} <= set(source):
            raise VlmkitError("audio: a mapping needs 'array' and 'sampling_rate'")
        source = (source["array"], source["sampling_rate"])
    if isinstance(source, tuple):
        return _of_array(source[0], source[1], limits)
    name = source_name(source, "audio")
    with open_source(source, name, limits, MAX_AUDIO_BYTES) as stream:
        data = stream.read(MAX_AUDIO_BYTES + 1)
    if not data:
        raise VlmkitError(f"{name}: empty (0 bytes); give a sound file")
    return _decode(data, name, limits)


def resample(clip: Clip, rate: int) -> NDArray[np.float32]:
    """Return a clip's samples at another rate, by soxr at high quality.

    Raises:
        VlmkitError: soxr is not installed, and the rates differ.

    Example:
        >>> resample(Clip(np.zeros(3, np.float32), 16000, "audio"), 16000).shape
        (3,)
    """
    if clip.rate == rate:
        return clip.samples
    try:
        import soxr
    except ImportError as error:
        raise VlmkitError(
            f"{clip.name}: has {clip.rate} samples per second, and the model hears {rate}; to"
            " resample, install vlmkit[audio]"
        ) from error
    samples: NDArray[np.float32] = soxr.resample(clip.samples, clip.rate, rate, quality="HQ")
    return samples


def _of_array(values: Any, rate: Any, limits: PreprocessConfig) -> Clip:
    array = np.asarray(values)
    name = f"audio of shape {array.shape}"
    try:
        number = operator.index(rate)
    except TypeError:
        raise VlmkitError(f"{name}: its rate is {rate!r}; give samples per second") from None
    if array.ndim not in (1, 2) or array.dtype.kind not in "iuf":
        raise VlmkitError(
            f"{name} and type {array.dtype}: give numbers, [samples] or [channels, samples]"
        )
    if array.ndim == 2 and array.shape[0] > array.shape[1]:
        array = array.T  # there are more samples than channels
    scale, offset = 1.0, 0.0
    if array.dtype.kind in "iu":
        if array.dtype.itemsize not in _FULL_SCALE:
            raise VlmkitError(f"{name} and type {array.dtype}: give int16, int32 or float32")
        scale = _FULL_SCALE[array.dtype.itemsize]
        offset = scale if array.dtype.kind == "u" else 0.0
    channels = array[None] if array.ndim == 1 else array
    mono = (channels.astype(np.float32).mean(axis=0) - np.float32(offset)) / np.float32(scale)
    return _joined([mono], number, len(channels), name, limits)


def _decode(data: bytes, name: str, limits: PreprocessConfig) -> Clip:
    if data[:4] == b"RIFF" and data[8:12] == b"WAVE":
        try:
            return _wave(data, name, limits)
        except wave.Error as error:
            if "unknown format" not in str(error):
                raise _broken(name, error) from error
        except (EOFError, RuntimeError) as error:  # so its parts end beyond the file
            raise _broken(name, "it ends within its header") from error
    if find_package("soundfile") is not None:
        found = _soundfile(data, name, limits)
        if found is not None:
            return found
    try:
        rate, channels, blocks = audio_blocks(io.BytesIO(data), name)
    except NeedsPackage:
        if find_package("soundfile") is None:
            raise VlmkitError(
                f"{name}: no WAV file of whole numbers; for FLAC, MP3, Ogg and other WAV files"
                " install vlmkit[audio]"
            ) from None
        raise VlmkitError(
            f"{name}: not a sound in a known format; readable: WAV, FLAC, MP3, Ogg, AIFF, and with"
            " vlmkit[video] the sound tracks of videos"
        ) from None
    return _joined(blocks, rate, channels, name, limits)


def _wave(data: bytes, name: str, limits: PreprocessConfig) -> Clip:
    with wave.open(io.BytesIO(data)) as file:
        rate, channels, width = file.getframerate(), file.getnchannels(), file.getsampwidth()
        if width not in _FULL_SCALE:
            raise VlmkitError(f"{name}: samples of {8 * width} bits; save it with 16 or 24")
        _check_format(rate, channels, name)

        def blocks() -> Iterable[NDArray[np.float32]]:
            while frames := file.readframes(_BLOCK):
                whole = frames[: len(frames) // (width * channels) * width * channels]
                yield _pcm(whole, width).reshape(-1, channels).mean(axis=1)

        return _joined(blocks(), rate, channels, name, limits)


def _pcm(data: bytes, width: int) -> NDArray[np.float32]:
    """Return PCM samples, little-endian as in WAV files, as float32 at full scale 1."""
    raw = np.frombuffer(data, np.uint8)
    if width == 1:  # 8-bit ones are unsigned
        return (raw.astype(np.float32) - np.float32(128)) / np.float32(128)
    padded = np.zeros((len(raw) // width, 4), np.uint8)
    padded[:, 4 - width :] = raw.reshape(-1, width)
    return padded.view("<i4")[:, 0].astype(np.float32) / np.float32(2**31)


def _soundfile(data: bytes, name: str, limits: PreprocessConfig) -> Clip | None:
    """Decode by soundfile; None where it does not know the format."""
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as file:
            _check_format(file.samplerate, file.channels, name)
            blocks = (b.mean(axis=1) for b in file.blocks(_BLOCK, dtype="float32", always_2d=True))
            return _joined(blocks, file.samplerate, file.channels, name, limits)
    except soundfile.LibsndfileError as error:
        if error.code == 1:  # SF_ERR_UNRECOGNISED_FORMAT
            return None
        raise _broken(name, error.error_string) from error


def _check_format(rate: int, channels: int, name: str) -> None:
    if not 1 <= rate <= MAX_RATE:
        raise VlmkitError(
            f"{name}: its sampling rate is {rate}; it has to be from 1 to {MAX_RATE:,}"
        )
    if not 1 <= channels <= MAX_CHANNELS:
        raise VlmkitError(f"{name}: has {channels} channels; it can have 1 to {MAX_CHANNELS}")


def _joined(
    blocks: Iterable[NDArray[np.float32]],
    rate: int,
    channels: int,
    name: str,
    limits: PreprocessConfig,
) -> Clip:
    """Put blocks of one channel together, and stop where they are too long."""
    _check_format(rate, channels, name)
    parts: list[NDArray[np.float32]] = []
    count = 0
    for block in blocks:
        parts.append(np.asarray(block, np.float32))
        count += len(block)
        if count > limits.max_audio_s * rate:
            raise VlmkitError(
                f"{name}: longer than {limits.max_audio_s:g} s (preprocess.max_audio_s); cut it"
            )
    if not count:
        raise VlmkitError(f"{name}: has no samples; give a sound that is not empty")
    samples = np.concatenate(parts)
    if not np.isfinite(samples).all():
        raise VlmkitError(f"{name}: has samples that are no finite numbers; save it again")
    return Clip(samples, rate, name)


def _broken(name: str, why: object) -> VlmkitError:
    text = " ".join(str(why).split()) or type(why).__name__
    return VlmkitError(f"{name}: the sound is corrupt or cut short ({text}); save it again")
