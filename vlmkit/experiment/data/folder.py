"""A folder of images and one question about each of them."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

import msgspec
from pydantic import AfterValidator, Field

from vlmkit.errors import VlmkitError, nearest
from vlmkit.experiment.data.base import DataConfig, Rows
from vlmkit.experiment.data.files import (
    MAX_ANSWERS_BYTES,
    read_data,
    resolve_file,
    resolve_folder,
)
from vlmkit.experiment.samples import Sample
from vlmkit.files import check_keys

SUFFIXES = (
    *(".avif", ".bmp", ".gif", ".ico", ".jp2", ".jpeg", ".jpg", ".mpo", ".pgm", ".png", ".ppm"),
    *(".tga", ".tif", ".tiff", ".webp"),
)


def _is_pattern(text: str) -> str:
    try:
        groups = re.compile(text).groups
    except re.error as error:
        raise ValueError(f"is no regular expression ({error}): {text!r}") from None
    if groups != 1:
        raise ValueError(f"needs one group (…) around the answer, {text!r} has {groups}")
    return text


class ImagesConfig(DataConfig):
    """Every image of a folder, in the order of their names, with the same question."""

    kind: Literal["images"] = "images"
    path: str = Field(min_length=1, description="the folder, relative to the file that names it")
    question: str = Field(min_length=1, description="what is asked about every image")
    recursive: bool = Field(default=False, description="also the images in folders inside it")
    answers: str | None = Field(
        default=None,
        description="a .json file {name: answer or answers}, or a .csv or .tsv file with the "
        "columns file and answer; null: none",
    )
    answer_pattern: Annotated[str, AfterValidator(_is_pattern)] | None = Field(
        default=None,
        description="a regular expression for the whole name without its suffix, whose one group "
        "is the answer, as '(.+)_[0-9]+'; null: names hold no answers",
    )


def images(config: ImagesConfig, base: Path) -> Rows:
    """List the images of a folder.

    Raises:
        VlmkitError: no such folder; answers of unknown images; a name that the pattern does not
            fit.
    """
    folder = resolve_folder(config.path, base, "dataset.path")
    found = folder.rglob("*") if config.recursive else folder.iterdir()
    paths = sorted(path for path in found if path.suffix.lower() in SUFFIXES and path.is_file())
    ids = [path.relative_to(folder).as_posix() for path in paths]
    answers = _answers(config, base, ids)
    if not ids:
        raise VlmkitError(f"{folder}: no images in it (looked for {', '.join(SUFFIXES)})")
    if config.answer_pattern is not None:
        pattern = re.compile(config.answer_pattern)
        answers = {
            name: answers.get(name, (_answer_in_name(path, pattern),))
            for name, path in zip(ids, paths, strict=True)
        }

    def read(index: int) -> Sample:
        return Sample(
            id=ids[index],
            question=config.question,
            images=(str(paths[index]),),
            answers=tuple(answers.get(ids[index], ())),
            where=str(paths[index]),
        )

    return Rows(ids, read, read, lambda index: str(paths[index]), source=str(folder))


def _answer_in_name(path: Path, pattern: re.Pattern[str]) -> str:
    match = pattern.fullmatch(path.stem)
    if match is None or match[1] is None:
        raise VlmkitError(f"{path}: dataset.answer_pattern {pattern.pattern!r} does not fit it")
    return match[1]


def _answers(config: ImagesConfig, base: Path, ids: Sequence[str]) -> dict[str, Sequence[str]]:
    if config.answers is None:
        return {}
    path = resolve_file(config.answers, base, "dataset.answers")
    read = _read_json if path.suffix.lower() == ".json" else _read_table
    answers = read(path)
    known = set(ids)
    for name, (_, where) in answers.items():
        if name not in known:
            raise VlmkitError(f"{where}: {name!r} is no image of the folder{nearest(name, ids)}")
    return {name: texts for name, (texts, _) in answers.items()}


Located = Mapping[str, tuple[Sequence[str], str]]
"""Image name -> its answers and where they are written."""


def _read_json(path: Path) -> Located:
    answers = read_data(path, MAX_ANSWERS_BYTES)
    try:
        check_keys(answers)
        content = msgspec.json.decode(answers, type=dict[str, str | list[str]])
    except (ValueError, RecursionError) as error:
        raise VlmkitError(f"{path}: must be a JSON object {{name: answer}} ({error})") from error
    return {
        name: ((answer,) if isinstance(answer, str) else answer, str(path))
        for name, answer in content.items()
    }


def _read_table(path: Path) -> Located:
    delimiter = {".csv": ",", ".tsv": "\t"}.get(path.suffix.lower())
    if delimiter is None:
        raise VlmkitError(f"dataset.answers: {path}: must be a .json, .csv or .tsv file")
    found: dict[str, tuple[Sequence[str], str]] = {}
    content = read_data(path, MAX_ANSWERS_BYTES)
    try:
        lines = content.decode("utf-8-sig").splitlines(keepends=True)
        reader = csv.DictReader(lines, delimiter=delimiter, strict=True)
        if reader.fieldnames is None or not {"file", "answer"} <= set(reader.fieldnames):
            raise VlmkitError(f"{path}:1: needs the columns file and answer")
        for row in reader:
            where = f"{path}:{reader.line_num}"
            if row["file"] in found:
                raise VlmkitError(f"{where}: {row['file']!r} has an answer already")
            if row["answer"] is None:
                raise VlmkitError(f"{where}: no answer in this row")
            found[row["file"]] = ((row["answer"],), where)
    except (csv.Error, UnicodeDecodeError) as error:
        raise VlmkitError(f"{path}: not a table ({error})") from error
    return found
