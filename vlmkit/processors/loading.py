"""Read a processor from a checkpoint folder."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from vlmkit.checkpoints.text_part import has_senses
from vlmkit.errors import VlmkitError, nearest
from vlmkit.processors.checkpoint_files import (
    CheckpointFiles,
    eos_token_ids,
    model_type,
    read_checkpoint_files,
    special_tokens,
)
from vlmkit.processors.image_rules import (
    ImageProcessor,
    ImageRules,
    check_patches,
    grid_of,
    image_span,
    processor_of,
    read_image_rules,
    takes_images,
)
from vlmkit.processors.processor import Processor
from vlmkit.processors.qwen2_vl import Qwen2VLImages
from vlmkit.processors.script_names import for_scripts
from vlmkit.processors.tokenizer import Tokenizer
from vlmkit.processors.tokenizer_file import (
    TOKENIZER_FILES,
    check_tokenizer_files,
    read_tokenizer,
)
from vlmkit.processors.tokenizer_limits import MAX_IDS
from vlmkit.processors.video_rules import TIMES, VideoRules, read_qwen_video, video_rules
from vlmkit.processors.whisper import AudioRules, pooled_rules, read_whisper
from vlmkit.templates.helper import prepare

Backend = Literal["auto", "native", "transformers"]
BACKENDS = ("auto", "native", "transformers")
AUDIO_FAMILIES = ("qwen2_audio",)
"""The model types of config.json whose sounds are prepared by the rules of Qwen2-Audio."""


def load_processor(
    folder: str | Path, *, backend: Backend = "auto", trust_remote_code: bool = False
) -> Processor:
    """Read the processor of a checkpoint folder. Nothing is downloaded or written.

    Args:
        folder: the checkpoint, with config.json and the tokenizer's files.
        backend: ``native`` uses the tokenizers library and vlmkit's own image processor (fast to
            start); ``transformers`` uses AutoTokenizer and the image processor on PIL that comes
            with it (torch is not needed); ``auto`` is native where the folder allows it. The
            choice is the processor's ``backend``.
        trust_remote_code: let the transformers backend run tokenizer code that the checkpoint
            brings along. The native backend runs none.

    Raises:
        VlmkitError: a file is missing or broken, or the backend cannot serve this checkpoint.

    Example:
        >>> from importlib.resources import files
        >>> load_processor(str(files("vlmkit") / "assets" / "shapes")).backend
        'native'
    """
    if backend not in BACKENDS:
        raise VlmkitError(
            f"backend={backend!r}: one of {', '.join(BACKENDS)}{nearest(backend, BACKENDS)}"
        )
    found = read_checkpoint_files(Path(folder))
    if backend == "auto":
        backend = "native" if (found.folder / "tokenizer.json").is_file() else "transformers"
    return _native(found) if backend == "native" else _transformers(found, trust_remote_code)


def load_tokenizer(folder: str | Path) -> Tokenizer:
    """Read only the tokenizer of a checkpoint folder, as ``load_processor`` does.

    Raises:
        VlmkitError: its files are missing or broken.
    """
    files = read_checkpoint_files(Path(folder))
    native = (files.folder / "tokenizer.json").is_file()
    return (_native_tokenizer(files) if native else _transformers_tokenizer(files, False))[0]


def _native(files: CheckpointFiles) -> Processor:
    tokenizer, named = _native_tokenizer(files)
    config = read_image_rules(files)
    return _build(files, "native", tokenizer, named, config, processor_of(config))


def _native_tokenizer(files: CheckpointFiles) -> tuple[Tokenizer, Mapping[str, str]]:
    path = files.folder / "tokenizer.json"
    if not path.is_file():
        raise VlmkitError(
            f"{files.folder}: no tokenizer.json, which the native backend needs; use"
            " backend='transformers'"
        )
    return read_tokenizer(path, files.tokenizer_config), special_tokens(files)


def _transformers(files: CheckpointFiles, trust_remote_code: bool) -> Processor:
    tokenizer, named = _transformers_tokenizer(files, trust_remote_code)
    config = read_image_rules(files)
    process = processor_of(config)
    if isinstance(config, Qwen2VLImages):
        from vlmkit.processors.transformers_backend import build_image_processor

        process = build_image_processor(config)
    return _build(files, "transformers", tokenizer, named, config, process)


def _transformers_tokenizer(
    files: CheckpointFiles, trust_remote_code: bool
) -> tuple[Tokenizer, Mapping[str, str]]:
    from vlmkit.processors.transformers_backend import read_with_transformers

    if not any((files.folder / name).is_file() for name in TOKENIZER_FILES):
        # transformers would make up a tokenizer without a vocabulary
        raise VlmkitError(
            f"{files.folder}: no tokenizer; it needs one of {', '.join(TOKENIZER_FILES)}"
        )
    check_tokenizer_files(files.folder)
    special_tokens(files)  # says which key is wrong; transformers does not
    return read_with_transformers(files.folder, files.config, trust_remote_code)


def _takes_sounds(files: CheckpointFiles) -> bool:
    has_ears = files.config.values.get("audio_config") is not None
    return has_ears and model_type(files) in AUDIO_FAMILIES


def _video_rules(files: CheckpointFiles, images: ImageRules | None) -> VideoRules | None:
    section = files.video_processor
    if not isinstance(images, Qwen2VLImages) or not section.values:
        return None
    config = read_qwen_video(section, TIMES[model_type(files)])
    check_patches(config.images, section, files.config.inner("vision_config"))
    return video_rules(config)


def _audio_rules(files: CheckpointFiles) -> AudioRules | None:
    section = files.feature_extractor
    if not _takes_sounds(files) or not section.values:
        return None
    config = read_whisper(section)
    audio = files.config.inner("audio_config")
    for key, given, theirs in (
        ("feature_size", config.feature_size, "num_mel_bins"),
        ("chunk_length", config.max_frames // 2, "max_source_positions"),
    ):
        expected = audio.positive(theirs, given)
        if given != expected:
            raise section.error(
                key,
                f"gives {given}, but {audio.file}: {audio.path}{theirs} is {expected}; the two"
                " files disagree",
            )
    return pooled_rules(config)


def _build(
    files: CheckpointFiles,
    backend: Literal["native", "transformers"],
    tokenizer: Tokenizer,
    named: Mapping[str, str],
    config: ImageRules | None,
    process: ImageProcessor | None,
) -> Processor:
    prepare(files.chat_template)
    find = tokenizer.token_to_id
    text_config = files.config.inner("text_config")
    vocab_size = files.config.positive("vocab_size", tokenizer.vocab_size)
    num_embeddings = max(text_config.positive("vocab_size", vocab_size), tokenizer.vocab_size)
    image, video, audio = (
        _placeholder(files, tokenizer, kind, num_embeddings) for kind in ("image", "video", "audio")
    )
    if image is not None and image == video:
        raise files.config.error("image_token_id", f"is {image}, as video_token_id is")
    if num_embeddings > MAX_IDS:
        raise VlmkitError(
            f"{files.folder}: a vocabulary of {num_embeddings:,} ids, and {MAX_IDS:,} are allowed;"
            " correct vocab_size in its config.json"
        )
    processor = Processor(
        folder=files.folder,
        model_type=model_type(files),
        backend=backend,
        tokenizer=tokenizer,
        chat_template=files.chat_template,
        chat_template_place=files.chat_template_place,
        special_tokens=named,
        eos_token_ids=eos_token_ids(
            files,
            find(named["eos_token"]) if "eos_token" in named else None,
            find=find,
            num_embeddings=num_embeddings,
        ),
        num_embeddings=num_embeddings,
        image_token_id=image,
        video_token_id=video,
        merge_size=1 if config is None else config.merge_size,
        image_processor=process,
        image_rules=None if config is None else f"{backend} {config!r}",
        image_grid=grid_of(config),
        image_span=image_span(files, tokenizer) if image is not None else None,
        video=_video_rules(files, config),
        audio_token_id=audio,
        audio=_audio_rules(files),
        is_text_part=has_senses(files.config.values)
        and not (takes_images(files) or _takes_sounds(files)),
        tool_template=files.tool_template,
    )
    return for_scripts(processor, files.tokenizer_config.values)


def _placeholder(
    files: CheckpointFiles, tokenizer: Tokenizer, kind: str, num_embeddings: int
) -> int | None:
    # A text-only sibling shares the tokenizer with its placeholders, but cannot see or hear.
    if not (_takes_sounds(files) if kind == "audio" else takes_images(files)):
        return None
    if kind == "video" and model_type(files) not in TIMES:
        return None
    index = f"{kind}_token_index"
    key = index if index in files.config.values else f"{kind}_token_id"
    given = files.config.token_ids(key, tokenizer.token_to_id)
    if given and given[0] >= num_embeddings:
        problem = f"{given[0]} is outside the vocabulary of {num_embeddings}"
        raise files.config.error(key, problem)
    usual = "<|AUDIO|>" if kind == "audio" else f"<|{kind}_pad|>"
    return given[0] if given else tokenizer.token_to_id(usual)
