"""Read tokenizer.json, once it is known that the library can be let at it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlmkit.checkpoints.checkpoint_json import read_bytes, read_json, reason
from vlmkit.declare.section import Section
from vlmkit.errors import VlmkitError
from vlmkit.processors.added_tokens import add_declared_tokens
from vlmkit.processors.library_errors import library_errors
from vlmkit.processors.sentencepiece_limits import check_sentencepiece
from vlmkit.processors.tokenizer import Tokenizer, from_backend
from vlmkit.processors.tokenizer_limits import (
    PARTS,
    check_parts,
    check_token_length,
    check_vocab,
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
_FURTHER_FILES = ("merges.txt", "added_tokens.json")  # read by transformers beside those
_MAPPINGS = ("vocab.json", "added_tokens.json")
_LINES = ("tiktoken.model", "vocab.txt", "merges.txt")
_SENTENCEPIECE = ("tokenizer.model", "spiece.model", "sentencepiece.bpe.model")
_TEXT_BYTES = tuple(bytes([byte]) for byte in range(32, 127))  # some have tiktoken's lines there


def read_tokenizer(path: Path, tokenizer_config: Section) -> Tokenizer:
    """Read ``tokenizer.json``, and the tokens that only ``tokenizer_config.json`` declares.

    Raises:
        VlmkitError: the file is missing or broken, or an added token cannot get its id.
    """
    from tokenizers import Tokenizer as Backend

    data = read_bytes(path)
    check_tokenizer_file(data, str(path))
    with library_errors(f"{path}: not a readable tokenizer.json"):
        backend = Backend.from_buffer(data)
    backend.no_padding()
    backend.no_truncation()
    add_declared_tokens(backend, tokenizer_config, path.parent)
    return from_backend(backend, str(path))


def check_tokenizer_files(folder: Path) -> None:
    """Check the files of a tokenizer that transformers reads by itself.

    Raises:
        VlmkitError: one is too large, a pointer of Git LFS, or beyond a limit of
            :mod:`vlmkit.processors.tokenizer_limits`.
    """
    for name in (*TOKENIZER_FILES, *_FURTHER_FILES):
        path = folder / name
        if not path.is_file():
            continue
        data = read_bytes(path)
        if name == "tokenizer.json":
            check_tokenizer_file(data, str(path))
        elif name in _MAPPINGS:
            check_vocab(read_json(path), str(path))
        elif name in _LINES:
            check_token_length(max(map(len, data.splitlines()), default=0), str(path))
        elif name in _SENTENCEPIECE and not data.startswith(_TEXT_BYTES):
            check_sentencepiece(data, str(path))


def check_tokenizer_file(data: bytes, place: str) -> None:
    """Check the parts before the library reads them: a broken table ends the process.

    Raises:
        VlmkitError: it is no JSON, or a part is beyond a limit.
    """
    import msgspec

    model = msgspec.defstruct("Model", [("vocab", Any, None)])  # what is not named is not decoded
    fields = [(name, Any, None) for name in PARTS]
    form = msgspec.defstruct("Parts", [*fields, ("model", model, None)])
    try:
        found: Any = msgspec.json.decode(data, type=form)
    except (ValueError, RecursionError) as error:
        raise VlmkitError(f"{place}: not a readable tokenizer.json ({reason(error)})") from error
    check_parts({name: getattr(found, name) for name in PARTS}, place)
    if found.model is not None:
        check_vocab(found.model.vocab, place)
