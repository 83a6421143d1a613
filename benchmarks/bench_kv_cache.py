"""KV caches: append and attend, whole decode steps, prefills, bytes; and beside mlx-lm's caches.

    make bench ARGS=benchmarks/bench_kv_cache.py
    python -m benchmarks.bench_kv_cache                  # beside mlx-lm, in turns
    vlmkit bench kv                                      # all of it, with every sample

A sample of a layer is one token through several layers in a row, divided by their number. Caches
are filled with random numbers before, and go on by a token a sample. The script alternates our
caches and mlx-lm's in one run: its ``KVCache`` read by MLX's own kernel, and its
``QuantizedKVCache`` read by its ``quantized_scaled_dot_product_attention``, in float32, which is
what is fast in MLX on a CPU; the quantized one also in float16. Scales of our quantized cache have
16 bits. It prints medians, and the ratio of mlx-lm's time to ours: above 1 ours is faster.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Callable, Iterator
from statistics import median
from typing import Any

import mlx.core as mx
import pytest

from vlmkit.backend.measure import measure_speeds
from vlmkit.bench.config import BASELINE, KvBenchConfig
from vlmkit.bench.measure import layer_forms
from vlmkit.bench.running import layers_running, model_running, prefill_turn
from vlmkit.cache import AffineConfig, CacheConfig, DenseConfig
from vlmkit.contracts.interface import KVSpec, Model
from vlmkit.loading import load_model, resolve_checkpoint

SPEC, NUM_HEADS, NUM_LAYERS = KVSpec(2, 64, 64), 14, 4
CONFIG = KvBenchConfig()
POLICIES = {BASELINE: CONFIG.baseline, **CONFIG.policies}
CONTEXTS, BATCHES = CONFIG.contexts, CONFIG.batches
LONGEST_PREFILL = 2048
MOST_SLOTS = 2**17
Turn = Callable[[], float]


@functools.cache
def model() -> Model:
    return load_model(resolve_checkpoint("shapes"))


def cases() -> Iterator[Any]:
    for context in CONTEXTS:
        for batch in BATCHES:
            for name in POLICIES:
                if context * batch <= MOST_SLOTS:
                    yield pytest.param(name, context, batch, id=f"{name}-{context}x{batch}")


@pytest.mark.benchmark(group="kv cache: a layer")
@pytest.mark.parametrize(("name", "context", "batch"), cases())
def test_layer(benchmark: Any, name: str, context: int, batch: int) -> None:
    mx.clear_cache()
    before = mx.get_active_memory()
    running = layers_running(
        *(layer_forms(), mx.float32, POLICIES[name], SPEC, NUM_LAYERS, NUM_HEADS),
        batch=batch,
        context=context,
    )
    mx.reset_peak_memory()
    benchmark.pedantic(running.turn, rounds=5, warmup_rounds=1)
    benchmark.extra_info |= {
        "cache_bytes": running.num_bytes,
        "peak_bytes": mx.get_peak_memory() - before,
        "layers": NUM_LAYERS,
    }


@pytest.mark.benchmark(group="kv cache: a decode step")
@pytest.mark.parametrize(("name", "context", "batch"), cases())
def test_decode(benchmark: Any, name: str, context: int, batch: int) -> None:
    mx.clear_cache()
    before = mx.get_active_memory()
    running = model_running(model(), POLICIES[name], batch=batch, context=context)
    mx.reset_peak_memory()
    benchmark.pedantic(running.turn, rounds=5, warmup_rounds=1)
    benchmark.extra_info |= {
        "cache_bytes": running.num_bytes,
        "peak_bytes": mx.get_peak_memory() - before,
    }


@pytest.mark.benchmark(group="kv cache: a prefill")
@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("context", [c for c in CONTEXTS if c <= LONGEST_PREFILL])
def test_prefill(benchmark: Any, name: str, context: int) -> None:
    turn = prefill_turn(model(), POLICIES[name], batch=1, context=context)
    benchmark.pedantic(turn, rounds=3, warmup_rounds=1)


def of_vlmkit(config: CacheConfig, batch: int, context: int) -> Turn:
    """Return a turn of our layers."""
    return layers_running(
        *(layer_forms(), mx.float32, config, SPEC, NUM_LAYERS, NUM_HEADS),
        batch=batch,
        context=context,
    ).turn


def of_mlx_lm(bits: int | None, dtype: mx.Dtype, batch: int, context: int) -> Turn:
    """Return a turn of as many layers through mlx-lm's caches and attention."""
    from mlx_lm.models.base import scaled_dot_product_attention
    from mlx_lm.models.cache import KVCache, QuantizedKVCache

    def drawn(heads: int, length: int) -> mx.array:
        return mx.random.normal((batch, heads, length, SPEC.key_dim)).astype(dtype)

    caches = [
        KVCache() if bits is None else QuantizedKVCache(group_size=32, bits=bits)
        for _ in range(NUM_LAYERS)
    ]
    for cache in caches:
        for start in range(0, context, 2048):
            width = min(2048, context - start)
            mx.eval(cache.update_and_fetch(*(drawn(SPEC.num_kv_heads, width) for _ in range(2))))
    queries = drawn(NUM_HEADS, 1)
    keys, values = (drawn(SPEC.num_kv_heads, 1) for _ in range(2))
    mx.eval(queries, keys, values)

    def turn() -> float:
        began = time.perf_counter()
        output = queries
        for cache in caches:
            found = cache.update_and_fetch(keys, values)
            output = scaled_dot_product_attention(
                output, *found, cache=cache, scale=SPEC.key_dim**-0.5, mask=None
            )
        mx.eval(output)
        return time.perf_counter() - began

    return turn


def eight_bits() -> AffineConfig:
    return AffineConfig(bits=8, group_size=32)


def compared(batch: int, context: int, rounds: int) -> dict[str, float]:
    """Median milliseconds per layer of each way, taking turns."""
    turns = {
        "vlmkit dense": of_vlmkit(DenseConfig(), batch, context),
        "mlx-lm KVCache": of_mlx_lm(None, mx.float32, batch, context),
        "vlmkit affine 8": of_vlmkit(eight_bits(), batch, context),
        "mlx-lm 8 bits": of_mlx_lm(8, mx.float32, batch, context),
        "mlx-lm 8 bits, float16": of_mlx_lm(8, mx.float16, batch, context),
    }
    times: dict[str, list[float]] = {name: [] for name in turns}
    for turn_index in range(rounds + 1):
        for name, turn in turns.items():
            seconds = turn()
            if turn_index:
                times[name].append(seconds)
    return {name: 1e3 * median(found) / NUM_LAYERS for name, found in times.items()}


def lines(contexts: tuple[int, ...], batches: tuple[int, ...], rounds: int) -> Iterator[str]:
    """The table in Markdown, line by line."""
    yield "| context | rows | dense ms | mlx-lm / dense | affine 8 ms | affine 8 / dense | " \
          "mlx-lm 8 bits / affine 8 | the same in float16 | dense / limit |"  # fmt: skip
    yield "|" + " --: |" * 9
    bandwidth = measure_speeds(mx.float32).bandwidth_gb_s
    for context in contexts:
        for batch in batches:
            ours, lm, affine, lm_8, lm_half = compared(batch, context, rounds).values()
            num_bytes = 8 * batch * context * SPEC.num_kv_heads * SPEC.key_dim
            limit_ms = num_bytes / bandwidth / 1e6
            yield (
                f"| {context:,} | {batch} | {ours:.3f} | {lm / ours:.2f} | {affine:.3f} | "
                f"{affine / ours:.2f} | {lm_8 / affine:.2f} | {lm_half / affine:.1f} | "
                f"{ours / limit_ms:.2f} |"
            )
    yield f"\nThe limit is reading the keys and values once at {bandwidth:.1f} GB/s."


def main() -> None:
    """Print the comparison with mlx-lm."""
    parser = argparse.ArgumentParser(description="Our caches and mlx-lm's, in turns.")
    parser.add_argument("--contexts", type=int, nargs="+", default=[1024, 8192])
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=11, help="of each way (11)")
    args = parser.parse_args()
    for line in lines(tuple(args.contexts), tuple(args.batches), max(args.rounds, 2)):
        print(line, flush=True)


if __name__ == "__main__":
    main()
