"""Load a checkpoint through an installed mlx-vlm: what we have no family for, as it is there."""

from __future__ import annotations

import importlib.util
import pkgutil
import warnings
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import mlx.core as mx
import mlx.nn as nn

from vlmkit.backend.choices import UNCHOSEN, Choices
from vlmkit.backend.device import free_bytes
from vlmkit.backend.policy import with_weights
from vlmkit.backend.weights import WeightBytes
from vlmkit.checkpoints.checkpoint_json import reason
from vlmkit.declare.section import Section, shown
from vlmkit.errors import VlmkitError, VlmkitWarning, nearest
from vlmkit.loading.checkpoint import read_checkpoint
from vlmkit.loading.claims import check_claims
from vlmkit.loading.install import flat_parameters
from vlmkit.loading.model import DTYPES, plan_backend
from vlmkit.models.vlm_bridge import BridgeModel

ModelSource = Literal["vlmkit", "mlx-vlm"]
MODEL_SOURCES = ("vlmkit", "mlx-vlm")


def is_bridged(name: object) -> bool:
    """Tell whether models of this source are mlx-vlm's.

    Raises:
        VlmkitError: it is no source; names those that are.

    Example:
        >>> is_bridged("mlx-vlm"), is_bridged("vlmkit")
        (True, False)
    """
    if name not in MODEL_SOURCES:
        raise VlmkitError(
            f"model_source={name!r}: one of {', '.join(MODEL_SOURCES)}"
            f"{nearest(str(name), MODEL_SOURCES)}"
        )
    return name == "mlx-vlm"


def load_bridge(
    folder: Path,
    *,
    dtype: str | None = None,
    lazy: bool = False,
    dequantize: bool | None = None,
    backend: Choices = UNCHOSEN,
) -> BridgeModel:
    """Load the model of a checkpoint folder by mlx-vlm; nothing is written there.

    Args:
        folder: a checkpoint folder.
        dtype: as in :func:`vlmkit.loading.load_model`.
        lazy: leave the weights on disk until they are first used.
        dequantize: packed weights stay packed, so True is refused.
        backend: what computes, as far as the architecture leaves that open.

    Raises:
        VlmkitError: mlx-vlm is not installed, has no such architecture, cannot load it, or it
            needs what our stages do not have.

    Warns:
        VlmkitWarning: always: nothing of such a model has been verified here.
    """
    if dequantize:
        raise VlmkitError("dequantize: models of mlx-vlm run packed weights as they are")
    checkpoint = read_checkpoint(folder)
    check_claims(checkpoint.config, len(checkpoint.tensors))
    chosen = plan_backend(checkpoint, dtype=dtype, backend=backend)
    model = read_by_mlx_vlm(folder, checkpoint.config)
    model.set_dtype(DTYPES[chosen.array_dtype])
    num_bytes = sum(array.nbytes for array in flat_parameters(model).values())
    is_packed = any(name.endswith(".scales") for name in checkpoint.tensors)
    sizes = WeightBytes(num_bytes, None, num_bytes if is_packed else None, half_is_exact=False)
    held = with_weights(
        chosen, sizes, dequantize=False if is_packed else None, available=free_bytes()
    )
    bridged = BridgeModel(model, checkpoint.config, held)
    if not lazy:
        mx.eval(flat_parameters(model))
    note = (
        f"{folder}: runs as the {bridged.config.model_type} of mlx-vlm {version('mlx-vlm')}, of "
        "which vlmkit has verified nothing"
    )
    warnings.warn(note, VlmkitWarning, stacklevel=2)
    return bridged


def read_by_mlx_vlm(folder: Path, config: Mapping[str, Any]) -> nn.Module:
    """Return mlx-vlm's model of a checkpoint, its weights not read yet.

    Raises:
        VlmkitError: mlx-vlm is not installed, has no such architecture, or cannot load it.
    """
    check_installed()
    if config.get("model_file") is not None:
        raise Section(config).error(
            "model_file", "is the checkpoint's own code, which mlx-vlm would run; remove it"
        )
    from mlx_vlm.utils import get_model_type, load_model

    name, known = get_model_type(dict(config)), architectures()
    if name not in known:
        raise Section(config).error(
            "model_type",
            f"{shown(config['model_type'])} is not among the architectures of mlx-vlm "
            f"{version('mlx-vlm')}{nearest(str(name), known)}",
        )
    try:
        model: nn.Module = load_model(folder, lazy=True)
    except Exception as error:  # anything: the architectures check little themselves
        raise VlmkitError(
            f"{folder}: mlx-vlm {version('mlx-vlm')} cannot load it ({reason(error)})"
        ) from error
    return model


def check_installed() -> None:
    """Refuse to go on without mlx-vlm.

    Raises:
        VlmkitError: says what to install.
    """
    if importlib.util.find_spec("mlx_vlm") is None:
        raise VlmkitError(
            "model_source: mlx-vlm is not installed; pip install 'vlmkit[mlx-vlm]'",
            path=("model_source",),
        )


def architectures() -> tuple[str, ...]:
    """Return the names of mlx-vlm's architectures."""
    import mlx_vlm.models

    return tuple(
        found.name for found in pkgutil.iter_modules(mlx_vlm.models.__path__) if found.ispkg
    )
