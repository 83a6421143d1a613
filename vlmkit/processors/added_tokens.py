"""The tokens that only tokenizer_config.json declares, put into a tokenizer read from its file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmkit.checkpoints.checkpoint_json import is_utf8
from vlmkit.declare.section import Section, shown
from vlmkit.errors import VlmkitError
from vlmkit.processors.checkpoint_files import SPECIAL_TOKENS, added_tokens

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

_LISTS = ("additional_special_tokens", "extra_special_tokens")
_FLAGS = ("special", "normalized", "lstrip", "rstrip", "single_word")


def add_declared_tokens(backend: Backend, config: Section, folder: Path) -> None:
    """Make every token that the config declares one that is found whole in a text.

    Older checkpoints have some in the vocabulary of tokenizer.json alone, where "</s>" in a text is
    four characters and no end. What ``added_tokens_decoder`` lists gets the id that stands there;
    any other token that the vocabulary lacks is left out: the model has no embedding for it.

    Args:
        backend: changed in place.
        config: tokenizer_config.json.
        folder: for messages.

    Raises:
        VlmkitError: an entry cannot be read, or a token cannot get its id.

    Reference:
        https://github.com/huggingface/transformers, tokenization_utils_tokenizers.py
    """
    from tokenizers import AddedToken

    known = {token.content for token in backend.get_added_tokens_decoder().values()}

    def add(entry: dict[str, Any]) -> None:
        token = AddedToken(**entry)
        (backend.add_special_tokens if token.special else backend.add_tokens)([token])
        known.add(token.content)

    named = list(_named(config))
    names = {entry["content"] for entry in named}
    for index, entry in sorted(added_tokens(config).items()):
        content = entry["content"]
        if content in known:
            continue
        end = backend.get_vocab_size(with_added_tokens=True)
        if index != end and backend.token_to_id(content) is None:
            raise VlmkitError(
                f"{folder}: tokenizer_config.json gives token {shown(content)} the id {index}, but"
                f" tokenizer.json ends at {end}; the two files disagree"
            )
        add({**entry, "special": bool(entry.get("special")) or content in names})
    for entry in (*named, *_further(config)):
        if entry["content"] not in known and backend.token_to_id(entry["content"]) is not None:
            add(entry)
    backend.encode_special_tokens = config.flag("split_special_tokens", False)


def _named(config: Section) -> Iterator[dict[str, Any]]:
    """The entries of ``eos_token`` and its like."""
    for key in SPECIAL_TOKENS:
        if config.values.get(key) is not None:
            yield {**_entry(config, key, config.values[key]), "special": True}


def _further(config: Section) -> Iterator[dict[str, Any]]:
    """The entries of the lists of further tokens; an object says itself whether it is special."""
    for key in _LISTS:
        items = config.values.get(key)
        if isinstance(items, Mapping):  # by name, as in {"image_token": "<image>"}
            items = list(items.values())
        if items is not None and not isinstance(items, list):
            raise config.error(key, f"is {shown(items)}; it has to be a list of tokens")
        for item in items or ():
            yield {"special": isinstance(item, str), **_entry(config, key, item)}


def _entry(config: Section, key: str, token: object) -> dict[str, Any]:
    section = Section(token if isinstance(token, Mapping) else {}, f"{key}.", config.file)
    content = section.values.get("content") if isinstance(token, Mapping) else token
    if not isinstance(content, str) or not is_utf8(content):
        raise config.error(
            key, f"has {shown(token)}; it has to be a token, or an object with its 'content'"
        )
    flags = {name: section.flag(name, False) for name in _FLAGS if name in section.values}
    return {"content": content, **flags}
