"""The contract table: every kind of cache, and what it must compute, in plain numpy."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple
from unittest.mock import patch

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from tests.cache.read_back import in_blocks, rounded, through
from vlmkit.cache import (
    AffineConfig,
    DenseConfig,
    External,
    H2OConfig,
    KeyDiffConfig,
    KiviConfig,
    KnormConfig,
    KVarNConfig,
    ModalityConfig,
    PyramidKVConfig,
    QuantizedConfig,
    RandomConfig,
    RotatingConfig,
    SnapKVConfig,
    TOVAConfig,
    build_cache,
)
from vlmkit.cache.codec import kvarn as kvarn_codec
from vlmkit.cache.codec.build import build_codec
from vlmkit.cache.codec.kivi import kivi_codec
from vlmkit.cache.codec.kvarn import kvarn
from vlmkit.cache.eviction.budget import EvictionConfig
from vlmkit.contracts.interface import CacheKind, KVSpec, Pytree, Span

NUM_HEADS = 6
SHAPE = KVSpec(2, 32, 32, num_heads=NUM_HEADS)
SCALE = 0.25

MODULE = "tests.external_package.vlmkit_example_stages.sunk_window"
CONFIGS: dict[str, Any] = {
    "dense": DenseConfig(),
    "rotating": RotatingConfig(max_size=12, keep=3),
    "rotating_without_keep": RotatingConfig(max_size=7, keep=0),
    "rotating_one_wide": RotatingConfig(max_size=5, keep=4),
    "rotating_large": RotatingConfig(max_size=300, keep=4),
    "affine_8": AffineConfig(bits=8, group_size=32),
    "affine_3": AffineConfig(bits=3, group_size=32),
    "affine_k8_v4": AffineConfig(key_bits=8, value_bits=4, group_size=32),
    "affine_rotating": AffineConfig(bits=4, group_size=32, max_size=12, keep=3),
    "turboquant": QuantizedConfig(
        keys={"kind": "turboquant", "bits": 3, "estimator": "prod"},
        values={"kind": "turboquant", "bits": 4},
    ),
    "turboquant_rotating": QuantizedConfig(
        keys={"kind": "turboquant", "bits": 3.5},
        values={"kind": "turboquant", "bits": 2, "norm_correction": True},
        max_size=12,
        keep=3,
    ),
    "kivi": KiviConfig(key_bits=2, value_bits=4, residual=32),
    "kvarn": KVarNConfig(key_bits=4, value_bits=3, block_size=8),
    "mxfp4": QuantizedConfig(keys={"kind": "mxfp4"}, values={"kind": "mxfp4"}),
    "mxfp8_nvfp4": QuantizedConfig(keys={"kind": "mxfp8"}, values={"kind": "nvfp4"}),
    "per_token_head_int8_fp8": QuantizedConfig(
        keys={"kind": "per_token_head"}, values={"kind": "per_token_head", "dtype": "fp8"}
    ),
    "per_token_head_int4": QuantizedConfig(
        keys={"kind": "plain"}, values={"kind": "per_token_head", "dtype": "int4"}
    ),
    "hadamard": QuantizedConfig(
        keys={"kind": "hadamard", "codec": {"kind": "affine", "bits": 4, "group_size": 32}},
        values={"kind": "hadamard", "codec": {"kind": "turboquant", "bits": 3}},
    ),
    "quantized_rotating": QuantizedConfig(
        keys={"kind": "hadamard", "codec": {"kind": "mxfp4"}},
        values={"kind": "per_token_head"},
        max_size=12,
        keep=3,
    ),
    "recent": QuantizedConfig(
        keys={"kind": "mxfp4"}, values={"kind": "affine", "bits": 2, "group_size": 32}, recent=5
    ),
    "recent_turboquant": QuantizedConfig(
        keys={"kind": "turboquant", "bits": 2, "estimator": "prod"},
        values={"kind": "hadamard", "codec": {"kind": "mxfp4"}},
        recent=1,
        start=11,
    ),
    "start": QuantizedConfig(
        keys={"kind": "per_token_head", "dtype": "int4"}, values={"kind": "nvfp4"}, start=9
    ),
    "recent_rotating": QuantizedConfig(
        keys={"kind": "mxfp4"}, values={"kind": "mxfp4"}, recent=4, start=7, max_size=12, keep=3
    ),
    "after_prefill": QuantizedConfig(
        keys={"kind": "mxfp4"}, values={"kind": "nvfp4"}, recent=3, start="after_prefill"
    ),
    "modality": ModalityConfig(
        image={
            "keys": {"kind": "mxfp4"},
            "values": {"kind": "affine", "bits": 2, "group_size": 32},
        },
        text={"keys": {"kind": "mxfp8"}},
    ),
    "snapkv": SnapKVConfig(ratio=0.5, window=4, pool=3),
    "pyramidkv": PyramidKVConfig(budget=9, window=2),
    "h2o": H2OConfig(ratio=0.4, keys={"kind": "mxfp4"}, values={"kind": "nvfp4"}),
    "tova": TOVAConfig(budget=5, sinks=2),
    "knorm": KnormConfig(ratio=0.3),
    "keydiff": KeyDiffConfig(ratio=0.3, image_ratio=0.5),
    "random": RandomConfig(ratio=0.3, seed=5),
    "external_half": External(factory="experiments.own_cache:half"),
    "external_window": External(factory=f"{MODULE}:sunk_window", config={"first": 3, "last": 9}),
}


def finishes(config: Any) -> bool:
    """Whether a prompt is held as computed until its end; the table is about the time before."""
    return isinstance(config, ModalityConfig | EvictionConfig) or (
        isinstance(config, QuantizedConfig) and config.start == "after_prefill"
    )


FINISHING = tuple(name for name, config in CONFIGS.items() if finishes(config))


class Tokens(NamedTuple):
    """Queries, keys and values of the tokens of one row."""

    queries: NDArray[np.float32]  # [H, n, D]
    keys: NDArray[np.float32]  # [H_kv, n, D]
    values: NDArray[np.float32]  # [H_kv, n, D]

    def part(self, start: int, stop: int) -> Tokens:
        return Tokens(*(x[:, start:stop] for x in self))


def limits_of(config: Any) -> tuple[int, int] | None:
    """The most tokens that a row holds, and how many of them are its first; None: all."""
    if isinstance(config, External):
        given: dict[str, Any] = config.config
        first, last = given.get("first"), given.get("last")
        return None if last is None else (first + last, first)
    if finishes(config) or isinstance(config, DenseConfig | KVarNConfig | KiviConfig):
        return None
    max_size = config.max_size
    return None if max_size is None else (max_size, config.keep)


def kind_of(name: str) -> CacheKind:
    return build_cache(CONFIGS[name], [SHAPE], 0, mx.float32).kinds[0]


def random_tokens(count: int, seed: int, spec: KVSpec = SHAPE) -> Tokens:
    rng, heads = np.random.default_rng(seed), spec.num_kv_heads
    sizes = [(NUM_HEADS, spec.key_dim), (heads, spec.key_dim), (heads, spec.value_dim)]
    return Tokens(*(rng.standard_normal((n, count, dim), np.float32) for n, dim in sizes))


def feed(
    kind: CacheKind,
    state: Pytree,
    starts: Sequence[int],
    rows: Sequence[Tokens],
    widths: Sequence[int],
    padding: float = 100.0,
) -> tuple[Pytree, list[NDArray[np.float32]]]:
    """Append rows in chunks of these widths; return the attention output [H, n, D] per row."""
    lengths = [row.keys.shape[1] for row in rows]
    assert sum(widths) >= max(lengths)
    outputs: list[list[NDArray[np.float32]]] = [[] for _ in rows]
    at = 0
    for width in widths:
        num_new = [min(max(length - at, 0), width) for length in lengths]
        span = Span(
            starts=tuple(s + min(n, at) for s, n in zip(starts, lengths, strict=True)),
            lengths=tuple(num_new),
            width=width,
        )
        parts = [row.part(at, at + width) for row in rows]
        queries, keys, values = (
            mx.array(np.stack([_pad(part[i], width, padding) for part in parts])) for i in range(3)
        )
        plan = kind.plan(state, span)
        state = kind.append(state, keys, values, plan)
        output = kind.attend(state, queries, plan, SCALE)
        if kind.finishing is not None and kind.finishing.observe is not None:
            state = kind.finishing.observe(state, queries, plan, SCALE)
        mx.eval(state, output)
        for row, count in enumerate(num_new):
            outputs[row].append(np.array(output[row, :, :count]))
        at += width
    return state, [np.concatenate(chunks, axis=1) for chunks in outputs]


def _pad(x: NDArray[np.float32], width: int, padding: float) -> NDArray[np.float32]:
    full = np.full((x.shape[0], width, x.shape[2]), padding, np.float32)
    full[:, : x.shape[1]] = x
    return full


def expected(name: str, tokens: Tokens) -> NDArray[np.float64]:
    """What every query of a row must get, in float64."""
    return expected_of(CONFIGS[name], SHAPE, tokens)


def expected_of(config: Any, spec: KVSpec, tokens: Tokens) -> NDArray[np.float64]:
    """The same for a layer of this spec under a config."""
    count = tokens.keys.shape[1]
    i, j = np.arange(count)[:, None], np.arange(count)[None]
    visible = j <= i
    limits = limits_of(config)
    if spec.window is not None:  # a window has no first tokens that stay
        visible &= i - j < min(spec.window, limits[0] - limits[1] if limits else spec.window)
    elif limits is not None:
        visible &= (j < limits[1]) | (i - j < limits[0] - limits[1])
    group = NUM_HEADS // spec.num_kv_heads
    stored, computed = (
        [np.repeat(x.astype(np.float64), group, axis=0) for x in pair]
        for pair in (
            (stored_keys(config, tokens.keys), stored_values(config, tokens.values)),
            (tokens.keys, tokens.values),
        )
    )
    queries = SCALE * tokens.queries.astype(np.float64)
    as_stored = j >= 0
    if isinstance(config, KVarNConfig | KiviConfig):
        as_stored = j < i - i % block_size_of(config) if spec.window is None else j < 0
    if isinstance(config, QuantizedConfig) and not finishes(config):
        as_stored = (i >= config.start) & (j <= i - config.recent)
    scores = np.where(
        as_stored, queries @ stored[0].swapaxes(1, 2), queries @ computed[0].swapaxes(1, 2)
    )
    scores = np.where(visible, scores, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    read = (weights * as_stored) @ stored[1] + (weights * ~as_stored) @ computed[1]
    return np.asarray(read)


def block_size_of(config: KVarNConfig | KiviConfig) -> int:
    return config.block_size if isinstance(config, KVarNConfig) else config.residual


def stored_keys(config: Any, keys: NDArray[np.float32]) -> NDArray[np.float32]:
    if finishes(config):
        return keys
    if isinstance(config, KVarNConfig):
        return in_blocks(kvarn(config.key_bits, "tokens"), keys, config.block_size)
    if isinstance(config, KiviConfig):
        codec = kivi_codec(config.key_bits, config.group_size, "tokens")
        return in_blocks(codec, keys, config.residual)
    if isinstance(config, QuantizedConfig):
        return through(build_codec(config.keys), keys)
    return rounded(config, keys, lambda c: c.key_bits)


def stored_values(config: Any, values: NDArray[np.float32]) -> NDArray[np.float32]:
    if finishes(config):
        return values
    if isinstance(config, KVarNConfig):
        return in_blocks(kvarn(config.value_bits, "channels"), values, config.block_size)
    if isinstance(config, KiviConfig):
        codec = kivi_codec(config.value_bits, config.group_size, "channels")
        return in_blocks(codec, values, config.residual)
    if isinstance(config, QuantizedConfig):
        return through(build_codec(config.values), values)
    return rounded(config, values, lambda c: c.value_bits)


@contextmanager
def few_rounds(number: int | None) -> Iterator[None]:
    """Balance blocks of kvarn in so few rounds, for what holds whatever their number; None: all."""
    with patch.object(kvarn_codec, "ROUNDS", kvarn_codec.ROUNDS if number is None else number):
        yield
