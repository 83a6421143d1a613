"""The run directory: nothing is lost, nothing is mixed, and nobody else writes."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from vlmkit.errors import VlmkitError
from vlmkit.experiment.manifest import FILE, FORMAT, Manifest, read_manifest
from vlmkit.experiment.reading import read_records
from vlmkit.experiment.records import Record
from vlmkit.experiment.store import RECORDS, Store, claim, replace_records
from vlmkit.experiment.units import Units

HASHES = {"config": "c", "data": "d", "code": "e", "weights of shapes": "w"}


def manifest(**changes: Any) -> Manifest:
    fields: dict[str, Any] = {
        "name": "study",
        "created": "2026-01-01T00:00:00+00:00",
        "command": ["vlmkit", "run", "study.yaml"],
        "hashes": HASHES,
        "arms": {"a": {"sampling": [{"kind": "temperature", "temperature": 0.5}]}},
        "seeds": [0],
        "baseline": "a",
        "dataset": {"kind": "shapes"},
        "folder": ".",
        "metrics": {},
        "metrics_folder": ".",
        "limits": {},
        "num_units": 3,
        "git": {},
        "versions": {},
        "device": "cpu",
        "system": "here",
    }
    return Manifest(**{**fields, **changes})


def record(number: int) -> Record:
    return Record(arm="a", sample=str(number), seed=0, text=f"text {number}\n", token_ids=[number])


def numbers(folder: Path) -> list[int]:
    return [int(one.sample) for one in read_records(folder / RECORDS)]


def fill(folder: Path, *samples: int) -> None:
    with Store(folder, manifest()) as store:
        for number in samples:
            store.append(record(number))


def test_records_come_back_in_order_and_go_on_where_they_stopped(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "run"
    fill(folder, 0, 1)
    fill(folder, 2)
    assert list(read_records(folder / RECORDS)) == [record(n) for n in range(3)]
    assert read_manifest(folder) == manifest()


@pytest.mark.parametrize("left", range(0, 60, 7))
def test_a_cut_off_last_line_is_removed(tmp_path: Path, left: int) -> None:
    fill(tmp_path, 0, 1)
    whole = (tmp_path / RECORDS).read_bytes()
    first = whole.index(b"\n") + 1
    (tmp_path / RECORDS).write_bytes(whole[: first + left])
    fill(tmp_path, 2)
    assert numbers(tmp_path) == [0, 2]
    assert (tmp_path / RECORDS).read_bytes().count(b"\n") == 2


def test_a_long_cut_off_line_is_removed_in_blocks(tmp_path: Path) -> None:
    fill(tmp_path, 0)
    with (tmp_path / RECORDS).open("ab") as file:
        file.write(b'{"arm":"' + b"x" * 300_000)
    fill(tmp_path, 1)
    assert numbers(tmp_path) == [0, 1]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    fill(tmp_path, 0, 1, 2)
    lines = (tmp_path / RECORDS).read_bytes().splitlines(keepends=True)
    (tmp_path / RECORDS).write_bytes(lines[0] + b"{nothing}\n" + lines[2])
    units = Units(["a"], ["0", "1", "2"], [0])
    with pytest.raises(VlmkitError, match=rf"{RECORDS}:2: no record of a run"):
        units.read(tmp_path)


def test_a_record_of_no_unit_is_named(tmp_path: Path) -> None:
    fill(tmp_path, 0)
    with pytest.raises(VlmkitError, match=r":1: 'a' is no part of this experiment"):
        Units(["b"], ["0"], [0]).read(tmp_path)


def test_the_file_ends_as_before_when_the_disk_is_full(tmp_path: Path) -> None:
    fill(tmp_path, 0)
    size = (tmp_path / RECORDS).stat().st_size
    long = Record(arm="a", sample="1", seed=0, text="x" * 5000)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    with Store(tmp_path, manifest()) as store:
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 1000, hard))
        try:
            with pytest.raises(VlmkitError, match=r"records\.jsonl: cannot be written: .*go on"):
                store.append(long)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert (tmp_path / RECORDS).stat().st_size == size
        store.append(record(2))
    assert numbers(tmp_path) == [0, 2]


def newer(folder: Path) -> None:
    fields = json.loads((folder / FILE).read_text())
    (folder / FILE).write_text(json.dumps({**fields, "format": FORMAT + 1, "arms": "other"}))


def no_manifest(folder: Path) -> None:
    (folder / FILE).unlink()


def broken(folder: Path) -> None:
    (folder / FILE).write_text('{"format": 1}')


REFUSED: dict[str, tuple[Callable[[Path], object], str]] = {
    "newer": (newer, rf"written by a newer vlmkit \(format {FORMAT + 1}, this one knows {FORMAT}"),
    "not one": (no_manifest, "holds 'records.jsonl' and is no run directory"),
    "broken": (broken, r"manifest\.json: no manifest of a run"),
    "records are a folder": (
        lambda folder: [(folder / RECORDS).unlink(), (folder / RECORDS).mkdir()],
        r"records\.jsonl: cannot be written: Is a directory",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_run_directory_of_ours_is_refused(tmp_path: Path, case: str) -> None:
    spoil, message = REFUSED[case]
    fill(tmp_path, 0)
    spoil(tmp_path)
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(VlmkitError, match=message):
        Store(tmp_path, manifest())
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted({*before, "lock"})


def test_a_folder_that_cannot_be_made_is_refused() -> None:
    with pytest.raises(VlmkitError, match=r"^/proc/run: cannot be written: .*--out"):
        Store(Path("/proc/run"), manifest())


@pytest.mark.parametrize("name", HASHES)
def test_another_hash_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    fill(tmp_path, 0)
    with pytest.raises(VlmkitError, match=f"holds a run of another {name}") as caught:
        Store(tmp_path, manifest(hashes={**HASHES, name: "other"}))
    assert "--force-new" in str(caught.value)
    assert numbers(tmp_path) == [0]


def test_a_changed_config_names_the_key(tmp_path: Path) -> None:
    fill(tmp_path, 0)
    arms = {"a": {"sampling": [{"kind": "temperature", "temperature": 0.7}]}}
    changed = manifest(hashes={**HASHES, "config": "x"}, arms=arms, seeds=[0, 1])
    with pytest.raises(VlmkitError, match=r"temperature was 0\.5, is 0\.7, and 1 more"):
        Store(tmp_path, changed)


def test_force_new_keeps_the_old_run_beside_it(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    for number in range(3):
        with Store(folder, manifest(hashes={"code": str(number)}), force_new=True) as store:
            store.append(record(number))
    assert [numbers(path) for path in (folder, tmp_path / "run.1", tmp_path / "run.2")] == [
        [2],
        [0],
        [1],
    ]


def test_a_second_writer_is_refused(tmp_path: Path) -> None:
    with Store(tmp_path, manifest()):
        with pytest.raises(VlmkitError, match=rf"another process \(pid {os.getpid()}\) is writing"):
            Store(tmp_path, manifest())
        with pytest.raises(VlmkitError, match="is writing to it"):
            Store(tmp_path, manifest(), force_new=True)
    os.close(claim(tmp_path))


def test_a_dead_writer_holds_no_lock(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys; sys.path.insert(0, '.')\n"
        "from pathlib import Path\n"
        "from tests.experiment.test_store import Store, manifest, record\n"
        f"store = Store(Path({str(tmp_path)!r}), manifest())\n"
        "store.append(record(0))\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    root = Path(__file__).parent.parent.parent
    reply = subprocess.run([sys.executable, "-c", script], cwd=root, check=False)
    assert reply.returncode == -9
    fill(tmp_path, 1)
    assert numbers(tmp_path) == [0, 1]


def test_records_are_replaced_as_a_whole(tmp_path: Path) -> None:
    fill(tmp_path, 0, 1)

    def failing() -> Any:
        yield record(7)
        raise VlmkitError("no more")

    with pytest.raises(VlmkitError, match="no more"):
        replace_records(tmp_path, failing())
    assert numbers(tmp_path) == [0, 1]
    assert replace_records(tmp_path, iter([record(5)])) == 1
    assert numbers(tmp_path) == [5]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([FILE, RECORDS, "lock"])


def test_a_record_of_a_later_field_can_be_read(tmp_path: Path) -> None:
    fill(tmp_path, 0)
    line = msgspec.json.decode((tmp_path / RECORDS).read_bytes())
    (tmp_path / RECORDS).write_bytes(msgspec.json.encode({**line, "later": 1}) + b"\n")
    assert numbers(tmp_path) == [0]
