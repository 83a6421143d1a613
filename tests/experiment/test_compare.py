"""A comparison's numbers, counted by hand or by the functions they are made of."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose

from tests.experiment.made import ARMS, drawn, info, record
from vlmkit.errors import VlmkitError
from vlmkit.experiment.compare import compare
from vlmkit.experiment.comparison import Settings
from vlmkit.experiment.power import detectable_difference
from vlmkit.experiment.records import Record, Scored
from vlmkit.experiment.uncertainty import (
    bootstrap_intervals,
    exact_interval,
    holm,
    mcnemar_p_value,
    sign_flip_p_values,
)
from vlmkit.experiment.votes import majority_at_k, pass_at_k


def values_of(records: list[Record]) -> np.ndarray:
    """[arms, samples, seeds]"""
    table = np.array([item.scores["exact"].value for item in records])
    num_seeds = len({item.seed for item in records})
    return table.reshape(-1, len(ARMS), num_seeds).swapaxes(0, 1)


def test_one_seed_is_compared_by_mcnemar() -> None:
    records = list(drawn())
    values = values_of(records)[:, :, 0]
    comparison = compare([(info(), records)])
    rows = comparison.metrics[0].rows
    p_values = [mcnemar_p_value(values[0], values[arm]) for arm in (1, 2)]
    columns = np.column_stack([values.T, (values - values[0]).T])
    intervals = bootstrap_intervals(columns)
    assert [row.score for row in rows] == values.mean(axis=1).tolist()
    for arm in (1, 2):
        row = rows[arm]
        assert row.test == "mcnemar"
        assert row.p == p_values[arm - 1]
        assert row.p_holm == holm(p_values)[arm - 1]
        assert row.difference == pytest.approx(values[arm].mean() - values[0].mean())
        assert_allclose(row.interval, intervals[arm])
        assert_allclose(row.difference_interval, intervals[3 + arm])
        deviation = (values[arm] - values[0]).std(ddof=1)
        assert row.detectable == detectable_difference(deviation, 40, comparisons=2)
    assert rows[0].difference is rows[0].p is rows[0].test is None


def test_several_seeds_are_clusters() -> None:
    records = list(drawn(num_seeds=3))
    values = values_of(records)
    rows = compare([(info(), records)]).metrics[0].rows
    means = values.mean(axis=2)
    assert_allclose(rows[1].interval, bootstrap_intervals(means[1][:, None])[0])
    assert rows[1].test == "sign_flip"
    expected = sign_flip_p_values((means[1:] - means[0]).T)
    assert [row.p for row in rows[1:]] == expected.tolist()
    assert rows[2].pass_at == {k: pass_at_k(values[2], k).mean() for k in (2, 3)}
    votes = {k: majority_at_k(values[2], values[2] + 1, k).mean() for k in (3,)}
    assert rows[2].majority_at == pytest.approx(votes)
    assert (rows[2].samples, rows[2].responses) == (40, 120)


def test_costs_and_errors() -> None:
    records = [*drawn(2), record("hot", "s1", 1.0, error="the logits are NaN")]  # a later line
    hot = compare([(info(), records)]).arms[1]
    assert (hot.records, hot.errors) == (2, 1)
    assert (hot.tokens, hot.prompt_s, hot.generation_s) == (13.0, 0.25, 0.5)
    assert (hot.latency_p50_s, hot.latency_p95_s) == (0.75, 0.75)
    assert hot.differs == {"sampling": "[temperature(temperature=1.5)]"}


def test_a_response_without_a_score_leaves_its_pair_out() -> None:
    records = [
        record("greedy", "a", 0.0), record("greedy", "b", 1.0), record("greedy", "c", 0.0),
        record("hot", "a", 1.0), record("hot", "b", None), record("hot", "c", 1.0, error="NaN"),
    ]  # fmt: skip
    greedy, hot, absent = compare([(info(), records)]).metrics[0].rows
    assert (greedy.samples, hot.samples, absent.samples) == (3, 1, 0)
    assert (hot.difference, hot.pairs, hot.detectable) == (1.0, 1, None)
    assert absent.score is absent.interval is absent.difference is absent.p is absent.test is None


def test_all_right_is_not_certain() -> None:
    records = [record(arm, str(sample), 1.0) for arm in ARMS for sample in range(30)]
    row = compare([(info(), records)]).metrics[0].rows[1]
    assert_allclose(row.interval, exact_interval(30, 30))
    assert (row.difference, row.p, row.detectable) == (0.0, 1.0, None)


def test_summaries_are_over_whole_responses_of_the_latest_records() -> None:
    seen: list[list[float | None]] = []

    def summary(scored: list[Scored]) -> dict[str, float]:
        seen.append([item.value for item in scored])
        return {"num": float(len(scored))}

    records = [
        record("greedy", "a", 0.0), record("greedy", "b", 0.5), record("greedy", "a", 1.0),
        record("hot", "a", 1.0, error="NaN"),
    ]  # fmt: skip
    rows = compare([(info(), records)], summaries={"exact": summary}).metrics[0].rows
    assert [sorted(map(float, item)) for item in seen] == [[0.5, 1.0]]
    assert [row.summary for row in rows] == [{"num": 2.0}, {}, {}]


def test_runs_are_paired_by_sample() -> None:
    first = info("one", arms={"a": {"k": 1}}, baseline="a", data_hash="x")
    second = info("two", arms={"a": {"k": 2}}, baseline="a", data_hash="x")
    records = [record("a", str(sample), 0.0) for sample in range(9)]
    others = [record("a", str(sample), 1.0) for sample in range(8, -1, -1)]
    comparison = compare([(first, records), (second, others)])
    assert [arm.arm for arm in comparison.arms] == ["one/a", "two/a"]
    assert comparison.baseline == "one/a"
    assert comparison.metrics[0].rows[1].difference == 1.0
    swapped = compare([(first, records), (second, others)], baseline="two/a")
    assert swapped.metrics[0].rows[0].difference == -1.0
    assert swapped.arms[0].differs == {"k": "1"}


def test_without_a_baseline_nothing_is_subtracted() -> None:
    comparison = compare([(info(baseline=None), drawn())])
    assert {row.difference for row in comparison.metrics[0].rows} == {None}
    assert comparison.reference == "greedy"


def test_the_same_seed_gives_the_same_comparison_in_any_order() -> None:
    records = list(drawn(num_seeds=2))
    settings = Settings(resamples=200, seed=5)
    first = compare([(info(), records)], settings=settings)
    assert compare([(info(), iter(records))], settings=settings) == first
    shuffled = sorted(records, key=lambda item: (item.seed, item.arm))
    assert compare([(info(), shuffled)], settings=settings) == first


def test_big_seeds_and_samples_of_one_run_only() -> None:
    records = [record("greedy", "a", 1.0, seed=2**64 - 1), record("hot", "b", 0.0, seed=0)]
    comparison = compare([(info(), records)])
    assert comparison.seeds == [0, 2**64 - 1]
    assert comparison.metrics[0].rows[1].pairs == 0


@pytest.mark.parametrize(
    ("runs", "more", "message"),
    [
        ([], {}, "no run to compare"),
        ([(info(arms={}), [])], {}, "run 'run' has no arms to compare"),
        ([(info(), [])], {"baseline": "gredy"}, "baseline: 'gredy' is no arm; .* 'greedy'"),
        ([(info(baseline="x"), [])], {}, "baseline: 'x' is no arm; arms: greedy, hot"),
        ([(info(), []), (info(), [])], {}, "two runs are named 'run'"),
        (
            [(info("a", data_hash="1"), []), (info("b", data_hash="2"), [])],
            {},
            "runs a, b are of different data",
        ),
        ([(info(), [record("hott", "a", 1.0)])], {}, "a record is of arm 'hott', .* 'hot'"),
        ([(info(), drawn(2))], {"settings": Settings(confidence=95)}, "confidence: 95 is not"),
    ],
)
def test_mistakes(runs: Any, more: dict[str, Any], message: str) -> None:
    with pytest.raises(VlmkitError, match=message) as caught:
        compare(runs, **more)
    assert "\n" not in str(caught.value)


def test_no_record_yet_is_an_empty_comparison() -> None:
    comparison = compare([(info(), [])])
    assert comparison.num_samples == 0
    assert all(row.score is None and row.samples == 0 for row in comparison.metrics[0].rows)
    assert all(cost.tokens is None and cost.errors == 0 for cost in comparison.arms)
    assert not math.isnan(comparison.settings.confidence)
