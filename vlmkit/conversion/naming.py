"""A checkpoint's arrays as MLX tools name and lay them out, and which modules can be packed.

The names are those of mlx-vlm for what sees or hears, and of mlx-lm for text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn

from vlmkit.checkpoints.text_part import has_senses
from vlmkit.errors import VlmkitError
from vlmkit.loading.checkpoint import Checkpoint, read_arrays
from vlmkit.loading.config_checks import with_token_ids
from vlmkit.loading.text import build_text, sanitized
from vlmkit.models.config import ModelConfig
from vlmkit.models.families import Family, find_family

_QWEN = (
    ("model.language_model.visual.", "vision_tower."),
    ("model.language_model.", "language_model.model."),
    ("model.visual.", "vision_tower."),
    ("visual.", "vision_tower."),
    ("lm_head", "language_model.lm_head"),
    ("model.", "language_model.model."),
)
MLX_PREFIXES: Mapping[str, tuple[tuple[str, str], ...]] = {
    "qwen2_vl": _QWEN,
    "qwen2_5_vl": _QWEN,
    "qwen3_vl": _QWEN,
    "qwen3_vl_moe": _QWEN,
    "qwen3_5": _QWEN,
    "qwen3_5_moe": _QWEN,
}
"""How names begin on the hub and in MLX folders, the longest first, by our families' names."""
_ROUTERS: Mapping[str, tuple[str, ...]] = {"qwen3_5_moe": (".mlp.gate", ".mlp.shared_expert_gate")}
"""Modules that mlx-vlm keeps in 8 bits, whatever the others get, by their last names."""


class Preference(NamedTuple):
    """What an architecture wants for one of its modules."""

    is_packed: bool
    scheme: Mapping[str, Any] = {}  # group_size, bits, mode, as far as it says


class Named(NamedTuple):
    """A checkpoint under the names of MLX; nothing is read from its files yet."""

    arrays: dict[str, mx.array]
    modules: tuple[str, ...]  # paths of those that can be packed
    prefers: Callable[[str], Preference | None]  # by a module's path
    is_cast: Callable[[str], bool]  # by an array's name: whether it takes another dtype


def name_arrays(checkpoint: Checkpoint, *, trust_remote_code: bool = False) -> Named:
    """Return a checkpoint's arrays under the names of MLX tools, in their layout.

    Args:
        checkpoint: from :func:`vlmkit.loading.read_checkpoint`.
        trust_remote_code: run the Python file that a text-only checkpoint may bring along.

    Raises:
        VlmkitError: the architecture is not supported, or the weights do not fit its config.json.
    """
    config = with_token_ids(checkpoint.config, checkpoint.folder)
    family = find_family(config)
    if family is not None and family.name in MLX_PREFIXES:
        return _of_family(family, config, read_arrays(checkpoint))
    if family is not None or has_senses(config):
        raise VlmkitError(
            f"config.json: model_type {config['model_type']!r}: how MLX tools name its weights is "
            f"not known; known are {', '.join(MLX_PREFIXES)}, and text-only checkpoints"
        )
    text = build_text(checkpoint.folder, config, trust_remote_code=trust_remote_code)
    arrays = sanitized(text, read_arrays(checkpoint), checkpoint.folder)
    return Named(arrays, packable(text.model), preferences(text.model), text.is_cast)


def _of_family(family: Family, config: Mapping[str, Any], arrays: dict[str, mx.array]) -> Named:
    parsed = family.parse(config)
    rename = partial(mlx_name, MLX_PREFIXES[family.name])
    result: dict[str, mx.array] = {}
    paths: dict[str, str] = {}  # ours, by the new name
    for name, array in family.arrange(arrays, parsed).items():
        path = family.rename(name, parsed)
        if path is None:
            continue
        new = rename(name)
        if new in result:
            raise VlmkitError(f"weight {new!r} is there twice, also as {name!r}; keep one of them")
        paths[new] = path
        result[new] = array if new == name else _laid_out(family, parsed, name, path, array)
    ours = set(packable(family.build(parsed)))
    modules = [name.removesuffix(".weight") for name in paths if name.endswith(".weight")]
    return Named(
        result,
        tuple(name for name in modules if _is_matrix(result, name) and _path(paths, name) in ours),
        partial(_prefers, _ROUTERS.get(family.name, ())),
        lambda name: family.is_cast(paths[name]),
    )


def _prefers(routers: tuple[str, ...], module: str) -> Preference | None:
    return Preference(True, {"group_size": 64, "bits": 8}) if module.endswith(routers) else None


def _path(paths: Mapping[str, str], module: str) -> str:
    return paths[f"{module}.weight"].removesuffix(".weight")


def _is_matrix(arrays: Mapping[str, mx.array], module: str) -> bool:
    return arrays[f"{module}.weight"].ndim in (2, 3)  # 3: those of experts


def _laid_out(
    family: Family, config: ModelConfig, name: str, path: str, array: mx.array
) -> mx.array:
    """Return the array as MLX tools hold it: in our layout, but kernels as their convolutions do.

    Those have the channels last, where the hub has them behind the outputs; ours are flat.
    """
    ours = family.reshape(name, path, array, config)
    return ours.astype(array.dtype) if ours.ndim == array.ndim else mx.moveaxis(array, 1, -1)


def mlx_name(prefixes: tuple[tuple[str, str], ...], name: str) -> str:
    """Return the name of a weight in MLX folders; one that is such a name comes back as it is.

    Example:
        >>> mlx_name(_QWEN, "visual.merger.ln_q.weight")
        'vision_tower.merger.ln_q.weight'
        >>> mlx_name(_QWEN, "language_model.lm_head.weight")
        'language_model.lm_head.weight'
    """
    for old, new in prefixes:
        if name.startswith(old):
            return new + name[len(old) :]
    return name


def packable(model: nn.Module) -> tuple[str, ...]:
    """Return the paths of the modules that have a form with packed weights."""
    modules: list[tuple[str, nn.Module]] = model.named_modules()  # type: ignore[no-untyped-call]
    # MLX's protocol: a class may have this method or not, and it is how nn.quantize finds it too.
    return tuple(path for path, module in modules if "to_quantized" in dir(type(module)))


def preferences(model: nn.Module) -> Callable[[str], Preference | None]:
    """Return what a model of mlx-lm or mlx-vlm wants for its modules, by their paths."""
    predicate = getattr(model, "quant_predicate", None)  # optional in their protocol
    if predicate is None:
        return lambda _: None
    modules = dict(model.named_modules())  # type: ignore[no-untyped-call]

    def prefers(path: str) -> Preference | None:
        wanted = predicate(path, modules[path])
        return Preference(True, wanted) if isinstance(wanted, dict) else Preference(bool(wanted))

    return prefers
