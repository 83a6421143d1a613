"""VLMEvalKit's TSV files.

One row a sample: ``index``, ``question``, ``answer``, choices in ``A``, ``B``, …, and its images in
base64 (``image``) or as files (``image_path``), several of them as a Python list. An ``image`` of
at most 64 characters is the index of the row that has the image.

Reference: open-compass/VLMEvalKit, vlmeval/dataset/image_base.py (rows and images) and
vlmeval/dataset/image_mcq.py (the prompt of a question with choices).
"""

from __future__ import annotations

import base64
import binascii
import csv
import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

from pydantic import Field

from vlmkit.errors import VlmkitError, nearest
from vlmkit.experiment.choices import choices_of, text_list
from vlmkit.experiment.data.base import DataConfig, Rows, check_count
from vlmkit.experiment.data.columns import Row, check_columns, check_texts, fill
from vlmkit.experiment.data.files import MAX_LINE_BYTES, data_lines, open_data, resolve_file
from vlmkit.experiment.data.images import locate_image
from vlmkit.experiment.samples import Sample
from vlmkit.experiment.shown import listed

LONGEST_REFERENCE = 64  # characters; a longer image cell is an image
END = "\x04"  # stands after the last line, so that a quote that never ends is seen
REQUIRED = ("index", "question")
_TAKEN = ("index", "question", "answer", "image", "image_path")


class TsvConfig(DataConfig):
    """A file of VLMEvalKit, with its columns."""

    kind: Literal["tsv"] = "tsv"
    path: str = Field(min_length=1, description="the file, relative to the file that names it")
    md5: str | None = Field(
        default=None,
        pattern="^[0-9a-f]{32}$",
        description="what the file's md5 must be, as VLMEvalKit lists it; null: any",
    )
    prompt: str | None = Field(
        default=None,
        description="the user's text: {question}, {choices} or any column; null: the question, and "
        "with choices VLMEvalKit's prompt",
    )


class _Table(NamedTuple):
    path: Path
    columns: tuple[str, ...]
    ids: list[str]
    starts: list[int]  # of each row, in bytes
    lines: list[int]
    images: list[int]  # the row that has this row's images


def tsv(config: TsvConfig, base: Path) -> Rows:
    """Read the index of a TSV file and where each row begins.

    Raises:
        VlmkitError: the file can't be read, has another md5, lacks a column; a row is cut short or
            refers to a row without an image.
    """
    path = resolve_file(config.path, base, "dataset.path")
    if config.md5 is not None:
        _check_md5(path, config.md5)
    table = _scan(path)

    def where(index: int) -> str:
        return f"{path}:{table.lines[index]}"

    def read_text(index: int) -> Sample:
        return _sample(config, _cells(table, index), where(index))

    def read(index: int) -> Sample:
        cells, owner = _cells(table, index), table.images[index]
        owning = cells if owner == index else _cells(table, owner)
        sample = _sample(config, cells, where(index))
        return sample._replace(images=_images(owning, path.parent, where(owner)))

    return Rows(table.ids, read, read_text, where, source=str(path))


def _scan(path: Path) -> _Table:
    table = _Table(path, _columns(path), [], [], [], [])
    references: dict[int, str] = {}
    with open_data(path) as file, _large_cells():
        place = _Place(file, path)
        reader = csv.reader(place.lines(), delimiter="\t")
        _next(reader, path, 1)  # the header
        while True:
            start, line = place.begin_row(), place.line + 1
            cells = _next(reader, path, line)
            if cells == [END]:
                break
            if not cells:
                continue
            if cells[-1].endswith(END):
                raise VlmkitError(f"{path}:{line}: a cell opens with a quote that never ends")
            if len(cells) != len(table.columns):
                raise VlmkitError(
                    f"{path}:{line}: {len(cells)} cells, the header names {len(table.columns)}"
                )
            row = dict(zip(table.columns, cells, strict=True))
            if not row["index"]:
                raise VlmkitError(f"{path}:{line}: index: is empty")
            table.images.append(len(table.ids))
            if 0 < len(image := row.get("image", "")) <= LONGEST_REFERENCE:
                references[len(table.ids)] = image
            table.ids.append(row["index"])
            table.starts.append(start)
            table.lines.append(line)
            check_count(len(table.ids), f"{path}:{line}")
    _resolve_references(table, references)
    return table


def _resolve_references(table: _Table, references: Mapping[int, str]) -> None:
    rows = {name: row for row, name in enumerate(table.ids)}
    for row, name in references.items():
        owner = rows.get(name)
        if owner is None or owner in references:
            reason = "is no row's index" if owner is None else "is a row without an image"
            raise VlmkitError(
                f"{table.path}:{table.lines[row]}: image: {name!r} {reason}; an image of at most "
                f"{LONGEST_REFERENCE} characters is the index of the row that has it"
            )
        table.images[row] = owner


class _Place:
    """The lines of a file and their end, and how far they were read."""

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._lines = data_lines(file, path)
        self._path = path
        self._row_start = 0
        self.offset = 0
        self.line = 0

    def begin_row(self) -> int:
        """Where the next row starts, which is not to be longer than a line may be."""
        self._row_start = self.offset
        return self.offset

    def lines(self) -> Iterator[str]:
        for line in self._lines:
            self.offset += len(line)
            self.line += 1
            if self.offset - self._row_start > MAX_LINE_BYTES:
                limit = f"{MAX_LINE_BYTES / 2**20:g} MiB"
                raise VlmkitError(f"{self._path}:{self.line}: ends a row of more than {limit}")
            yield line.decode("utf-8-sig" if self.line == 1 else "utf-8")
        yield END


@contextmanager
def _large_cells() -> Iterator[None]:
    before = csv.field_size_limit(MAX_LINE_BYTES)
    try:
        yield
    finally:
        csv.field_size_limit(before)


def _next(reader: Iterator[list[str]], path: Path, line: int) -> list[str]:
    try:
        return next(reader, [END])
    except (csv.Error, UnicodeDecodeError) as error:
        raise VlmkitError(f"{path}:{line}: not a TSV row ({error})") from error


def _columns(path: Path) -> tuple[str, ...]:
    with open_data(path) as file, _large_cells():
        reader = csv.reader(_Place(file, path).lines(), delimiter="\t")
        names = tuple(_next(reader, path, 1))
    names = () if names == (END,) else names
    check_columns(len(names), f"{path}:1")
    for name in REQUIRED:
        if name not in names:
            near = nearest(name, names)
            raise VlmkitError(f"{path}:1: no column {name!r}{near} (it has: {listed(names)})")
    if len(set(names)) < len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise VlmkitError(f"{path}:1: two columns are called {twice!r}")
    return names


def _cells(table: _Table, index: int) -> dict[str, str]:
    with open_data(table.path) as file, _large_cells():
        file.seek(table.starts[index], os.SEEK_SET)
        lines = (line.decode() for line in data_lines(file, table.path))
        reader = csv.reader(lines, delimiter="\t")
        cells = _next(reader, table.path, table.lines[index])
    row = dict(zip(table.columns, cells, strict=False))
    if len(cells) != len(table.columns) or row["index"] != table.ids[index]:
        raise VlmkitError(f"{table.path}:{table.lines[index]}: changed while it is in use")
    return row


def _sample(config: TsvConfig, cells: Mapping[str, str], where: str) -> Sample:
    row = Row({name: cell for name, cell in cells.items() if cell}, 0, where)
    check_texts(row.values, ("image",), where)
    if "question" not in row.values:
        raise VlmkitError(f"{where}: question: is empty")
    question, answer = cells["question"], cells.get("answer", "")
    listed = text_list(answer)
    answers = [answer] if listed is None else [str(item) for item in listed]
    return Sample(
        id=cells["index"],
        question=_prompt(row) if config.prompt is None else fill(config.prompt, question, row),
        answers=tuple(answers) if answer else (),
        fields={name: cell for name, cell in row.values.items() if name not in _TAKEN},
        where=where,
    )


def _prompt(row: Row) -> str:
    """VLMEvalKit's prompt of a question with choices; else the question alone."""
    choices = choices_of(row.values)
    question: str = row.values["question"]
    if not choices:
        return question
    hint = [f"Hint: {row.values['hint']}"] if "hint" in row.values else []
    options = [f"{letter}. {text}" for letter, text in choices.items()]
    last = "Please select the correct answer from the options above. "
    return "\n".join([*hint, f"Question: {question}", "Options:", *options, last, ""])


def _images(cells: Mapping[str, str], folder: Path, where: str) -> tuple[str | bytes, ...]:
    if image := cells.get("image", ""):
        return tuple(_decode(item, where) for item in text_list(image) or [image])
    if path := cells.get("image_path", ""):
        return tuple(locate_image(str(item), folder) for item in text_list(path) or [path])
    return ()


def _decode(text: Any, where: str) -> bytes:
    try:
        return base64.b64decode("".join(str(text).split()), validate=True)
    except (binascii.Error, ValueError) as error:
        raise VlmkitError(f"{where}: image: not valid base64 ({error})") from error


def _check_md5(path: Path, expected: str) -> None:
    with open_data(path) as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != expected:
        raise VlmkitError(f"{path}: its md5 is {found}, dataset.md5 says {expected}; get it again")
