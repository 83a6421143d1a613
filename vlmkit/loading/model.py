"""From a checkpoint folder to a model that is ready to run."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import NamedTuple

import mlx.core as mx

from vlmkit.backend.choices import UNCHOSEN, Choices
from vlmkit.backend.policy import Backend, choose_backend, choose_dtype
from vlmkit.checkpoints.text_part import text_part_note
from vlmkit.contracts.interface import Model
from vlmkit.errors import VlmkitError, VlmkitWarning
from vlmkit.loading.checkpoint import (
    Checkpoint,
    read_arrays,
    read_checkpoint,
    weights_fingerprint,
)
from vlmkit.loading.claims import check_claims
from vlmkit.loading.config_checks import with_token_ids
from vlmkit.loading.install import Weights, flat_parameters, install_weights, rename_weights
from vlmkit.loading.quantization import Scheme, read_quantization
from vlmkit.loading.text import build_text, sanitized
from vlmkit.models.config import ModelConfig
from vlmkit.models.families import Family, find_family
from vlmkit.models.lm_adapter import LmModel
from vlmkit.models.shares import own_share
from vlmkit.models.vlm import VisionLanguageModel
from vlmkit.ranks.group import Ranks, join_ranks
from vlmkit.ranks.meeting import meet

DTYPES = {"float32": mx.float32, "bfloat16": mx.bfloat16, "float16": mx.float16}
_STORED = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}


class LoadReport(NamedTuple):
    """What was really loaded."""

    family: str  # "qwen2_vl", …; "mlx_lm" for a text-only checkpoint
    dtype: str  # of unpacked weights and of activations
    num_bytes: int  # of the weights in memory
    schemes: Mapping[str, Scheme]  # how the checkpoint packs each quantized module, by path
    dequantized: bool  # True: those modules were expanded while loading
    backend: Backend  # what computes, and why


def load_model(
    folder: Path,
    *,
    dtype: str | None = None,
    lazy: bool = False,
    dequantize: bool | None = None,
    trust_remote_code: bool = False,
    backend: Choices = UNCHOSEN,
) -> Model:
    """Load the model of a checkpoint folder; nothing is written there.

    Args:
        folder: A checkpoint folder, see :func:`vlmkit.loading.resolve_checkpoint`.
        dtype: "float32", "bfloat16" or "float16"; by default float32 on a CPU, where nothing else
            is fast, and the checkpoint's own on a GPU.
        lazy: Leave the weights on disk until they are first used.
        dequantize: Expand quantized weights. By default yes on a CPU when they fit comfortably in
            memory, else no.
        trust_remote_code: Run the Python file that a text-only checkpoint may bring along.
        backend: What computes and how, where that is not left to the machine.

    Raises:
        VlmkitError: The architecture is not supported, a weight is missing, superfluous or of the
            wrong shape, or there is not enough memory for them.

    Example:
        >>> from vlmkit.loading import resolve_checkpoint
        >>> load_model(resolve_checkpoint("shapes"), dtype="float32").dtype
        mlx.core.float32
    """
    model, _ = load_model_and_report(
        folder,
        dtype=dtype,
        lazy=lazy,
        dequantize=dequantize,
        trust_remote_code=trust_remote_code,
        backend=backend,
    )
    return model


def load_model_and_report(
    folder: Path,
    *,
    dtype: str | None = None,
    lazy: bool = False,
    dequantize: bool | None = None,
    trust_remote_code: bool = False,
    backend: Choices = UNCHOSEN,
) -> tuple[Model, LoadReport]:
    """Load a model as :func:`load_model` does, and report the effective choices.

    Warns:
        VlmkitWarning: The checkpoint takes more than text, and only its text part can run.
    """
    checkpoint = read_checkpoint(folder)
    check_claims(checkpoint.config, len(checkpoint.tensors))
    config = with_token_ids(checkpoint.config, folder)
    chosen = plan_backend(checkpoint, dtype=dtype, backend=backend)
    family, ranks = find_family(config), join_ranks()
    if ranks.size > 1:
        _check_ranks(checkpoint, family, chosen, ranks)
    install = partial(
        install_weights,
        folder=folder,
        quantization=read_quantization(config),
        dtype=DTYPES[chosen.array_dtype],
        backend=chosen,
        dequantize=dequantize,
        lazy=lazy and ranks.size == 1,
    )
    model: VisionLanguageModel | LmModel
    if family is None:
        text = build_text(folder, config, trust_remote_code=trust_remote_code)
        arrays = sanitized(text, read_arrays(checkpoint), folder)
        weights = Weights(arrays, {})
        installed = install(text.model, weights, rename=lambda name: name, is_cast=text.is_cast)
        model = LmModel(text.model, config, installed.backend)
        if model.config.is_text_part:
            note = f"{folder}: {text_part_note(model.config.model_type)}"
            warnings.warn(note, VlmkitWarning, stacklevel=2)
    else:
        parsed = family.parse(config)
        model = family.build(parsed, chosen)
        rename = partial(_rename, family, parsed)
        reshape = partial(_reshape, family, parsed, ranks)
        weights = rename_weights(family.arrange(read_arrays(checkpoint), parsed), rename, reshape)
        installed = install(model, weights, rename=rename, is_cast=family.is_cast)
        model.backend = installed.backend
    # Two forms are two graphs, and nothing says in which order a graph's sums are computed.
    meet({"form of weights": f"{installed.backend.weights} {installed.backend.products}"})
    report = LoadReport(
        family="mlx_lm" if family is None else family.name,
        dtype=chosen.array_dtype,
        num_bytes=sum(array.nbytes for array in flat_parameters(model).values()),
        schemes=installed.schemes,
        dequantized=bool(installed.schemes) and installed.backend.weights != "packed",
        backend=installed.backend,
    )
    return model, report


def plan_backend(
    checkpoint: Checkpoint, *, dtype: str | None = None, backend: Choices = UNCHOSEN
) -> Backend:
    """Decide what computes a checkpoint's model, and how, up to the form of its weights.

    Args:
        checkpoint: From :func:`vlmkit.loading.read_checkpoint`.
        dtype: As in :func:`load_model`.
        backend: As in :func:`load_model`.

    Raises:
        VlmkitError: What is asked for is not on this machine.
    """
    num_bytes = sum(tensor.num_bytes for tensor in checkpoint.tensors.values())
    chosen = choose_backend(backend, dtype=dtype, weight_bytes=num_bytes)
    return choose_dtype(chosen, _stored_dtype(checkpoint), weight_bytes=num_bytes)


def _rename(family: Family, config: ModelConfig, name: str) -> str | None:
    return family.rename(name, config)


def _reshape(
    family: Family, config: ModelConfig, ranks: Ranks, name: str, path: str, array: mx.array
) -> mx.array:
    return own_share(path, family.reshape(name, path, array, config), ranks)


def _check_ranks(
    checkpoint: Checkpoint, family: Family | None, chosen: Backend, ranks: Ranks
) -> None:
    """Refuse what cannot be divided among ranks, and ranks that do not load the same."""
    if family is None:
        raise VlmkitError(
            f"{ranks.size} ranks: {str(checkpoint.folder)!r} runs through mlx-lm, whose layers are "
            "not divided; launch one process"
        )
    meet({"checkpoint": weights_fingerprint(checkpoint), "dtype": chosen.array_dtype})


def _stored_dtype(checkpoint: Checkpoint) -> str | None:
    """Return the dtype of most of the checkpoint's bytes; packed ones do not count."""
    stored: Counter[str] = Counter()
    for tensor in checkpoint.tensors.values():
        if tensor.dtype in _STORED:
            stored[tensor.dtype] += tensor.num_bytes
    return _STORED[stored.most_common(1)[0][0]] if stored else None
