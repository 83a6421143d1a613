"""Write what transformers computes for DoLa: ``python -m tests.contrast.write_goldens``.

Needs torch and transformers 4.49: later versions have DoLa only as code downloaded from the hub.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

import vlmkit
from tests.media import grids_of, patches_of
from vlmkit.preprocess import PreprocessConfig, prepare
from vlmkit.processors import load_processor
from vlmkit.prompt_utils import apply_chat_template

FOLDER = Path(__file__).parent / "goldens"
GOLDEN = FOLDER / "dola_transformers_4_49.npz"
GOLDEN_TOKENS = FOLDER / "dola_generate_transformers_4_49.json"
SHAPES = Path(vlmkit.__file__).parent / "assets" / "shapes"
QUESTION = "Describe this image."


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


def generate() -> list[dict[str, Any]]:
    """Return the greedy tokens of the embedded model with ``generate(dola_layers=...)``."""
    import torch
    from transformers import Qwen2VLForConditionalGeneration

    processor = load_processor(SHAPES)
    model: Any = Qwen2VLForConditionalGeneration.from_pretrained(SHAPES, torch_dtype=torch.float32)
    prompt = apply_chat_template(processor, None, QUESTION, num_images=1)
    found = []
    for image in ("describe.png", "describe_2.png", "chain.png", "chain_2.png"):
        path = str(SHAPES / "samples" / image)
        inputs = prepare(processor, prompt, [path], config=PreprocessConfig())
        ids = torch.tensor(inputs.token_ids[None].astype(np.int64))
        for layers in ("high", [0, 1, 3]):
            tokens = model.eval().generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                pixel_values=torch.tensor(patches_of(inputs)),
                image_grid_thw=torch.tensor(grids_of(inputs)),
                dola_layers=layers,
                do_sample=False,
                max_new_tokens=24,
            )
            answer = tokens[0, ids.shape[1] :].tolist()
            found.append({"image": image, "layers": layers, "token_ids": answer})
    return found


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    np.savez_compressed(GOLDEN, **compute())
    lines = ",\n".join(json.dumps(one) for one in generate())
    GOLDEN_TOKENS.write_text(f"[\n{lines}\n]\n")
