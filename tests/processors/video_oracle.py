"""What transformers makes of videos: ``python -m tests.processors.video_oracle``.

Needs torch and torchvision.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import Qwen2VLVideoProcessor, Qwen3VLVideoProcessor
from transformers.video_utils import VideoMetadata

from tests.processors.tiny_video import CASES, SAMPLINGS, VideoCase, frames

GOLDEN = Path(__file__).parents[1] / "goldens" / "video_processors.npz"


def processor(case: VideoCase, **more: Any) -> Any:
    """Return transformers' processor with the values of a preprocessor_config.json."""
    kind = Qwen3VLVideoProcessor if case.times == "text" else Qwen2VLVideoProcessor
    return kind(**{**case.config, "do_sample_frames": False, "cap_pixels_per_frame": False, **more})


def main() -> None:
    """Write the golden file: patches, grids, and which frames are taken."""
    arrays: dict[str, np.ndarray] = {}
    for name, case in CASES.items():
        video = torch.from_numpy(frames(case.shape)).permute(0, 3, 1, 2)
        found = processor(case)(videos=[video], return_tensors="pt")
        arrays[f"{name}_patches"] = found["pixel_values_videos"].numpy()
        arrays[f"{name}_grid"] = found["video_grid_thw"][0].numpy()
    for number, (times, total, rate, fps, most) in enumerate(SAMPLINGS):
        case = next(case for case in CASES.values() if case.times == times)
        more = {} if most is None else {"max_frames": most}
        one = processor(case, fps=2.0 if fps is None else fps, **more)
        metadata = VideoMetadata(total_num_frames=total, fps=rate, frames_indices=None)
        arrays[f"sampling_{number}"] = np.asarray(one.sample_frames(metadata))
    np.savez_compressed(GOLDEN, **arrays)
    print(f"{GOLDEN.name}: {GOLDEN.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main()
