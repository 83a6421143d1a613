"""What is measured of KV caches: policies, contexts, batches."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from vlmkit.cache import CacheConfig, DenseConfig
from vlmkit.config.tree import DEFAULT, Node, format_path, merge, to_node
from vlmkit.config.validate import error_at, validate
from vlmkit.config.yaml_tree import load_yaml, parse_overrides
from vlmkit.declare.configbase import Int, StageConfig
from vlmkit.declare.external import externals_in

Test = Literal["layer", "decode", "prefill"]
Policy = Annotated[str, Field(min_length=1, max_length=100)]
_Size = Annotated[Int, Field(ge=1, le=1 << 24)]

BASELINE = "dense"
"""The policy that every other one takes turns with; it is added where no policy has its name."""

_POLICIES: dict[str, Any] = {
    "affine 8": {"kind": "affine", "bits": 8, "group_size": 32},
    "affine 4": {"kind": "affine", "bits": 4, "group_size": 32},
    "mxfp8": {"kind": "quantized", "keys": {"kind": "mxfp8"}, "values": {"kind": "mxfp8"}},
    "kivi 4": {"kind": "kivi", "key_bits": 4, "value_bits": 4},
    "turboquant 4": {
        "kind": "quantized",
        "keys": {"kind": "turboquant", "bits": 4},
        "values": {"kind": "turboquant", "bits": 4},
    },
}


def _each_once(values: tuple[Any, ...]) -> tuple[Any, ...]:
    twice = [value for value in values if values.count(value) > 1]
    if twice:
        raise ValueError(f"{twice[0]!r} is given twice; give each once")
    return values


class LayerConfig(StageConfig):
    """The attention layer whose appending and attending is timed; of Qwen2-VL 0.5 B by default."""

    num_heads: _Size = Field(default=14, description="heads of the queries")
    num_kv_heads: _Size = Field(default=2, description="heads of keys and values")
    head_dim: _Size = Field(default=64, description="numbers per head")
    num_layers: Int = Field(
        default=4, ge=1, le=256, description="so many in a row make one sample; a row is per layer"
    )


class KvBenchConfig(StageConfig):
    """Which caches are timed, and on how many tokens.

    Example:
        >>> KvBenchConfig(contexts=(64,)).tests
        ('layer', 'decode', 'prefill')
    """

    model: str = Field(default="shapes", description="whose decode steps and prefills are timed")
    dtype: Literal["float32", "float16", "bfloat16"] | None = Field(
        default=None, description="of the computation; null: what is fast here"
    )
    tests: Annotated[tuple[Test, ...], AfterValidator(_each_once)] = Field(
        default=("layer", "decode", "prefill"),
        min_length=1,
        description="layer: append one token and attend, in one layer; decode: a whole step of the "
        "model; prefill: a whole prompt through the model",
    )
    contexts: Annotated[tuple[_Size, ...], AfterValidator(_each_once)] = Field(
        default=(1024, 8192, 32768), min_length=1, description="tokens that are there or come"
    )
    batches: Annotated[tuple[_Size, ...], AfterValidator(_each_once)] = Field(
        default=(1, 8), min_length=1, description="rows side by side"
    )
    repetitions: Int = Field(default=5, ge=2, le=10_000, description="samples of each timing")
    longest_prefill: _Size = Field(
        default=8192, description="rows times tokens of a prefill; larger ones are left out"
    )
    most_bytes: Int = Field(
        default=2**30, ge=2**20, description="of two caches that take turns; larger are left out"
    )
    layer: LayerConfig = Field(default=LayerConfig(), description="the layer of the layer test")
    policies: dict[Policy, CacheConfig] = Field(
        default=_POLICIES,
        validate_default=True,
        min_length=1,
        description="the caches that are timed, by the policy's name; dense is always among them",
    )

    @property
    def baseline(self) -> CacheConfig:
        """The cache that every other one takes turns with."""
        return self.policies.get(BASELINE, DenseConfig())


def load_kv_bench(
    path: str | os.PathLike[str] | None = None,
    *,
    overrides: Sequence[str] = (),
    trust_code: bool = False,
) -> KvBenchConfig:
    """Read what to measure from a YAML file and ``a.b=c`` overrides.

    Raises:
        VlmkitError: names file, line and key, and what would work.

    Example:
        >>> load_kv_bench(overrides=["contexts=[64]", "batches=[2]"]).batches
        (2,)
    """
    file = to_node({}, DEFAULT) if path is None else load_yaml(path)
    tree = merge(file, parse_overrides(overrides))
    config = validate(KvBenchConfig, tree)
    if not trust_code:
        _refuse_code(tree, config)
    return config


def _refuse_code(tree: Node, config: KvBenchConfig) -> None:
    for path, stage in externals_in(config.policies, ("policies",)):
        if stage.is_code:
            raise error_at(
                tree,
                (*path, "factory"),
                f"{format_path((*path, 'factory'))}: {stage.factory!r} names code to run; if you "
                "trust it, add --trust-code (in Python: trust_code=True), or name an installed "
                "entry point",
            )
