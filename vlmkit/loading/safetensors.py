"""Reading the header of a safetensors file, with every check made before a byte is mapped.

The format: 8 bytes little-endian header size, a JSON object of ``name → {dtype, shape,
data_offsets}``, then the data.

Reference: https://huggingface.co/docs/safetensors
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, NamedTuple

from vlmkit.checkpoints.checkpoint_json import check_fetched, reason
from vlmkit.declare.section import shown
from vlmkit.errors import VlmkitError
from vlmkit.files import parse_json

MAX_HEADER_BYTES = 100_000_000  # the limit of the reference implementation
MAX_TENSORS = 250_000
"""Of a checkpoint, which are held in memory by name: the largest in use has some 210,000."""
MAX_DIMENSION = 2**31 - 1  # MLX counts dimensions in int32
_MAX_DIMENSIONS = 8  # of a tensor; no known one has more than 6
_KEYS = 5  # colons of an entry: its name, dtype, shape and offsets, and one in a name
ITEM_BYTES = {
    "BOOL": 1,
    "U8": 1,
    "I8": 1,
    "U16": 2,
    "I16": 2,
    "F16": 2,
    "BF16": 2,
    "U32": 4,
    "I32": 4,
    "F32": 4,
    "U64": 8,
    "I64": 8,
}


class TensorInfo(NamedTuple):
    """What a safetensors header says of one tensor."""

    dtype: str  # as spelled in the file: "BF16", "F32", "U32", …
    shape: tuple[int, ...]
    num_bytes: int


def read_header(path: Path) -> dict[str, TensorInfo]:
    """Return the tensors of a safetensors file by name, or say what is wrong with the file.

    Args:
        path: The file; only its header is read.

    Raises:
        VlmkitError: The file is truncated, its header is corrupt, a tensor lies beyond its end,
            or a dtype is one that MLX cannot read.

    Example:
        >>> import mlx.core as mx, tempfile
        >>> path = Path(tempfile.mkdtemp()) / "a.safetensors"
        >>> mx.save_safetensors(str(path), {"x": mx.zeros((2, 3))})
        >>> read_header(path)
        {'x': TensorInfo(dtype='F32', shape=(2, 3), num_bytes=24)}
    """
    try:
        check_fetched(path)
        size = path.stat().st_size
        with path.open("rb") as file:
            header_bytes = int.from_bytes(file.read(8), "little")
            if size < 8 or header_bytes > size - 8:
                raise _broken(path, f"truncated ({size} bytes do not hold its header)")
            if header_bytes > MAX_HEADER_BYTES:
                raise _broken(path, f"corrupt (a header of {header_bytes} bytes)")
            raw = file.read(header_bytes)
    except OSError as error:
        raise VlmkitError(f"cannot read {str(path)!r}: {error.strerror}") from error
    # Before it is parsed: a few bytes of JSON can become a hundred of objects.
    most = MAX_TENSORS * _KEYS
    if raw.count(b":") > most or raw.count(b"[") > most or raw.count(b"{") > most:
        raise too_many_tensors(path)
    try:
        header = parse_json(raw)
    except ValueError as error:
        raise _broken(path, f"corrupt (its header is no JSON: {reason(error)})") from error
    if not isinstance(header, dict):
        raise _broken(path, "corrupt (its header is no JSON object)")
    data_bytes = size - 8 - header_bytes
    return {
        name: _tensor(path, name, entry, data_bytes)
        for name, entry in header.items()
        if name != "__metadata__"
    }


def too_many_tensors(path: Path) -> VlmkitError:
    """Return the error for a checkpoint with more tensors than any model has."""
    return VlmkitError(
        f"{str(path)!r} and the files beside it describe more tensors than the {MAX_TENSORS:,} "
        "that a checkpoint may have; fetch it again"
    )


def _broken(path: Path, what: str) -> VlmkitError:
    return VlmkitError(f"{str(path)!r} is {what}; fetch or write the file again")


def _is_counts(value: Any) -> bool:
    few = isinstance(value, list) and len(value) <= _MAX_DIMENSIONS
    return few and all(type(n) is int and n >= 0 for n in value)


def _tensor(path: Path, name: str, entry: Any, data_bytes: int) -> TensorInfo:
    if not (
        isinstance(entry, dict)
        and isinstance(entry.get("dtype"), str)
        and _is_counts(entry.get("shape"))
        and _is_counts(entry.get("data_offsets"))
        and len(entry["data_offsets"]) == 2
    ):
        raise _broken(path, f"corrupt (the header entry of {shown(name)})")
    dtype, shape = entry["dtype"], tuple(entry["shape"])
    start, end = entry["data_offsets"]
    if dtype not in ITEM_BYTES:
        raise VlmkitError(
            f"{str(path)!r}: {shown(name)} has dtype {shown(dtype)[1:-1]}, which is not supported; "
            f"supported are {', '.join(ITEM_BYTES)}"
        )
    num_bytes = math.prod(shape) * ITEM_BYTES[dtype]
    if end - start != num_bytes or max(shape, default=0) > MAX_DIMENSION:
        raise _broken(
            path,
            f"corrupt ({shown(name)} of shape {shown(list(shape))} cannot fill bytes "
            f"{shown(start)} to {shown(end)})",
        )
    if end > data_bytes:
        raise _broken(path, f"truncated ({shown(name)} ends at byte {end} of {data_bytes})")
    return TensorInfo(dtype, shape, num_bytes)
