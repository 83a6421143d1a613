"""A checkpoint folder: its config, its weight files and their tensors, checked, not yet read."""

from __future__ import annotations

import hashlib
import itertools
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx

from vlmkit.checkpoints.checkpoint_json import read_json, reason
from vlmkit.declare.section import shown
from vlmkit.errors import VlmkitError
from vlmkit.loading.safetensors import MAX_TENSORS, TensorInfo, read_header, too_many_tensors

SINGLE_FILE = "model.safetensors"
INDEX_FILE = "model.safetensors.index.json"
MAX_SHARDS = 10_000
"""Weight files of a checkpoint, whose headers are read one by one: the most in use are 200."""
_SHARD = re.compile(r"(?:model|weights)[-.](\d+)(?:-of-(\d+))?\.safetensors")
_SAMPLE_BYTES = 65_536
_NUM_SAMPLES = 64


class Checkpoint(NamedTuple):
    """A checkpoint folder whose files have been found and whose headers are sound."""

    folder: Path
    config: dict[str, Any]  # config.json
    files: tuple[Path, ...]
    tensors: dict[str, TensorInfo]  # by name in the file


def read_checkpoint(folder: Path) -> Checkpoint:
    """Read config.json and the safetensors headers of a folder; write nothing.

    The weights are ``model.safetensors``, the shards of ``model.safetensors.index.json``, or
    ``weights.*.safetensors`` as older MLX tools wrote them.

    Raises:
        VlmkitError: A file is missing, truncated or corrupt; the message names it.

    Example:
        >>> from vlmkit.loading import resolve_checkpoint
        >>> read_checkpoint(resolve_checkpoint("shapes")).config["model_type"]
        'qwen2_vl'
    """
    config = read_config(folder)
    files = _weight_files(folder)
    tensors: dict[str, TensorInfo] = {}
    for path in files:
        header = read_header(path)
        if twice := next((name for name in header if name in tensors), None):
            raise VlmkitError(f"{str(path)!r}: weight {shown(twice)} is in another shard too")
        tensors.update(header)
        if len(tensors) > MAX_TENSORS:
            raise too_many_tensors(path)
    if not tensors:
        raise VlmkitError(f"{str(files[0])!r} holds no weights")
    return Checkpoint(folder, config, files, tensors)


def read_config(folder: Path) -> dict[str, Any]:
    """Return config.json as a dict.

    Raises:
        VlmkitError: It is missing, is no JSON object, or has no ``model_type``.
    """
    path = folder / "config.json"
    if not path.is_file():
        raise VlmkitError(
            f"no {path.name} in {str(folder)!r}: "
            "a checkpoint folder holds config.json and *.safetensors"
        )
    config = read_json(path)
    if not isinstance(config.get("model_type"), str):
        raise VlmkitError(f"{str(path)!r} has no model_type, which names the architecture")
    return config


def read_arrays(checkpoint: Checkpoint) -> dict[str, mx.array]:
    """Return the checkpoint's weights by name, lazy: their bytes are read when evaluated."""
    arrays: dict[str, mx.array] = {}
    for path in checkpoint.files:
        try:
            loaded = mx.load(str(path))
        except (RuntimeError, ValueError) as error:
            raise VlmkitError(f"{str(path)!r} cannot be read: {reason(error)}") from error
        assert isinstance(loaded, dict)
        arrays.update(loaded)
    return arrays


def weights_fingerprint(checkpoint: Checkpoint) -> str:
    """Return a hash that tells checkpoints apart, at the cost of reading at most 4 MiB per file.

    It covers config.json, each weight file's size and header, and 64 evenly spaced blocks of
    64 KiB; a file of up to 4 MiB is covered in full.
    """
    digest = hashlib.blake2b((checkpoint.folder / "config.json").read_bytes(), digest_size=16)
    for path in checkpoint.files:
        size = path.stat().st_size
        digest.update(f"{path.name} {size}".encode())
        with path.open("rb") as file:
            digest.update(file.read(8 + int.from_bytes(file.read(8), "little")))
            step = max(size // _NUM_SAMPLES, _SAMPLE_BYTES)
            for start in range(0, size, step):
                file.seek(start)
                digest.update(file.read(_SAMPLE_BYTES))
    return digest.hexdigest()


def _weight_files(folder: Path) -> tuple[Path, ...]:
    single, index = folder / SINGLE_FILE, folder / INDEX_FILE
    shards = _shards_of(index) if index.is_file() else []
    if single.is_file() and SINGLE_FILE not in shards:
        return (single,)  # an index left over from the checkpoint that this one was made from
    if not shards:
        shards = _shards_in(folder)
    _check_number(len(shards), folder)
    if missing := [name for name in shards if not (folder / name).is_file()]:
        raise _missing(folder, missing[0], len(missing), len(shards))
    if not shards:
        raise _no_weights(folder)
    return tuple(folder / name for name in shards)


def _shards_of(index: Path) -> list[str]:
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not all(isinstance(f, str) for f in weight_map.values()):
        raise VlmkitError(f"{str(index)!r} needs a weight_map from weights to files")
    shards = sorted(set(weight_map.values()))
    _check_number(len(shards), index)
    for name in shards:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise VlmkitError(f"{str(index)!r} names {name!r}: no safetensors file beside it")
    return shards


def _shards_in(folder: Path) -> list[str]:
    """The shards of a folder without an index; those that the names promise are to be there."""
    matches = [m for p in sorted(folder.iterdir()) if (m := _SHARD.fullmatch(p.name))]
    if not matches:
        return _present(folder, [SINGLE_FILE, "weights.safetensors"])
    first, total = matches[0], matches[0].group(2)
    if total is None:
        return [match.group() for match in matches]
    prefix, width = first.string[: first.start(1)], len(first.group(1))
    promised = (
        f"{prefix}{number:0{width}d}-of-{total}.safetensors" for number in range(1, int(total) + 1)
    )
    there = {match.group() for match in matches}
    # A name may promise billions: no more of them are made than there are files, and one.
    found = list(itertools.takewhile(there.__contains__, promised))
    if len(found) < int(total):
        lost = f"{prefix}{len(found) + 1:0{width}d}-of-{total}.safetensors"
        num_there = sum(match.string.startswith(prefix) for match in matches)
        raise _missing(folder, lost, int(total) - num_there, int(total))
    return found


def _missing(folder: Path, name: str, number: int, total: int) -> VlmkitError:
    more = f" and {number - 1} more" if number > 1 else ""
    return VlmkitError(
        f"shard {name!r}{more} of {total} is missing in {str(folder)!r}; fetch the checkpoint again"
    )


def _check_number(num_shards: int, where: Path) -> None:
    if num_shards > MAX_SHARDS:
        raise VlmkitError(
            f"{str(where)!r} has {num_shards} weight files; at most {MAX_SHARDS:,} are read"
        )


def _present(folder: Path, names: Iterable[str]) -> list[str]:
    return [name for name in names if (folder / name).is_file()]


def _no_weights(folder: Path) -> VlmkitError:
    others = {".bin", ".gguf", ".npz", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".onnx"}
    found = sorted(p.name for p in folder.iterdir() if p.suffix in others | {".safetensors"})
    listed = f", only {', '.join(found[:3])}{' …' if len(found) > 3 else ''}" if found else ""
    return VlmkitError(
        f"no {SINGLE_FILE} in {str(folder)!r}{listed}; only safetensors weights are read"
    )
