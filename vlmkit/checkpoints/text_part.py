"""Checkpoints that see or hear, of families whose text part alone can run."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

SENSES = (
    "vision_config",
    "vision_tower",
    "mm_vision_tower",
    "vit_config",
    "visual",
    "img_processor",
    "audio_config",
)
"""The keys of config.json that describe how a model sees or hears."""

_NAMES = re.compile(r"(^|[_-])(vl|vlm|vision|omni)([_-]|$)")


def has_senses(config: Mapping[str, Any]) -> bool:
    """Tell from a config.json whether its model takes more than text.

    Example:
        >>> has_senses({"model_type": "gemma3", "vision_config": {"hidden_size": 1152}})
        True
        >>> has_senses({"model_type": "gemma3_text"}), has_senses({"model_type": "lfm2-vl"})
        (False, True)
    """
    is_named = _NAMES.search(str(config.get("model_type"))) is not None
    return is_named or any(config.get(key) for key in SENSES)


def text_part_note(model_type: str) -> str:
    """Say what runs of such a checkpoint, and what would see."""
    return (
        f"only the text part of this {model_type} checkpoint runs: it takes no images; "
        "the families that take some are listed by 'vlmkit models'"
    )
