"""What a kv-eval found, policy by policy: distributions, behaviour, and what was really held.

A sample is the unit that was drawn: the positions of one sample are no independent evidence of
others. So standard errors are those of a ratio over clusters, ``sum(kl) / sum(positions)`` with
samples as clusters (Cochran, *Sampling Techniques*, 1977, section 6), and intervals resample
samples, those of all policies together.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from vlmkit.contracts.stages import TokenEvent
from vlmkit.experiment.comparison import Interval
from vlmkit.experiment.divergence import first_difference
from vlmkit.experiment.kv_eval.records import LockstepRecord
from vlmkit.experiment.records import Record
from vlmkit.experiment.uncertainty import bootstrap_intervals, wilson_interval
from vlmkit.stopping.repetition_loop import RepetitionLoopConfig, repetition_loop

FloatArray = NDArray[np.float64]

PROMPT_TEXT, PROMPT_IMAGE, ANSWER = "prompt text", "prompt image", "answer"
QUARTERS = ("1st quarter", "2nd quarter", "3rd quarter", "4th quarter")
SLICES = (PROMPT_IMAGE, PROMPT_TEXT, ANSWER, *QUARTERS)


class Spread(msgspec.Struct, kw_only=True):
    """KL over some positions, in nats."""

    positions: int
    mean: float
    se: float | None  # None: one sample says nothing of others
    p99: float
    p999: float
    max: float


class Running(msgspec.Struct, kw_only=True):
    """Free-running responses of a policy beside those of the baseline."""

    responses: int
    exact: float  # share that equals the baseline's, token by token
    exact_interval: Interval
    divergence: float | None  # the first token that differs, mean over those that do; from 0
    tokens: float  # mean length
    repetitive: float  # share that says one thing over and over


class PolicySummary(msgspec.Struct, kw_only=True):
    """One policy; that of the baseline is the noise floor."""

    policy: str
    is_baseline: bool
    samples: int
    errors: int
    kl: Spread | None = None  # over the reference tokens; None: no sample has any
    kl_interval: Interval | None = None
    agreement: float | None = None  # share of positions with the same most likely token
    agreement_interval: Interval | None = None
    delta_logprob: float | None = None  # of the reference tokens, mean
    delta_logprob_se: float | None = None
    delta_logprob_interval: Interval | None = None
    slices: dict[str, Spread] = {}
    attention_error: list[float] = []  # by attention layer, mean over samples
    layer_kl: list[float] = []  # by attention layer, mean over samples
    side_kl: list[float] = []  # in the keys alone, in the values alone; empty: not comparable
    held_bytes: float = 0.0  # of a row, mean
    bytes_ratio: float | None = None  # held, to the baseline's
    layers: int = 0  # in which it stored or dropped something for at least one sample
    num_layers: int = 0
    quantized_tokens: float = 0.0  # means over samples
    held_tokens: float = 0.0
    dropped_tokens: float = 0.0
    key_bits: float | None = None  # per element, scales included
    value_bits: float | None = None
    running: Running | None = None


def summarise(
    policies: Sequence[str],
    lockstep: Iterable[LockstepRecord],
    responses: Iterable[Record],
    caches: Mapping[str, Mapping[str, Any]],
) -> list[PolicySummary]:
    """Summarise a run.

    Args:
        policies: names, the baseline first.
        lockstep: of all policies.
        responses: of all policies.
        caches: by policy, what its cache comes to on the model's layers.
    """
    found: dict[str, list[LockstepRecord]] = {name: [] for name in policies}
    for record in lockstep:
        if record.arm in found:
            found[record.arm].append(record)
    for records in found.values():
        records.sort(key=lambda record: (record.sample, record.seed))
    rows = [_policy(name, records, caches.get(name, {})) for name, records in found.items()]
    rows[0].is_baseline = True
    whole = rows[0].held_bytes
    for row in rows:
        row.bytes_ratio = row.held_bytes / whole if whole and row.held_bytes else None
    _add_intervals(rows, found)
    _add_running(rows, responses)
    return rows


def _policy(
    name: str, records: Sequence[LockstepRecord], cache: Mapping[str, Any]
) -> PolicySummary:
    whole = [record for record in records if record.error is None and record.kl]
    row = PolicySummary(
        policy=name,
        is_baseline=False,
        samples=len({record.sample for record in whole}),
        errors=sum(record.error is not None for record in records),
        key_bits=cache.get("key_bits_per_element"),
        value_bits=cache.get("value_bits_per_element"),
    )
    if not whole:
        return row
    row.kl = _spread(whole, lambda record: record.kl)
    agrees = [agrees for record in whole for agrees in record.agrees]
    row.agreement = sum(agrees) / len(agrees)
    row.agreement_interval = Interval(*wilson_interval(sum(agrees), len(agrees)).tolist())
    row.delta_logprob, row.delta_logprob_se = _ratio(whole, lambda record: record.delta_logprobs)
    parts = [(record, sliced(record)) for record in whole]
    for place in SLICES:
        values = {id(record): found[place] for record, found in parts}
        if any(values.values()):
            row.slices[place] = _spread(whole, lambda record, own=values: own[id(record)])  # type: ignore[misc]
    row.attention_error = _by_layer([record.attention_error for record in whole])
    row.layer_kl = _by_layer([record.layer_kl for record in whole])
    row.side_kl = _by_layer([record.side_kl for record in whole])
    row.layers = len({layer for record in whole for layer in record.layers})
    row.num_layers = whole[0].num_layers
    for field in ("held_bytes", "quantized_tokens", "held_tokens"):
        setattr(row, field, float(np.mean([getattr(record, field) for record in whole])))
    row.dropped_tokens = float(np.mean([record.dropped_tokens for record in whole]))
    return row


def sliced(record: LockstepRecord) -> dict[str, list[float]]:
    """Return the KL of a record's positions by where they are; a position may be in two slices.

    A prompt position is an image's where its own token is; quarters are of prompt and answer
    together.

    Example:
        >>> record = LockstepRecord(arm="a", sample="s", seed=0, prompt_tokens=3, images=[(0, 1)],
        ...                         prompt_kl=[1.0, 2.0], kl=[3.0, 4.0])
        >>> found = sliced(record)
        >>> found["prompt image"], found["prompt text"], found["answer"], found["4th quarter"]
        ([1.0], [2.0], [3.0, 4.0], [4.0])
    """
    found: dict[str, list[float]] = {name: [] for name in SLICES}
    for place, value in enumerate(record.prompt_kl):
        is_image = any(start <= place < end for start, end in record.images)
        found[PROMPT_IMAGE if is_image else PROMPT_TEXT].append(value)
    found[ANSWER] = record.kl
    values = [*record.prompt_kl, *record.kl]
    for place, value in enumerate(values):
        found[QUARTERS[4 * place // len(values)]].append(value)
    return found


def _spread(
    records: Sequence[LockstepRecord], of: Callable[[LockstepRecord], Sequence[float]]
) -> Spread:
    values = np.array([value for record in records for value in of(record)])
    mean, se = _ratio(records, of)
    p99, p999 = np.quantile(values, [0.99, 0.999])
    return Spread(
        positions=values.size,
        mean=mean,
        se=se,
        p99=float(p99),
        p999=float(p999),
        max=float(values.max()),
    )


def _ratio(
    records: Sequence[LockstepRecord], of: Callable[[LockstepRecord], Sequence[float]]
) -> tuple[float, float | None]:
    """The mean over positions and its standard error over samples."""
    sums: dict[str, float] = defaultdict(float)
    counts: dict[str, int] = defaultdict(int)
    for record in records:
        sums[record.sample] += math.fsum(of(record))
        counts[record.sample] += len(of(record))
    totals, sizes = np.array(list(sums.values())), np.array(list(counts.values()))
    mean, num = float(totals.sum() / sizes.sum()), len(totals)
    if num < 2:
        return mean, None
    residuals = totals - mean * sizes
    return mean, float(np.sqrt(num / (num - 1) * np.sum(residuals**2)) / sizes.sum())


def _by_layer(rows: Sequence[Sequence[float]]) -> list[float]:
    known = [row for row in rows if row]
    return [] if not known else [float(value) for value in np.mean(np.array(known), axis=0)]


def _add_intervals(
    rows: Sequence[PolicySummary], found: Mapping[str, Sequence[LockstepRecord]]
) -> None:
    """Bootstrap intervals of means over samples, the same samples drawn for all policies."""
    samples = sorted({record.sample for records in found.values() for record in records})
    places = {name: place for place, name in enumerate(samples)}
    table = np.full((len(samples), 2 * len(rows)), np.nan)
    for column, row in enumerate(rows):
        means: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for record in found[row.policy]:
            if record.kl:
                pair = float(np.mean(record.kl)), float(np.mean(record.delta_logprobs))
                means[record.sample].append(pair)
        for sample, pairs in means.items():
            table[places[sample], 2 * column : 2 * column + 2] = np.mean(pairs, axis=0)
    ends = bootstrap_intervals(table)
    for column, row in enumerate(rows):
        if row.kl is not None:
            row.kl_interval = Interval(*ends[2 * column].tolist())
            row.delta_logprob_interval = Interval(*ends[2 * column + 1].tolist())


def _add_running(rows: Sequence[PolicySummary], responses: Iterable[Record]) -> None:
    tokens: dict[str, dict[tuple[str, int], list[int]]] = {row.policy: {} for row in rows}
    for record in responses:
        if record.error is None and record.arm in tokens:
            tokens[record.arm][record.sample, record.seed] = record.token_ids
    base = tokens[rows[0].policy]
    for row in rows:
        own = {unit: ids for unit, ids in tokens[row.policy].items() if unit in base}
        if not own:
            continue
        apart = [first_difference(base[unit], ids) for unit, ids in own.items()]
        parted = [place for place in apart if place is not None]
        same = len(own) - len(parted)
        row.running = Running(
            responses=len(own),
            exact=same / len(own),
            exact_interval=Interval(*wilson_interval(same, len(own)).tolist()),
            divergence=float(np.mean(parted)) if parted else None,
            tokens=float(np.mean([len(ids) for ids in own.values()])),
            repetitive=sum(map(is_repetitive, own.values())) / len(own),
        )


def is_repetitive(token_ids: Sequence[int]) -> bool:
    """Whether a response comes to a loop, as the stopping criterion ``repetition_loop`` sees it.

    Example:
        >>> is_repetitive([1, 2] * 20), is_repetitive(range(40))
        (True, False)
    """
    criterion = repetition_loop(RepetitionLoopConfig())
    state, _ = criterion.init(())
    for count, token_id in enumerate(token_ids, 1):
        state, decision = criterion.step(state, TokenEvent(token_id, "", count))
        if decision.finish is not None:
            return True
    return False
