"""The preprocess stage: a request's prompt and media become the model's inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from PIL import Image

from vlmkit.contracts.inputs import ImageGrid, Inputs
from vlmkit.errors import VlmkitError, within
from vlmkit.preprocess.arguments import as_sources, check_prompt
from vlmkit.preprocess.config import PreprocessConfig
from vlmkit.preprocess.expanding import (
    KINDS,
    Shown,
    count_tokens,
    expand,
    image_part,
    show_clip,
    show_expanded,
    show_video,
)
from vlmkit.preprocess.images import (
    ImageSource,
    check_source,
    describe_source,
    load_image,
    resize_image,
)
from vlmkit.preprocess.length import check_text_length
from vlmkit.preprocess.pixels import PixelCache, Pixels, pixels_key
from vlmkit.preprocess.sounds import as_clips, check_clip, load_clip
from vlmkit.preprocess.videos import as_videos, check_video, load_video
from vlmkit.processors import Processor

_PROMPT = ("prompt",)
FIELDS: Mapping[str, str] = {"image": "images", "video": "video", "audio": "audio"}
"""What a request calls its media, by their kind."""
Maker = Callable[[Processor, Any, PreprocessConfig], Shown]
"""Loads one source and says what its placeholder becomes."""
_CHECKS: Mapping[str, Callable[[object], None]] = {
    "image": check_source,
    "video": check_video,
    "audio": check_clip,
}


def prepare(
    processor: Processor,
    prompt: str | Sequence[int],
    images: ImageSource | Sequence[ImageSource] | None = (),
    audio: Any = (),
    video: Any = (),
    *,
    config: PreprocessConfig,
    context_length: int | None = None,
    known: PixelCache | None = None,
) -> Inputs:
    """Tokenize a formatted prompt, load its media, and expand their placeholders.

    An image of ``t * h * w`` patches becomes ``t * h * w / merge²`` visual tokens: so often does
    its placeholder stand in ``Inputs.token_ids``. So it is with videos and sounds.

    Args:
        prompt: the text after the chat template, or its token ids; one placeholder per medium.
        images: one, or several in the order of the placeholders.
        audio: one sound, or several in the order of theirs.
        video: one video, or several in the order of theirs.
        context_length: the most tokens the model can take; None does not check.
        known: images that were processed before; takes in these.

    Raises:
        VlmkitError: placeholders and media disagree, the prompt is no text, empty or too long,
            an id has no embedding, a medium cannot be read, or the model takes none of its kind.

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
    sources = {"image": as_sources(images), "video": as_videos(video), "audio": as_clips(audio)}
    check_media(processor, **sources)
    token_ids = _token_ids(processor, prompt, context_length)
    for kind in KINDS:
        _check_placeholders(processor, token_ids, kind, len(sources[kind]))
    counts: dict[str, list[int]] = {kind: [] for kind in KINDS}
    numbers = {kind: len(given) for kind, given in sources.items()}

    def check_length(kind: str | None = None, num_tokens: int = 0) -> None:
        if kind is not None:
            counts[kind].append(num_tokens)
        total = len(token_ids) + sum(sum(each) - len(each) for each in counts.values())
        _check_length(total, numbers, counts, context_length)

    check_length()
    shown: dict[str, list[Shown]] = {kind: [] for kind in KINDS}
    makers: dict[str, Maker] = {"video": _show_video, "audio": _show_clip}
    if processor.expand_image is not None:
        makers = {"image": _show_expanded, **makers}
    in_patches = () if "image" in makers else sources["image"]
    for index, source in enumerate(in_patches):
        with within("images", index):
            image, grid = _load(processor, source, config)
        check_length("image", processor.num_image_tokens(grid))  # before pixels are resized
        with within("images", index):
            pixels = _process(processor, image, source, config, known)
        shown["image"].append(image_part(pixels, counts["image"][-1]))
    for kind, make in makers.items():
        for index, source in enumerate(sources[kind]):
            with within(FIELDS[kind], index):
                shown[kind].append(make(processor, source, config))
            check_length(kind, count_tokens(shown[kind][-1]))
    return expand(processor, token_ids, shown)


def _show_expanded(processor: Processor, source: Any, config: PreprocessConfig) -> Shown:
    image = load_image(source, config=config)
    if config.resize_shape is not None:
        image = resize_image(image, config.resize_shape)
    return show_expanded(processor, image)


def _show_video(processor: Processor, source: Any, config: PreprocessConfig) -> Shown:
    assert processor.video is not None
    return show_video(processor, load_video(source, processor.video, config=config))


def _show_clip(processor: Processor, source: Any, config: PreprocessConfig) -> Shown:
    return show_clip(processor, load_clip(source, config=config), config)


def check_media(
    processor: Processor,
    image: Sequence[object] = (),
    audio: Sequence[object] = (),
    video: Sequence[object] = (),
) -> None:
    """Refuse media that the model takes none of, and what is no such medium whatever it holds.

    Raises:
        VlmkitError: says which.
    """
    for kind, sources in (("audio", audio), ("video", video), ("image", image)):
        if sources and not processor.prepares(kind):
            raise VlmkitError(processor.takes_none(kind), path=(FIELDS[kind],))
        for index, source in enumerate(sources):
            with within(FIELDS[kind], index):
                _CHECKS[kind](source)


def _token_ids(processor: Processor, prompt: object, context_length: int | None) -> list[int]:
    checked = check_prompt(prompt)
    if isinstance(checked, str):
        check_text_length(checked, context_length, processor.encode)
        token_ids = processor.encode(checked)
    else:
        token_ids = list(checked)
        _check_length(len(token_ids), {}, {}, context_length)
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


def _check_placeholders(processor: Processor, token_ids: list[int], kind: str, number: int) -> None:
    token_id = processor.placeholder_id(kind)
    if token_id is None:
        return
    found = token_ids.count(token_id)
    if found != number:
        raise VlmkitError(
            f"prompt: it has {found} {kind} placeholder{'s' * (found != 1)}"
            f" ({processor.placeholder(kind)}), but there {'is' if number == 1 else 'are'}"
            f" {_counted(kind, number)}; format it with"
            f" apply_chat_template(processor, config, prompt, num_{kind}s={number})",
            path=_PROMPT,
        )


def _counted(kind: str, number: int) -> str:
    return f"{number} {'audio clip' if kind == 'audio' else kind}{'s' * (number != 1)}"


def _check_length(
    num_tokens: int,
    numbers: Mapping[str, int],
    counts: Mapping[str, Sequence[int]],
    context_length: int | None,
) -> None:
    """Refuse a prompt that is too long with the media so far, ``counts`` tokens each."""
    if context_length is None or num_tokens <= context_length:
        return
    parts = []
    for kind in KINDS:
        if counts.get(kind):
            of_all = "" if len(counts[kind]) == numbers[kind] else f"first {len(counts[kind])} of "
            of_all = f"the {of_all}" if of_all else ""
            parts.append(f"{sum(counts[kind])} of them for {of_all}{_counted(kind, numbers[kind])}")
    smaller = {
        "image": "set a smaller resize_shape",
        "video": "take fewer frames by fps or max_frames",
        "audio": "give a shorter sound",
    }
    advice = ["shorten the text", *(smaller[kind] for kind in KINDS if numbers.get(kind))]
    raise VlmkitError(
        f"prompt: {', '.join([f'{num_tokens} tokens', *parts])}, but the model's context is"
        f" {context_length}; {' or '.join(advice)}",
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
