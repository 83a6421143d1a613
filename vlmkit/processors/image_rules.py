"""How the images of a checkpoint are prepared: which rules its family follows, and their sizes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial

from PIL import Image

from vlmkit.contracts.inputs import ImageGrid
from vlmkit.declare.section import Section, shown
from vlmkit.processors.checkpoint_files import CheckpointFiles, model_type
from vlmkit.processors.fixed_size import (
    FixedSizeImages,
    fixed_grid,
    process_fixed_size,
    read_fixed_size_images,
)
from vlmkit.processors.image_spans import ImageSpan
from vlmkit.processors.processor import Patches
from vlmkit.processors.qwen2_vl import (
    Qwen2VLImages,
    check_sizes,
    image_grid,
    process_images,
    read_qwen2_vl_images,
)
from vlmkit.processors.tokenizer import Tokenizer

IMAGE_FAMILIES = (
    "qwen2_vl", "qwen2_5_vl", "qwen3_vl", "qwen3_vl_moe", "qwen3_5", "qwen3_5_moe", "gemma3"
)  # fmt: skip
"""The model types of config.json whose images are prepared."""
FIXED_SIZE_FAMILIES = ("gemma3",)
"""Those of them whose images all get one size; the others follow the rules of Qwen2-VL."""
# Exporters write the class that they ran: Qwen2VLImageProcessor, its variants Fast and Pil, or
# those of later families with the same rules. The family and the sizes decide.
_QWEN_VL_TYPE = re.compile(r"Qwen\d(_?\d)?_?VL(Moe)?ImageProcessor(Fast|Pil)?")
_FIXED_SIZE_TYPE = re.compile(r"(Gemma3|Siglip)ImageProcessor(Fast|Pil)?")
_QWEN_VL_NAMES = (
    "Qwen2VLImageProcessor, Qwen2_5_VLImageProcessor, Qwen3VLImageProcessor, also Fast and Pil"
)
ImageRules = Qwen2VLImages | FixedSizeImages
ImageProcessor = Callable[[Sequence[Image.Image]], Patches]


def takes_images(files: CheckpointFiles) -> bool:
    """Whether a checkpoint has a vision encoder of a supported family."""
    has_eyes = files.config.values.get("vision_config") is not None
    return has_eyes and model_type(files) in IMAGE_FAMILIES


def read_image_rules(files: CheckpointFiles) -> ImageRules | None:
    """Read the rules from the checkpoint's image settings; None: it has none.

    Raises:
        VlmkitError: settings that cannot be used, or that disagree with config.json.
    """
    section = files.image_processor
    if not section.values or not takes_images(files):
        return None
    values = section.values
    key = "image_processor_type" if "image_processor_type" in values else "feature_extractor_type"
    name = values.get(key)
    is_fixed = model_type(files) in FIXED_SIZE_FAMILIES
    allowed = _FIXED_SIZE_TYPE if is_fixed else _QWEN_VL_TYPE
    if name is not None and not (isinstance(name, str) and allowed.fullmatch(name)):
        names = "Gemma3ImageProcessor, also Fast and Pil" if is_fixed else _QWEN_VL_NAMES
        raise section.error(key, f"{shown(name)} is not supported; supported: {names}")
    if is_fixed:
        return read_fixed_size_images(section, files.config)
    config = read_qwen2_vl_images(section)
    check_patches(config, section, files.config.inner("vision_config"))
    check_sizes(config, section)
    return config


def processor_of(config: ImageRules | None) -> ImageProcessor | None:
    """Return what makes patches of images by these rules."""
    if isinstance(config, FixedSizeImages):
        return partial(process_fixed_size, config=config)
    return None if config is None else partial(process_images, config=config)


def grid_of(config: ImageRules | None) -> Callable[[int, int], ImageGrid] | None:
    """Return what tells the patches of an image of (height, width) pixels by these rules."""
    if isinstance(config, FixedSizeImages):
        return partial(fixed_grid, config=config)
    return None if config is None else partial(image_grid, config=config)


def image_span(files: CheckpointFiles, tokenizer: Tokenizer) -> ImageSpan | None:
    """Return the tokens that the processor puts around an image; None: the template does.

    Raises:
        VlmkitError: config.json names none.
    """
    if model_type(files) not in FIXED_SIZE_FAMILIES:
        return None
    names = []
    for key in ("boi_token_index", "image_token_index", "eoi_token_index"):
        given = files.config.token_ids(key, tokenizer.token_to_id)
        token = tokenizer.id_to_token(given[0]) if given else None
        if token is None:
            raise files.config.error(key, "is missing, or no id of the tokenizer")
        names.append(token)
    return ImageSpan(*names)


def check_patches(config: Qwen2VLImages, section: Section, vision: Section) -> None:
    """Refuse patches that the vision encoder would not fit: they would be other pixels."""
    for key, theirs in (
        ("patch_size", "patch_size"),
        ("temporal_patch_size", "temporal_patch_size"),
        ("merge_size", "spatial_merge_size"),
    ):
        given = getattr(config, key)
        expected = vision.positive(theirs, given)
        if given != expected:
            raise section.error(
                key,
                f"is {given}, but {vision.file}: {vision.path}{theirs} is"
                f" {expected}; the two files disagree",
            )
