"""Read tokenizer.json, once it is known that the library can be let at it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlmkit.checkpoints.checkpoint_json import read_bytes, reason
from vlmkit.declare.section import Section
from vlmkit.errors import VlmkitError
from vlmkit.processors.added_tokens import add_declared_tokens
from vlmkit.processors.library_errors import library_errors
from vlmkit.processors.tokenizer import Tokenizer, from_backend
from vlmkit.processors.tokenizer_limits import PARTS, check_parts, check_vocab


def read_tokenizer(path: Path, tokenizer_config: Section) -> Tokenizer:
    """Read ``tokenizer.json``, and the tokens that only ``tokenizer_config.json`` declares.

    Raises:
        VlmkitError: the file is missing or broken, or an added token cannot get its id.
    """
    from tokenizers import Tokenizer as Backend

    data = read_bytes(path)
    _check_file(data, str(path))
    with library_errors(f"{path}: not a readable tokenizer.json"):
        backend = Backend.from_buffer(data)
    backend.no_padding()
    backend.no_truncation()
    add_declared_tokens(backend, tokenizer_config, path.parent)
    return from_backend(backend, str(path))


def _check_file(data: bytes, place: str) -> None:
    """Check the parts before the library reads them: a broken table ends the process."""
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
