"""The numbers of many records as arrays: arms × samples × seeds."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from vlmkit.errors import VlmkitError, nearest
from vlmkit.experiment.reading import ScoreLine
from vlmkit.experiment.records import Record, Scored
from vlmkit.experiment.votes import NO_ANSWER

FloatArray = NDArray[np.float64]
_Number = TypeVar("_Number", bound=np.generic)
_Name = TypeVar("_Name", str, int)
MAX_CELLS = 200_000_000


class ScoreTable(NamedTuple):
    """What was measured. Every array is [arms, samples, seeds]; NaN: not measured."""

    arms: tuple[str, ...]
    samples: tuple[str, ...]  # by their text: no result depends on the order of records
    seeds: tuple[int, ...]  # ascending
    values: Mapping[str, FloatArray]  # by metric
    answers: Mapping[str, NDArray[np.int64]]  # by metric: equal for equal answers; 0: none
    errors: NDArray[np.bool_]  # there was no whole response
    unanswered: NDArray[np.bool_]  # it ended while it was thinking
    alone: NDArray[np.bool_]  # it ran by itself
    present: NDArray[np.bool_]  # there is a record
    tokens: FloatArray  # generated; NaN where there was an error, as in the times
    prompt_s: FloatArray
    generation_s: FloatArray
    cache_bytes: FloatArray
    scored: Mapping[str, Sequence[Sequence[Scored]]]  # by metric and arm, where asked for


class _Columns:
    """One entry per record, in the order they came."""

    def __init__(self, arms: Sequence[str], metrics: Sequence[str], keep: Iterable[str]) -> None:
        self.arms = {name: number for number, name in enumerate(arms)}
        self.samples: dict[str, int] = {}
        self.seeds: dict[int, int] = {}
        self.arm, self.sample, self.seed = array("i"), array("i"), array("i")
        self.error, self.unanswered, self.alone = array("b"), array("b"), array("b")
        self.tokens, self.prompt_s, self.generation_s = array("d"), array("d"), array("d")
        self.cache_bytes = array("d")
        self.values = {name: array("d") for name in metrics}
        self.answers = {name: array("q") for name in metrics}
        self.scored: dict[str, list[Scored | None]] = {name: [] for name in keep}


def score_table(
    records: Iterable[Record | ScoreLine],
    *,
    arms: Sequence[str],
    metrics: Sequence[str],
    keep_scored: Iterable[str] = (),
) -> ScoreTable:
    """Gather records into arrays; of two records of one unit the later one counts.

    Args:
        records: in any order, of any part of the units.
        arms: names of the arms, in the order of the first axis.
        metrics: names of the metrics to gather.
        keep_scored: metrics of which all `Scored` are kept, for a summary that needs them.

    Raises:
        VlmkitError: a record of an arm that is none of ``arms``.
    """
    columns = _Columns(arms, metrics, keep_scored)
    for record in records:
        _append(columns, record)
    return _table(columns)


def _append(columns: _Columns, record: Record | ScoreLine) -> None:
    arm = columns.arms.get(record.arm)
    if arm is None:
        known = ", ".join(columns.arms)
        raise VlmkitError(
            f"a record is of arm {record.arm!r}, which this run has not; "
            f"its arms: {known}{nearest(record.arm, columns.arms)}"
        )
    columns.arm.append(arm)
    columns.sample.append(columns.samples.setdefault(record.sample, len(columns.samples)))
    columns.seed.append(columns.seeds.setdefault(record.seed, len(columns.seeds)))
    columns.error.append(record.error is not None)
    columns.unanswered.append(not record.answered)
    columns.alone.append(record.alone)
    columns.tokens.append(record.generation_tokens)
    columns.prompt_s.append(record.prompt_s)
    columns.generation_s.append(record.generation_s)
    columns.cache_bytes.append(record.cache_bytes)
    scores = record.scores
    for name, values in columns.values.items():
        scored = scores.get(name)
        value = None if scored is None or record.error is not None else scored.value
        values.append(np.nan if value is None else value)
        parsed = None if scored is None else scored.parsed
        columns.answers[name].append(NO_ANSWER if parsed is None else hash(parsed) or 1)
    for name, kept in columns.scored.items():
        kept.append(scores.get(name) if record.error is None else None)


def _table(columns: _Columns) -> ScoreTable:
    samples, sample_place = _ordered(columns.samples, columns.sample)
    seeds, seed_place = _ordered(columns.seeds, columns.seed)
    shape = (len(columns.arms), len(columns.samples), len(seeds))
    num_cells = shape[0] * shape[1] * shape[2]
    if num_cells > MAX_CELLS:
        raise VlmkitError(
            f"{shape[0]} arms × {shape[1]} samples × {shape[2]} seeds are {num_cells} units; "
            f"at most {MAX_CELLS} are compared at once"
        )
    place = (np.array(columns.arm, np.int64) * shape[1] + sample_place) * shape[2] + seed_place
    latest = np.full(num_cells, -1, np.int64)
    latest[place] = np.arange(len(place))  # of repeated places the last one stays
    present = latest >= 0
    rows = latest[present]

    def spread(values: NDArray[_Number], fill: float | bool) -> NDArray[_Number]:
        cells = np.full(num_cells, fill, values.dtype)
        cells[present] = values[rows]
        return cells.reshape(shape)

    errors = spread(np.array(columns.error, np.bool_), False)
    whole = np.where(np.array(columns.error, np.bool_), np.nan, 1.0)
    arm_of = np.array(columns.arm, np.int64)[rows]
    return ScoreTable(
        arms=tuple(columns.arms),
        samples=samples,
        seeds=seeds,
        values={name: spread(np.array(column), np.nan) for name, column in columns.values.items()},
        answers={
            name: spread(np.array(column, np.int64), NO_ANSWER)
            for name, column in columns.answers.items()
        },
        errors=errors,
        unanswered=spread(np.array(columns.unanswered, np.bool_), False),
        alone=spread(np.array(columns.alone, np.bool_), False),
        present=present.reshape(shape),
        tokens=spread(np.array(columns.tokens) * whole, np.nan),
        prompt_s=spread(np.array(columns.prompt_s) * whole, np.nan),
        generation_s=spread(np.array(columns.generation_s) * whole, np.nan),
        cache_bytes=spread(np.array(columns.cache_bytes) * whole, np.nan),
        scored={
            name: _by_arm(kept, rows, arm_of, shape[0]) for name, kept in columns.scored.items()
        },
    )


def _ordered(
    numbers: Mapping[_Name, int], column: Sequence[int]
) -> tuple[tuple[_Name, ...], NDArray[np.int64]]:
    """Names in ascending order, and the place of each entry of a column among them."""
    names = tuple(sorted(numbers))
    ranks = np.empty(len(names), np.int64)
    ranks[[numbers[name] for name in names]] = np.arange(len(names))
    return names, ranks[np.array(column, np.int64)]


def _by_arm(
    kept: Sequence[Scored | None], rows: NDArray[np.int64], arms: NDArray[np.int64], num_arms: int
) -> list[list[Scored]]:
    groups: list[list[Scored]] = [[] for _ in range(num_arms)]
    for row, arm in zip(rows.tolist(), arms.tolist(), strict=True):
        scored = kept[row]
        if scored is not None:
            groups[arm].append(scored)
    return groups
