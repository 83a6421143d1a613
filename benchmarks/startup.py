"""Whole-process times, vlmkit against mlx-vlm, taking turns.

    python -m benchmarks.startup --rounds 5

Measures ``import``, ``vlmkit --help``, and a cold ``generate`` on the embedded model from process
start to exit. The mlx-vlm rows need the ``parity`` extra and are left out without it.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import subprocess
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

FOLDER = Path(__file__).parents[1] / "vlmkit" / "assets" / "shapes"
QUESTION = "Count the objects."


def commands() -> dict[str, dict[str, list[str]]]:
    """Per case, the command line of each toolkit."""
    image = str(FOLDER / "samples" / "count_all.png")
    python = sys.executable
    generate = ["generate", "--model", str(FOLDER), "--image", image, "--prompt", QUESTION]
    cases = {
        "import": {"vlmkit": [python, "-c", "import vlmkit"]},
        "--help": {"vlmkit": [python, "-m", "vlmkit", "--help"]},
        "cold generate": {
            "vlmkit": [python, "-m", "vlmkit", *generate, "--max-tokens", "16"],
        },
    }
    if importlib.util.find_spec("mlx_vlm") is not None:
        cases["import"]["mlx-vlm"] = [python, "-c", "import mlx_vlm"]
        cases["--help"]["mlx-vlm"] = [python, "-m", "mlx_vlm", "generate", "--help"]
        cases["cold generate"]["mlx-vlm"] = [
            python,
            "-m",
            "mlx_vlm",
            *generate,
            "--max-tokens",
            "16",
            "--temperature",
            "0",
        ]
    return cases


def wall_s(command: list[str]) -> float:
    """Run a command and return its seconds from start to exit."""
    began = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    seconds = time.perf_counter() - began
    if done.returncode != 0:
        raise SystemExit(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return seconds


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    table = Table(title=f"Seconds, whole process, median of {options.rounds} rounds")
    for heading in ("case", "vlmkit", "mlx-vlm", "ratio"):
        table.add_column(heading, justify="left" if heading == "case" else "right")
    for case, tools in commands().items():
        seconds: dict[str, list[float]] = {name: [] for name in tools}
        for command in tools.values():
            wall_s(command)  # warm the file cache
        for turn in range(options.rounds):
            for name in list(tools) if turn % 2 == 0 else list(tools)[::-1]:
                seconds[name].append(wall_s(tools[name]))
        medians = {name: statistics.median(values) for name, values in seconds.items()}
        peer = medians.get("mlx-vlm")
        table.add_row(
            case,
            f"{medians['vlmkit']:.2f}",
            f"{peer:.2f}" if peer else "not installed",
            f"{medians['vlmkit'] / peer:.2f}" if peer else "",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
