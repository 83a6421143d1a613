"""The contract table: one row per method, and the logits on which every law is checked.

A new method gets all laws by its row here.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from tests.sampling.contract import VOCAB_SIZE
from tests.sampling.strategies import SHAPES, logits
from vlmkit.contracts.stages import Contrast
from vlmkit.contrast import (
    CfgConfig,
    ContrastConfig,
    ContrastiveDecodingConfig,
    DolaConfig,
    External,
    IcdConfig,
    M3idConfig,
    VcdConfig,
    build_contrast,
)

NUM_LAYERS = 12


class Row(NamedTuple):
    """What a method promises."""

    configs: tuple[ContrastConfig, ...]
    neutral: tuple[ContrastConfig, ...] = ()  # leave the distribution as it is
    # With these, equal streams leave the distribution as it is, but for a cut:
    nothing_to_contrast: tuple[ContrastConfig, ...] = ()


def away_from_layer(weight: float) -> External:
    factory = "experiments.own_contrast:away_from_layer"
    return External(factory=factory, config={"layer": 2, "weight": weight})


def half_prompt(weight: float) -> External:
    factory = "tests.external_package.vlmkit_example_stages.half_prompt:half_prompt"
    return External(factory=factory, config={"weight": weight})


CD = ContrastiveDecodingConfig
CONTRACT: dict[str, Row] = {
    "cfg": Row(
        (CfgConfig(scale=1.5), CfgConfig(scale=4.0), CfgConfig(scale=0.5), CfgConfig(scale=0.0)),
        neutral=(CfgConfig(scale=1.0),),
        nothing_to_contrast=(CfgConfig(scale=1.5), CfgConfig(scale=0.0)),
    ),
    "contrastive_decoding": Row(
        (
            CD(amateur="shapes"),
            CD(amateur="shapes", alpha=1.0),
            CD(amateur="shapes", alpha=0.01, beta=0.5),
            CD(amateur="shapes", alpha=0.3, amateur_temperature=0.5),
        ),
        neutral=(CD(amateur="shapes", alpha=1e-300, beta=0.0),),
        nothing_to_contrast=(CD(amateur="shapes", alpha=1e-300, beta=0.5),),
    ),
    "dola": Row(
        (
            DolaConfig(),
            DolaConfig(layers="low", relative_top=0.0),
            DolaConfig(layers=(3,)),
            DolaConfig(layers=(7, 2), divergence="from_mean"),
        ),
    ),
    "vcd": Row(
        (VcdConfig(), VcdConfig(alpha=0.5, beta=0.0), VcdConfig(alpha=0.0, beta=0.3)),
        neutral=(VcdConfig(alpha=0.0, beta=0.0),),
        nothing_to_contrast=(VcdConfig(alpha=1.0, beta=0.0),),
    ),
    "icd": Row(
        (IcdConfig(), IcdConfig(alpha=3.0, beta=0.5), IcdConfig(alpha=0.0)),
        neutral=(IcdConfig(alpha=0.0, beta=0.0),),
        nothing_to_contrast=(IcdConfig(alpha=1.0, beta=0.0),),
    ),
    "m3id": Row(
        (
            M3idConfig(),
            M3idConfig(forgetting=0.5, confidence=0.6),
            M3idConfig(forgetting=3.0, beta=0.1),
        ),
        neutral=(M3idConfig(forgetting=0.0), M3idConfig(forgetting=0.5, confidence=1e-9)),
        nothing_to_contrast=(M3idConfig(forgetting=0.1),),
    ),
    # What a third party's method promises is its own affair: these are the examples.
    "external": Row(
        (away_from_layer(0.5), away_from_layer(2.0), half_prompt(1.5)),
        neutral=(away_from_layer(0.0), half_prompt(0.0)),
        nothing_to_contrast=(away_from_layer(1.0), half_prompt(0.5)),
    ),
}


def cases() -> list[ContrastConfig]:
    return [config for row in CONTRACT.values() for config in row.configs]


def case_id(config: Any) -> str:
    changed = config.model_dump(exclude_defaults=True, exclude={"kind", "amateur"})
    return "-".join([config.kind, *(f"{key}={value}" for key, value in changed.items())])


def build(config: ContrastConfig) -> Contrast:
    return build_contrast(config, num_layers=NUM_LAYERS, tied_embeddings=False)


def num_streams(config: ContrastConfig) -> int:
    return len(build(config).early_layers) or 1


class Streams(NamedTuple):
    """What a combine function gets."""

    values: NDArray[np.float32]  # [B, V]
    others: NDArray[np.float32]  # [B, N, V]
    num_tokens: NDArray[np.int32]  # [B]

    def row(self, index: int) -> Streams:
        return Streams(*(field[index : index + 1] for field in self))


TAME = ("normal", "peaked", "nearly flat", "ties", "far from zero")


@st.composite
def streams(
    draw: st.DrawFn, config: ContrastConfig, only: tuple[str, ...] = tuple(SHAPES)
) -> Streams:
    """Draw a batch of all shapes of logits, the other streams' shapes apart from the model's."""
    values = draw(logits(only=only))
    rows, size = values.shape
    others = np.empty((rows, num_streams(config), size), np.float32)
    for row in range(rows):
        for stream in range(others.shape[1]):
            # Rolled: hypothesis likes to repeat itself, and equal layers leave DoLa no choice.
            others[row, stream] = np.roll(draw(logits(only=only))[0], stream + 1)
    num_tokens = draw(st.lists(st.integers(0, 5000), min_size=rows, max_size=rows))
    return Streams(values, others, np.array(num_tokens, np.int32))


def run(config: ContrastConfig, given: Streams) -> NDArray[np.float32]:
    """Combine; return the logits ``[B, V]``."""
    arrays = (mx.array(field) for field in given)
    return np.array(build(config).combine(*arrays))


__all__ = ["CONTRACT", "VOCAB_SIZE"]
