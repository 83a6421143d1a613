"""What vlmkit does in the benchmarks, and how fast the machine is where its BLAS multiplies."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

import vlmkit
from benchmarks.bench_experiment import Case, as_experiment, as_loop, load_case
from benchmarks.bench_shared_prefix import NUM_HEADS, attend, make_ways, seconds, tokens
from vlmkit.backend.blas_bfloat16 import install_bfloat16, multiply_packed, pack_bfloat16
from vlmkit.backend.blas_speed import best_s, measure_products
from vlmkit.backend.measure import measure_speeds
from vlmkit.cache import cache_num_bytes
from vlmkit.contracts.inputs import Inputs
from vlmkit.contracts.interface import DecodeState
from vlmkit.passes.decode import decode_step
from vlmkit.pipeline import PipelineConfig
from vlmkit.prompt_utils import apply_chat_template
from vlmkit.prompts import prefill_prompts
from vlmkit.resolve.starting import prefill_options

Answer = dict[str, Any]


def tasks(folder: Path, dtype: str | None) -> dict[str, Callable[..., Answer]]:
    """Return the tasks by name. The model is loaded by the first that needs it."""
    own = Own(folder, dtype)
    return {
        "backend": own.backend,
        "generate": own.generate,
        "images": own.images,
        "prefill": own.prefill,
        "step": own.step,
        "speeds": own.speeds,
        "sweep": own.sweep,
        "loop": own.loop,
        "shared_prefix": shared_prefix,
    }


class Own:
    """A checkpoint, and what is made of it once."""

    def __init__(self, folder: Path, dtype: str | None) -> None:
        self.folder, self.dtype = folder, dtype
        self.loaded = cache(lambda: vlmkit.load(str(folder), dtype=dtype))
        self.started = cache(self._started)
        self.case = cache(self._case)

    def backend(self) -> Answer:
        """Say what is computed with."""
        return dict(self.loaded()[0].backend.describe())

    def speeds(self, quick: bool = False) -> Answer:
        """Measure the machine: 10^9 operations and 10^9 bytes per second, the most it reached.

        Args:
            quick: for a trial, by small products alone.
        """
        self.loaded()
        if quick:
            small = measure_speeds(mx.float32, free=2**24)
            return {"gflops": small.gflops, "gb_per_s": small.bandwidth_gb_s}
        products = measure_products()
        square = measure_speeds(mx.float32, free=2**31)
        gflops = max(products.gflops, square.gflops)
        if self.dtype == "bfloat16" and install_bfloat16().available:
            x, weight = mx.ones((256, 1024)), pack_bfloat16(mx.ones((4096, 1024)))
            mx.eval(x, weight)
            packed_s = best_s(lambda: mx.eval(multiply_packed(x, weight, 4096)), rounds=5)
            gflops = max(gflops, 2e-9 * 256 * 1024 * 4096 / packed_s)
        rates = (products.read_gb_per_s, products.one_row_gb_per_s, square.bandwidth_gb_s)
        return {"gflops": gflops, "gb_per_s": max(rates)}

    def generate(
        self, prompt: str, image: str | None, tokens: int, sampling: Answer | None = None, **_: Any
    ) -> Answer:
        """Generate once."""
        model, processor = self.loaded()
        result = vlmkit.generate(
            *(model, processor, prompt, [] if image is None else [image]),
            max_tokens=tokens,
            logit_bias={"eos": -1e4},
            **(sampling or {}),
        )
        return {
            "prompt_tokens": result.prompt_tokens,
            "prefill_s": result.prompt_tokens / result.prompt_tps,
            "step_s": 1 / max(result.generation_tps, 1e-9),
        }

    def images(self, number: int, image: str) -> Answer:
        """Prefill a prompt of some different images."""
        from PIL import Image

        picture = Image.open(image).convert("RGB")
        pictures = [picture.rotate(7 * turn) for turn in range(number)]
        model, processor = self.loaded()
        prompt = apply_chat_template(processor, None, "Compare.", num_images=number)
        result = vlmkit.generate(model, processor, prompt, pictures, max_tokens=1)
        return {
            "prompt_tokens": result.prompt_tokens,
            "prefill_s": result.prompt_tokens / result.prompt_tps,
        }

    def prefill(self, length: int) -> Answer:
        """Prefill a prompt of text."""
        model, options = self.loaded()[0], prefill_options(PipelineConfig())
        began = time.perf_counter()
        found = prefill_prompts(model, [_random_prompt(0, length)], options)
        mx.eval(found.state, found.hidden)
        return {"prompt_tokens": length, "prefill_s": time.perf_counter() - began}

    def step(self, rows: int, length: int, shared: bool, steps: int = 4) -> Answer:
        """Decode some steps of a batch, always from the same place."""
        model, state = self.loaded()[0], self.started(rows, length, shared)
        token_ids = mx.full((rows,), 7, mx.int32)
        began = time.perf_counter()
        for _ in range(steps):
            state, logits = decode_step(model, state, token_ids)
            token_ids = mx.argmax(logits, axis=-1).astype(mx.int32)
            mx.eval(token_ids, state.cache.layers)
        return {"step_s": (time.perf_counter() - began) / steps}

    def _started(self, rows: int, length: int, shared: bool) -> DecodeState:
        prompts = [_random_prompt(0 if shared else row, length) for row in range(rows)]
        found = prefill_prompts(self.loaded()[0], prompts, prefill_options(PipelineConfig()))
        mx.eval(found.state)
        return found.state

    def sweep(self, arms: int, seeds: int, tokens: int) -> Answer:
        """All responses of an experiment on one image prompt, side by side."""
        case = self.case(arms, seeds, tokens)
        began = time.perf_counter()
        generated = as_experiment(case)
        return {"seconds": time.perf_counter() - began, "tokens": generated}

    def loop(self, arms: int, seeds: int, tokens: int, calls: int) -> Answer:
        """The first few responses of that experiment by single calls of ``generate``."""
        case = self.case(arms, seeds, tokens)
        began = time.perf_counter()
        generated = as_loop(case, calls)
        return {"seconds": time.perf_counter() - began, "tokens": generated, "calls": calls}

    def _case(self, arms: int, seeds: int, tokens: int) -> Case:
        return load_case(self.folder.parent, arms, seeds, tokens)


def _random_prompt(seed: int, length: int) -> Inputs:
    ids = np.random.default_rng(seed).integers(10, 200, length)
    return Inputs.of(ids.astype(np.int32))


@cache
def _prefix_ways(rows: int, length: int) -> dict[str, Any]:
    return make_ways(rows, length, num_new=32, threads=None)


def shared_prefix(rows: int, length: int, way: str) -> Answer:
    """One step's attention over all layers of rows of one prompt, in one way."""
    ways = _prefix_ways(rows, length)
    mx.random.seed(1)
    queries = tokens(rows, NUM_HEADS, 1)
    mx.eval(queries)
    apart = mx.abs(attend(ways[way], queries) - attend(ways["sdpa"], queries)).max()
    return {
        "seconds": min(seconds(ways[way], queries) for _ in range(3)),
        "largest_difference": apart.item(),
        "bytes": cache_num_bytes(ways[way].cache),
        "layers": len(ways[way].cache.layers),
    }
