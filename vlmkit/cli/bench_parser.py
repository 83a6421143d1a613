"""The arguments of ``vlmkit bench``. Standard library only, like the parser."""

from __future__ import annotations

from typing import Any

from vlmkit.cli.running_flags import add_running_flags

BENCHES = ("kv",)
BENCH_FORMATS = ("terminal", "md", "csv", "json")
BENCH_FLAGS = ("out", "format", "compare", "trust_code")


def add_bench_command(commands: Any) -> None:
    """Add ``bench`` to the subcommands."""
    bench = commands.add_parser(
        "bench",
        help="time KV caches on this machine: a layer, decode steps, prefills",
        description="kv: time cache policies, each in turns with the dense cache: append and "
        "attend in one layer, whole decode steps, whole prefills; bytes held, and peak memory.",
        allow_abbrev=False,
    )
    bench.add_argument("bench", choices=BENCHES, help="what to time")
    bench.add_argument(
        "words", nargs="*", metavar="CONFIG key=value",
        help="a YAML file, and overrides: contexts=[1024] batches=[1,8] repetitions=10",
    )  # fmt: skip
    bench.add_argument("--out", metavar="FILE", help="also write the rows as JSON, for --compare")
    bench.add_argument("--format", choices=BENCH_FORMATS, default="terminal", help="(terminal)")
    bench.add_argument(
        "--compare", nargs=2, metavar=("OLD", "NEW"), help="compare two files; nothing is timed"
    )
    add_running_flags(bench, "trust_code")
