"""Read a processor from a checkpoint folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from PIL import Image

from vlmkit.errors import VlmkitError, nearest
from vlmkit.processors.checkpoint_files import (
    CheckpointFiles,
    eos_token_ids,
    model_type,
    read_checkpoint_files,
    special_tokens,
)
from vlmkit.processors.processor import Patches, Processor
from vlmkit.processors.qwen2_vl import Qwen2VLImages, process_images, read_qwen2_vl_images
from vlmkit.processors.script_names import for_scripts
from vlmkit.processors.tokenizer import Tokenizer, read_tokenizer

Backend = Literal["auto", "native", "transformers"]
BACKENDS = ("auto", "native", "transformers")
QWEN2_VL_TYPES = (
    "Qwen2VLImageProcessor",
    "Qwen2VLImageProcessorFast",
    "Qwen2VLImageProcessorPil",
    "Qwen2_5_VLImageProcessor",
)
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tiktoken.model",
    "tekken.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "vocab.txt",
)
ImageProcessor = Callable[[Sequence[Image.Image]], Patches]


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
    _check_image_processor(found)
    return _native(found) if backend == "native" else _transformers(found, trust_remote_code)


def _check_image_processor(files: CheckpointFiles) -> None:
    name = _image_processor_type(files)
    if files.image_processor and name not in QWEN2_VL_TYPES:
        raise VlmkitError(
            f"{files.folder / files.image_processor_file}: image_processor_type {name!r} is not"
            f" supported; supported: {', '.join(QWEN2_VL_TYPES)}"
        )


def _image_processor_type(files: CheckpointFiles) -> str:
    values = files.image_processor
    return str(values.get("image_processor_type", values.get("feature_extractor_type", "")))


def _native(files: CheckpointFiles) -> Processor:
    path = files.folder / "tokenizer.json"
    if not path.is_file():
        raise VlmkitError(
            f"{files.folder}: no tokenizer.json, which the native backend needs; use"
            " backend='transformers'"
        )
    tokenizer = read_tokenizer(path, files.tokenizer_config)
    config = _image_config(files)
    process = None if config is None else partial(process_images, config=config)
    return _build(files, "native", tokenizer, special_tokens(files), config, process)


def _transformers(files: CheckpointFiles, trust_remote_code: bool) -> Processor:
    from vlmkit.processors.transformers_backend import read_image_processor, read_with_transformers

    if not any((files.folder / name).is_file() for name in TOKENIZER_FILES):
        # transformers would make up a tokenizer without a vocabulary
        raise VlmkitError(
            f"{files.folder}: no tokenizer; it needs one of {', '.join(TOKENIZER_FILES)}"
        )
    tokenizer, named = read_with_transformers(files.folder, trust_remote_code)
    config = _image_config(files)
    process = None if config is None else read_image_processor(files.folder)
    return _build(files, "transformers", tokenizer, named, config, process)


def _image_config(files: CheckpointFiles) -> Qwen2VLImages | None:
    if not files.image_processor:
        return None
    return read_qwen2_vl_images(
        files.image_processor, str(files.folder / files.image_processor_file)
    )


def _build(
    files: CheckpointFiles,
    backend: Literal["native", "transformers"],
    tokenizer: Tokenizer,
    named: Mapping[str, str],
    config: Qwen2VLImages | None,
    process: ImageProcessor | None,
) -> Processor:
    eos = tokenizer.token_to_id(named["eos_token"]) if "eos_token" in named else None
    text_config: Mapping[str, Any] = files.config.get("text_config") or {}
    embeddings = files.config.get("vocab_size", text_config.get("vocab_size", 0))
    processor = Processor(
        folder=files.folder,
        model_type=model_type(files),
        backend=backend,
        tokenizer=tokenizer,
        chat_template=files.chat_template,
        chat_template_place=files.chat_template_place,
        special_tokens=named,
        eos_token_ids=eos_token_ids(files, eos),
        num_embeddings=max(int(embeddings), tokenizer.vocab_size),
        image_token_id=_placeholder(files, tokenizer, "image"),
        video_token_id=_placeholder(files, tokenizer, "video"),
        merge_size=1 if config is None else config.merge_size,
        image_processor=process,
    )
    return for_scripts(processor, files.tokenizer_config)


def _placeholder(files: CheckpointFiles, tokenizer: Tokenizer, kind: str) -> int | None:
    # A text-only sibling shares the tokenizer with its placeholders, but cannot see.
    if "vision_config" not in files.config and not files.image_processor:
        return None
    token_id = files.config.get(f"{kind}_token_id")
    return tokenizer.token_to_id(f"<|{kind}_pad|>") if token_id is None else int(token_id)
