"""Start-up times on the embedded model, vlmkit against mlx-vlm, taking turns.

    python -m benchmarks.startup --rounds 5

Times whole processes (``import``, ``--help``, ``generate`` to its exit), and within one process how
long after its start the imports are done, the model is loaded and the first token is there. The
mlx-vlm column needs the ``parity`` extra and stays empty without it.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.table import Table

SHAPES = Path(__file__).parents[1] / "vlmkit" / "assets" / "shapes"
IMAGE = SHAPES / "samples" / "count_all.png"
QUESTION = "Count the objects."
TOOLS = ("vlmkit", "mlx-vlm")
STAGES = ("imports are done", "model is loaded", "first token")

# The clock of time.monotonic is one for all processes: the parent gives the time of the start.
STAGED = """
import json, sys, time
started, folder, image, question = float(sys.argv[1]), *sys.argv[2:]
{imports}
stamps = [time.monotonic()]
model, processor = load(folder)
stamps.append(time.monotonic())
prompt = apply_chat_template(processor, model.config, question, num_images=1)
stream = stream_generate(model, processor, prompt, {image}, max_tokens=16, temperature=0.0)
next(iter(stream))
stamps.append(time.monotonic())
print(json.dumps([stamp - started for stamp in stamps]))
"""
STAGED_CODE = {
    "vlmkit": STAGED.format(
        imports="from vlmkit import apply_chat_template, load, stream_generate", image="image"
    ),
    "mlx-vlm": STAGED.format(
        imports=(
            "from mlx_vlm import load, stream_generate\n"
            "from mlx_vlm.prompt_utils import apply_chat_template"
        ),
        image="[image]",
    ),
}


def commands() -> dict[str, dict[str, list[str]]]:
    """Per whole-process case, the arguments for Python of each toolkit."""
    generate = ["generate", "--model", str(SHAPES), "--image", str(IMAGE), "--prompt", QUESTION]
    generate += ["--max-tokens", "16", "--temperature", "0"]
    return {
        "import mlx.core": {tool: ["-c", "import mlx.core"] for tool in TOOLS},
        "import": {"vlmkit": ["-c", "import vlmkit"], "mlx-vlm": ["-c", "import mlx_vlm"]},
        "--help": {
            "vlmkit": ["-m", "vlmkit", "--help"],
            "mlx-vlm": ["-m", "mlx_vlm", "generate", "--help"],
        },
        "generate, to its exit": {
            "vlmkit": ["-m", "vlmkit", *generate],
            "mlx-vlm": ["-m", "mlx_vlm", *generate],
        },
    }


def run(arguments: list[str]) -> str:
    """Run Python and return what it printed."""
    # As after any installation: modules are compiled once, in the first, uncounted round.
    settings = {k: value for k, value in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    done = subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=settings
    )
    if done.returncode != 0:
        raise SystemExit(f"python {' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    return done.stdout


def whole_s(arguments: list[str]) -> list[float]:
    """Seconds from start to exit."""
    began = time.monotonic()
    run(arguments)
    return [time.monotonic() - began]


def staged_s(tool: str) -> list[float]:
    """Seconds from the start of a process to each of ``STAGES``."""
    values = [str(time.monotonic()), str(SHAPES), str(IMAGE), QUESTION]
    seconds: list[float] = json.loads(run(["-c", STAGED_CODE[tool], *values]).splitlines()[-1])
    return seconds


def in_turn(
    measure: dict[str, Callable[[], list[float]]], num_rounds: int
) -> dict[str, list[float]]:
    """Medians by tool, each measured once per round, in alternating order."""
    taken: dict[str, list[list[float]]] = {tool: [] for tool in measure}
    for take in measure.values():
        take()
    for turn in range(num_rounds):
        for tool in list(measure) if turn % 2 == 0 else list(measure)[::-1]:
            taken[tool].append(measure[tool]())
    return {
        tool: [*map(statistics.median, zip(*rows, strict=True))] for tool, rows in taken.items()
    }


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    tools = TOOLS if importlib.util.find_spec("mlx_vlm") is not None else TOOLS[:1]
    table = Table(title=f"Seconds since the process began, median of {options.rounds} rounds")
    table.add_column("")
    for heading in (*TOOLS, "ratio"):
        table.add_column(heading, justify="right")

    def add(names: tuple[str, ...], measure: dict[str, Callable[[], list[float]]]) -> None:
        medians = in_turn(measure, options.rounds)
        for index, name in enumerate(names):
            values = [medians[tool][index] for tool in tools]
            ratio = [f"{values[0] / values[1]:.2f}"] if len(values) > 1 else []
            table.add_row(name, *(f"{value:.3f}" for value in values), *ratio)

    for case, arguments in commands().items():
        add((case,), {tool: lambda given=arguments[tool]: whole_s(given) for tool in tools})
    add(STAGES, {tool: lambda given=tool: staged_s(given) for tool in tools})
    Console().print(table)


if __name__ == "__main__":
    main()
