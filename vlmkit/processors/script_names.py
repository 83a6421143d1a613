"""The names by which scripts for transformers ask a tokenizer."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np

from vlmkit.errors import VlmkitError, nearest
from vlmkit.processors.chat_template import template_variables
from vlmkit.processors.encoding import EncodeOptions, encode_texts

if TYPE_CHECKING:
    from vlmkit.processors.processor import Processor
    from vlmkit.processors.tokenizer import Tokenizer

RENDERING = ("add_generation_prompt", "continue_final_message", "chat_template")


def for_scripts(processor: Processor, config: Mapping[str, Any]) -> Processor:
    """Return the processor with a tokenizer that knows the checkpoint's tokens and template.

    Args:
        config: tokenizer_config.json.
    """
    is_left = config.get("padding_side") == "left" or processor.tokenizer.padding_side == "left"
    tokenizer = replace(
        processor.tokenizer,
        special_tokens=processor.special_tokens,
        padding_side="left" if is_left else "right",
        chat_template=processor.chat_template,
        format_chat=processor.apply_chat_template,
    )
    return replace(processor, tokenizer=tokenizer)


def convert_tokens(tokenizer: Tokenizer, tokens: object) -> int | list[int | None] | None:
    """Return the id of a token or those of several.

    Raises:
        VlmkitError: neither a string nor strings.
    """
    unknown = tokenizer.special_tokens.get("unk_token")

    def find(token: object) -> int | None:
        if not isinstance(token, str):
            raise VlmkitError(f"tokens: strings are needed, not {type(token).__name__}")
        found = tokenizer.token_to_id(token)
        return tokenizer.token_to_id(unknown) if found is None and unknown is not None else found

    if isinstance(tokens, str) or not isinstance(tokens, Iterable):
        return find(tokens)
    return [find(token) for token in tokens]


def convert_ids(
    tokenizer: Tokenizer, ids: object, skip_special_tokens: bool
) -> str | list[str | None] | None:
    """Return the token of an id or those of several.

    Raises:
        VlmkitError: neither an id nor ids.
    """
    if not isinstance(ids, int | str | list | tuple):
        ids = np.asarray(ids).tolist()  # an array, or one of its numbers
    if isinstance(ids, SupportsIndex) and not isinstance(ids, Iterable):
        return tokenizer.id_to_token(operator.index(ids))
    if isinstance(ids, str) or not isinstance(ids, Iterable):
        raise VlmkitError(f"ids: whole numbers are needed, not {type(ids).__name__}")
    try:
        numbers = [operator.index(token_id) for token_id in ids]
    except TypeError as error:
        raise VlmkitError(f"ids: whole numbers are needed ({error})") from error
    skipped = tokenizer.special_ids if skip_special_tokens else ()
    return [tokenizer.id_to_token(number) for number in numbers if number not in skipped]


def encode_chat(
    tokenizer: Tokenizer, conversation: Any, tools: Any, options: Mapping[str, Any]
) -> Any:
    """Render one conversation or several, and tokenize them; see ``Tokenizer``.

    Raises:
        VlmkitError: no template, or an option that is unknown or cannot be used.
    """
    if tokenizer.format_chat is None:
        raise VlmkitError(
            "apply_chat_template: this tokenizer comes without a checkpoint's template"
        )
    rest = dict(options)
    rendering = {name: rest.pop(name) for name in RENDERING if name in rest}
    tokenize, as_dict = rest.pop("tokenize", True), rest.pop("return_dict", True)
    names = set(EncodeOptions._fields)
    encoding = {name: rest.pop(name) for name in options if name in names}
    _check_variables(rendering.get("chat_template") or tokenizer.chat_template, rest)
    is_batch = bool(conversation) and all(isinstance(entry, list | tuple) for entry in conversation)
    texts = [
        tokenizer.format_chat(messages, tools=tools, template_kwargs=rest, **rendering)
        for messages in (conversation if is_batch else [conversation])
    ]
    text = texts if is_batch else texts[0]
    if not tokenize:
        return text
    found = encode_texts(tokenizer, text, {"add_special_tokens": False, **encoding})
    return found if as_dict else found["input_ids"]


def _check_variables(template: object, given: Mapping[str, Any]) -> None:
    if not isinstance(template, str):
        return  # the processor says so
    known = template_variables(template)
    for name, value in given.items():
        if name not in known and (name, value) != ("enable_thinking", False):
            raise VlmkitError(
                f"apply_chat_template: the chat template does not read {name!r}"
                f"{nearest(name, {*known, *RENDERING, *EncodeOptions._fields})}"
            )
