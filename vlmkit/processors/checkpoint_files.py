"""The small JSON files of a checkpoint folder that a processor needs. Nothing is ever written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vlmkit.errors import VlmkitError

SPECIAL_TOKENS = (
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
)


class CheckpointFiles(NamedTuple):
    """The contents of the files; a missing file is an empty dict."""

    folder: Path
    config: Mapping[str, Any]  # config.json
    generation_config: Mapping[str, Any]  # generation_config.json
    tokenizer_config: Mapping[str, Any]  # tokenizer_config.json
    image_processor: Mapping[str, Any]  # preprocessor_config.json, or within processor_config.json
    image_processor_file: str
    chat_template: str | None
    chat_template_place: str = "chat template"  # its file, and the key where it is JSON


def read_checkpoint_files(folder: Path) -> CheckpointFiles:
    """Read what a processor needs of a checkpoint folder.

    The chat template is searched where transformers searches it, first hit wins:
    processor_config.json, chat_template.json, chat_template.jinja, tokenizer_config.json.

    Raises:
        VlmkitError: no such folder, no config.json, or a file that is not JSON.
    """
    if not folder.is_dir():
        raise VlmkitError(f"{folder}: no such folder; give a folder with config.json in it")
    if not (folder / "config.json").is_file():
        raise VlmkitError(f"{folder}: no config.json; a checkpoint folder has one")
    processor = _read_json(folder / "processor_config.json")
    nested = processor.get("image_processor")
    tokenizer_config = _read_json(folder / "tokenizer_config.json")
    template_file = folder / "chat_template.jinja"
    candidates = {
        "processor_config.json: chat_template": processor.get("chat_template"),
        "chat_template.json: chat_template": _read_json(folder / "chat_template.json").get(
            "chat_template"
        ),
        template_file.name: _read_text(template_file) if template_file.is_file() else None,
        "tokenizer_config.json: chat_template": tokenizer_config.get("chat_template"),
    }
    place = next((place for place, found in candidates.items() if found is not None), None)
    return CheckpointFiles(
        folder=folder,
        config=_read_json(folder / "config.json"),
        generation_config=_read_json(folder / "generation_config.json"),
        tokenizer_config=tokenizer_config,
        image_processor=nested or _read_json(folder / "preprocessor_config.json"),
        image_processor_file="processor_config.json" if nested else "preprocessor_config.json",
        chat_template=None if place is None else _default_template(candidates[place]),
        chat_template_place="chat template" if place is None else str(folder / place),
    )


def special_tokens(files: CheckpointFiles) -> dict[str, str]:
    """Return the named special tokens (``bos_token`` and so on) that chat templates may use."""
    named = _read_json(files.folder / "special_tokens_map.json") | dict(files.tokenizer_config)
    texts = {key: _token_text(named.get(key)) for key in SPECIAL_TOKENS}
    return {key: text for key, text in texts.items() if text is not None}


def eos_token_ids(files: CheckpointFiles, tokenizer_eos: int | None) -> frozenset[int]:
    """Return every id that ends a text, whichever of the checkpoint's files names it."""
    sources = (files.config, files.config.get("text_config") or {}, files.generation_config)
    found: set[int] = set() if tokenizer_eos is None else {tokenizer_eos}
    for source in sources:
        value = source.get("eos_token_id")
        found.update(value if isinstance(value, Iterable) else () if value is None else (value,))
    return frozenset(found)


def model_type(files: CheckpointFiles) -> str:
    """Return the family's name as config.json writes it."""
    return str(files.config.get("model_type", "unknown"))


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise VlmkitError(f"{path}: not UTF-8 ({error}); save it as UTF-8") from error


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise VlmkitError(f"{path}: not valid JSON ({error})") from error
    if not isinstance(value, dict):
        raise VlmkitError(f"{path}: needs a JSON object, not {type(value).__name__}")
    return value


def _default_template(template: Any) -> str | None:
    # Several templates: a list of {name, template}, or a dict; "default" is the one for chats.
    if isinstance(template, list):
        template = {entry["name"]: entry["template"] for entry in template}
    if isinstance(template, dict):
        template = template.get("default")
    return None if template is None else str(template)


def _token_text(token: Any) -> str | None:
    content = token.get("content") if isinstance(token, Mapping) else token
    return content if isinstance(content, str) else None
