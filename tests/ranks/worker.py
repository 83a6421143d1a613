"""What the ranks compute in the tests; one process computes it alone as well."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from tests.loading import checkpoints, qwen3_5
from vlmkit.api import generate, load
from vlmkit.cache import DenseConfig, build_cache
from vlmkit.contracts.inputs import Inputs
from vlmkit.contracts.interface import DecodeState, KVSpec, Model, Span
from vlmkit.loading import load_model
from vlmkit.passes.decode import decode_step
from vlmkit.passes.embed import embed_prompts
from vlmkit.prompt_utils import apply_chat_template
from vlmkit.ranks.group import join_ranks

NUM_TOKENS = 8
IMAGE = Path(__file__).parents[2] / "vlmkit/assets/shapes/samples/describe.png"


def compute(folders: list[Path]) -> dict[str, Any]:
    """Logits, tokens and stored heads of random checkpoints, and answers of ``shapes``."""
    found: dict[str, Any] = {}
    for folder in folders:
        model = load_model(folder, dtype="float32", dequantize=False)
        module = qwen3_5 if "qwen3_5" in folder.name else checkpoints
        found[folder.name] = run_model(model, module.make_inputs())
    model, processor = load("shapes")
    prompts = {"Describe the image.": 0.0, "How many circles?": 1.5}
    for prompt, temperature in prompts.items():
        text = apply_chat_template(processor, model.config, prompt, num_images=1)
        options = {"temperature": temperature, "seed": 3, "max_tokens": 24}
        result = generate(model, processor, text, [str(IMAGE)], **options)
        found[prompt] = {"text": result.text, "tokens": list(result.token_ids)}
    found["seconds"] = join_ranks().first_seconds(12.25 + 87 * join_ranks().rank)
    return found


def run_model(model: Model, inputs: Inputs) -> dict[str, Any]:
    """The logits of the prompt ``[T, V]``, and the tokens that are most likely after it."""
    piece, lengths, following = embed_prompts(model, [inputs])
    cache = build_cache(DenseConfig(), model.layer_specs, 1, model.dtype)
    hidden, _, cache = model.forward(piece, cache, Span((0,), lengths, lengths[0]))
    logits = model.logits(hidden)
    state, tokens = DecodeState(cache, following), []
    last = logits[:, -1]
    for _ in range(NUM_TOKENS):
        token = mx.argmax(last, axis=-1)
        tokens.append(int(token.item()))
        state, last = decode_step(model, state, token.astype(mx.int32))
    heads = [spec.num_kv_heads for spec in model.layer_specs if isinstance(spec, KVSpec)]
    mx.eval(last)
    return {
        "logits": np.array(logits[0]).tolist(),
        "after": np.array(last[0]).tolist(),
        "tokens": tokens,
        "heads": heads,
    }


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(compute([Path(word) for word in sys.argv[2:]])))
