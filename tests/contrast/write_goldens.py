"""Write what transformers computes for DoLa: ``python -m tests.contrast.write_goldens``.

Needs torch and transformers 4.49: later versions have DoLa only as code downloaded from the hub.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

GOLDEN = Path(__file__).parent / "goldens" / "dola_transformers_4_49.npz"


def compute() -> dict[str, np.ndarray]:
    """Return logits, and what ``_dola_select_contrast`` makes of each row by itself.

    In a batch it would choose one layer for all rows.
    """
    import torch
    from transformers.generation.utils import _dola_select_contrast

    rng = np.random.default_rng(0)
    rows, layers, size = 24, 4, 96
    logits = rng.normal(size=(rows, size)) * rng.choice([1, 3, 6], size=(rows, 1))
    scale = rng.choice([0.5, 1, 3, 6], size=(rows, layers, 1))
    early = rng.normal(size=(rows, layers, size)) * scale
    arrays = {"logits": logits.astype(np.float32), "early": early.astype(np.float32)}

    def contrast(row: int, chosen: list[int]) -> np.ndarray:
        candidates = {i: torch.tensor(arrays["early"][row : row + 1, i]) for i in chosen}
        final = torch.tensor(arrays["logits"][row : row + 1])
        result: Any = _dola_select_contrast(chosen, candidates, final)
        return np.asarray(result[0].numpy())

    arrays["selected"] = np.stack([contrast(row, list(range(layers))) for row in range(rows)])
    arrays["single"] = np.stack([contrast(row, [0]) for row in range(rows)])
    return arrays


if __name__ == "__main__":
    GOLDEN.parent.mkdir(exist_ok=True)
    np.savez_compressed(GOLDEN, **compute())
