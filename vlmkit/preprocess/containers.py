"""Media containers (MP4, WebM, …) by PyAV: nothing but the stream given is ever opened.

Some formats are lists of further files and addresses to read. They are left out by name, and no
protocol is allowed that would reach one.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from vlmkit.errors import VlmkitError

FORMATS = (
    *("mov", "mp4", "m4a", "3gp", "3g2", "mj2", "matroska", "webm", "avi", "mpegts", "mpeg"),
    *("flv", "ogg", "asf", "gif", "wav", "mp3", "flac", "aac", "aiff", "caf", "au"),
)
"""The formats that are read, as FFmpeg names them."""
_OPTIONS = {"format_whitelist": ",".join(FORMATS), "protocol_whitelist": "pipe"}


class NeedsPackage(Exception):  # noqa: N818 (no error of ours: the caller says what to install)
    """PyAV is not installed."""


def find_package(name: str) -> ModuleType | None:
    """Return an optional package, or None where it is not installed or lacks its library.

    Example:
        >>> find_package("no_such_package") is None
        True
    """
    try:
        return importlib.import_module(name)
    except (ImportError, OSError):
        return None


@contextmanager
def opened_container(stream: BinaryIO, name: str) -> Iterator[Any]:
    """Open a container; errors of its reading, in the body too, begin with ``name``.

    Raises:
        NeedsPackage: PyAV is not installed.
        VlmkitError: the format is not known, or the data is corrupt.
    """
    av = find_package("av")
    if av is None:
        raise NeedsPackage
    try:
        with av.open(stream, mode="r", options=_OPTIONS) as container:
            yield container
    except (av.error.FFmpegError, UnicodeDecodeError) as error:
        why = "text that is no UTF-8" if isinstance(error, ValueError) else error.strerror
        raise VlmkitError(
            f"{name}: not in a known format, corrupt or cut short ({why}); save it again"
        ) from error


def decoder_of(track: Any, name: str) -> Any:
    """Return what decodes a stream of a container.

    Raises:
        VlmkitError: nothing does.
    """
    if track.codec_context is None:
        raise VlmkitError(f"{name}: its {track.type} is corrupt, or in a codec that is not known")
    return track.codec_context


def audio_blocks(stream: BinaryIO, name: str) -> tuple[int, int, Iterable[NDArray[np.float32]]]:
    """Return the rate and channels of a container's first sound track, and its mono samples.

    Raises:
        NeedsPackage: PyAV is not installed.
        VlmkitError: there is no sound track, or it cannot be decoded.
    """
    with opened_container(stream, name) as container:
        if not container.streams.audio:
            raise VlmkitError(f"{name}: has no audio stream; give a file with sound")
        codec = decoder_of(container.streams.audio[0], name)
        rate, channels = int(codec.sample_rate or 0), int(codec.channels or 0)
    stream.seek(0)

    def blocks() -> Iterator[NDArray[np.float32]]:
        with opened_container(stream, name) as container:
            import av

            to_float = av.AudioResampler(format="fltp")
            for frame in container.decode(audio=0):
                for part in to_float.resample(frame):
                    yield np.asarray(part.to_ndarray().mean(axis=0), np.float32)

    return rate, channels, blocks()
