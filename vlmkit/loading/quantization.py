"""Quantized weights: what config.json says of them, and the two ways to run them.

A quantized matrix is stored as packed integers ``weight`` (uint32), one scale per group of
``group_size`` inputs and, in the affine mode, one bias per group:

    W[i, j] = scales[i, j // group_size] * q[i, j] + biases[i, j // group_size]

On a GPU the packed matrices are multiplied as they are. On a CPU that is 18 to 107 times slower
than a float32 product, so there the matrices are expanded while loading, memory permitting.

Reference: https://ml-explore.github.io/mlx/build/html/python/_autosummary/mlx.core.quantize.html;
    OCP Microscaling Formats (MX) v1.0 for mxfp4 and mxfp8.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import mlx.core as mx
import mlx.nn as nn

from vlmkit.declare.section import shown
from vlmkit.errors import VlmkitError, nearest

AFFINE_BITS = (2, 3, 4, 5, 6, 8)
AFFINE_GROUP_SIZES = (32, 64, 128)
FIXED_SCHEMES = {"mxfp4": (32, 4), "mxfp8": (32, 8), "nvfp4": (16, 4)}
"""The one group size and bits of each mode that has no others."""

_BY_SIZE = {size: mode for mode, size in FIXED_SCHEMES.items()}
_MODES = ("affine", *FIXED_SCHEMES)
_WHERE = "config.json: quantization"


class Scheme(NamedTuple):
    """How one matrix is packed."""

    group_size: int
    bits: int
    mode: str  # "affine" | "mxfp4" | "mxfp8" | "nvfp4"

    def __str__(self) -> str:
        """Describe the scheme in a few words."""
        return f"{self.mode} {self.bits}-bit, group size {self.group_size}"


class Quantization(NamedTuple):
    """The ``quantization`` section of config.json."""

    default: Scheme
    overrides: Mapping[str, Scheme | None]  # by module path; None: not quantized


def read_quantization(config: Mapping[str, Any]) -> Quantization | None:
    """Return what config.json says of quantization, or None for a checkpoint without.

    Raises:
        VlmkitError: A scheme that MLX does not have (AWQ, GPTQ, …), or values out of range.

    Example:
        >>> section = {"group_size": 64, "bits": 4, "lm_head": {"group_size": 64, "bits": 8}}
        >>> str(read_quantization({"quantization": section}).overrides["lm_head"])
        'affine 8-bit, group size 64'
    """
    text = config.get("text_config")
    nested = text.get("quantization_config") if isinstance(text, Mapping) else None
    section = config.get("quantization") or config.get("quantization_config") or nested
    if section is None:
        return None
    if not isinstance(section, Mapping):
        raise VlmkitError(f"{_WHERE} needs an object, not {shown(section)}")
    method = section.get("quant_method", "mlx")
    if method != "mlx" or not {"group_size", "bits"} <= set(section):
        name = method if method != "mlx" else f"with keys {sorted(section)[:5]}"
        raise VlmkitError(
            f"{_WHERE} {shown(name)} is not supported; load the unquantized checkpoint, or one "
            f"quantized by MLX ({', '.join(_MODES)})"
        )
    default = _scheme(section, _WHERE, None)
    overrides: dict[str, Scheme | None] = {}
    for key, value in section.items():
        if value is False:
            overrides[key] = None
        elif value is True:
            overrides[key] = default
        elif isinstance(value, Mapping):
            overrides[key] = _scheme(value, f"{_WHERE}[{shown(key)}]", default)
    return Quantization(default, overrides)


def _scheme(section: Mapping[str, Any], where: str, default: Scheme | None) -> Scheme:
    mode = section.get("mode", "affine")
    if mode not in _MODES:
        hint = nearest(str(mode), _MODES)
        raise VlmkitError(f"{where}: mode {shown(mode)} is not one of {', '.join(_MODES)}{hint}")
    allowed: dict[str, tuple[int, ...]]
    if mode in FIXED_SCHEMES:
        base = Scheme(*FIXED_SCHEMES[mode], mode)
        allowed = {"group_size": (base.group_size,), "bits": (base.bits,)}
    else:
        base = default if default is not None and default.mode == mode else Scheme(64, 4, mode)
        allowed = {"group_size": AFFINE_GROUP_SIZES, "bits": AFFINE_BITS}
    scheme = base._replace(**{key: section[key] for key in allowed if key in section})
    for key, value in (("group_size", scheme.group_size), ("bits", scheme.bits)):
        if value not in allowed[key]:
            choices = ", ".join(map(str, allowed[key]))
            raise VlmkitError(
                f"{where}: {key} {shown(value)} is not supported by {mode}: use {choices}"
            )
    return scheme


def find_schemes(
    quantization: Quantization | None,
    weights: Mapping[str, mx.array],
    expected: Mapping[str, mx.array],
    rename: Callable[[str], str | None],
) -> dict[str, Scheme]:
    """Return the scheme of every module whose weights are packed, by module path.

    A module is packed when it comes with scales. The shapes then tell how; a module that
    config.json names must agree with what it says there.

    Args:
        quantization: From :func:`read_quantization`.
        weights: The checkpoint's arrays by our parameter paths.
        expected: The unpacked parameters of the model; only their shapes count.
        rename: From a name in the checkpoint to our path.

    Raises:
        VlmkitError: Packed weights without a quantization section, or at odds with it.
    """
    named = quantization.overrides if quantization else {}
    overrides = {path: v for k, v in named.items() if (path := rename(k)) is not None}
    found: dict[str, Scheme] = {}
    for name, scales in weights.items():
        path = name.removesuffix(".scales")
        packed, whole = weights.get(f"{path}.weight"), expected.get(f"{path}.weight")
        if path == name or packed is None or whole is None:
            continue
        if quantization is None:
            raise VlmkitError(f"{path!r} is quantized, but config.json has no quantization section")
        says = overrides.get(path, quantization.default)
        found[path] = _packed_as(path, packed, scales, whole.shape, says, path in overrides)
        biases = weights.get(f"{path}.biases")
        wanted = scales.shape if found[path].mode == "affine" else None
        if (biases.shape if biases is not None else None) != wanted:
            raise VlmkitError(
                f"{path!r} is quantized as {found[path]}: its biases need shape {wanted}, "
                f"not {biases.shape if biases is not None else None}"
            )
    for path, named_scheme in overrides.items():
        if named_scheme is not None and f"{path}.weight" in expected and path not in found:
            raise VlmkitError(
                f"{_WHERE} says {path!r} is {named_scheme}, but the weights have no scales"
            )
    return found


def _packed_as(
    path: str,
    packed: mx.array,
    scales: mx.array,
    shape: tuple[int, ...],
    says: Scheme | None,
    is_named: bool,
) -> Scheme:
    actual = None
    rows, in_dims = shape[:-1], shape[-1]
    if packed.dtype == mx.uint32 and packed.shape[:-1] == scales.shape[:-1] == rows:
        stored, groups = 32 * packed.shape[-1], scales.shape[-1]
        whole = groups and in_dims % groups == 0 and stored % in_dims == 0
        size = (in_dims // groups, stored // in_dims) if whole else (0, 0)
        mode = _BY_SIZE.get(size, "") if scales.dtype == mx.uint8 else "affine"
        if mode != "affine" or (size[0] in AFFINE_GROUP_SIZES and size[1] in AFFINE_BITS):
            actual = Scheme(*size, mode) if mode else None
    if actual is None or (is_named and actual != says):
        raise VlmkitError(
            f"{path!r}: weight {list(packed.shape)} and scales {list(scales.shape)} do not pack "
            f"a matrix of {list(shape)} as {says or 'not quantized'}, which config.json says"
        )
    return actual


def dequantize_weights(
    weights: Mapping[str, mx.array], schemes: Mapping[str, Scheme], dtype: mx.Dtype
) -> dict[str, mx.array]:
    """Replace every packed matrix by the matrix it stands for (lazily), in ``dtype``."""
    result = dict(weights)
    for path, scheme in schemes.items():
        scales, biases = result.pop(f"{path}.scales"), result.pop(f"{path}.biases", None)
        result[f"{path}.weight"] = mx.dequantize(
            result[f"{path}.weight"],
            scales=scales.astype(dtype) if scheme.mode == "affine" else scales,
            biases=None if biases is None else biases.astype(dtype),
            group_size=scheme.group_size,
            bits=scheme.bits,
            mode=scheme.mode,
            dtype=dtype,
        )
    return result


def quantize_modules(model: nn.Module, schemes: Mapping[str, Scheme]) -> None:
    """Put a quantized module in the place of each named Linear or Embedding of a new model."""
    try:
        nn.quantize(
            model,
            class_predicate=lambda path, _: schemes[path]._asdict() if path in schemes else False,
        )
    except ValueError as error:
        raise VlmkitError(
            f"quantized weights for a module that can only run unpacked ({error}); "
            "load with dequantize=True"
        ) from error
