"""What a comparison holds: plain values, ready to be written in any format."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from vlmkit.experiment.uncertainty import RESAMPLES


class Settings(NamedTuple):
    """How uncertainty is measured."""

    confidence: float = 0.95
    resamples: int = RESAMPLES  # of the bootstrap, and sign flips
    seed: int = 0
    level: float = 0.05  # of the minimum detectable difference, before correction
    power: float = 0.8


class Interval(NamedTuple):
    low: float
    high: float


class ArmScore(msgspec.Struct, kw_only=True):
    """One arm under one metric. None: not known, or not applicable."""

    arm: str
    samples: int  # with a score
    responses: int  # with a score
    score: float | None  # mean over samples of the mean over seeds
    interval: Interval | None
    difference: float | None = None  # to the baseline, over samples that both have
    difference_interval: Interval | None = None
    pairs: int = 0  # samples that both have
    p: float | None = None
    p_holm: float | None = None  # corrected over the arms of this metric
    test: str | None = None  # "mcnemar" or "sign_flip"
    detectable: float | None = None  # smallest true difference that this many pairs find
    pass_at: dict[int, float] = {}  # k -> pass@k, over samples with all seeds
    majority_at: dict[int, float] = {}
    summary: dict[str, float] = {}  # what else the scorer says of all responses


class MetricTable(msgspec.Struct, kw_only=True):
    """All arms under one metric."""

    metric: str
    rows: list[ArmScore]


class ArmCost(msgspec.Struct, kw_only=True):
    """What an arm is and what it cost; means are over responses."""

    arm: str
    differs: dict[str, str]  # from the baseline, or from the first arm: path -> value
    records: int
    errors: int
    unanswered: int  # responses that ended while they were thinking, scored as an empty answer
    alone: int  # responses that ran by themselves, with a prefill of their own
    tokens: float | None  # generated, mean
    prompt_s: float | None  # of the prefill, mean; what several rows share counts evenly for each
    generation_s: float | None  # from first to last token, others beside it; mean
    latency_p50_s: float | None  # prompt and generation together
    latency_p95_s: float | None
    cache_bytes: float | None  # of a response's KV cache at its end, mean


class Comparison(msgspec.Struct, kw_only=True):
    """What `compare` found; `vlmkit.experiment.render` writes it in several formats."""

    runs: list[str]
    baseline: str | None
    reference: str  # the arm whose config the others' differences are against
    num_samples: int
    seeds: list[int]
    arms: list[ArmCost]
    metrics: list[MetricTable]
    settings: Settings
