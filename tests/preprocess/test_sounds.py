"""Sounds of every source and form, and those that cannot be read."""

from __future__ import annotations

import base64
import io
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.effort import scaled
from tests.models.tiny_audio import sound
from tests.sounds import wav
from vlmkit.errors import VlmkitError
from vlmkit.preprocess import Clip, PreprocessConfig, as_clips, containers, load_clip, sounds
from vlmkit.preprocess.sounds import resample

TONE = sound(2000)


@pytest.mark.parametrize(("width", "step"), [(1, 2**-7), (2, 2**-15), (3, 2**-23), (4, 2**-24)])
def test_wav_files_of_whole_numbers_need_no_package(
    width: int, step: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sounds, "find_package", lambda name: None)
    clip = load_clip(wav(TONE, 8000, width))
    assert clip.rate == 8000
    assert clip.seconds == 0.25
    assert np.abs(clip.samples - TONE).max() <= step


def test_channels_are_mixed() -> None:
    both = np.stack([TONE, -0.5 * TONE], axis=1)
    expected = (0.25 * TONE).astype(np.float32)
    for source in (
        wav(both),
        (both, 16000),
        (both.T, 16000),
        {"array": both, "sampling_rate": 16000},
    ):
        clip = load_clip(source)
        assert np.abs(clip.samples - expected).max() <= 2**-15
        assert clip.samples.dtype == np.float32


def test_one_sound_from_every_source(tmp_path: Path) -> None:
    data = wav(TONE)
    path = tmp_path / "a.wav"
    path.write_bytes(data)
    uri = f"data:audio/wav;base64,{base64.b64encode(data).decode()}"
    sources: list[Any] = [path, str(path), data, bytearray(data), io.BytesIO(data), uri]
    for source in sources:
        assert np.array_equal(load_clip(source).samples, load_clip(data).samples)
    whole = np.round(TONE * 2**15).astype(np.int16)
    assert np.array_equal(load_clip((whole, 16000)).samples, load_clip(data).samples)
    clip = load_clip(data)
    assert load_clip(clip) is clip
    assert len(as_clips(sources)) == len(sources)
    assert as_clips(clip) == (clip,)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (wav(TONE)[:40], "corrupt or cut short"),
        (wav(TONE, rate=16000).replace(b"\x80>\x00\x00", b"\0" * 4, 1), "its sampling rate is 0"),
        (wav(TONE[:0]), "has no samples"),
        (b"RIFF", "."),
        ("data:audio/wav;base64,AA", "."),
        ("ftp://a.example/b.wav", "ftp: addresses are not read"),
        ("/dev/null", r"audio /dev/null: cannot be read \(is a device, not a file\)"),
        ("/dev", "a folder; give the path of an audio file in it"),
        ((np.zeros(4, np.complex64), 16000), "give numbers"),
        ((np.zeros(4, np.int64), 16000), "give int16, int32 or float32"),
        ((np.zeros((100, 90)), 16000), "has 90 channels"),
        ((np.zeros(4), 2_000_000), "has to be from 1 to 1,000,000"),
        ((np.zeros(4), None), "its rate is None"),
    ],
)
def test_refused(source: Any, message: str) -> None:
    with pytest.raises(VlmkitError, match=message) as caught:
        load_clip(source)
    assert str(caught.value).startswith("audio ")
    assert "\n" not in str(caught.value)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.wav")
    with pytest.raises(VlmkitError, match="is a pipe, not a file"):
        load_clip(tmp_path / "a.wav")


def test_what_is_too_long_is_not_kept() -> None:
    config = PreprocessConfig(max_audio_s=0.1)
    for source in (wav(TONE), (TONE, 16000)):
        with pytest.raises(VlmkitError, match=r"longer than 0.1 s \(preprocess.max_audio_s\)"):
            load_clip(source, config=config)


@example(b"RIFF\x04\0\0\0WAVE")
@settings(max_examples=scaled(60), deadline=None)
@given(st.binary(max_size=80))
def test_any_bytes_are_a_sound_or_an_error(data: bytes) -> None:
    good = bytearray(wav(TONE[:60]))
    for source in (data, b"RIFF" + data[:4] + b"WAVE" + data[4:], bytes(good[: len(data)]) + data):
        clip, message = attempt(source)
        assert clip is None or np.isfinite(clip.samples).all()
        assert clip is not None or message.startswith("audio in memory")


def attempt(source: bytes) -> tuple[Clip | None, str]:
    """Load a sound, or return the error's text."""
    try:
        return load_clip(source), ""
    except VlmkitError as error:
        return None, str(error)


def test_what_needs_a_package_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sounds, "find_package", lambda name: None)
    monkeypatch.setattr(containers, "find_package", lambda name: None)
    with pytest.raises(VlmkitError, match=r"no WAV file of whole numbers; .* vlmkit\[audio\]"):
        load_clip(b"fLaC" + b"\0" * 40)
    monkeypatch.setitem(__import__("sys").modules, "soxr", None)
    with pytest.raises(
        VlmkitError, match=r"has 8000 samples per second, .* install vlmkit\[audio\]"
    ):
        resample(Clip(TONE, 8000, "audio a.wav"), 16000)
    assert resample(Clip(TONE, 8000, "a"), 8000) is TONE


def test_sound_files_by_soundfile() -> None:
    soundfile = pytest.importorskip("soundfile", reason="not installed: vlmkit[audio]")
    for kind, subtype, step in (
        ("FLAC", "PCM_16", 2**-15),
        ("WAV", "FLOAT", 1e-7),
        ("OGG", "VORBIS", 0.1),
        ("MP3", "MPEG_LAYER_III", 0.3),
    ):
        buffer = io.BytesIO()
        soundfile.write(buffer, np.stack([TONE, TONE], 1), 16000, format=kind, subtype=subtype)
        clip = load_clip(buffer)
        assert clip.rate == 16000
        assert np.abs(clip.samples[: len(TONE)] - TONE).max() <= step
        with pytest.raises(VlmkitError, match="max_audio_s"):
            load_clip(buffer, config=PreprocessConfig(max_audio_s=0.05))
        cut = buffer.getvalue()[:50]
        with pytest.raises(VlmkitError, match="audio in memory"):
            load_clip(cut)


def test_resampling_keeps_a_tone() -> None:
    pytest.importorskip("soxr", reason="not installed: vlmkit[audio]")
    for rate in (8000, 22050, 44100, 48000):
        times = np.arange(rate) / rate
        clip = Clip(np.sin(2 * np.pi * 440 * times).astype(np.float32), rate, "a")
        samples = resample(clip, 16000)
        assert len(samples) == 16000
        expected = np.sin(2 * np.pi * 440 * np.arange(16000) / 16000)
        assert np.abs(samples - expected)[400:-400].max() < 1e-3


def test_the_sound_track_of_a_video() -> None:
    av = pytest.importorskip("av", reason="not installed: vlmkit[video]")
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        track = container.add_stream("aac", rate=16000, layout="mono")
        frame = av.AudioFrame.from_ndarray(TONE[None], format="fltp", layout="mono")
        frame.rate = 16000
        for packet in (*track.encode(frame), *track.encode(None)):
            container.mux(packet)
    clip = load_clip(buffer)
    assert clip.rate == 16000
    assert len(clip.samples) >= len(TONE)
    assert np.abs(clip.samples).max() > 0.1


def test_a_list_of_further_files_is_not_followed(tmp_path: Path) -> None:
    pytest.importorskip("av", reason="not installed: vlmkit[video]")
    (tmp_path / "secret.wav").write_bytes(wav(TONE))
    lists = {
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{tmp_path}/secret.wav\n"
        "#EXT-X-ENDLIST\n",
        "concat": f"ffconcat version 1.0\nfile {tmp_path}/secret.wav\n",
    }
    for text in lists.values():
        with pytest.raises(VlmkitError, match=r"not in a known format|corrupt"):
            load_clip(text.encode())
