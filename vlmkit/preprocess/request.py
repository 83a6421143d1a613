"""The preprocess stage: a request's prompt and images become the model's inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
from PIL import Image

from vlmkit.contracts.inputs import ImageGrid, Inputs, Media
from vlmkit.errors import VlmkitError, within
from vlmkit.preprocess.arguments import as_sources, check_prompt
from vlmkit.preprocess.config import PreprocessConfig
from vlmkit.preprocess.images import (
    ImageSource,
    check_source,
    describe_source,
    load_image,
    resize_image,
)
from vlmkit.preprocess.length import check_text_length
from vlmkit.preprocess.pixels import PixelCache, Pixels, pixels_key
from vlmkit.processors import Processor

_PROMPT = ("prompt",)


def prepare(
    processor: Processor,
    prompt: str | Sequence[int],
    images: ImageSource | Sequence[ImageSource] | None = (),
    audio: object = (),
    *,
    config: PreprocessConfig,
    context_length: int | None = None,
    known: PixelCache | None = None,
) -> Inputs:
    """Tokenize a formatted prompt, load its images, and expand each image placeholder.

    An image of ``t * h * w`` patches becomes ``t * h * w / merge²`` visual tokens: so often does
    its placeholder stand in ``Inputs.token_ids``.

    Args:
        prompt: the text after the chat template, or its token ids; one placeholder per image.
        images: one, or several in the order of the placeholders.
        context_length: the most tokens the model can take; None does not check.
        known: images that were processed before; takes in these.

    Raises:
        VlmkitError: placeholders and images disagree, the prompt is no text, empty or too long,
            an id has no embedding, an image cannot be read, or the model takes no images or no
            audio.

    Example:
        >>> from importlib.resources import files
        >>> from PIL import Image
        >>> from vlmkit.processors import load_processor
        >>> processor = load_processor(str(files("vlmkit") / "assets" / "shapes"))
        >>> inputs = prepare(processor, "<|image_pad|>?", [Image.new("RGB", (112, 112))],
        ...                  config=PreprocessConfig())
        >>> [(image.kind, image.data.shape, image.shape, image.span) for image in inputs.media]
        [('image', (64, 1176), (1, 8, 8), (0, 16))]
    """
    images = as_sources(images)
    check_media(processor, images, as_sources(audio))
    token_ids = _token_ids(processor, prompt, context_length)
    _check_placeholders(processor, token_ids, len(images))
    _check_length(len(token_ids), len(images), (), context_length)
    processed: list[Pixels] = []
    counts: list[int] = []
    for index, source in enumerate(images):
        with within("images", index):
            image, grid = _load(processor, source, config)
        counts.append(processor.num_image_tokens(grid))
        num_tokens = len(token_ids) - len(counts) + sum(counts)
        _check_length(num_tokens, len(images), counts, context_length)  # before pixels are resized
        with within("images", index):
            processed.append(_process(processor, image, source, config, known))
    if not processed:
        return Inputs.of(np.array(token_ids, np.int32))
    expanded, spans = _expand(token_ids, processor.image_token_id, counts)
    media = [
        Media("image", one.patches, tuple(one.grid), span, one.digest)
        for one, span in zip(processed, spans, strict=True)
    ]
    return Inputs.of(np.array(expanded, np.int32), media)


def check_media(
    processor: Processor, images: Sequence[object], audio: Sequence[object] = ()
) -> None:
    """Refuse media that the model takes none of, and what is no image whatever it holds.

    Raises:
        VlmkitError: says which.
    """
    if audio:
        raise VlmkitError(
            f"audio: the {processor.model_type} family takes no audio; leave it out",
            path=("audio",),
        )
    if images and processor.image_processor is None:
        raise VlmkitError(processor.no_images(), path=("images",))
    for index, source in enumerate(images):
        with within("images", index):
            check_source(source)


def _token_ids(processor: Processor, prompt: object, context_length: int | None) -> list[int]:
    checked = check_prompt(prompt)
    if isinstance(checked, str):
        check_text_length(checked, context_length, processor.encode)
        token_ids = processor.encode(checked)
    else:
        token_ids = list(checked)
        _check_length(len(token_ids), 0, (), context_length)
        for index, token_id in enumerate(token_ids):
            if not 0 <= token_id < processor.num_embeddings:
                raise VlmkitError(
                    f"prompt: token id {token_id} at position {index} has no embedding; ids go from"
                    f" 0 to {processor.num_embeddings - 1}",
                    path=_PROMPT,
                )
    if not token_ids:
        raise VlmkitError("prompt: it has no tokens; give at least one character", path=_PROMPT)
    return token_ids


def _check_placeholders(processor: Processor, token_ids: list[int], num_images: int) -> None:
    if processor.video_token_id is not None and processor.video_token_id in token_ids:
        raise VlmkitError(
            "prompt: it has a video placeholder, and videos are not supported; give the frames as"
            " images",
            path=_PROMPT,
        )
    if processor.image_token_id is None:
        return
    found = token_ids.count(processor.image_token_id)
    if found != num_images:
        raise VlmkitError(
            f"prompt: it has {found} image placeholder{'s' * (found != 1)}"
            f" ({processor.image_token}), but there {'is' if num_images == 1 else 'are'}"
            f" {num_images} image{'s' * (num_images != 1)}; format it with"
            f" apply_chat_template(processor, config, prompt, num_images={num_images})",
            path=_PROMPT,
        )


def _check_length(
    num_tokens: int, num_images: int, counts: Sequence[int], context_length: int | None
) -> None:
    """Refuse a prompt that is too long with the images so far, ``counts`` tokens each."""
    if context_length is None or num_tokens <= context_length:
        return
    of_all = "" if len(counts) == num_images else f"the first {len(counts)} of "
    visual = f", {sum(counts)} of them for {of_all}{num_images} image{'s' * (num_images != 1)}"
    advice = "shorten the text" + (" or set a smaller resize_shape" if num_images else "")
    raise VlmkitError(
        f"prompt: {num_tokens} tokens{visual if counts else ''}, but the model's context is"
        f" {context_length}; {advice}",
        path=_PROMPT,
    )


def _load(
    processor: Processor, source: ImageSource, config: PreprocessConfig
) -> tuple[Image.Image, ImageGrid]:
    """Load an image, and count the patches that it will have."""
    image = load_image(source, config=config)
    height, width = config.resize_shape or (image.height, image.width)
    with _named(source):
        return image, processor.grid_of(height, width)


def _process(
    processor: Processor,
    image: Image.Image,
    source: ImageSource,
    config: PreprocessConfig,
    known: PixelCache | None,
) -> Pixels:
    key = None
    if known is not None and processor.image_rules is not None:
        key = pixels_key(image, processor.image_rules, config.resize_shape)
        found = known.find(key)
        if found is not None:
            return found
    if config.resize_shape is not None:
        image = resize_image(image, config.resize_shape)
    with _named(source):
        patches, (grid,) = processor.process_images([image])
    pixels = Pixels.of(patches, grid)
    if known is not None and key is not None:
        known.put(key, pixels)
    return pixels


@contextmanager
def _named(source: ImageSource) -> Iterator[None]:
    try:
        yield
    except VlmkitError as error:
        raise VlmkitError(f"{describe_source(source)}: {error}") from error


def _expand(
    token_ids: list[int], placeholder: int | None, counts: list[int]
) -> tuple[list[int], list[tuple[int, int]]]:
    """Repeat each placeholder as often as its medium has tokens; also say where these are."""
    expanded: list[int] = []
    spans: list[tuple[int, int]] = []
    for token_id in token_ids:
        count = counts[len(spans)] if token_id == placeholder else 1
        if token_id == placeholder:
            spans.append((len(expanded), len(expanded) + count))
        expanded += [token_id] * count
    return expanded, spans
