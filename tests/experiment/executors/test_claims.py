"""Claims: one owner at a time, whoever dies and whatever the clocks say."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from vlmkit.errors import VlmkitError
from vlmkit.experiment.executors import claims as module
from vlmkit.experiment.executors.claims import Claims
from vlmkit.experiment.executors.shares import share_size


def claims(folder: Path, worker: str, *dead: str, lease_s: float = 60.0) -> Claims:
    return Claims(folder, worker, is_dead=lambda name: name in dead, lease_s=lease_s)


def chain(folder: Path, share: str) -> list[str]:
    """The owners of a share, first to last."""
    files = sorted(folder.glob(f"{share}.*"), key=lambda path: int(path.suffix[1:]))
    return [path.read_text() for path in files]


def test_every_share_has_one_owner_however_many_workers_want_it(tmp_path: Path) -> None:
    shares = [f"0-{number}-{number + 1}" for number in range(40)]
    barrier, taken = threading.Barrier(8), []

    def want(worker: str) -> None:
        own = claims(tmp_path, worker)
        barrier.wait()
        taken.extend((share, worker) for share in shares if own.take(share))

    threads = [threading.Thread(target=want, args=(f"worker-{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(share for share, _ in taken) == sorted(shares)
    assert all(chain(tmp_path, share) == [worker] for share, worker in taken)


def test_a_dead_workers_share_has_one_heir(tmp_path: Path) -> None:
    assert claims(tmp_path, "dead").take("s")
    barrier, heirs = threading.Barrier(8), []

    def want(worker: str) -> None:
        own = claims(tmp_path, worker, "dead")
        barrier.wait()
        if own.take("s"):
            heirs.append(worker)

    threads = [threading.Thread(target=want, args=(f"worker-{n}",)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    (heir,) = heirs
    assert chain(tmp_path, "s") == ["dead", heir]


def test_who_was_held_for_dead_finds_that_its_share_is_gone(tmp_path: Path) -> None:
    slow, heir = claims(tmp_path, "slow"), claims(tmp_path, "heir", "slow")
    assert slow.take("s")
    assert slow.holds("s")
    assert not slow.take("s"), "it is at work on it"
    assert heir.take("s")
    assert not slow.holds("s")
    slow.release("s")
    assert chain(tmp_path, "s") == ["slow", "heir"], "it gave away what was not its own"
    assert not slow.take("s")


def test_a_share_that_was_given_back_is_free_at_once(tmp_path: Path) -> None:
    first, second = claims(tmp_path, "first"), claims(tmp_path, "second")
    assert first.take("s")
    assert not second.take("s")
    first.release("s")
    assert second.take("s")
    assert chain(tmp_path, "s") == ["first", "nobody", "second"]
    second.forget("s")
    assert second.held == set()


def test_a_file_without_a_name_is_waited_for_by_a_monotonic_clock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "s.1").touch()  # its maker was killed before it wrote
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    own = claims(tmp_path, "own", lease_s=5)
    assert not own.take("s")
    now[0] += 4.9
    assert not own.take("s")
    now[0] += 0.2
    assert own.take("s")
    assert chain(tmp_path, "s") == ["", "own"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    own = claims(tmp_path / "claims", "own")
    (tmp_path / "claims").rmdir()
    with pytest.raises(VlmkitError, match=r"claims/s\.1: cannot be written: .*records are kept"):
        own.take("s")
    with pytest.raises(VlmkitError, match=r"^/proc/claims: cannot be written"):
        claims(Path("/proc/claims"), "own")


@pytest.mark.parametrize("num_samples", [1, 12, 999, 10_000])
@pytest.mark.parametrize("units", [1, 7, 80, 5000])
def test_shares_are_enough_for_many_workers_and_fill_a_batch_at_most(
    num_samples: int, units: int
) -> None:
    size = share_size(num_samples, units)
    assert size >= 1
    assert size == 1 or size * units < 64 + units
    assert num_samples / size >= min(num_samples, 32)
