"""Timings with the habits of a bench: repetitions, raw samples, and all that they depend on."""

from __future__ import annotations

from vlmkit.bench.config import KvBenchConfig, load_kv_bench
from vlmkit.bench.measure import run_kv_bench
from vlmkit.bench.rows import BenchRow, read_rows, write_rows

__all__ = [
    "BenchRow",
    "KvBenchConfig",
    "load_kv_bench",
    "read_rows",
    "run_kv_bench",
    "write_rows",
]
