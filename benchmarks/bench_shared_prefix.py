"""Rows of one prompt that read one copy of it, against rows that hold copies.

    python -m benchmarks.bench_shared_prefix

One decode step's attention over all layers: 24 of 14 query and 2 key-value heads of 64 numbers, as
in a Qwen2-VL of 0.5 B, or fewer where copies would take more than 1 GB. Three ways alternate in
one run: copies read by ``mx.fast.scaled_dot_product_attention``, copies read as this machine reads
them fastest, and one copy. Medians; ratios to the first way. Bytes are those of the caches' arrays.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from statistics import median
from typing import NamedTuple

import mlx.core as mx

from vlmkit.backend.attention import fused_attention
from vlmkit.backend.choices import Choices
from vlmkit.backend.policy import choose_backend
from vlmkit.cache import DenseConfig, build_cache, cache_num_bytes, select_rows
from vlmkit.contracts.interface import Cache, CacheKind, KVSpec, Span
from vlmkit.models.decoder import plan_kinds

SPEC, NUM_HEADS, NUM_LAYERS = KVSpec(2, 64, 64), 14, 24
MOST_BYTES = 1e9
SHAPES = tuple((rows, length) for length in (300, 2000) for rows in (1, 2, 4, 16, 64))
ROUNDS = 15


class Way(NamedTuple):
    """A batch in the middle of its decoding."""

    cache: Cache
    span: Span


def tokens(rows: int, heads: int, count: int) -> mx.array:
    return mx.random.normal((rows, heads, count, SPEC.key_dim))


def append(cache: Cache, span: Span) -> Cache:
    """Add random keys and values to each layer."""
    plans, layers = plan_kinds(cache, span), []
    for kind, state in zip(cache.kinds, cache.layers, strict=True):
        assert isinstance(kind, CacheKind)
        new = (tokens(len(span.starts), SPEC.num_kv_heads, span.width) for _ in range(2))
        layers.append(kind.append(state, *new, plans[id(kind)]))
    mx.eval(layers)
    return Cache(cache.kinds, tuple(layers), span.ends)


def make_ways(rows: int, length: int, num_new: int, threads: int | None) -> dict[str, Way]:
    """Rows of one prompt that have generated some tokens, held in each way."""
    forms = choose_backend(Choices(threads=threads)).forms
    row_bytes = 2 * 4 * SPEC.num_kv_heads * SPEC.key_dim * (length + 256)
    layers = int(max(min(NUM_LAYERS, MOST_BYTES // (2 * rows * row_bytes)), 1))
    made = {}
    for name, attention, prefixed in (
        ("sdpa", fused_attention, None),
        ("copies", forms.attention, None),
        ("shared", forms.attention, forms.prefixed),
    ):
        mx.random.seed(0)  # the same keys and values in each way
        empty = build_cache(
            DenseConfig(), [SPEC] * layers, 1, mx.float32, attention=attention, prefixed=prefixed
        )
        prompt = append(empty, Span((0,), (length,), length))
        cache = select_rows(prompt, (0,) * rows)
        ends = (length + num_new,) * rows
        cache = append(cache, Span(cache.lengths, (num_new,) * rows, num_new))
        made[name] = Way(append(cache, Span(ends, (1,) * rows, 1)), Span(ends, (1,) * rows, 1))
    return made


def attend(way: Way, queries: mx.array) -> mx.array:
    """Run a step's attention through all layers, each reading what the one before gave."""
    cache, span = way
    for kind, state, plan in _planned(cache, span):
        queries = kind.attend(state, queries, plan, 0.125)
    mx.eval(queries)
    return queries


def seconds(way: Way, queries: mx.array) -> float:
    """Time :func:`attend`."""
    started = time.perf_counter()
    attend(way, queries)
    return time.perf_counter() - started


def _planned(cache: Cache, span: Span) -> Iterator[tuple[CacheKind, object, object]]:
    # The tokens of this step are there already: it is planned as the one that added them.
    plans = plan_kinds(cache, span)
    for kind, state in zip(cache.kinds, cache.layers, strict=True):
        assert isinstance(kind, CacheKind)
        yield kind, state, plans[id(kind)]


def table(rounds: int, num_new: int, threads: int | None) -> Iterator[str]:
    """Measure, and yield the table line by line."""
    yield "| rows | prompt | layers | sdpa ms | copies | shared | copies MB | shared MB |"
    yield "|" + "---|" * 8
    for rows, length in SHAPES:
        ways = make_ways(rows, length, num_new, threads)
        queries = tokens(rows, NUM_HEADS, 1)
        times: dict[str, list[float]] = {name: [] for name in ways}
        for turn in range(rounds + 1):
            for name, way in ways.items():
                taken = seconds(way, queries)
                if turn:
                    times[name].append(taken)
        sdpa, copies, shared = (median(taken) for taken in times.values())
        sizes = [cache_num_bytes(ways[name].cache) / 1e6 for name in ("copies", "shared")]
        layers = len(ways["sdpa"].cache.layers)
        yield (
            f"| {rows} | {length} | {layers} | {sdpa * 1e3:.1f} | {copies / sdpa:.2f} | "
            f"{shared / sdpa:.2f} | {sizes[0]:.0f} | {sizes[1]:.0f} |"
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="One copy of a prompt against one for each row.")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"of each way ({ROUNDS})")
    parser.add_argument("--tokens", type=int, default=32, help="that each row has added (32)")
    parser.add_argument("--threads", type=int, help="of the BLAS (one per core)")
    args = parser.parse_args()
    for line in table(max(args.rounds, 1), max(args.tokens, 1), args.threads):
        print(line, flush=True)


if __name__ == "__main__":
    main()
