"""Weight files written tensor by tensor: one is in memory at a time, whatever the files' size.

Reference: https://huggingface.co/docs/safetensors (the format).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import mlx.core as mx

from vlmkit.errors import VlmkitError
from vlmkit.files import stream_file
from vlmkit.loading.checkpoint import MAX_SHARDS

CODES = {
    mx.bool_: "BOOL",
    mx.uint8: "U8",
    mx.int8: "I8",
    mx.uint16: "U16",
    mx.int16: "I16",
    mx.float16: "F16",
    mx.bfloat16: "BF16",
    mx.uint32: "U32",
    mx.int32: "I32",
    mx.float32: "F32",
    mx.uint64: "U64",
    mx.int64: "I64",
}
"""What safetensors calls the dtypes."""

_METADATA = {"format": "mlx"}
_ALIGNED = 8  # bytes; a header is filled up with spaces


def plan_shards(arrays: Mapping[str, mx.array], max_bytes: float) -> list[list[str]]:
    """Divide tensors among files, in their order; a larger one has a file of its own.

    Raises:
        VlmkitError: there would be too many files.

    Example:
        >>> plan_shards({"a": mx.zeros(8), "b": mx.zeros(8), "c": mx.zeros(99)}, 70)
        [['a', 'b'], ['c']]
    """
    shards: list[list[str]] = [[]]
    used = 0
    for name, array in arrays.items():
        if shards[-1] and used + array.nbytes > max_bytes:
            shards.append([])
            used = 0
        shards[-1].append(name)
        used += array.nbytes
    if len(shards) > MAX_SHARDS:
        raise VlmkitError(
            f"shard_gb: that is {len(shards):,} weight files, of at most {MAX_SHARDS:,}; give more",
            path=("shard_gb",),
        )
    return shards


def shard_names(number: int) -> list[str]:
    """Return the names of so many weight files.

    Example:
        >>> shard_names(1), shard_names(2)[1]
        (['model.safetensors'], 'model-00002-of-00002.safetensors')
    """
    if number == 1:
        return ["model.safetensors"]
    return [f"model-{index:05d}-of-{number:05d}.safetensors" for index in range(1, number + 1)]


def write_shard(path: Path, arrays: dict[str, mx.array], names: Sequence[str]) -> None:
    """Write some of the tensors into one file; each is taken out of ``arrays`` and computed then.

    Raises:
        VlmkitError: the file cannot be written, or a tensor cannot be read.
    """
    with stream_file(path) as write:
        write(_header({name: arrays[name] for name in names}))
        for name in names:
            array = arrays.pop(name)
            if array.size:
                write(_bytes(name, array))
            del array
            mx.clear_cache()  # else what has been freed stays with MLX


def _bytes(name: str, array: mx.array) -> memoryview:
    try:
        flat = mx.contiguous(array).reshape(-1).view(mx.uint8)
        mx.eval(flat)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise VlmkitError(f"weight {name!r} cannot be read: {reason}") from error
    return memoryview(flat)  # type: ignore[arg-type]


def _header(arrays: Mapping[str, mx.array]) -> bytes:
    entries: dict[str, object] = {"__metadata__": _METADATA}
    start = 0
    for name, array in arrays.items():
        offsets = [start, start + array.nbytes]
        entries[name] = {
            "dtype": CODES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": offsets,
        }
        start = offsets[1]
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % _ALIGNED)
    return len(text).to_bytes(8, "little") + text
