"""What transformers computes of videos: ``python -m tests.models.video_oracle``. Needs torch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from tests.models import oracle
from tests.models.tiny import continuation
from tests.models.tiny_configs import IMAGE, VIDEO
from tests.models.tiny_video import CASES, GRID, PICTURE, VideoCase, patches, prompt

GOLDEN = Path(__file__).parent / "goldens" / "videos.npz"


def compute(case: VideoCase) -> tuple[np.ndarray, np.ndarray]:
    """Return the logits of the prompt, and of each step after it."""
    model = oracle.build(case.config)
    ids = torch.from_numpy(prompt(case).token_ids.astype(np.int64))[None]
    video, picture = map(torch.from_numpy, patches(case))
    timing = {} if case.seconds is None else {"second_per_grid_ts": torch.tensor([case.seconds])}
    with torch.no_grad():
        out = model(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            mm_token_type_ids=(ids == IMAGE).int() + 2 * (ids == VIDEO).int(),
            pixel_values_videos=video,
            video_grid_thw=torch.tensor([GRID]),
            pixel_values=picture,
            image_grid_thw=torch.tensor([PICTURE]),
            use_cache=True,
            **timing,
        )
        first, steps = out.logits[0].numpy(), []
        delta, length = int(model.model.rope_deltas), ids.shape[1]
        for step, token in enumerate(continuation(3)):
            out = model(
                input_ids=torch.tensor([[int(token)]]),
                attention_mask=torch.ones((1, length + step + 1), dtype=torch.long),
                position_ids=torch.full((3, 1, 1), length + step + delta),
                use_cache=True,
                **{oracle._CACHE: out[oracle._CACHE]},
            )
            steps.append(out.logits[0, -1].numpy())
    return first, np.stack(steps)


def main() -> None:
    """Write the golden file."""
    arrays = {}
    for name, case in CASES.items():
        arrays[f"{name}_prompt"], arrays[f"{name}_steps"] = compute(case)
    np.savez_compressed(GOLDEN, **arrays)
    print(f"{GOLDEN.name}: {GOLDEN.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main()
