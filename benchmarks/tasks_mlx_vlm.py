"""What mlx-vlm does in the benchmarks, as it is installed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mlx_vlm import load, stream_generate
from PIL import Image


def tasks(folder: Path, dtype: str | None) -> dict[str, Callable[..., dict[str, Any]]]:
    """Load; returns the tasks by name."""
    assert dtype is None, "as installed"
    model, processor = load(str(folder))

    def generate(
        prompt: str, image: str | None, tokens: int, eos: list[int], **_: Any
    ) -> dict[str, Any]:
        pictures = None if image is None else [Image.open(image).convert("RGB")]
        bias = dict.fromkeys(eos, -1e4)
        chunks = stream_generate(
            model, processor, prompt, pictures, max_tokens=tokens, logit_bias=bias
        )
        last = list(chunks)[-1]
        return {
            "prompt_tokens": last.prompt_tokens,
            "prefill_s": last.prompt_tokens / last.prompt_tps,
            "step_s": 1 / max(last.generation_tps, 1e-9),
        }

    return {"generate": generate}
