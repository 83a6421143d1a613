"""The small files of a checkpoint folder that a processor needs. Nothing is ever written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vlmkit.checkpoints.checkpoint_json import is_utf8, read_json, read_text
from vlmkit.declare.section import Section, shown
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
_MAX_DIGITS = 10  # of a token id


class CheckpointFiles(NamedTuple):
    """The contents of the files; a missing file is an empty section."""

    folder: Path
    config: Section  # config.json
    generation_config: Section  # generation_config.json
    tokenizer_config: Section  # tokenizer_config.json
    image_processor: Section  # preprocessor_config.json, or within processor_config.json
    video_processor: Section  # video_preprocessor_config.json, likewise; else that of images
    feature_extractor: Section  # of sounds: preprocessor_config.json, likewise
    chat_template: str | None
    chat_template_place: str = "chat template"  # its file, and the key where it is JSON
    tool_template: str | None = None  # the one for chats with tools, where there are two


def read_checkpoint_files(folder: Path) -> CheckpointFiles:
    """Read what a processor needs of a checkpoint folder.

    The chat template is searched where transformers searches it, first hit wins:
    processor_config.json, chat_template.json, chat_template.jinja, tokenizer_config.json. The
    template for chats with tools is the one named ``tool_use``, there or in the folder
    ``additional_chat_templates``.

    Raises:
        VlmkitError: no such folder, no config.json, or a file that cannot be used.
    """
    if not folder.is_dir():
        raise VlmkitError(f"{folder}: no such folder; give a folder with config.json in it")
    if not (folder / "config.json").is_file():
        raise VlmkitError(f"{folder}: no config.json; a checkpoint folder has one")
    processor = read_section(folder / "processor_config.json")
    own = read_section(folder / "preprocessor_config.json")
    images = _first_filled(processor.inner("image_processor"), own)
    video = read_section(folder / "video_preprocessor_config.json")
    tokenizer_config = read_section(folder / "tokenizer_config.json")
    found, place = _find_template(folder, processor, tokenizer_config)
    return CheckpointFiles(
        folder=folder,
        config=read_section(folder / "config.json"),
        generation_config=read_section(folder / "generation_config.json"),
        tokenizer_config=tokenizer_config,
        image_processor=images,
        video_processor=_first_filled(processor.inner("video_processor"), video, images),
        feature_extractor=_first_filled(processor.inner("feature_extractor"), own),
        chat_template=_named_template(found, "default"),
        chat_template_place=place,
        tool_template=_tool_template(folder, found),
    )


def _first_filled(*sections: Section) -> Section:
    return next((section for section in sections if section.values), sections[-1])


def read_section(path: Path) -> Section:
    """Read one JSON file, empty where there is none; its errors name it in full."""
    return Section(read_json(path) if path.is_file() else {}, "", str(path))


def special_tokens(files: CheckpointFiles) -> dict[str, str]:
    """Return the named special tokens (``bos_token`` and so on) that chat templates may use.

    Raises:
        VlmkitError: one is neither a text nor an object with one.
    """
    sections = (files.tokenizer_config, read_section(files.folder / "special_tokens_map.json"))
    texts = {key: _token_text(sections, key) for key in SPECIAL_TOKENS}
    return {key: text for key, text in texts.items() if text is not None}


def model_type(files: CheckpointFiles) -> str:
    """Return the family's name as config.json writes it."""
    value = files.config.values.get("model_type")
    return value if isinstance(value, str) else "unknown"


def eos_token_ids(
    files: CheckpointFiles,
    tokenizer_eos: int | None,
    *,
    find: Callable[[str], int | None],
    num_embeddings: int,
) -> frozenset[int]:
    """Return every id that ends a text, whichever of the checkpoint's files names it.

    Args:
        tokenizer_eos: the id of the tokenizer's own end-of-text token.
        find: the tokenizer's id of a token: the files may name tokens in place of ids.
        num_embeddings: ids are below this.

    Raises:
        VlmkitError: ``eos_token_id``, or ``bos_token_id`` or ``pad_token_id`` beside it, is no id
            and no token.
    """
    found: set[int] = set() if tokenizer_eos is None else {tokenizer_eos}
    for section in (files.config, files.config.inner("text_config"), files.generation_config):
        for key in ("bos_token_id", "pad_token_id"):
            section.token_ids(key, find)
        ids = section.token_ids("eos_token_id", find)
        if ids and max(ids) >= num_embeddings:
            raise section.error(
                "eos_token_id", f"{max(ids)} is outside the vocabulary of {num_embeddings}"
            )
        found.update(ids)
    return frozenset(found)


def _find_template(
    folder: Path, processor: Section, tokenizer_config: Section
) -> tuple[Section, str]:
    """The section whose ``chat_template`` counts, and what errors call the place."""
    file = folder / "chat_template.jinja"
    text = {"chat_template": read_text(file)} if file.is_file() else {}
    candidates = (
        (processor, "processor_config.json: chat_template"),
        (read_section(folder / "chat_template.json"), "chat_template.json: chat_template"),
        (Section(text, "", str(file)), file.name),
        (tokenizer_config, "tokenizer_config.json: chat_template"),
    )
    for section, place in candidates:
        if section.values.get("chat_template") is not None:
            return section, str(folder / place)
    return tokenizer_config, "chat template"


def _named_template(section: Section, name: str) -> str | None:
    # Several templates: a list of {name, template}, or a dict; "default" is the one for chats.
    template = section.values.get("chat_template")
    if isinstance(template, list):
        entries = [entry for entry in template if isinstance(entry, Mapping)]
        by_name = {str(entry.get("name")): entry.get("template") for entry in entries}
        template = by_name.get(name) if len(entries) == len(template) else template
    elif isinstance(template, Mapping):
        template = template.get(name)
    if template is None or isinstance(template, str):
        return template
    raise section.error(
        "chat_template",
        f"is {shown(template)}; it has to be a text, or texts by name with one named 'default'",
    )


def _tool_template(folder: Path, section: Section) -> str | None:
    file = folder / "additional_chat_templates" / "tool_use.jinja"
    if file.is_file():
        return read_text(file)
    several = not isinstance(section.values.get("chat_template"), str)
    return _named_template(section, "tool_use") if several else None


def _token_text(sections: tuple[Section, ...], key: str) -> str | None:
    for section in sections:
        if key not in section.values:
            continue
        token = section.values[key]
        text = token.get("content") if isinstance(token, Mapping) else token
        if text is None or isinstance(text, str):
            return text
        raise section.error(
            key, f"is {shown(token)}; it has to be a token, or an object with its 'content'"
        )
    return None


def added_tokens(tokenizer_config: Section) -> dict[int, dict[str, Any]]:
    """Return ``added_tokens_decoder``: the content and flags of each added token by id.

    Raises:
        VlmkitError: an id is no number, or an entry has no content or a flag that is none.
    """
    decoder = tokenizer_config.inner("added_tokens_decoder")
    found: dict[int, dict[str, Any]] = {}
    for name in decoder.values:
        entry = decoder.inner(name)
        content = entry.values.get("content")
        is_id = name.isascii() and name.isdigit() and len(name) <= _MAX_DIGITS
        if not is_id or not isinstance(content, str) or not is_utf8(content):
            raise decoder.error(
                shown(name), "has to be a token id, with the token's text as 'content'"
            )
        flags = ("special", "normalized", "lstrip", "rstrip", "single_word")
        given = {key: entry.flag(key, False) for key in flags if entry.values.get(key) is not None}
        found[int(name)] = {"content": content, **given}
    return found
