"""A tokenizer as a value: text to ids and back, and nothing added on the way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vlmkit.checkpoint_json import is_utf8, read_bytes, reason
from vlmkit.errors import VlmkitError
from vlmkit.processors.checkpoint_files import added_tokens
from vlmkit.processors.token_bytes import token_bytes
from vlmkit.section import Section, shown

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Backend

MAX_ID = 2**32 - 1
_PANIC = "PanicException"  # of Rust; pyo3 makes it a BaseException


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

    def encode(self, text: str) -> list[int]:
        """Return the ids of ``text``. Special tokens are those written in it; none is added.

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
        return self.encode_text(text)

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = False) -> str:
        """Return the text of ``ids``. Ids without a token (padding of a vocabulary) are nothing."""
        known = [int(token_id) for token_id in ids if 0 <= token_id <= MAX_ID]
        return self.decode_ids(known, skip_special_tokens)


def from_backend(backend: Backend) -> Tokenizer:
    """Wrap a tokenizer of the ``tokenizers`` library (which should not be changed afterwards)."""

    def encode_text(text: str) -> list[int]:
        try:
            return list(backend.encode(text, add_special_tokens=False).ids)
        except Exception as error:  # the library raises plain Exception
            raise VlmkitError(
                f"tokenizer.json: it cannot encode {shown(text)} ({reason(error)}); take the one of"
                " the original checkpoint"
            ) from error

    def decode_ids(ids: list[int], skip_special_tokens: bool) -> str:
        return str(backend.decode(ids, skip_special_tokens=skip_special_tokens))

    def token_to_id(token: str) -> int | None:
        return backend.token_to_id(token) if is_utf8(token) else None

    def id_to_token(token_id: int) -> str | None:
        return backend.id_to_token(token_id) if 0 <= token_id <= MAX_ID else None

    def read_token_bytes() -> tuple[bytes, ...]:
        ids = backend.get_vocab(with_added_tokens=True)
        texts: list[str | None] = [None] * (max(ids.values(), default=-1) + 1)
        for text, token_id in ids.items():
            texts[token_id] = text
        decoder = backend.decoder
        return token_bytes(texts, None if decoder is None else json.loads(decoder.__getstate__()))

    added = backend.get_added_tokens_decoder()
    return Tokenizer(
        encode_text=encode_text,
        decode_ids=decode_ids,
        token_to_id=token_to_id,
        id_to_token=id_to_token,
        special_ids=frozenset(index for index, token in added.items() if token.special),
        vocab_size=backend.get_vocab_size(with_added_tokens=True),
        read_token_bytes=read_token_bytes,
    )


def read_tokenizer(path: Path, tokenizer_config: Section) -> Tokenizer:
    """Read ``tokenizer.json``, and the added tokens that only ``tokenizer_config.json`` knows.

    Raises:
        VlmkitError: the file is missing or broken, or an added token cannot get its id.
    """
    from tokenizers import AddedToken
    from tokenizers import Tokenizer as Backend

    data = read_bytes(path)
    try:
        backend = Backend.from_buffer(data)
    except BaseException as error:  # plain Exception, or a panic that is not even one
        if not isinstance(error, Exception) and type(error).__name__ != _PANIC:
            raise
        raise VlmkitError(f"{path}: not a readable tokenizer.json ({reason(error)})") from error
    backend.no_padding()
    backend.no_truncation()
    added = added_tokens(tokenizer_config)
    for index, entry in sorted(added.items()):
        if backend.token_to_id(entry["content"]) is not None:
            continue
        end = backend.get_vocab_size(with_added_tokens=True)
        if index != end:
            raise VlmkitError(
                f"{path.parent}: tokenizer_config.json gives token {shown(entry['content'])} the id"
                f" {index}, but tokenizer.json ends at {end}; the two files disagree"
            )
        token = AddedToken(**entry)
        (backend.add_special_tokens if token.special else backend.add_tokens)([token])
    return from_backend(backend)
