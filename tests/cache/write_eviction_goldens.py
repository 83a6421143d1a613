"""Write which tokens kvpress keeps: ``python -m tests.cache.write_eviction_goldens``.

Needs torch and kvpress 0.5.4 (https://github.com/NVIDIA/kvpress).
"""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from tests.cache.kinds import NUM_HEADS, SCALE, SHAPE, random_tokens

GOLDEN = Path(__file__).parent / "goldens" / "eviction_kvpress_0_5_4.json"
NUM_TOKENS, SEED, NUM_LAYERS = 40, 21, 5
RATIOS = (0.25, 0.5, 0.75)  # kept; kvpress asks for the share that is dropped


def compute() -> dict[str, Any]:
    """Return, by method and ratio, the tokens kept per head, and pyramidkv's budgets per layer."""
    import kvpress
    import torch

    queries, keys, values = (torch.tensor(x)[None] for x in random_tokens(NUM_TOKENS, SEED))
    grouped = keys.repeat_interleave(NUM_HEADS // SHAPE.num_kv_heads, 1)
    scores = SCALE * queries @ grouped.transpose(2, 3)
    future = torch.triu(torch.ones(NUM_TOKENS, NUM_TOKENS, dtype=torch.bool), 1)
    attention = scores.masked_fill(future, -torch.inf).softmax(-1)
    sizes = {
        "num_attention_heads": NUM_HEADS,
        "num_key_value_heads": SHAPE.num_kv_heads,
        "num_hidden_layers": NUM_LAYERS,
    }
    module = SimpleNamespace(config=SimpleNamespace(**sizes), head_dim=SHAPE.key_dim)
    presses = {
        "snapkv": kvpress.SnapKVPress(window_size=6, kernel_size=5),
        "h2o": kvpress.ObservedAttentionPress(),
        "tova": kvpress.TOVAPress(),
        "knorm": kvpress.KnormPress(),
        "keydiff": kvpress.KeyDiffPress(),
    }
    hidden, found = torch.zeros(1, NUM_TOKENS, 8), {}
    for name, press in presses.items():
        score = press.score(module, hidden, keys, values, attention, {})
        best = {ratio: score.topk(int(NUM_TOKENS * ratio)).indices for ratio in RATIOS}
        found[name] = {str(ratio): np.sort(best[ratio][0]).tolist() for ratio in RATIOS}
    found["pyramidkv"] = {}
    for length in (100, 400, 1000):
        for ratio in RATIOS:
            for window, beta in ((8, 20), (32, 5)):
                press = kvpress.PyramidKVPress(1 - ratio, window, beta=beta)
                budgets = []
                for module.layer_idx in range(NUM_LAYERS):
                    budgets.append(press.get_layer_budget(module, length))
                found["pyramidkv"][f"{length} {ratio} {window} {beta}"] = budgets
    return found


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(compute()) + "\n")
