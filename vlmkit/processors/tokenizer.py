"""A tokenizer as a value: text to ids and back, and nothing added on the way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from vlmkit.checkpoints.checkpoint_json import is_utf8
from vlmkit.declare.section import shown
from vlmkit.errors import VlmkitError
from vlmkit.processors.encoding import Encoding, encode_texts
from vlmkit.processors.library_errors import library_errors
from vlmkit.processors.literal import MARK, literal_encoder, refuse_literal
from vlmkit.processors.script_names import convert_ids, convert_tokens, encode_chat
from vlmkit.processors.token_bytes import token_bytes
from vlmkit.processors.tokenizer_limits import (
    MAX_IDS,
    MAX_NORMALIZED_CHARS,
    PARTS,
    check_normalized,
    check_parts,
)
from vlmkit.processors.tokenizer_time import encode_in_time, encode_known, in_time, is_known

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

MAX_ID = 2**32 - 1


@dataclass(frozen=True)
class Tokenizer:
    """Text to token ids and back.

    Example:
        >>> from tokenizers import Tokenizer as Backend, models
        >>> backend = Backend(models.WordLevel({"hello": 0, "[UNK]": 1}, unk_token="[UNK]"))
        >>> tokenizer = from_backend(backend)
        >>> tokenizer.encode("hello"), tokenizer.decode([0, -1, 99])
        ([0], 'hello')
    """

    encode_text: Callable[[str], list[int]]
    decode_ids: Callable[[list[int], bool], str]
    token_to_id: Callable[[str], int | None]
    id_to_token: Callable[[int], str | None]
    special_ids: frozenset[int]  # the ids that ``skip_special_tokens`` leaves out
    vocab_size: int  # tokens known, added ones included; a model may have more embedding rows
    read_token_bytes: Callable[[], tuple[bytes, ...]]  # what each id stands for; takes time
    added_tokens: tuple[tuple[str, int], ...] = ()  # those that are read wherever they are written
    encode_marked: Callable[[str], list[int]] = refuse_literal  # a text with marks, see `literal`
    encode_whole: Callable[[str], list[int]] | None = None  # puts the checkpoint's tokens around
    special_tokens: Mapping[str, str] = field(default_factory=dict, hash=False)  # by eos_token, ...
    padding_side: Literal["left", "right"] = "right"
    chat_template: str | None = None  # the Jinja source
    # the processor's apply_chat_template
    format_chat: Callable[..., str] | None = field(default=None, compare=False)

    def encode(self, text: str, add_special_tokens: bool = False) -> list[int]:
        """Return the ids of ``text``. Special tokens are those written in it.

        Args:
            add_special_tokens: also put those around it that the checkpoint wants around every
                text, such as a beginning-of-sequence token. transformers does so by default;
                formatted prompts have them already.

        What :func:`vlmkit.prompt_utils.apply_chat_template` has marked as text is no token.

        Raises:
            VlmkitError: the text cannot be written as UTF-8.
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise VlmkitError(
                f"text: character {error.start} is {text[error.start]!r}, half of a surrogate pair;"
                " remove it, or decode the text with errors='replace'"
            ) from error
        if MARK in text:  # a formatted prompt, which has its beginning already
            return self.encode_marked(text)
        if add_special_tokens and self.encode_whole is not None:
            return self.encode_whole(text)
        return self.encode_text(text)

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = False) -> str:
        """Return the text of ``ids``. Ids without a token (padding of a vocabulary) are nothing."""
        known = [token_id for token_id in map(int, ids) if 0 <= token_id <= MAX_ID]
        return self.decode_ids(known, skip_special_tokens)

    def batch_decode(
        self, rows: Iterable[Iterable[int]], skip_special_tokens: bool = False
    ) -> list[str]:
        """Return the text of each row of ids."""
        return [self.decode(row, skip_special_tokens) for row in rows]

    # What follows answers to the names that scripts for transformers use.

    def __call__(self, text: str | Sequence[str], **options: Any) -> Encoding:
        """Return ``input_ids`` and ``attention_mask``, as transformers' tokenizers do.

        Args:
            text: one text (flat lists) or several (a row each).
            **options: ``add_special_tokens=True``, ``padding``, ``max_length``, ``padding_side``,
                ``return_tensors`` ("np", "mlx" or None for lists), ``return_attention_mask``.

        Raises:
            VlmkitError: an option that is unknown or cannot be used.
        """
        return encode_texts(self, text, options)

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> Any:
        """Return the id of a token, or those of several; of an unknown one that of ``unk_token``,
        or None."""
        return convert_tokens(self, tokens)

    def convert_ids_to_tokens(self, ids: Any, skip_special_tokens: bool = False) -> Any:
        """Return the token of an id, or those of several as a list; None for an id without one."""
        return convert_ids(self, ids, skip_special_tokens)

    @property
    def eos_token(self) -> str | None:
        """The token that ends a text, as tokenizer_config.json names it."""
        return self.special_tokens.get("eos_token")

    @property
    def eos_token_id(self) -> int | None:
        """The id of ``eos_token``; a processor's ``eos_token_ids`` has all that end a text."""
        return self._id_of(self.eos_token)

    @property
    def bos_token(self) -> str | None:
        """The token that begins a text."""
        return self.special_tokens.get("bos_token")

    @property
    def bos_token_id(self) -> int | None:
        """The id of ``bos_token``."""
        return self._id_of(self.bos_token)

    @property
    def pad_token(self) -> str | None:
        """The token that fills up short rows."""
        return self.special_tokens.get("pad_token")

    @property
    def pad_token_id(self) -> int | None:
        """The id of ``pad_token``."""
        return self._id_of(self.pad_token)

    def _id_of(self, token: str | None) -> int | None:
        return None if token is None else self.token_to_id(token)

    def apply_chat_template(self, conversation: Any, tools: Any = None, **options: Any) -> Any:
        """Render messages with the checkpoint's template, and tokenize them unless told otherwise.

        Args:
            conversation: messages, or a list of such lists.
            tools: JSON schemas of functions the model may call.
            **options: ``add_generation_prompt=False``, ``continue_final_message=False``,
                ``chat_template``, ``tokenize=True``, ``return_dict=True``, those of a call, and
                the variables of the template, such as ``enable_thinking``.

        Returns:
            A dict with ``input_ids`` and ``attention_mask``; the ids with ``return_dict=False``;
            the text with ``tokenize=False``.

        Raises:
            VlmkitError: no template, or an option or a message that cannot be used.
        """
        return encode_chat(self, conversation, tools, options)


def from_backend(backend: Backend, place: str = "tokenizer.json") -> Tokenizer:
    """Wrap a tokenizer of the ``tokenizers`` library (which should not be changed afterwards).

    Args:
        backend: the tokenizer.
        place: what errors call its file.

    Raises:
        VlmkitError: it is beyond a limit of :mod:`vlmkit.processors.tokenizer_limits`.
    """
    parts = _parts(backend)
    growth = check_parts(parts, place)
    is_known_part = {name: is_known(part) for name, part in parts.items()}
    run = encode_known if all(is_known_part.values()) else encode_in_time(place)
    check = _length_check(backend, growth, is_known_part["normalizer"], place)

    def encode(text: str, add_special_tokens: bool) -> list[int]:
        with library_errors(f"{place}: it cannot encode {shown(text)}"):
            check(text)
            return list(run(backend, text, add_special_tokens).ids)

    def encode_text(text: str) -> list[int]:
        return encode(text, False)

    def encode_whole(text: str) -> list[int]:
        return encode(text, True)

    def encode_marked(text: str) -> list[int]:
        with library_errors(f"{place}: it cannot encode {shown(text)}"):
            check(text)
            return marked(text)

    def decode_ids(ids: list[int], skip_special_tokens: bool) -> str:
        with library_errors(f"{place}: it cannot decode {shown(ids)}"):
            if is_known_part["decoder"]:
                return str(backend.decode(ids, skip_special_tokens=skip_special_tokens))
            decode = partial(backend.decode_batch, [ids], skip_special_tokens=skip_special_tokens)
            return str(in_time(decode, place)[0])

    def token_to_id(token: str) -> int | None:
        return backend.token_to_id(token) if is_utf8(token) else None

    def id_to_token(token_id: int) -> str | None:
        return backend.id_to_token(token_id) if 0 <= token_id <= MAX_ID else None

    added = backend.get_added_tokens_decoder()
    marked = literal_encoder(backend, run)
    return Tokenizer(
        encode_text=encode_text,
        decode_ids=decode_ids,
        token_to_id=token_to_id,
        id_to_token=id_to_token,
        special_ids=frozenset(index for index, token in added.items() if token.special),
        vocab_size=backend.get_vocab_size(with_added_tokens=True),
        read_token_bytes=partial(_read_token_bytes, backend, place),
        added_tokens=tuple(
            (token.content, index) for index, token in added.items() if not token.single_word
        ),
        encode_marked=encode_marked,
        encode_whole=encode_whole,
    )


def _length_check(
    backend: Backend, growth: float, is_known_normalizer: bool, place: str
) -> Callable[[str], None]:
    """What refuses a text that the normalizer would make too long."""
    normalizer = backend.normalizer

    def check(text: str) -> None:
        if normalizer is None:
            return
        if is_known_normalizer:
            check_normalized(text, growth, normalizer.normalize_str, place)
        elif len(text) * growth > MAX_NORMALIZED_CHARS:
            raise VlmkitError(f"{place}: its normalizer may make too much of the text; shorten it")

    return check


def _read_token_bytes(backend: Backend, place: str) -> tuple[bytes, ...]:
    ids = backend.get_vocab(with_added_tokens=True)
    if ids and max(ids.values()) >= MAX_IDS:
        raise VlmkitError(
            f"{place}: token {shown(max(ids, key=ids.__getitem__))} has the id"
            f" {max(ids.values()):,}; ids are below {MAX_IDS:,}"
        )
    texts: list[str | None] = [None] * (max(ids.values(), default=-1) + 1)
    for text, token_id in ids.items():
        texts[token_id] = text
    decoder = backend.decoder
    return token_bytes(texts, None if decoder is None else json.loads(decoder.__getstate__()))


def _parts(backend: Backend) -> dict[str, Any]:
    found = {name: getattr(backend, name) for name in PARTS}
    return {
        name: None if part is None else json.loads(part.__getstate__())
        for name, part in found.items()
    }
