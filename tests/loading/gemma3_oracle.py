"""What transformers computes for the small checkpoint of Gemma 3, kept as a golden file.

Run ``python -m tests.loading.gemma3_oracle`` to write it again; it needs torch.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.processors.tiny_gemma3 import IMAGES, NUM_TOKENS, write_gemma3

GOLDEN = Path(__file__).resolve().parent.parent / "goldens" / "gemma3.npz"
TEXT = "<bos>What is <start_of_image> beside <start_of_image>?"
NUM_STEPS = 32  # the window is 6
COLUMNS = slice(None, None, 5)  # of the logits, to keep the file small


def pictures() -> list[Image.Image]:
    """One image that is wider than high, one that is higher than wide."""
    rng = np.random.default_rng(5)
    return [Image.fromarray(rng.integers(0, 256, (*s, 3), np.uint8)) for s in ((9, 30), (41, 17))]


def run(folder: Path) -> dict[str, np.ndarray]:
    """Return the ids, the logits of the prompt and of greedy steps, and what these chose."""
    import torch
    from transformers import AutoTokenizer, Gemma3ForConditionalGeneration, Gemma3Processor
    from transformers.models.gemma3.image_processing_pil_gemma3 import Gemma3ImageProcessorPil

    tokenizer = AutoTokenizer.from_pretrained(str(folder))
    pixels = Gemma3ImageProcessorPil(**IMAGES)
    processor: Any = Gemma3Processor(pixels, tokenizer, image_seq_length=NUM_TOKENS)
    model: Any = Gemma3ForConditionalGeneration.from_pretrained(
        str(folder), dtype=torch.float32, attn_implementation="eager"
    ).eval()
    given = processor(text=[TEXT], images=[pictures()], return_tensors="np")
    given = {name: torch.from_numpy(value) for name, value in given.items()}
    with torch.no_grad():
        whole = model(**given).logits[0].numpy()
        out = model.generate(
            **given,
            max_new_tokens=NUM_STEPS,
            min_new_tokens=NUM_STEPS,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=0,
            output_logits=True,
            return_dict_in_generate=True,
        )
    ids = given["input_ids"][0].numpy()
    steps = np.stack([one[0].numpy() for one in out.logits])
    return {
        "prompt_ids": ids,
        "logits": whole[:, COLUMNS],
        "step_logits": steps[:, COLUMNS],
        "token_ids": out.sequences[0, len(ids) :].numpy(),
    }


def main() -> None:
    """Write the golden file."""
    with tempfile.TemporaryDirectory() as temporary, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # transformers' own
        np.savez_compressed(GOLDEN, **run(write_gemma3(Path(temporary))))


if __name__ == "__main__":
    main()
