"""A comparison of arms: scores with intervals, paired differences with tests, costs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from vlmkit.errors import VlmkitError, nearest
from vlmkit.experiment.comparison import ArmCost, Comparison, Settings
from vlmkit.experiment.differences import differences
from vlmkit.experiment.metrics import Summary, metric_tables
from vlmkit.experiment.reading import ScoreLine
from vlmkit.experiment.records import Record
from vlmkit.experiment.runinfo import RunInfo
from vlmkit.experiment.scoretable import ScoreTable, score_table

FloatArray = NDArray[np.float64]


def compare(
    runs: Sequence[tuple[RunInfo, Iterable[Record | ScoreLine]]],
    *,
    baseline: str | None = None,
    summaries: Mapping[str, Summary] | None = None,
    settings: Settings = Settings(),  # noqa: B008
) -> Comparison:
    """Compare the arms of one or several runs on the samples they share.

    With several runs an arm is named ``run/arm``. Records may be of an unfinished run.

    Args:
        runs: what is known of each run, and its records.
        baseline: an arm's name; by default the first run's baseline.
        summaries: by metric, the scorer's own summary over all responses of an arm.
        settings: confidence, resamples, seed.

    Raises:
        VlmkitError: no run, two runs of one name or of different data, a baseline that is no
            arm, a record of an unknown arm.

    Example:
        >>> from vlmkit.experiment.records import Scored
        >>> info = RunInfo(name="r", arms={"a": {"k": 1}, "b": {"k": 2}}, metrics=["m"],
        ...                baseline="a")
        >>> records = [Record(arm=arm, sample=str(i), seed=0, scores={"m": Scored(value=value)})
        ...            for i in range(8) for arm, value in (("a", 0.0), ("b", 1.0))]
        >>> row = compare([(info, records)]).metrics[0].rows[1]
        >>> row.difference, row.p, row.test
        (1.0, 0.0078125, 'mcnemar')
    """
    infos = [info for info, _ in runs]
    configs = _configs(infos)
    baseline = _baseline(infos, configs, baseline)
    metrics = list(dict.fromkeys(metric for info in infos for metric in info.metrics))
    keep = [metric for metric in metrics if metric in (summaries or {})]
    table = score_table(_renamed(runs), arms=list(configs), metrics=metrics, keep_scored=keep)
    reference = baseline or next(iter(configs))
    return Comparison(
        runs=[info.name for info in infos],
        baseline=baseline,
        reference=reference,
        num_samples=len(table.samples),
        seeds=list(table.seeds),
        arms=_costs(table, configs, reference),
        metrics=metric_tables(table, metrics, baseline, summaries or {}, settings),
        settings=settings,
    )


def _configs(infos: Sequence[RunInfo]) -> dict[str, dict[str, Any]]:
    if not infos:
        raise VlmkitError("no run to compare; name at least one run directory")
    names = [info.name for info in infos]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise VlmkitError(f"two runs are named {twice[0]!r}; their arms could not be told apart")
    hashes = {info.data_hash for info in infos if info.data_hash is not None}
    if len(hashes) > 1:
        raise VlmkitError(
            f"runs {', '.join(names)} are of different data; only runs on the same data compare"
        )
    configs = {
        (f"{info.name}/{arm}" if len(infos) > 1 else arm): config
        for info in infos
        for arm, config in info.arms.items()
    }
    if not configs:
        raise VlmkitError(f"run {names[0]!r} has no arms to compare")
    return configs


def _baseline(
    infos: Sequence[RunInfo], configs: Mapping[str, object], given: str | None
) -> str | None:
    name = infos[0].baseline if given is None else given
    if name is None:
        return None
    prefixed = f"{infos[0].name}/{name}"
    if name not in configs and prefixed in configs:
        name = prefixed
    if name not in configs:
        raise VlmkitError(
            f"baseline: {name!r} is no arm; arms: {', '.join(configs)}{nearest(name, configs)}"
        )
    return name


def _renamed(
    runs: Sequence[tuple[RunInfo, Iterable[Record | ScoreLine]]],
) -> Iterable[Record | ScoreLine]:
    for info, records in runs:
        if len(runs) == 1:
            yield from records
            continue
        for record in records:
            yield msgspec.structs.replace(record, arm=f"{info.name}/{record.arm}")


def _costs(
    table: ScoreTable, configs: Mapping[str, Mapping[str, Any]], reference: str
) -> list[ArmCost]:
    costs = []
    for number, arm in enumerate(table.arms):
        latency = table.prompt_s[number] + table.generation_s[number]
        latency = latency[np.isfinite(latency)]
        quantiles = np.quantile(latency, [0.5, 0.95]).tolist() if latency.size else [None, None]
        costs.append(
            ArmCost(
                arm=arm,
                differs=differences(configs[arm], configs[reference]),
                records=int(table.present[number].sum()),
                errors=int(table.errors[number].sum()),
                unanswered=int(table.unanswered[number].sum()),
                alone=int(table.alone[number].sum()),
                tokens=_mean(table.tokens[number]),
                prompt_s=_mean(table.prompt_s[number]),
                generation_s=_mean(table.generation_s[number]),
                latency_p50_s=quantiles[0],
                latency_p95_s=quantiles[1],
                cache_bytes=_mean(table.cache_bytes[number]),
            )
        )
    return costs


def _mean(values: FloatArray) -> float | None:
    known = values[np.isfinite(values)]
    return float(known.mean()) if known.size else None
