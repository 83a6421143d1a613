"""What an experiment file says: a base run, what varies, on which data, and what is measured."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, StringConstraints

from vlmkit.declare.configbase import Float, Int, StageConfig
from vlmkit.experiment.data import DatasetConfig
from vlmkit.experiment.scoring import ScorerConfig

Name = Annotated[str, StringConstraints(min_length=1, max_length=200)]
Seed = Annotated[Int, Field(ge=0, lt=2**64)]

DEFAULT_UNITS = 1_000_000


class LimitsConfig(StageConfig):
    """Where a run ends early. The same command goes on from there; raise the limit first."""

    samples: Int | None = Field(
        default=None, ge=1, description="the first so many samples; null: all"
    )
    tokens: Int | None = Field(
        default=None, ge=1, description="generated tokens of the whole run; null: no limit"
    )
    minutes: Float | None = Field(
        default=None, gt=0, description="time of one call of the command; null: no limit"
    )
    units: Int = Field(
        default=DEFAULT_UNITS,
        ge=1,
        description="arms x samples x seeds that are not refused as a mistake",
    )


class ExperimentConfig(StageConfig):
    """One ablation: arms x samples x seeds, scored and compared with a baseline.

    Example:
        >>> arms = {"warm": {"sampling": [{"kind": "temperature", "temperature": 1.5}]}}
        >>> ExperimentConfig(dataset={"kind": "shapes"}, arms=arms).limits.units
        1000000
    """

    base: str | list[str] | dict[str, Any] = Field(
        default={},
        description="the run that all arms start from: a file, several, or its keys with include",
    )
    dataset: DatasetConfig = Field(description="the samples that are asked")
    arms: dict[Name, dict[str | int, Any]] = Field(
        default={},
        description="what each arm changes in the base, by the arm's name; keys may be dotted "
        "paths such as sampling.0.temperature",
    )
    grid: dict[Name, list[Any] | dict[Name | int, Any]] = Field(
        default={},
        description="every combination of these: dotted paths with a list of values each, or with "
        "names for the values; multiplies the arms",
    )
    seeds: tuple[Seed, ...] | None = Field(
        default=None, min_length=1, description="one response per seed; null: the base's own seed"
    )
    metrics: dict[Name, ScorerConfig] = Field(
        default={}, description="how responses are scored, by the metric's name"
    )
    baseline: Name | None = Field(
        default=None,
        description="the arm that others are compared with, of several that a grid made of it "
        "the first; null: the first of all",
    )
    top_logprobs: Int = Field(
        default=0,
        ge=0,
        le=100,
        description="with each token, record the model's own log-probability of it and of so many "
        "most likely ones, which vlmkit reproduce compares with; 0: nothing",
    )
    limits: LimitsConfig = Field(
        default=LimitsConfig(), description="where a run ends early, and what is too large"
    )


def experiment_keys() -> frozenset[str]:
    """Return the top-level keys of an experiment; every other key belongs to its base run."""
    return frozenset(ExperimentConfig.model_fields)


def metrics_of(config: ExperimentConfig) -> dict[str, dict[str, Any]]:
    """Return the metrics as a run directory keeps them."""
    return {name: metric.model_dump(mode="json") for name, metric in config.metrics.items()}
