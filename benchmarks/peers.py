"""vlmkit, transformers and mlx-vlm on one checkpoint: prefill and decode in tokens per second.

    python -m benchmarks.random_checkpoint /tmp/medium --size medium
    python -m benchmarks.peers /tmp/medium --rounds 3

Each system runs in a process of its own, as installed, and the systems take turns; the table shows
medians over the rounds and the ratio to transformers in float32. The prompt is one image and a
question; the first token ends the prefill, which includes the encoding of the image but not the
preparation of its pixels. Needs the ``parity`` extra.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

SYSTEMS = {
    "vlmkit float32": ("vlmkit", "float32"),
    "vlmkit bfloat16": ("vlmkit", "bfloat16"),
    "transformers float32": ("transformers", "float32"),
    "transformers bfloat16": ("transformers", "bfloat16"),
    "mlx-vlm as installed": ("mlx-vlm", None),
    "vlmkit as installed": ("vlmkit", None),
}
BASE = "transformers float32"
QUESTION = "Describe the image."
SIDE = 448
Turn = Callable[[], tuple[float, float, int]]
"""() -> seconds of the prefill, seconds per further token, prompt tokens"""


def image() -> Any:
    """Return the picture that is asked about."""
    from PIL import Image

    return Image.new("RGB", (SIDE, SIDE), (200, 30, 90))


def of_vlmkit(folder: str, dtype: str | None, num_tokens: int) -> Turn:
    """Return a turn of vlmkit."""
    import vlmkit
    from vlmkit.prompt_utils import apply_chat_template

    model, processor = vlmkit.load(folder, dtype=dtype)
    prompt = apply_chat_template(processor, None, QUESTION, num_images=1)

    def turn() -> tuple[float, float, int]:
        result = vlmkit.generate(
            model, processor, prompt, [image()], max_tokens=num_tokens, logit_bias={"eos": -1e4}
        )
        prefill_s = result.prompt_tokens / result.prompt_tps
        return prefill_s, 1 / result.generation_tps, result.prompt_tokens

    return turn


def of_mlx_vlm(folder: str, dtype: str | None, num_tokens: int) -> Turn:
    """Return a turn of mlx-vlm."""
    from mlx_vlm import load, stream_generate

    import vlmkit.processors
    from vlmkit.prompt_utils import apply_chat_template

    assert dtype is None, "as installed"
    model, processor = load(folder)
    own = vlmkit.processors.load_processor(folder)
    prompt = apply_chat_template(own, None, QUESTION, num_images=1)
    bias = dict.fromkeys(own.eos_token_ids, -1e4)

    def turn() -> tuple[float, float, int]:
        chunks = stream_generate(
            model, processor, prompt, [image()], max_tokens=num_tokens, logit_bias=bias
        )
        last = list(chunks)[-1]
        return last.prompt_tokens / last.prompt_tps, 1 / last.generation_tps, last.prompt_tokens

    return turn


def of_transformers(folder: str, dtype: str | None, num_tokens: int) -> Turn:
    """Return a turn of transformers."""
    import torch
    import transformers

    import vlmkit.processors
    from vlmkit.prompt_utils import apply_chat_template

    model = transformers.AutoModelForImageTextToText.from_pretrained(
        folder, dtype=getattr(torch, dtype or "bfloat16")
    ).eval()
    own = vlmkit.processors.load_processor(folder)
    prompt = apply_chat_template(own, None, QUESTION, num_images=1)

    def turn() -> tuple[float, float, int]:
        arrays = own(text=[prompt], images=[image()])
        inputs = {name: torch.tensor(array) for name, array in arrays.items()}
        with torch.inference_mode():
            start = time.perf_counter()
            out = model(**inputs, use_cache=True, logits_to_keep=1)
            token = out.logits[:, -1].argmax(-1, keepdim=True)
            first = time.perf_counter()
            length = inputs["input_ids"].shape[1]
            for step in range(num_tokens - 1):
                out = model(
                    input_ids=token,
                    past_key_values=out.past_key_values,
                    position_ids=torch.full((3, 1, 1), length + step),
                    use_cache=True,
                )
                token = out.logits[:, -1].argmax(-1, keepdim=True)
            end = time.perf_counter()
        return first - start, (end - first) / (num_tokens - 1), length

    return turn


MAKERS = {"vlmkit": of_vlmkit, "mlx-vlm": of_mlx_vlm, "transformers": of_transformers}


def serve(folder: str, toolkit: str, dtype: str | None, num_tokens: int, turns: int) -> None:
    """Run one warm-up and some turns; print a JSON line for each."""
    turn = MAKERS[toolkit](folder, dtype, num_tokens)
    turn()
    for _ in range(turns):
        print(json.dumps(turn()), flush=True)


def ask(folder: str, name: str, num_tokens: int, turns: int) -> Iterator[list[float]]:
    """Run a system in a process of its own; yield what it printed."""
    toolkit, dtype = SYSTEMS[name]
    command = [sys.executable, "-m", "benchmarks.peers", folder, "--serve", toolkit]
    command += ["--tokens", str(num_tokens), "--turns", str(turns)]
    command += [] if dtype is None else ["--dtype", dtype]
    reply = subprocess.run(command, capture_output=True, text=True, check=True)
    for line in reply.stdout.splitlines():
        if line.startswith("["):
            yield json.loads(line)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--systems", nargs="*", choices=SYSTEMS, default=list(SYSTEMS)[:5])
    parser.add_argument("--serve", choices=MAKERS, help=argparse.SUPPRESS)
    parser.add_argument("--dtype", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.folder, options.serve, options.dtype, options.tokens, options.turns)
        return
    found: dict[str, list[list[float]]] = {name: [] for name in options.systems}
    for number in range(options.rounds):
        order = options.systems if number % 2 == 0 else options.systems[::-1]
        for name in order:
            found[name] += ask(options.folder, name, options.tokens, options.turns)
    rates = {
        name: (
            statistics.median(count / prefill_s for prefill_s, _, count in turns),
            statistics.median(1 / step_s for _, step_s, _ in turns),
        )
        for name, turns in found.items()
    }
    base = rates.get(BASE, next(iter(rates.values())))
    print("| system | prefill tokens/s | ratio | decode tokens/s | ratio |")
    print("|---|---|---|---|---|")
    for name, (prefill, decode) in rates.items():
        cells = f"{prefill:.1f} | {prefill / base[0]:.2f} | {decode:.2f} | {decode / base[1]:.2f}"
        print(f"| {name} | {cells} |")


if __name__ == "__main__":
    main()
