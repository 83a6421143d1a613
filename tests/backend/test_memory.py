"""How much memory is said to be left."""

from __future__ import annotations

from pathlib import Path

import psutil
import pytest

from vlmkit.backend import memory

GIB = 2**30


class Memory:
    """What the system reports."""

    available = 3 * GIB


def group(folder: Path, limit: str, stat: str) -> Path:
    (folder / "memory.max").write_text(limit)
    (folder / "memory.stat").write_text(stat)
    return folder


@pytest.mark.parametrize(
    ("limit", "stat", "left"),
    [
        ("1000\n", "anon 300\nfile 600\n", 700),  # the page cache makes room
        ("1000\n", "anon 1200\nfile 0\n", 0),
        ("max\n", "anon 300\nfile 600\n", None),
        ("1000\n", "file 600\n", None),
        ("1000\n", "what is this\n", None),
    ],
)
def test_what_a_container_has_left(tmp_path: Path, limit: str, stat: str, left: int | None) -> None:
    assert memory.group_bytes(group(tmp_path, limit, stat)) == left


def test_without_a_container_there_is_no_limit(tmp_path: Path) -> None:
    assert memory.group_bytes(tmp_path) is None


@pytest.mark.parametrize(
    ("container", "left"), [(f"{GIB}", GIB - 300), (f"{9 * GIB}", 3 * GIB), ("max", 3 * GIB)]
)
def test_the_smaller_of_system_and_container_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, container: str, left: int
) -> None:
    monkeypatch.setattr(memory, "system_bytes", lambda: 3 * GIB)
    assert memory.available_bytes(group(tmp_path, container, "anon 300")) == left


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("MemTotal:  99 kB\nMemAvailable:  7 kB\n", 7 * 1024),
        ("MemTotal:  99 kB\n", 3 * GIB),  # where the file does not say it, psutil is asked
        ("MemAvailable: much\n", 3 * GIB),
        ("MemAvailable:\n", 3 * GIB),
        ("MemAvailable\n", 3 * GIB),
        (None, 3 * GIB),
    ],
)
def test_what_the_system_has_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, left: int
) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", Memory)
    if text is not None:
        (tmp_path / "meminfo").write_text(text)
    assert memory.system_bytes(tmp_path / "meminfo") == left


def test_a_system_that_hides_its_numbers_is_unknown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hidden() -> None:
        raise PermissionError(13, "Permission denied", "/proc/meminfo")

    monkeypatch.setattr(psutil, "virtual_memory", hidden)
    assert memory.system_bytes(tmp_path / "meminfo") is None
    monkeypatch.setattr(memory, "system_bytes", lambda: None)
    assert memory.available_bytes(tmp_path) is None
    assert memory.available_bytes(group(tmp_path, "1000", "anon 300")) == 700


def test_this_system_has_some_memory_left() -> None:
    left = memory.available_bytes()
    assert left is not None
    assert 0 < left < psutil.virtual_memory().total
