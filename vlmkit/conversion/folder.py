"""From a checkpoint to an MLX folder, whole or not at all."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx

from vlmkit.checkpoints.checkpoint_json import MAX_FILE_BYTES, read_json
from vlmkit.conversion.config import ConvertConfig
from vlmkit.conversion.naming import Named, name_arrays
from vlmkit.conversion.packing import choose_schemes, pack, quantization_section
from vlmkit.conversion.shards import plan_shards, shard_names, write_shard
from vlmkit.errors import VlmkitError
from vlmkit.files import make_folder, read_file, whole_folder, write_file
from vlmkit.loading.checkpoint import INDEX_FILE, Checkpoint, read_checkpoint
from vlmkit.loading.claims import check_claims
from vlmkit.loading.model import DTYPES
from vlmkit.loading.quantization import Scheme
from vlmkit.loading.resolve import ALLOW_PATTERNS, resolve_checkpoint

_COPIED = (*(p for p in ALLOW_PATTERNS if p != "*.safetensors"), "*.py")
_TEMPLATES = "additional_chat_templates"
_PACKED = ("quantization", "quantization_config")
_DTYPES = ("dtype", "torch_dtype")
_GB = 10**9


class Converted(NamedTuple):
    """What was written."""

    folder: Path
    num_bytes: int  # of the weights
    num_files: int  # of weights
    num_weights: int  # numbers that the packed ones stand for
    schemes: Mapping[str, Scheme]  # of each packed module, by its path

    @property
    def bits_per_weight(self) -> float:
        """Bits that each weight takes on average, with scales and what is not packed."""
        return 8 * self.num_bytes / self.num_weights


class _Plan(NamedTuple):
    """All that is known before the first byte is written."""

    arrays: dict[str, mx.array]  # by name, not computed yet
    shards: list[list[str]]
    config: dict[str, Any]  # config.json
    shard_index: dict[str, Any]  # model.safetensors.index.json
    done: Converted


def convert(
    source: str | Path,
    target: str | Path,
    config: ConvertConfig | None = None,
    *,
    revision: str | None = None,
    trust_remote_code: bool = False,
) -> Converted:
    """Write a checkpoint anew as a folder for MLX, with packed weights if that is asked for.

    One tensor is in memory at a time. The folder appears when it is whole: until then, and after
    any stop, there is nothing at ``target``.

    Args:
        source: as in :func:`vlmkit.load`: a folder or a hub id.
        target: the new folder; one that is there has to be empty.
        config: how; None: the names and layouts of MLX alone.
        revision: branch, tag or commit of a hub id.
        trust_remote_code: run the Python file that a text-only checkpoint may bring along.

    Raises:
        VlmkitError: the checkpoint is not supported, or packed already; ``target`` is taken or
            inside ``source``; there is no space; the config does not fit the model.

    Example:
        >>> import tempfile
        >>> from vlmkit import load
        >>> from vlmkit.conversion import ConvertConfig, convert
        >>> target = tempfile.mkdtemp() + "/shapes-8bit"
        >>> packing = {"bits": 8, "group_size": 32}
        >>> done = convert("shapes", target, ConvertConfig(quantization=packing))
        >>> model, processor = load(target)
        >>> str(next(iter(done.schemes.values()))), done.bits_per_weight < 16
        ('affine 8-bit, group size 32', True)
    """
    config = ConvertConfig() if config is None else config
    new = Path(target).expanduser()
    check_target(new)
    folder = resolve_checkpoint(source, revision, trust_remote_code=trust_remote_code)
    if new.resolve().is_relative_to(folder.resolve()):
        raise VlmkitError(f"{str(new)!r} lies in {str(folder)!r}, which is read; give another name")
    checkpoint = read_checkpoint(folder)
    plan = _plan(checkpoint, new, config, trust_remote_code=trust_remote_code)
    _check_space(new.parent, plan.done.num_bytes)
    with whole_folder(new) as partial:
        for name, names in zip(shard_names(len(plan.shards)), plan.shards, strict=True):
            write_shard(partial / name, plan.arrays, names)
        _write_json(partial / INDEX_FILE, plan.shard_index)
        _write_json(partial / "config.json", plan.config)
        _copy_others(checkpoint, partial)
    return plan.done


def check_target(target: Path) -> None:
    """Refuse a folder that holds something, a file, and a name in no folder.

    Raises:
        VlmkitError: says which.
    """
    try:
        if target.is_dir():
            if any(target.iterdir()):
                raise VlmkitError(f"{str(target)!r} is there already; give another name")
        elif target.is_symlink() or target.exists():
            raise VlmkitError(f"{str(target)!r} is a file; give the name of a new folder")
        elif not target.parent.is_dir():
            raise VlmkitError(f"{str(target)!r}: there is no folder {str(target.parent)!r}")
    except (OSError, ValueError) as error:
        if isinstance(error, VlmkitError):
            raise
        raise VlmkitError(f"{str(target)!r}: not a valid path") from error


def _plan(
    checkpoint: Checkpoint, target: Path, config: ConvertConfig, *, trust_remote_code: bool
) -> _Plan:
    said = read_json(checkpoint.folder / "config.json")
    check_claims(said, len(checkpoint.tensors))
    _refuse_packed(checkpoint, said)
    named = name_arrays(checkpoint, trust_remote_code=trust_remote_code)
    arrays = _cast(named, config.dtype)
    named = named._replace(arrays=arrays)
    num_weights = sum(array.size for array in arrays.values())
    schemes: dict[str, Scheme] = {}
    if config.dtype is not None:
        said = _with_dtype(said, config.dtype)
    if config.quantization is not None:
        schemes = choose_schemes(named, config.quantization)
        section = quantization_section(schemes, arrays, config.quantization.scheme)
        said |= dict.fromkeys(_PACKED, section)  # under both names, as MLX tools write it
    packed = pack(arrays, schemes)
    shards = plan_shards(packed, config.shard_gb * _GB)
    num_bytes = sum(array.nbytes for array in packed.values())
    files = {
        name: file
        for file, names in zip(shard_names(len(shards)), shards, strict=True)
        for name in names
    }
    index = {"metadata": {"total_size": num_bytes}, "weight_map": dict(sorted(files.items()))}
    done = Converted(target, num_bytes, len(shards), num_weights, schemes)
    return _Plan(packed, shards, said, index, done)


def _refuse_packed(checkpoint: Checkpoint, said: Mapping[str, Any]) -> None:
    text = said.get("text_config")
    sections = [said, text if isinstance(text, Mapping) else {}]
    is_said = any(section.get(key) for section in sections for key in _PACKED)
    if is_said or any(name.endswith(".scales") for name in checkpoint.tensors):
        raise VlmkitError(
            f"{str(checkpoint.folder)!r} is quantized already; convert the checkpoint that it was "
            "made from"
        )


def _cast(named: Named, dtype: str | None) -> dict[str, mx.array]:
    """Return the arrays in a dtype, lazily; those of ``named`` are taken out of it."""
    result: dict[str, mx.array] = {}
    for name in list(named.arrays):
        array = named.arrays.pop(name)
        is_float = mx.issubdtype(array.dtype, mx.floating)
        if dtype is not None and is_float and named.is_cast(name):
            array = array.astype(DTYPES[dtype])
        result[name] = array
    return result


def _with_dtype(said: Mapping[str, Any], dtype: str) -> dict[str, Any]:
    """Return a config.json in which every section that names a dtype names this one."""
    return {
        key: dtype
        if key in _DTYPES and value is not None
        else _with_dtype(value, dtype)
        if isinstance(value, Mapping) and key not in _PACKED
        else value
        for key, value in said.items()
    }


def _check_space(folder: Path, num_bytes: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < num_bytes:
        raise VlmkitError(
            f"{str(folder)!r} has {free / _GB:.1f} GB of free space, and the weights take "
            f"{num_bytes / _GB:.1f} GB; give another place, or fewer bits"
        )


def _copy_others(checkpoint: Checkpoint, target: Path) -> None:
    """Copy what belongs to the tokenizer, the processor and the templates."""
    patterns = (*_COPIED, f"{_TEMPLATES}/*.jinja")
    for path in sorted({path for pattern in patterns for path in checkpoint.folder.glob(pattern)}):
        is_ours = path.name == "config.json" or path.name.endswith(".index.json")
        if path.is_file() and not is_ours:
            try:
                content = read_file(path, MAX_FILE_BYTES)
            except OSError as error:
                raise VlmkitError(f"cannot read {str(path)!r}: {error.strerror}") from error
            new = target / path.relative_to(checkpoint.folder)
            make_folder(new.parent)
            write_file(new, content)


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_file(path, (json.dumps(value, indent=4) + "\n").encode())
