"""The processor of a checkpoint that runs through mlx-vlm: our tokenizer, its images."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vlmkit.checkpoints.checkpoint_json import read_json, reason
from vlmkit.contracts.packed_parts import PARTS
from vlmkit.declare.section import Section
from vlmkit.errors import VlmkitError
from vlmkit.processors.loading import Backend, load_processor
from vlmkit.processors.processor import Expanded, Processor
from vlmkit.processors.rgb import to_rgb

_IDS = ("image_token_id", "image_token_index")
_TEXT = frozenset({"input_ids", "attention_mask", "token_type_ids", "mm_token_type_ids"})


def load_bridge_processor(folder: Path, *, backend: Backend = "auto") -> Processor:
    """Read the processor of a checkpoint folder; images are prepared as mlx-vlm has it.

    mlx-vlm's model of the checkpoint is to be loaded first, which brings its processors along.

    Raises:
        VlmkitError: a file is missing or broken.
    """
    processor = load_processor(folder, backend=backend)
    config = Section(read_json(folder / "config.json"), "", str(folder / "config.json"))
    ids = [
        found for key in _IDS for found in config.token_ids(key, processor.tokenizer.token_to_id)
    ]
    if not ids:
        return replace(processor, is_text_part=False)
    return replace(
        processor,
        image_token_id=ids[0],
        expand_image=_expander(folder, processor.tokenizer.id_to_token(ids[0]), ids[0]),
        is_text_part=False,
    )


def _expander(folder: Path, token: str | None, token_id: int) -> Callable[[Image.Image], Expanded]:
    made: list[Any] = []  # read when an image comes

    def expand(image: Image.Image) -> Expanded:
        from mlx_vlm.utils import load_processor as load_theirs
        from mlx_vlm.utils import prepare_inputs

        try:
            if not made:
                made.append(load_theirs(folder, add_detokenizer=False))
            found = prepare_inputs(
                made[0],
                images=[to_rgb(image)],
                prompts=[token],
                image_token_index=token_id,
                add_special_tokens=False,
            )
        except Exception as error:  # anything: its processors check little themselves
            problem = f"{folder}: mlx-vlm's processor cannot prepare an image ({reason(error)})"
            raise VlmkitError(problem) from error
        ids = tuple(np.array(found["input_ids"]).reshape(-1).tolist())
        parts = {
            name: np.array(value)
            for name, value in found.items()
            if name not in _TEXT and value is not None
        }
        if unknown := sorted(parts.keys() - set(PARTS)):
            raise VlmkitError(
                f"{folder}: mlx-vlm's processor gives {', '.join(unknown)} of an image, which the "
                "bridge to it does not hand on"
            )
        return Expanded(ids, parts)

    return expand
