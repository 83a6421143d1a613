"""Text-only checkpoints: the architecture and the mapping of weights are mlx-lm's."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn

from vlmkit.checkpoints.checkpoint_json import reason
from vlmkit.declare.section import Section, shown
from vlmkit.errors import VlmkitError
from vlmkit.models.lm_build import build_lm


class TextArchitecture(NamedTuple):
    """An mlx-lm model, and the optional parts of mlx-lm's protocol with their defaults."""

    model: nn.Module
    sanitize: Callable[[dict[str, mx.array]], dict[str, mx.array]]
    is_cast: Callable[[str], bool]


def build_text(
    folder: Path, config: Mapping[str, Any], *, trust_remote_code: bool
) -> TextArchitecture:
    """Build the architecture of a text-only checkpoint.

    Args:
        folder: The checkpoint folder.
        config: Its config.json.
        trust_remote_code: Run the Python file that config.json names as ``model_file``.

    Raises:
        VlmkitError: mlx-lm has no such architecture, or the checkpoint's own code is not trusted.
    """
    model_file = config.get("model_file")
    if model_file is None:
        model = build_lm(config)
    elif not isinstance(model_file, str) or "\0" in model_file:
        problem = f"is {shown(model_file)}; it has to be the name of a Python file"
        raise Section(config).error("model_file", problem)
    elif trust_remote_code:
        model = _build_own(folder / model_file, config)
    else:
        raise VlmkitError(
            f"{folder / 'config.json'}: model_file {shown(model_file)} is the checkpoint's own "
            "code; pass trust_remote_code=True if you trust it"
        )
    # mlx-lm's protocol has optional methods; this is the one place that looks.
    sanitize = getattr(model, "sanitize", None)
    is_cast = getattr(model, "cast_predicate", None)
    return TextArchitecture(
        model,
        sanitize if sanitize is not None else lambda weights: weights,
        is_cast if is_cast is not None else lambda _: True,
    )


def sanitized(
    architecture: TextArchitecture, arrays: dict[str, mx.array], folder: Path
) -> dict[str, mx.array]:
    """Map a checkpoint's arrays as the architecture does.

    Raises:
        VlmkitError: The architecture misses a weight or its shape.
    """
    try:
        return architecture.sanitize(arrays)
    except Exception as error:  # anything: the architectures check little themselves
        raise VlmkitError(
            f"weights in {str(folder)!r} do not fit its config.json: mlx-lm cannot map them "
            f"({reason(error)}); fetch the checkpoint again"
        ) from error


def _build_own(path: Path, config: Mapping[str, Any]) -> nn.Module:
    if path.parent.resolve() != path.resolve().parent or not path.is_file():
        raise VlmkitError(f"config.json: model_file {path.name!r} is not in {str(path.parent)!r}")
    spec = importlib.util.spec_from_file_location("checkpoint_model", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        model: nn.Module = module.Model(module.ModelArgs.from_dict(dict(config)))
    except Exception as error:  # anything: it is somebody's own code
        problem = f"{path.name!r} cannot build the model ({reason(error)})"
        raise Section(config).error("model_file", problem) from error
    return model
