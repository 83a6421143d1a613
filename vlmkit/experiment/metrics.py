"""All arms under each metric: intervals, paired tests, several seeds together."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from vlmkit.experiment.comparison import ArmScore, Interval, MetricTable, Settings
from vlmkit.experiment.power import detectable_difference
from vlmkit.experiment.records import Scored
from vlmkit.experiment.scoretable import ScoreTable
from vlmkit.experiment.uncertainty import (
    bootstrap_intervals,
    exact_interval,
    holm,
    mcnemar_p_value,
    sign_flip_p_values,
)
from vlmkit.experiment.votes import majority_at_k, pass_at_k

Summary = Callable[[list[Scored]], dict[str, float]]
FloatArray = NDArray[np.float64]


def metric_tables(
    table: ScoreTable,
    metrics: Sequence[str],
    baseline: str | None,
    summaries: Mapping[str, Summary],
    settings: Settings,
) -> list[MetricTable]:
    """Measure every arm under every metric.

    Args:
        table: what was measured.
        metrics: names, in the order of the result.
        baseline: the arm that differences are to; None: there are none.
        summaries: by metric, a summary over all responses of an arm; kept in ``table.scored``.
        settings: confidence, resamples, seed.
    """
    base = None if baseline is None else table.arms.index(baseline)
    means = {metric: sample_means(table.values[metric]) for metric in metrics}
    columns = [means[metric].T for metric in metrics]
    paired: dict[str, FloatArray] = {}
    if base is not None:
        paired = {metric: means[metric] - means[metric][base] for metric in metrics}
    columns += [differences.T for differences in paired.values()]
    stacked = np.concatenate(columns, axis=1) if columns else np.zeros((len(table.samples), 0))
    intervals = bootstrap_intervals(
        stacked, confidence=settings.confidence, resamples=settings.resamples, seed=settings.seed
    ).reshape(-1, len(table.arms), 2)
    tables = []
    for number, metric in enumerate(metrics):
        rows = _rows(table, metric, means[metric], intervals[number], settings)
        if base is not None:
            ends = intervals[len(metrics) + number]
            _add_differences(table.values[metric], rows, paired[metric], ends, base, settings)
        if metric in summaries:
            for row, scored in zip(rows, table.scored[metric], strict=True):
                row.summary = summaries[metric](list(scored)) if scored else {}
        tables.append(MetricTable(metric=metric, rows=rows))
    return tables


def sample_means(values: FloatArray) -> FloatArray:
    """The mean over seeds of each sample, [arms, samples]; NaN where there is no value."""
    known = np.isfinite(values)
    counts = known.sum(axis=2)
    sums = np.where(known, values, 0.0).sum(axis=2)
    means: FloatArray = np.full(sums.shape, np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means


def _rows(
    table: ScoreTable, metric: str, means: FloatArray, intervals: FloatArray, settings: Settings
) -> list[ArmScore]:
    rows = []
    for number, arm in enumerate(table.arms):
        values, known = table.values[metric][number], means[number][np.isfinite(means[number])]
        interval = intervals[number]
        if known.size and (known == known[0]).all() and known[0] in (0.0, 1.0):
            right = int(known.sum())
            interval = exact_interval(right, known.size, confidence=settings.confidence)
        pass_at, majority_at = _together(values, table.answers[metric][number], settings.seed)
        rows.append(
            ArmScore(
                arm=arm,
                samples=known.size,
                responses=int(np.isfinite(values).sum()),
                score=float(known.mean()) if known.size else None,
                interval=_interval(interval),
                pass_at=pass_at,
                majority_at=majority_at,
            )
        )
    return rows


def _add_differences(
    values: FloatArray,
    rows: Sequence[ArmScore],
    differences: FloatArray,
    intervals: FloatArray,
    base: int,
    settings: Settings,
) -> None:
    """Fill in what concerns the baseline, [arms, samples] differences given."""
    others = [number for number in range(len(rows)) if number != base]
    one_seed = values.shape[2] == 1
    binary = one_seed and bool(np.isin(values[np.isfinite(values)], (0.0, 1.0)).all())
    if binary:
        p_values = [mcnemar_p_value(values[base, :, 0], values[other, :, 0]) for other in others]
    else:
        p_values = sign_flip_p_values(
            differences[others].T, flips=settings.resamples, seed=settings.seed
        ).tolist()
    known = np.isfinite(differences)
    p_values = [
        p if known[other].any() else math.nan for p, other in zip(p_values, others, strict=True)
    ]
    corrected = holm(p_values)
    num_tests = int(np.isfinite(corrected).sum())
    for other, p_value, p_holm in zip(others, p_values, corrected, strict=True):
        row, pairs = rows[other], differences[other][known[other]]
        row.pairs = pairs.size
        if not pairs.size:
            continue
        row.difference = float(pairs.mean())
        row.difference_interval = _interval(intervals[other])
        row.p, row.p_holm = float(p_value), float(p_holm)
        row.test = "mcnemar" if binary else "sign_flip"
        deviation = float(pairs.std(ddof=1)) if pairs.size > 1 else math.nan
        detectable = detectable_difference(
            deviation,
            pairs.size,
            comparisons=num_tests,
            level=settings.level,
            power=settings.power,
        )
        row.detectable = detectable if math.isfinite(detectable) else None


def _together(
    values: FloatArray, answers: NDArray[np.int64], seed: int
) -> tuple[dict[int, float], dict[int, float]]:
    """pass@k and majority@k over the samples of an arm that have all seeds, for k = 2, 4, 8, …

    One seed's pass@k and the majority of up to two, whose ties share the vote, are the mean score.
    """
    complete = np.isfinite(values).all(axis=1)
    num_seeds = values.shape[1]
    if num_seeds < 2 or not complete.any():
        return {}, {}
    whole, labels = values[complete], answers[complete]
    counts = sorted({2**power for power in range(1, num_seeds.bit_length())} | {num_seeds})
    pass_at, majority_at = {}, {}
    if np.isin(whole, (0.0, 1.0)).all():
        pass_at = {k: float(pass_at_k(whole, k).mean()) for k in counts}
    if labels.any():
        votes = {k: majority_at_k(whole, labels, k, seed=seed) for k in counts if k > 2}
        majority_at = {k: float(scores.mean()) for k, scores in votes.items()}
    return pass_at, majority_at


def _interval(ends: FloatArray) -> Interval | None:
    return Interval(float(ends[0]), float(ends[1])) if np.isfinite(ends).all() else None
