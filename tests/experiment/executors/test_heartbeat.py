"""Heartbeats: silence alone makes a worker dead, by the clock of the one that listens."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from vlmkit.experiment.executors import heartbeat as module
from vlmkit.experiment.executors.heartbeat import STOP, Heartbeat

LEASE_S = 0.4


def beating(folder: Path, worker: str, on_stop: Callable[[], None] = lambda: None) -> Heartbeat:
    return Heartbeat(folder, worker, lease_s=LEASE_S, on_stop=on_stop)


def silent(folder: Path, worker: str, lease_s: float = LEASE_S) -> Path:
    """What a killed worker leaves."""
    path = folder / f"{worker}.beat"
    path.write_text(f"{lease_s:.6f} {7:012d}\n")
    return path


def wait_until_dead(own: Heartbeat, worker: str) -> float:
    began = time.monotonic()
    while not own.is_dead(worker):
        assert time.monotonic() - began < 60, "it was never held for dead"
        time.sleep(0.01)
    return time.monotonic() - began


def test_a_live_worker_is_not_dead_and_a_killed_one_is_after_its_lease(tmp_path: Path) -> None:
    silent(tmp_path, "killed")
    with beating(tmp_path, "own") as own, beating(tmp_path, "other"):
        assert not own.is_dead("other")
        seconds = wait_until_dead(own, "killed")
        # A look may follow the first question at once.
        assert seconds >= LEASE_S - own.every_s
        assert not own.is_dead("other")
    assert [path.name for path in tmp_path.iterdir()] == ["killed.beat"]


def test_a_worker_has_the_lease_that_it_wrote(tmp_path: Path) -> None:
    silent(tmp_path, "short", lease_s=LEASE_S / 4)
    silent(tmp_path, "long", lease_s=1000)
    with beating(tmp_path, "own") as own:
        assert not own.is_dead("long")
        wait_until_dead(own, "short")
        time.sleep(2 * LEASE_S)
        assert not own.is_dead("long")


def test_one_that_ended_needs_no_waiting_for(tmp_path: Path) -> None:
    with beating(tmp_path, "own") as own:
        with beating(tmp_path, "other"):
            assert not own.is_dead("other")
        assert own.is_dead("other")
        assert own.is_dead("never there")


def test_no_clock_of_a_file_or_a_machine_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = silent(tmp_path, "old")
    os.utime(path, (0, 0))
    with beating(tmp_path, "own") as own, beating(tmp_path, "other"):
        assert not own.is_dead("old"), "its file is old, and yet it was seen just now"
        monkeypatch.setattr(time, "time", lambda: 4e9)
        for _ in range(3):
            os.utime(path, (4e9, 4e9))
            assert not own.is_dead("other")
            time.sleep(LEASE_S / 2)
        assert own.is_dead("old"), "touching a file is no sign of life"


def test_a_pause_of_the_one_that_looks_makes_nobody_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent(tmp_path, "paused too")
    real, jump = time.monotonic, [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: real() + jump[0])
    own = beating(tmp_path, "own")
    assert not own.is_dead("paused too")
    jump[0] = 10_000.0
    own._look()
    assert not own.is_dead("paused too")
    for _ in range(3):
        jump[0] += own.every_s * 2
        own._look()
    assert own.is_dead("paused too")


def test_a_file_asks_to_stop_also_one_that_begins_later(tmp_path: Path) -> None:
    asked: list[str] = []
    with beating(tmp_path, "own", lambda: asked.append("own")):
        assert asked == []
        (tmp_path / STOP).touch()
        began = time.monotonic()
        while not asked:
            assert time.monotonic() - began < 60
            time.sleep(0.01)
    with beating(tmp_path, "later", lambda: asked.append("later")):
        assert "later" in asked


def test_one_that_cannot_say_that_it_lives_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    with beating(tmp_path, "own", lambda: asked.append("own")) as own:

        def fail(*_: object) -> int:
            raise OSError(5, "Input/output error")

        monkeypatch.setattr(module.os, "pwrite", fail)
        began = time.monotonic()
        while not asked:
            assert time.monotonic() - began < 60
            time.sleep(0.01)
        assert "Input/output error" in str(own.failure)
