"""What transformers on torch does in the benchmarks: its model, and a greedy loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers


def tasks(folder: Path, dtype: str | None) -> dict[str, Callable[..., dict[str, Any]]]:
    """Load; returns the tasks by name."""
    model = transformers.AutoModelForImageTextToText.from_pretrained(
        folder, dtype=getattr(torch, dtype or "bfloat16")
    ).eval()

    def generate(arrays: str, tokens: int, **_: Any) -> dict[str, Any]:
        with np.load(arrays) as held:
            inputs = {name: torch.tensor(held[name]) for name in held.files}
        length = inputs["input_ids"].shape[1]
        with torch.inference_mode():
            start = time.perf_counter()
            out = model(**inputs, use_cache=True, logits_to_keep=1)
            token = out.logits[:, -1].argmax(-1, keepdim=True)
            first = time.perf_counter()
            for step in range(tokens - 1):
                out = model(
                    input_ids=token,
                    past_key_values=out.past_key_values,
                    position_ids=torch.full((3, 1, 1), length + step),
                    use_cache=True,
                )
                token = out.logits[:, -1].argmax(-1, keepdim=True)
            end = time.perf_counter()
        return {
            "prompt_tokens": length,
            "prefill_s": first - start,
            "step_s": (end - first) / max(tokens - 1, 1),
        }

    return {"generate": generate}
