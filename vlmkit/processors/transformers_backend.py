"""Tokenizer and image processor by transformers, for folders that the native code cannot read.

Only the torch-free parts are used: AutoProcessor would also build a video processor, which needs
torchvision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from vlmkit.checkpoints.checkpoint_json import reason
from vlmkit.contracts.inputs import ImageGrid
from vlmkit.declare.section import Section, names_tokens
from vlmkit.errors import VlmkitError
from vlmkit.processors.library_errors import is_of_library
from vlmkit.processors.processor import Patches
from vlmkit.processors.qwen2_vl import Qwen2VLImages
from vlmkit.processors.rgb import to_rgb
from vlmkit.processors.tokenizer import Tokenizer, from_backend
from vlmkit.processors.tokenizer_limits import check_vocab


def read_with_transformers(
    folder: Path, config: Section, trust_remote_code: bool
) -> tuple[Tokenizer, dict[str, str]]:
    """Read a tokenizer and its named special tokens with AutoTokenizer.

    Raises:
        VlmkitError: transformers cannot read it.
    """
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            str(folder),
            trust_remote_code=trust_remote_code,
            local_files_only=True,
            **_config_without_ids(config),
        )
    except BaseException as error:  # its many parsers raise whatever they raise
        if not is_of_library(error):
            raise
        raise VlmkitError(
            f"{folder}: transformers cannot read the tokenizer ({reason(error)}); the folder"
            " needs tokenizer.json, or the files of a tokenizer that transformers knows"
        ) from error
    check_vocab(tokenizer.get_vocab(), str(folder))
    named = {key: str(value) for key, value in tokenizer.special_tokens_map.items()}
    side: Literal["left", "right"] = "left" if tokenizer.padding_side == "left" else "right"
    if tokenizer.is_fast:
        backend = tokenizer.backend_tokenizer
        backend.no_padding()
        backend.no_truncation()
        return replace(from_backend(backend), padding_side=side), named
    return replace(_read_slow(tokenizer, folder), padding_side=side), named


def _read_slow(tokenizer: Any, folder: Path) -> Tokenizer:
    """A tokenizer without tokenizer.json, by what transformers' class of it does."""

    def encode_text(text: str) -> list[int]:
        return list(tokenizer.encode(text, add_special_tokens=False))

    def encode_whole(text: str) -> list[int]:
        return list(tokenizer.encode(text))

    def decode_ids(ids: list[int], skip_special_tokens: bool) -> str:
        known = [index for index in ids if index < len(tokenizer)]
        return str(tokenizer.decode(known, skip_special_tokens=skip_special_tokens))

    def token_to_id(token: str) -> int | None:
        found: int | None = tokenizer.get_vocab().get(token)
        return found

    def id_to_token(token_id: int) -> str | None:
        known = 0 <= token_id < len(tokenizer)
        return str(tokenizer.convert_ids_to_tokens(token_id)) if known else None

    def read_token_bytes() -> tuple[bytes, ...]:
        raise VlmkitError(
            f"{folder}: grammar needs the bytes of each token, which this tokenizer"
            f" ({type(tokenizer).__name__}) does not tell; use a checkpoint with tokenizer.json"
        )

    return Tokenizer(
        encode_text=encode_text,
        decode_ids=decode_ids,
        token_to_id=token_to_id,
        id_to_token=id_to_token,
        special_ids=frozenset(tokenizer.all_special_ids),
        vocab_size=len(tokenizer),
        read_token_bytes=read_token_bytes,
        added_tokens=tuple(
            zip(tokenizer.all_special_tokens, tokenizer.all_special_ids, strict=True)
        ),
        encode_whole=encode_whole,
    )


def _config_without_ids(config: Section) -> dict[str, Any]:
    # Of config.json a tokenizer needs the class, but transformers checks every value, and refuses
    # tokens where it expects ids.
    from transformers import AutoConfig, PreTrainedConfig

    if not names_tokens(config) and not names_tokens(config.inner("text_config")):
        return {}
    try:
        found = AutoConfig.for_model(str(config.values.get("model_type")))
    except ValueError:
        found = PreTrainedConfig()
    found.tokenizer_class = config.values.get("tokenizer_class")
    return {"config": found}


def build_image_processor(
    config: Qwen2VLImages,
) -> Callable[[Sequence[Image.Image]], Patches]:
    """Build the image processor of the Qwen2-VL families that runs on numpy and PIL."""
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    processor = Qwen2VLImageProcessorPil(**config._asdict())

    def process_images(images: Sequence[Image.Image]) -> Patches:
        try:
            result = processor(images=[to_rgb(image) for image in images], return_tensors="np")
        except ValueError as error:
            raise VlmkitError(f"image: {error}") from error
        grids = tuple(ImageGrid(*(int(n) for n in grid)) for grid in result["image_grid_thw"])
        return np.asarray(result["pixel_values"], np.float32), grids

    return process_images
