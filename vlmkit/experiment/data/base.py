"""What every data set shares: which samples are taken, and how they are read when they are needed.

Opening a data set reads its ids; a sample is made each time it is asked for, so that a data set of
any size costs no more memory than its ids and places.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, overload

from pydantic import Field

from vlmkit.declare.configbase import Int, StageConfig
from vlmkit.errors import VlmkitError
from vlmkit.experiment.samples import Sample

MAX_SAMPLES = 2_000_000
"""Of a data set, whose ids are held in memory; the largest for evaluation have half a million."""


class DataConfig(StageConfig):
    """Which samples of a data set are taken."""

    limit: Int | None = Field(default=None, ge=1, description="at most so many; null: all")
    offset: Int = Field(default=0, ge=0, description="leave out so many at the beginning")
    shuffle_seed: Int | None = Field(
        default=None, ge=0, description="shuffle before offset and limit; null: in their order"
    )


class Rows(NamedTuple):
    """A data set as one kind of file gives it, before some of its samples are taken."""

    ids: Sequence[str]
    read: Callable[[int], Sample]  # by position in ``ids``
    read_text: Callable[[int], Sample]  # the same without its images
    where: Callable[[int], str]  # file and line, for messages
    content: Callable[[int], Sequence[bytes]] | None = None  # what the images are, for the hash
    source: str = "dataset"  # the file or folder, for messages


class Samples(Sequence[Sample]):
    """The samples that a config takes, in their order; each is read when it is asked for.

    Example:
        >>> def read(row):
        ...     return Sample(id=str(row), question="?")
        >>> rows = Rows(["0", "1", "2"], read, read, str)
        >>> samples = take(rows, DataConfig(offset=1))
        >>> samples.ids, samples[0].id, [sample.id for sample in samples]
        (('1', '2'), '1', ['1', '2'])
    """

    def __init__(self, rows: Rows, order: Sequence[int]) -> None:
        self._rows = rows
        self._order = order
        self.ids: tuple[str, ...] = tuple(rows.ids[row] for row in order)

    def __len__(self) -> int:
        return len(self._order)

    @overload
    def __getitem__(self, index: int) -> Sample: ...

    @overload
    def __getitem__(self, index: slice) -> Samples: ...

    def __getitem__(self, index: int | slice) -> Sample | Samples:
        if isinstance(index, slice):
            return Samples(self._rows, self._order[index])
        return self._rows.read(self._order[index])

    def texts(self) -> Iterator[Sample]:
        """Every sample without its images, which is cheaper: no image is decoded or drawn."""
        return map(self._rows.read_text, self._order)

    def image_contents(self, index: int) -> Sequence[bytes] | None:
        """What stands for the images' content in the hash; None: their own bytes."""
        content = self._rows.content
        return None if content is None else content(self._order[index])


def check_count(number: int, where: str) -> None:
    """Refuse more samples than a data set has.

    Raises:
        VlmkitError: begins with ``where``.
    """
    if number > MAX_SAMPLES:
        raise VlmkitError(
            f"{where}: more than the {MAX_SAMPLES:,} samples that a data set may have"
        )


def take(rows: Rows, config: DataConfig) -> Samples:
    """Check the ids and take what the config asks for.

    Raises:
        VlmkitError: there is no sample, or none is left; an id occurs twice.
    """
    if not rows.ids:
        raise VlmkitError(f"{rows.source}: no samples in it")
    check_count(len(rows.ids), rows.source)
    _check_unique(rows)
    order = list(range(len(rows.ids)))
    if config.shuffle_seed is not None:
        random.Random(config.shuffle_seed).shuffle(order)
    stop = None if config.limit is None else config.offset + config.limit
    order = order[config.offset : stop]
    if not order:
        raise VlmkitError(
            f"{rows.source}: offset {config.offset} leaves none of its {len(rows.ids)} samples"
        )
    return Samples(rows, order)


def _check_unique(rows: Rows) -> None:
    if len(set(rows.ids)) == len(rows.ids):
        return
    first: dict[str, int] = {}
    for row, name in enumerate(rows.ids):
        if name in first:
            raise VlmkitError(
                f"{rows.where(row)}: the id {name!r} is taken already, by "
                f"{rows.where(first[name])}; ids must be unique"
            )
        first[name] = row
