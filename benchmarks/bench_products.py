"""Products on a CPU: MLX's own BLAS, the one put in its place, and bfloat16 weights, in turns.

    make bench ARGS=benchmarks/bench_products.py
    python -m benchmarks.bench_products

The weights are those of a 0.5 B model, several of each size, so that they come from memory as in a
forward pass. The script prints 10^9 operations per second, and for one row 10^9 bytes of weights
read per second beside what the machine reads at most.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import mlx.core as mx
import pytest
from rich.console import Console
from rich.table import Table

from vlmkit.backend.blas import install_blas
from vlmkit.backend.blas_bfloat16 import install_bfloat16, multiply_packed, pack_bfloat16
from vlmkit.backend.blas_speed import measure_reading

SHAPES = ((896, 896), (896, 4864), (4864, 896), (896, 151_936))  # inputs, outputs
ROWS = (1, 16, 278)
COPY_BYTES = 2**28
Product = Callable[[], object]


class Weights:
    """Several weights of one size, in float32 and packed, taken in turns."""

    def __init__(self, inputs: int, outputs: int) -> None:
        count = max(1, min(24, COPY_BYTES // (4 * inputs * outputs)))
        with mx.stream(mx.cpu):
            self.plain = [mx.random.normal((outputs, inputs)) for _ in range(count)]
            self.packed = [pack_bfloat16(weight) for weight in self.plain]
            mx.eval(self.plain, self.packed)
        self.inputs, self.outputs = inputs, outputs
        self.turn = 0

    def products(self, rows: int) -> dict[str, Product]:
        """What is compared, by name."""
        x = mx.random.normal((rows, self.inputs))
        mx.eval(x)

        def plain() -> None:
            self.turn += 1
            with mx.stream(mx.cpu):
                mx.eval(x @ self.plain[self.turn % len(self.plain)].T)

        def packed() -> None:
            self.turn += 1
            weight = self.packed[self.turn % len(self.packed)]
            mx.eval(multiply_packed(x, weight, self.outputs))

        products: dict[str, Product] = {"mlx": plain, "auto": plain}
        if install_bfloat16().available:
            products["bfloat16"] = packed
        return products


def timed(products: dict[str, Product], rounds: int) -> dict[str, float]:
    """Median seconds of each, taking turns. Products that take seconds run once."""
    times: dict[str, list[float]] = {name: [] for name in products}
    for round_index in range(rounds + 1):
        for name, product in products.items():
            if times[name] and sum(times[name]) > 5:
                continue
            install_blas("mlx" if name == "mlx" else "auto")
            began = time.perf_counter()
            product()
            seconds = time.perf_counter() - began
            if round_index or seconds > 1:  # the first is a warm-up
                times[name].append(seconds)
    return {name: statistics.median(found) for name, found in times.items()}


def cases() -> Iterator[tuple[int, int, int]]:
    for inputs, outputs in SHAPES:
        for rows in ROWS:
            if rows * outputs < 10_000_000:  # of the head, a prefill computes the last row only
                yield rows, inputs, outputs


@pytest.mark.benchmark(group="products")
@pytest.mark.parametrize("name", ["auto", "bfloat16"])
@pytest.mark.parametrize("rows", ROWS)
def test_products(benchmark: Any, rows: int, name: str) -> None:
    if name == "bfloat16" and not install_bfloat16().available:
        pytest.skip(install_bfloat16().note)
    install_blas()
    benchmark.pedantic(Weights(896, 4864).products(rows)[name], rounds=15, warmup_rounds=2)


def main() -> None:
    """Print a table of all cases."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    rounds = parser.parse_args().rounds
    report, half = install_blas(), install_bfloat16()
    table = Table(title=f"{report.name}; bfloat16: {half.name or half.note}")
    names = ("mlx", "auto", "bfloat16") if half.available else ("mlx", "auto")
    for column in ("rows", "inputs", "outputs", *(f"{n} GFLOP/s" for n in names)):
        table.add_column(column, justify="right")
    table.add_column("GB/s, one row", justify="right")
    weights: dict[tuple[int, int], Weights] = {}
    for rows, inputs, outputs in cases():
        if (inputs, outputs) not in weights:
            weights = {(inputs, outputs): Weights(inputs, outputs)}
        seconds = timed(weights[inputs, outputs].products(rows), rounds)
        size = inputs * outputs
        rates = [f"{2 * rows * size / seconds[name] / 1e9:.1f}" for name in names]
        read = [f"{(2 if n == 'bfloat16' else 4) * size / seconds[n] / 1e9:.1f}" for n in names]
        table.add_row(*map(str, (rows, inputs, outputs)), *rates, " / ".join(read * (rows == 1)))
    Console().print(table)
    Console().print(f"The machine reads {measure_reading():.1f} GB/s.")


if __name__ == "__main__":
    main()
