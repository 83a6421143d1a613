"""From a row with named values to a sample."""

from __future__ import annotations

import re
from collections.abc import Container, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from pydantic import Field

from vlmkit.errors import VlmkitError, nearest
from vlmkit.experiment.choices import choices_of
from vlmkit.experiment.data.base import DataConfig
from vlmkit.experiment.data.images import locate_image
from vlmkit.experiment.samples import Sample
from vlmkit.experiment.shown import listed, short
from vlmkit.printable import quoted

IMAGE_NAMES = ("images", "image")
ANSWER_NAMES = ("answers", "answer")
MAX_COLUMNS = 10_000
"""Of a data set: the widest in use have some hundred."""
MAX_TEXT_CHARS = 10_000_000
"""Of a text in a row that is no image: more than the context of any model takes."""
MAX_ID_CHARS = 1_000
"""Of a sample's id, which stands in each of its records."""
_PLACE = re.compile(r"\{(\w+)\}")


class ColumnsConfig(DataConfig):
    """Which value of a row is what. The others are kept as the sample's fields."""

    id_key: str | None = Field(
        default=None, description="null: 'id' where the rows have one, else the row's number"
    )
    question_key: str = Field(default="question", description="what is asked")
    images_key: str | tuple[str, ...] | None = Field(
        default=None,
        description="an image or a list of them, or several keys of which each may be empty, as "
        "[image_1, image_2]; null: 'images' or 'image' where a row has it",
    )
    answers_key: str | None = Field(
        default=None,
        description="a reference or a list; null: 'answers' or 'answer' where a row has it",
    )
    prompt: str = Field(
        default="{question}",
        description="the user's text: {question}, {choices} (A. … a line each), or any other key",
    )


def check_columns(number: int, where: str) -> None:
    """Refuse a row or a table with more columns than a data set has.

    Raises:
        VlmkitError: begins with ``where``.
    """
    if number > MAX_COLUMNS:
        raise VlmkitError(f"{where}: {number:,} columns; a data set has at most {MAX_COLUMNS:,}")


def check_texts(values: Mapping[str, Any], images: Container[str], where: str) -> None:
    """Refuse a row with a text that no model could read; ``images`` are the keys of its images.

    Raises:
        VlmkitError: begins with ``where``.
    """
    for key, value in values.items():
        for item in () if key in images else as_list(value):
            if isinstance(item, str | bytes) and len(item) > MAX_TEXT_CHARS:
                raise VlmkitError(
                    f"{where}: {key}: {len(item):,} characters; a text of a row may have "
                    f"{MAX_TEXT_CHARS:,}"
                )


class Row(NamedTuple):
    """One row of a file."""

    values: Mapping[str, Any]
    number: int  # from 1, which the id is where there is none
    where: str


def row_id(config: ColumnsConfig, row: Row) -> str:
    """The id of a row.

    Raises:
        VlmkitError: the key is missing, or the value is neither text nor a whole number.
    """
    if config.id_key is None and "id" not in row.values:
        return str(row.number)
    key = config.id_key or "id"
    value = _value(row, key)
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise VlmkitError(
            f"{row.where}: {key}: an id is text or a whole number, got {short(value)}"
        )
    if len(quoted(value)) > MAX_ID_CHARS:
        raise VlmkitError(f"{row.where}: {key}: an id has at most {MAX_ID_CHARS:,} characters")
    return str(value)


def to_sample(config: ColumnsConfig, row: Row, *, folder: Path) -> Sample:
    """Make a sample of a row; paths are relative to ``folder``.

    Raises:
        VlmkitError: a key is missing, or its value is of a wrong type.

    Example:
        >>> row = Row({"question": "How many?", "answer": 3, "image": "a.png"}, 1, "d.jsonl:1")
        >>> sample = to_sample(ColumnsConfig(), row, folder=Path("/data"))
        >>> sample.images, sample.answers
        (('/data/a.png',), ('3',))
    """
    images_keys = image_keys(config, row.values)
    check_texts(row.values, images_keys, row.where)
    answers_key = config.answers_key or _first(ANSWER_NAMES, row.values)
    images = [(item, key) for key in images_keys for item in as_list(_value(row, key))]
    answers = [] if answers_key is None else as_list(_value(row, answers_key))
    question = _value(row, config.question_key)
    if not isinstance(question, str):
        raise VlmkitError(
            f"{row.where}: {config.question_key}: must be text, got {short(question)}"
        )
    taken = {config.question_key, *images_keys, answers_key}
    fields = {key: value for key, value in row.values.items() if key not in taken}
    return Sample(
        id=row_id(config, row),
        question=fill(config.prompt, question, row),
        images=tuple(_image(item, f"{row.where}: {key}", folder) for item, key in images),
        answers=tuple(_answer(item, f"{row.where}: {answers_key}") for item in answers),
        fields=fields,
        where=row.where,
    )


def fill(prompt: str, question: str, row: Row) -> str:
    """Put a row's values into a prompt; other braces stay.

    Raises:
        VlmkitError: the row lacks a key.

    Example:
        >>> row = Row({"choices": ["red", "blue"]}, 1, "d.jsonl:1")
        >>> print(fill("{question} {x:1}\\n{choices}\\nOne letter.", "Which?", row))
        Which? {x:1}
        A. red
        B. blue
        One letter.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1]
        if name == "question":
            return question
        choices = choices_of(row.values) if name == "choices" else {}
        if choices:
            return "\n".join(f"{letter}. {text}" for letter, text in choices.items())
        return str(_value(row, name, "prompt: "))

    return _PLACE.sub(value, prompt)


def as_list(value: Any) -> list[Any]:
    """One item or several as a list; None is none."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def image_keys(config: ColumnsConfig, names: Container[str]) -> tuple[str, ...]:
    """The keys of a row that hold images.

    Example:
        >>> image_keys(ColumnsConfig(), ["question", "image"])
        ('image',)
    """
    if isinstance(config.images_key, tuple):
        return config.images_key
    key = config.images_key or _first(IMAGE_NAMES, names)
    return () if key is None else (key,)


def _first(candidates: Sequence[str], names: Container[str]) -> str | None:
    return next((name for name in candidates if name in names), None)


def _value(row: Row, key: str, prefix: str = "") -> Any:
    if key not in row.values:
        names = listed(row.values)
        near = nearest(key, row.values)
        raise VlmkitError(f"{row.where}: {prefix}no {key!r} in this row{near} (it has: {names})")
    return row.values[key]


def _image(item: Any, where: str, folder: Path) -> str | bytes:
    if isinstance(item, Mapping) and item.keys() <= {"bytes", "path"}:  # as `datasets` keeps them
        item = item.get("bytes") or item.get("path")
    if isinstance(item, bytes) and item:
        return item
    if isinstance(item, str) and item:
        return locate_image(item, folder)
    raise VlmkitError(f"{where}: must be a path, a URL or a list of them, got {short(item)}")


def _answer(item: Any, where: str) -> str:
    if isinstance(item, str):
        return item
    if isinstance(item, (bool, int, float)):
        return msgspec.json.encode(item).decode()
    if isinstance(item, Mapping) and isinstance(item.get("answer"), str):  # as VQA's files
        return str(item["answer"])
    raise VlmkitError(f"{where}: must be text, a number or a list of them, got {short(item)}")
