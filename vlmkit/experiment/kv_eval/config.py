"""What a kv-eval file says: a base run, the cache policies to compare, and on which data."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from vlmkit.cache import CacheConfig
from vlmkit.declare.configbase import StageConfig
from vlmkit.experiment.config import LimitsConfig, Name, Seed
from vlmkit.experiment.data import DatasetConfig
from vlmkit.experiment.scoring import ScorerConfig


class LockstepConfig(StageConfig):
    """On which tokens policies are compared step by step."""

    reference: Literal["generated", "answer"] = Field(
        default="generated",
        description="the tokens that every policy is fed: those that the baseline generates, or "
        "the sample's first answer",
    )
    sensitivity: bool = Field(
        default=False,
        description="also apply each policy to one attention layer at a time, the others being "
        "the baseline's, and to the keys or the values alone; as many further passes as there are "
        "layers, and two",
    )


class KvEvalConfig(StageConfig):
    """Cache policies on the same tokens, and each on its own.

    Example:
        >>> policies = {"4 bits": {"kind": "affine", "bits": 4, "group_size": 32}}
        >>> KvEvalConfig(dataset={"kind": "shapes"}, policies=policies).lockstep.reference
        'generated'
    """

    base: str | list[str] | dict[str, Any] = Field(
        default={},
        description="the run that all policies share: a file, several, or its keys with include",
    )
    dataset: DatasetConfig = Field(description="the samples that are asked")
    policies: dict[Name, CacheConfig] = Field(
        min_length=1, description="the caches that are compared, by the policy's name"
    )
    baseline: Name | None = Field(
        default=None,
        description="the policy that others are compared with; null: the one called 'dense', "
        "which is every token as computed unless a policy of that name says otherwise",
    )
    lockstep: LockstepConfig = Field(
        default=LockstepConfig(), description="on which tokens policies are compared step by step"
    )
    seeds: tuple[Seed, ...] | None = Field(
        default=None, min_length=1, description="one response per seed; null: the base's own seed"
    )
    metrics: dict[Name, ScorerConfig] = Field(
        default={}, description="how free-running responses are scored, by the metric's name"
    )
    limits: LimitsConfig = Field(
        default=LimitsConfig(), description="where a run ends early, and what is too large"
    )


def kv_eval_keys() -> frozenset[str]:
    """Return the top-level keys of a kv-eval file; every other key belongs to its base run."""
    return frozenset(KvEvalConfig.model_fields)
