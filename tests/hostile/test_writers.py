"""No file is lost: what is read, and what is no file, is never written over."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from vlmkit.cli.main import main
from vlmkit.declare.packaged import ASSETS
from vlmkit.errors import VlmkitError
from vlmkit.experiment.recordfile import RecordFile
from vlmkit.experiment.records import Record
from vlmkit.experiment.report import write_report
from vlmkit.experiment.store import claim
from vlmkit.files import append_file, check_target, stream_file, whole_file, write_file


def stream(path: Path) -> None:
    with stream_file(path) as write:
        write(b"new")


def whole(path: Path) -> None:
    with whole_file(path) as file:
        file.write_bytes(b"new")


WRITERS: dict[str, Callable[[Path], object]] = {
    "write_file": lambda path: write_file(path, b"new"),
    "whole_file": whole,
    "stream_file": stream,
    "check_target": check_target,
    "a report": lambda path: write_report(path, "new"),
}


def device(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 7))  # as /dev/full
        os.close(os.open(path, os.O_RDONLY))
    except OSError:
        pytest.skip("needs the right to make and use device nodes")


def unix_socket(path: Path) -> None:
    with contextlib.chdir(path.parent), socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)  # its whole path would be too long


KINDS: dict[str, Callable[[Path], None]] = {
    "pipe": os.mkfifo,
    "device": device,
    "socket": unix_socket,
    "folder": Path.mkdir,
}


PROBLEM = "is a (pipe|device|socket|folder)|[Ii]s a directory"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", WRITERS)
def test_only_files_are_replaced(name: str, kind: str, tmp_path: Path) -> None:
    place = tmp_path / "place"
    KINDS[kind](place)
    (tmp_path / "link").symlink_to(place)
    before = os.stat(place)
    for path in (place, tmp_path / "link"):
        with pytest.raises(VlmkitError, match=PROBLEM):
            WRITERS[name](path)
    after = os.stat(place)
    assert (after.st_ino, after.st_mode, after.st_rdev) == (
        before.st_ino,
        before.st_mode,
        before.st_rdev,
    )
    assert sorted(os.listdir(tmp_path)) == ["link", "place"]


@pytest.mark.parametrize("name", ["write_file", "whole_file", "stream_file", "a report"])
def test_a_link_is_replaced_and_not_followed(name: str, tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("precious")
    (tmp_path / "link").symlink_to("own.txt")
    (tmp_path / "twin").hardlink_to(tmp_path / "own.txt")
    for place in ("link", "twin"):
        WRITERS[name](tmp_path / place)
        assert (tmp_path / place).read_text() == "new"
        assert not (tmp_path / place).is_symlink()
        assert (tmp_path / "own.txt").read_text() == "precious"


def test_a_run_directory_of_others_leads_nowhere_else(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("precious")
    for name in ("records.jsonl", "lock"):
        (tmp_path / name).symlink_to("own.txt")
        with pytest.raises(OSError, match="symbolic links"):
            append_file(tmp_path / name)
    with pytest.raises(VlmkitError, match=r"records\.jsonl: cannot be written: "):
        RecordFile(tmp_path / "records.jsonl").append(Record(arm="a", sample="1", seed=0))
    with pytest.raises(VlmkitError):
        claim(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="is a pipe"):
        append_file(tmp_path / "pipe")
    assert (tmp_path / "own.txt").read_text() == "precious"


def test_a_stream_keeps_the_old_file_until_its_first_piece(tmp_path: Path) -> None:
    path = tmp_path / "run.jsonl"
    path.write_text("old")
    with stream_file(path) as write:
        assert path.read_text() == "old"
        write(b"one")
        assert path.read_text() == "one"
        write(b" two")
        assert path.read_text() == "one two"
    with pytest.raises(KeyError), stream_file(path):
        raise KeyError
    assert (path.read_text(), os.listdir(tmp_path)) == ("one two", ["run.jsonl"])


def trace(folder: Path, *words: str) -> int:
    model = folder / "model"
    flags = ["--model", str(model), "--image", str(folder / "image.png"), "--max-tokens", "1"]
    return main(["trace", str(folder / "run.yaml"), *flags, "--prompt", "Hi", *words])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    shutil.copytree(ASSETS / "shapes", tmp_path / "model", ignore=shutil.ignore_patterns("samples"))
    shutil.copy(ASSETS / "shapes" / "samples" / "count_all.png", tmp_path / "image.png")
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / "part.yaml").write_text("seed: 1\n")
    (tmp_path / "run.yaml").write_text("include: parts/part.yaml\n")
    (tmp_path / "link.png").symlink_to("image.png")
    return tmp_path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("flag", "name"),
    [
        ("--out", "image.png"),
        ("--picture", "link.png"),
        ("--out", "run.yaml"),
        ("--out", "parts/part.yaml"),
        ("--out", "parts/../parts/part.yaml"),
        ("--out", "model/config.json"),
        ("--out", "model/model.safetensors"),
    ],
)
def test_a_trace_is_not_written_over_what_it_reads(
    flag: str, name: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(folder)
    assert trace(folder, flag, str(folder / name)) == 2
    message = capsys.readouterr().err
    assert message.startswith(f"vlmkit: error: {flag} {folder / name}: would write over ")
    assert message.count("\n") == 1
    assert contents(folder) == before


@pytest.mark.parametrize("flag", ["--out", "--picture"])
def test_a_trace_replaces_no_pipe(
    flag: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(folder / "pipe.svg")
    (folder / "to_pipe.svg").symlink_to("pipe.svg")
    for name in ("pipe.svg", "to_pipe.svg"):
        assert trace(folder, flag, str(folder / name)) == 2
        assert capsys.readouterr().err.endswith(": is a pipe, not a file; give another name\n")
    assert stat.S_ISFIFO(os.stat(folder / "pipe.svg").st_mode)


def test_a_saved_trace_is_not_drawn_over(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert trace(folder, "--out", str(folder / "run.svg")) == 0
    before = contents(folder)
    words = ["trace", "--from", str(folder / "run.svg"), "--picture", str(folder / "run.svg")]
    assert main(words) == 2
    assert "would write over" in capsys.readouterr().err
    assert contents(folder) == before
