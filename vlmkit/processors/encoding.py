"""Ids in the form that scripts for transformers expect: dicts, padding, arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vlmkit.errors import VlmkitError, nearest

if TYPE_CHECKING:
    from vlmkit.processors.tokenizer import Tokenizer

PADDING = (False, "do_not_pad", True, "longest", "max_length")
ELSEWHERE = {
    "truncation": "a prompt that is cut loses its end; shorten the text",
    "text_pair": "models that generate take one text; join the two",
    "videos": "generate takes videos; here give the frames as images",
    "audio": "generate takes audio; leave it out here",
    "return_dict": "the result is a dict always; leave it out",
}


class Encoding(dict[str, Any]):
    """What a call of a tokenizer or processor gives: a dict, with its keys as attributes too.

    Example:
        >>> Encoding(input_ids=[1, 2]).input_ids
        [1, 2]
    """

    def __getattr__(self, name: str) -> Any:
        if name in self:
            return self[name]
        raise AttributeError(f"no {name!r} here; there is {', '.join(self)}")


class EncodeOptions(NamedTuple):
    """How texts are encoded; names and defaults as in transformers."""

    add_special_tokens: bool = True  # those that the checkpoint puts around every text
    padding: bool | str = False
    max_length: int | None = None  # what padding="max_length" pads to
    padding_side: str | None = None  # None: the tokenizer's own
    return_tensors: str | None = None  # "np", "mlx" or None for lists
    return_attention_mask: bool = True


def read_options(options: Mapping[str, Any], **defaults: Any) -> EncodeOptions:
    """Read the keyword arguments of a call.

    Raises:
        VlmkitError: an unknown name, or a value that cannot be used.

    Example:
        >>> read_options({"padding": "max_length", "max_length": 4}).max_length
        4
    """
    for name, value in options.items():
        if name in ELSEWHERE and not value:
            continue
        if name not in EncodeOptions._fields:
            known = EncodeOptions._fields
            why = ELSEWHERE.get(name, f"unknown keyword{nearest(name, known)}")
            raise VlmkitError(f"{name}: {why} (known here: {', '.join(known)})")
    given = {name: value for name, value in options.items() if name in EncodeOptions._fields}
    found = EncodeOptions(**{**defaults, **given})
    _check(found)
    return found


def _check(options: EncodeOptions) -> None:
    for name in ("add_special_tokens", "return_attention_mask"):
        if not isinstance(getattr(options, name), bool):
            raise VlmkitError(f"{name} must be True or False, got {getattr(options, name)!r}")
    if options.padding not in PADDING:
        raise VlmkitError(f"padding={options.padding!r}: one of {', '.join(map(repr, PADDING))}")
    length = options.max_length
    is_length = isinstance(length, int) and not isinstance(length, bool) and length > 0
    if (options.padding == "max_length") != (length is not None) or not (
        length is None or is_length
    ):
        raise VlmkitError(
            f"max_length={length!r}: a whole number above 0, and only with padding='max_length'"
        )
    if options.padding_side not in (None, "left", "right"):
        raise VlmkitError(f"padding_side={options.padding_side!r}: one of 'left', 'right'")
    if options.return_tensors not in (None, "np", "mlx"):
        raise VlmkitError(
            f"return_tensors={options.return_tensors!r}: 'np' gives numpy arrays, 'mlx' those of"
            " MLX, None lists"
        )


def text_list(text: object) -> list[str]:
    """Return one text or several as a list.

    Raises:
        VlmkitError: anything else.

    Example:
        >>> text_list("Hi"), text_list(("a", "b"))
        (['Hi'], ['a', 'b'])
    """
    texts = []
    for item in text if isinstance(text, list | tuple) else [text]:
        if not isinstance(item, str):
            raise VlmkitError(
                f"text: a string or a list of strings is needed, not {type(item).__name__}"
            )
        texts.append(item)
    return texts


def encode_rows(
    tokenizer: Tokenizer, texts: Sequence[str], options: EncodeOptions
) -> list[list[int]]:
    """Return the ids of each text, with the checkpoint's own beginning and end if asked for."""
    return [tokenizer.encode(text, add_special_tokens=options.add_special_tokens) for text in texts]


def encode_texts(tokenizer: Tokenizer, text: object, options: Mapping[str, Any]) -> Encoding:
    """Call a tokenizer: ids and masks of one text as flat lists, of several as rows.

    Raises:
        VlmkitError: an argument that cannot be used.
    """
    chosen = read_options(options)
    rows = encode_rows(tokenizer, text_list(text), chosen)
    ids, masks = pad_rows(rows, chosen, pad_id=tokenizer.pad_token_id, side=tokenizer.padding_side)
    found = {"input_ids": ids} | ({"attention_mask": masks} if chosen.return_attention_mask else {})
    if isinstance(text, str) and chosen.return_tensors is None:
        return Encoding({key: value[0] for key, value in found.items()})
    return as_arrays(found, chosen.return_tensors)


def pad_rows(
    rows: Sequence[list[int]], options: EncodeOptions, *, pad_id: int | None, side: str
) -> tuple[list[list[int]], list[list[int]]]:
    """Pad rows of ids as asked, and return them with their attention masks.

    Args:
        pad_id: what to pad with; None where the tokenizer has no pad token.
        side: the tokenizer's own padding side.

    Raises:
        VlmkitError: a row needs padding, and there is no pad token.

    Example:
        >>> pad_rows([[5], [6, 7]], EncodeOptions(padding=True), pad_id=0, side="left")
        ([[0, 5], [6, 7]], [[0, 1], [1, 1]])
    """
    width = 0
    if options.padding in (True, "longest"):
        width = max((len(row) for row in rows), default=0)
    elif options.padding == "max_length":
        width = options.max_length or 0
    ids, masks = [], []
    for row in rows:
        missing = max(width - len(row), 0)
        if missing and pad_id is None:
            raise VlmkitError("padding: the tokenizer has no pad_token; encode texts one by one")
        more, less = [pad_id or 0] * missing, [0] * missing
        is_left = (options.padding_side or side) == "left"
        ids.append(more + row if is_left else row + more)
        masks.append(less + [1] * len(row) if is_left else [1] * len(row) + less)
    return ids, masks


def as_arrays(rows: Mapping[str, Any], return_tensors: str | None) -> Encoding:
    """Return lists of rows, and arrays that are there already, in the form asked for.

    Ids and masks become int64 ``[rows, tokens]`` with numpy, int32 with MLX.

    Raises:
        VlmkitError: rows of several lengths have no array.
    """
    if return_tensors is None:
        return Encoding(rows)
    lengths = sorted({len(row) for value in rows.values() if _is_rows(value) for row in value})
    if len(lengths) > 1:
        raise VlmkitError(
            f"return_tensors: rows of {lengths[0]} to {lengths[-1]} tokens make no array; set"
            " padding=True"
        )
    made = Encoding(
        {key: np.array(value) if _is_rows(value) else value for key, value in rows.items()}
    )
    if return_tensors == "np":
        return made
    import mlx.core as mx

    kinds = {np.dtype(np.int64): np.int32}
    return Encoding(
        {key: mx.array(v.astype(kinds.get(v.dtype, v.dtype))) for key, v in made.items()}
    )


def _is_rows(value: object) -> bool:
    return isinstance(value, list)
