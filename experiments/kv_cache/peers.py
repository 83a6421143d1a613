"""The same checkpoint through mlx-vlm's own KV-cache options: right answers, and what it quantized.

    python -m experiments.kv_cache.peers --samples 64

Free-running only: mlx-vlm does not hand out logits of a forced sequence through its caches. Beside
every setting stand the kinds of cache objects that it ended with, since an option that applies to
nothing changes nothing: by default mlx-vlm quantizes from token 5,000 on. Needs the parity extra.
"""

from __future__ import annotations

import argparse
from collections import Counter
from importlib.resources import as_file, files
from typing import Any

from PIL import Image

from vlmkit.experiment.shapes import HELD_OUT_SEED, question_at
from vlmkit.experiment.shapes.drawing import render
from vlmkit.processors import load_processor
from vlmkit.prompt_utils import apply_chat_template

FIRST_INDEX = 20_000_000
MAX_TOKENS = 64
SETTINGS: dict[str, dict[str, Any]] = {
    "as computed": {},
    "kv_bits=4": {"kv_bits": 4, "kv_group_size": 32},
    "kv_bits=8 from 0": {"kv_bits": 8, "kv_group_size": 32, "quantized_kv_start": 0},
    "kv_bits=4 from 0": {"kv_bits": 4, "kv_group_size": 32, "quantized_kv_start": 0},
    "kv_bits=2 from 0": {"kv_bits": 2, "kv_group_size": 32, "quantized_kv_start": 0},
    "max_kv_size=40": {"max_kv_size": 40},
}


def answers(samples: int, setting: dict[str, Any], loaded: Any) -> tuple[list[str], Counter[str]]:
    """What is said of each sample, and the kinds of the last cache's layers."""
    from mlx_vlm import stream_generate
    from mlx_vlm.models.cache import make_prompt_cache

    model, processor, own = loaded
    said, kinds = [], Counter[str]()
    for index in range(samples):
        question = question_at(HELD_OUT_SEED, FIRST_INDEX + index)
        prompt = apply_chat_template(
            own, None, question.question, num_images=1, enable_thinking=True
        )
        cache = make_prompt_cache(model.language_model, setting.get("max_kv_size"))
        chunks = stream_generate(
            model,
            processor,
            prompt,
            [Image.fromarray(render(question.scene))],
            max_tokens=MAX_TOKENS,
            prompt_cache=cache,
            **setting,
        )
        said.append("".join(chunk.text for chunk in chunks))
        kinds = Counter(type(layer).__name__ for layer in cache)
    return said, kinds


def main(argv: list[str] | None = None) -> None:
    """Print the table."""
    from mlx_vlm import load

    parser = argparse.ArgumentParser(description="mlx-vlm's KV-cache options on one checkpoint.")
    parser.add_argument("--samples", type=int, default=64)
    samples = parser.parse_args(argv).samples
    wanted = [question_at(HELD_OUT_SEED, FIRST_INDEX + i).answer for i in range(samples)]
    print("| mlx-vlm | right | same response | caches |\n| :-- | --: | --: | :-- |")
    with as_file(files("vlmkit") / "assets" / "shapes") as folder:
        loaded = (*load(str(folder)), load_processor(str(folder)))
        base: list[str] = []
        for name, setting in SETTINGS.items():
            try:
                said, kinds = answers(samples, setting, loaded)
            except (ValueError, TypeError, NotImplementedError, AttributeError) as error:
                print(f"| {name} | – | – | {type(error).__name__}: {str(error)[:80]} |")
                continue
            base = base or said
            right = sum(
                text.rpartition("</think>")[2].replace("<|im_end|>", "").strip() == answer
                for text, answer in zip(said, wanted, strict=True)
            )
            same = sum(a == b for a, b in zip(said, base, strict=True))
            listed = ", ".join(f"{count} {kind}" for kind, count in kinds.items())
            row = f"| {name} | {right / samples:.3f} | {same / samples:.2f} | {listed} |"
            print(row, flush=True)


if __name__ == "__main__":
    main()
