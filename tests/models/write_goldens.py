"""Write the oracle's logits to golden files: ``python -m tests.models.write_goldens``.

Needs torch. The files hold logits only: weights and prompts come from seeds, see `tiny.py`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tests.models import oracle
from tests.models.tiny import CASES, Case, continuation, prompt, seed_of

FOLDER = Path(__file__).parent / "goldens"


def compute(case: Case) -> dict[str, np.ndarray]:
    """Return the oracle's logits of every prompt of a case, each run by itself."""
    model = oracle.build(case.config)
    arrays = {}
    for name, grids in case.prompts.items():
        seed = seed_of(name)
        rows, steps = oracle.logits(
            model, [prompt(case.config, grids, seed)], continuation(seed)[None]
        )
        arrays[f"{name}_prompt"], arrays[f"{name}_steps"] = rows[0], steps[0]
    return arrays


def main() -> None:
    """Write all files."""
    FOLDER.mkdir(exist_ok=True)
    for name, case in CASES.items():
        path = FOLDER / f"{name}.npz"
        np.savez_compressed(path, **compute(case))
        print(f"{path.name}: {path.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main()
