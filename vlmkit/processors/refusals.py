"""Why a processor takes no media of a kind."""

from __future__ import annotations

from pathlib import Path

from vlmkit.checkpoints.text_part import text_part_note


def why_none(
    folder: str | Path,
    model_type: str,
    kind: str,
    *,
    is_text_part: bool,
    is_bridged: bool,
    has_placeholder: bool,
) -> str:
    """Say why a checkpoint's processor takes none of a kind, and what would help.

    Args:
        folder: of the checkpoint.
        model_type: its family.
        kind: "image", "video" or "audio".
        is_text_part: it is the language model of a vision-language checkpoint.
        is_bridged: mlx-vlm prepares its images.
        has_placeholder: its tokenizer has a token for such media.

    Example:
        >>> facts = {"is_text_part": False, "is_bridged": False, "has_placeholder": True}
        >>> why_none("m", "qwen2_vl", "image", **facts)[:60]
        'm: no preprocessor_config.json, so its images cannot be prep'
    """
    what = {"image": "images", "video": "videos", "audio": "audio"}[kind]
    if is_bridged and kind == "image":
        return (
            f"{folder}: mlx-vlm prepares the images of this model, within a prompt alone;"
            " give generate the prompt and the images"
        )
    if is_bridged:
        return f"{folder}: of a model of mlx-vlm only images are taken; leave {kind} out"
    if is_text_part:
        return f"{folder}: {text_part_note(model_type)}"
    if not has_placeholder:
        load = "a vision-language" if kind != "audio" else "an audio"
        return (
            f"{folder}: the {model_type} family takes no {what}; leave {kind} out, or"
            f" load {load} checkpoint"
        )
    return (
        f"{folder}: no preprocessor_config.json, so its {what} cannot be prepared; copy"
        " the file from the original checkpoint"
    )
