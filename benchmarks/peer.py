"""vlmkit and mlx-vlm on the same checkpoint file, in one process, taking turns.

    python -m benchmarks.peer --model shapes --rounds 7
    python -m benchmarks.peer --model FOLDER --rounds 5 --dtype float32

Both use the same libmlx and therefore the same BLAS. Each round measures either toolkit once, in
alternating order; the table shows medians and the median of the per-round ratios. ``--dtype``
casts mlx-vlm's weights too, so that both compute in the same precision.
Needs the ``parity`` extra.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
from PIL import Image
from rich.console import Console
from rich.table import Table

import vlmkit
from vlmkit.processors import load_processor
from vlmkit.prompt_utils import apply_chat_template

QUESTION = "Describe this image in detail, please, and then tell me how many objects there are."


class Timing(NamedTuple):
    """One run: tokens per second, and the ids that came out."""

    prefill_tps: float
    decode_tps: float
    token_ids: list[int]


def time_stream(start: Callable[[], Any], num_prompt_tokens: int) -> Timing:
    """Run a stream to its end; the first token ends the prefill."""
    began = time.perf_counter()
    stamps, token_ids = [], []
    for token_id in start():
        stamps.append(time.perf_counter())
        token_ids.append(token_id)
    decode_s = stamps[-1] - stamps[0]
    decode_tps = (len(stamps) - 1) / max(decode_s, 1e-9)
    return Timing(num_prompt_tokens / (stamps[0] - began), decode_tps, token_ids)


def ours(
    folder: str, dtype: str | None, image: Image.Image, max_tokens: int, prompt: str
) -> Callable[[], Timing]:
    """A function that runs vlmkit once."""
    model, processor = vlmkit.load(folder, dtype=dtype)
    bias = dict.fromkeys(processor.eos_token_ids, -1e4)

    def run() -> Timing:
        count = 0

        def start() -> Any:
            nonlocal count
            for chunk in vlmkit.stream_generate(
                model, processor, prompt, image, max_tokens=max_tokens, logit_bias=bias
            ):
                count = chunk.prompt_tokens
                yield chunk.token

        timing = time_stream(start, 1)
        return timing._replace(prefill_tps=timing.prefill_tps * count)

    return run


def peer(
    folder: str, dtype: str | None, image: Image.Image, max_tokens: int, prompt: str
) -> Callable[[], Timing]:
    """A function that runs mlx-vlm once on the same prompt; it prepares its own inputs."""
    from mlx.utils import tree_map
    from mlx_vlm import load, stream_generate

    model, processor = load(folder)
    if dtype is not None:
        target = getattr(mx, dtype)
        model.update(
            tree_map(
                lambda leaf: (
                    leaf.astype(target) if mx.issubdtype(leaf.dtype, mx.floating) else leaf
                ),
                model.parameters(),
            )
        )
        mx.eval(model.parameters())
    eos = json.loads((Path(folder) / "generation_config.json").read_text())["eos_token_id"]

    def run() -> Timing:
        count = 0

        def start() -> Any:
            nonlocal count
            for chunk in stream_generate(
                model,
                processor,
                prompt,
                image=[image],
                max_tokens=max_tokens,
                temperature=0.0,
                logit_bias=dict.fromkeys(eos, -1e4),
            ):
                count = chunk.prompt_tokens
                if chunk.token is not None:
                    yield chunk.token

        timing = time_stream(start, 1)
        return timing._replace(prefill_tps=timing.prefill_tps * count)

    return run


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="shapes")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--max-tokens", type=int, default=32)
    parser.add_argument("--dtype", choices=("float32", "bfloat16", "float16"))
    options = parser.parse_args()
    folder = options.model
    if folder == "shapes":
        folder = str(Path(vlmkit.__file__).parent / "assets" / "shapes")
    image = Image.open(
        next((Path(vlmkit.__file__).parent / "assets" / "shapes" / "samples").glob("*.png"))
    ).convert("RGB")
    prompt = apply_chat_template(
        load_processor(folder), None, QUESTION, num_images=1, add_generation_prompt=True
    )
    runs = {
        "vlmkit": ours(folder, options.dtype, image, options.max_tokens, prompt),
        "mlx-vlm": peer(folder, options.dtype, image, options.max_tokens, prompt),
    }
    timings: dict[str, list[Timing]] = {name: [] for name in runs}
    for run in runs.values():
        run()  # warm-up
    for turn in range(options.rounds):
        for name in list(runs) if turn % 2 == 0 else list(runs)[::-1]:
            timings[name].append(runs[name]())
    report(timings, options)


def report(timings: dict[str, list[Timing]], options: argparse.Namespace) -> None:
    """Print the table of medians and ratios."""
    table = Table(
        title=f"{options.model}, {options.rounds} rounds, dtype {options.dtype or 'as loaded'}"
    )
    for heading in ("", "prefill tokens/s", "decode tokens/s"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, runs in timings.items():
        table.add_row(
            name,
            *(
                f"{statistics.median(getattr(run, field) for run in runs):.1f}"
                for field in Timing._fields[:2]
            ),
        )
    pairs = list(zip(*timings.values(), strict=True))
    ratios = [
        statistics.median(getattr(own, field) / getattr(other, field) for own, other in pairs)
        for field in Timing._fields[:2]
    ]
    table.add_row("ratio", *(f"{ratio:.2f}" for ratio in ratios), style="bold")
    console = Console()
    console.print(table)
    first, second = (runs[0].token_ids for runs in timings.values())
    same = sum(a == b for a, b in zip(first, second, strict=False))
    console.print(f"greedy tokens in common: {same} of {min(len(first), len(second))}")


if __name__ == "__main__":
    main()
