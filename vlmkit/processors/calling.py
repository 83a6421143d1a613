"""A processor called with texts and images, as scripts for transformers call it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlmkit.errors import VlmkitError
from vlmkit.processors.encoding import (
    EncodeOptions,
    Encoding,
    as_arrays,
    encode_rows,
    pad_rows,
    read_options,
    text_list,
)
from vlmkit.processors.image_spans import write_spans

if TYPE_CHECKING:
    from vlmkit.processors.processor import Processor

CHANNELS = (1, 3, 4)


def call_processor(
    processor: Processor, text: object, images: object, options: Mapping[str, Any]
) -> Encoding:
    """Tokenize texts, expand their image placeholders, and cut the images into patches.

    Args:
        processor: whose tokenizer and image processor.
        text: one text or several, with a placeholder per image; None for images alone.
        images: an image or a list of them, nested or not, in the order of the placeholders.
        options: those of :class:`vlmkit.processors.encoding.EncodeOptions`.

    Returns:
        ``input_ids``, ``attention_mask`` and ``mm_token_type_ids`` (1 for image tokens) with a row
        per text; ``pixel_values`` float32 ``[N, C * T * P * P]`` and ``image_grid_thw`` int64
        ``[images, 3]`` where there are images.

    Raises:
        VlmkitError: placeholders and images disagree, or an argument cannot be used.
    """
    chosen = read_options(options, return_tensors="np")
    texts = None if text is None else text_list(text)
    pictures = [to_image(image) for image in flat_images(images)]
    if texts is None and not pictures:
        raise VlmkitError("processor: give text=, images= or both")
    found: dict[str, Any] = {}
    counts: list[int] = []
    if pictures:
        patches, grids = processor.process_images(pictures)
        found = {"pixel_values": patches, "image_grid_thw": np.array(grids, np.int64)}
        counts = [processor.num_image_tokens(grid) for grid in grids]
    rows = {} if texts is None else _rows(processor, texts, counts, chosen)
    return as_arrays({**rows, **found}, chosen.return_tensors)


def _rows(
    processor: Processor, texts: list[str], counts: list[int], options: EncodeOptions
) -> dict[str, Any]:
    tokenizer, image_id = processor.tokenizer, processor.image_token_id
    texts = [write_spans(text, processor.image_span) for text in texts]
    encoded = encode_rows(tokenizer, texts, options)
    num_places = sum(row.count(image_id) for row in encoded) if image_id is not None else 0
    if num_places != len(counts):
        raise VlmkitError(
            f"text: {num_places} image placeholders ({processor.image_token}) for {len(counts)}"
            " images; format it with apply_chat_template(processor, config, prompt, num_images=...)"
        )
    left = iter(counts)
    expanded = [
        [copy for token in row for copy in [token] * (next(left) if token == image_id else 1)]
        for row in encoded
    ]
    ids, masks = pad_rows(
        expanded, options, pad_id=tokenizer.pad_token_id, side=tokenizer.padding_side
    )
    rows: dict[str, Any] = {"input_ids": ids}
    if options.return_attention_mask:
        rows["attention_mask"] = masks
    if image_id is not None:
        kinds = {image_id: 1, processor.video_token_id: 2}
        rows["mm_token_type_ids"] = [[kinds.get(token, 0) for token in row] for row in ids]
    return rows


def flat_images(images: object) -> Iterator[object]:
    """Go through images in lists of lists, and through the first axis of a batch of arrays.

    Example:
        >>> [len(image) for image in flat_images([[b"a"], b"bc"])]
        [1, 2]
    """
    if isinstance(images, np.ndarray) and images.ndim > 3:
        images = list(images)
    if isinstance(images, list | tuple):
        for image in images:
            yield from flat_images(image)
    elif images is not None:
        yield images


def to_image(image: object) -> Image.Image:
    """Return a Pillow image as it is, and an array as one.

    Args:
        image: uint8 values, ``[height, width]``, or with 1, 3 or 4 channels first or last.

    Raises:
        VlmkitError: anything else.

    Example:
        >>> to_image(np.zeros((3, 4, 6), np.uint8)).size  # Pillow says (width, height)
        (6, 4)
    """
    if isinstance(image, Image.Image):
        return image
    if isinstance(image, str):
        raise VlmkitError(
            "images: a string given; prompts are text=, as in processor(text=..., images=...), and"
            " a file is opened with PIL.Image.open (generate takes paths and URLs)"
        )
    if not isinstance(image, np.ndarray):
        raise VlmkitError(
            f"images: {type(image).__name__} given; open it with PIL.Image.open, or make it a numpy"
            " array"
        )
    if image.dtype != np.uint8:
        raise VlmkitError(f"images: an array of {image.dtype}; give uint8 values from 0 to 255")
    if image.ndim == 3 and image.shape[0] in CHANNELS:
        image = np.moveaxis(image, 0, -1)
    has_channels = image.ndim == 3 and image.shape[-1] in CHANNELS
    if not (has_channels or image.ndim == 2) or 0 in image.shape:
        raise VlmkitError(
            f"images: an array of shape {image.shape}; give [height, width, channels] with 1, 3 or"
            " 4 channels, or the channels first"
        )
    return _from_array(image)


def _from_array(image: NDArray[np.uint8]) -> Image.Image:
    is_grey = image.ndim == 3 and image.shape[-1] == 1
    return Image.fromarray(np.ascontiguousarray(image[..., 0] if is_grey else image))
