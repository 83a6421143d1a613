"""How the matrices of a model are held, and whether they fit."""

from __future__ import annotations

from typing import NamedTuple

from vlmkit.backend.choices import Weights
from vlmkit.backend.memory import fits_comfortably
from vlmkit.errors import VlmkitError


class WeightBytes(NamedTuple):
    """The size of a model's weights in each form, in bytes; None: not to be had."""

    full: int  # all in the dtype of the computation
    half: int | None  # matrices in 16 bits, the rest as above
    packed: int | None  # matrices as a quantized checkpoint has them, the rest as above
    half_is_exact: bool = True  # the checkpoint's own numbers fit 16 bits


class Held(NamedTuple):
    """A choice, and why."""

    form: Weights
    reason: str


def choose_weights(
    sizes: WeightBytes,
    *,
    on_cpu: bool,
    asked: Weights | None,
    dequantize: bool | None,
    available: int | None,
    source: str | None = None,
) -> Held:
    """Choose the fastest form that leaves room for the run.

    On a CPU a product of float32 matrices is fastest, then of 16-bit ones that are widened part by
    part, then of packed ones. On a GPU the checkpoint's own form is.

    Args:
        sizes: in each form.
        on_cpu: whether a CPU computes.
        asked: a form that is asked for.
        dequantize: True: not packed; False: packed; None: not said.
        available: bytes that are free; None: unknown, which counts as enough.
        source: "config", or the variable that asks for the form.

    Raises:
        VlmkitError: the form is not to be had, or no form fits.

    Example:
        >>> sizes = WeightBytes(full=4_000, half=2_000, packed=600)
        >>> for available in (10_000, 5_000, 1_100):
        ...     choose_weights(sizes, on_cpu=True, asked=None, dequantize=None, available=available)
        Held(form='full', reason='4.0 kB, and 10.0 kB are free')
        Held(form='half', reason='full would take 4.0 kB of the 5.0 kB that are free')
        Held(form='packed', reason='full would take 4.0 kB of the 1.1 kB that are free')
    """
    bytes_of = _known(sizes)
    if asked is not None:
        if asked not in bytes_of:
            what = "packed" if asked == "packed" else "smaller"
            raise VlmkitError(
                f"backend.weights: {asked} is not to be had: the checkpoint's matrices are not "
                f"{what}; use {' or '.join(bytes_of)}",
                path=("backend", "weights"),
            )
        _check_fits(asked, bytes_of, available)
        says = "asked for in the config" if source in (None, "config") else f"{source} says so"
        return Held(asked, says)
    order = _order(sizes, bytes_of, on_cpu, dequantize)
    for form in order:
        if fits_comfortably(bytes_of[form], available):
            return Held(form, _reason(form, order, bytes_of, available, on_cpu, dequantize))
    smallest = min(order, key=lambda form: bytes_of[form])
    _check_fits(smallest, bytes_of, available)
    return Held(smallest, _reason(smallest, order, bytes_of, available, on_cpu, dequantize))


def _known(sizes: WeightBytes) -> dict[Weights, int]:
    found: dict[Weights, int] = {"full": sizes.full}
    if sizes.half is not None:
        found["half"] = sizes.half
    if sizes.packed is not None:
        found["packed"] = sizes.packed
    return found


def _order(
    sizes: WeightBytes, bytes_of: dict[Weights, int], on_cpu: bool, dequantize: bool | None
) -> list[Weights]:
    """The forms that may be chosen unasked, the fastest first."""
    packed: list[Weights] = ["packed"] if "packed" in bytes_of else []
    if packed and (dequantize is False or (dequantize is None and not on_cpu)):
        return packed
    if not on_cpu:
        return ["full"]
    half: list[Weights] = ["half"] if "half" in bytes_of and sizes.half_is_exact else []
    return ["full", *half, *(packed if dequantize is None else [])]


def _check_fits(form: Weights, bytes_of: dict[Weights, int], available: int | None) -> None:
    if available is None or bytes_of[form] <= available:
        return
    fitting = [other for other, size in bytes_of.items() if size <= available]
    remedy = (
        " or ".join(f"weights: {other} ({size_text(bytes_of[other])}) fits" for other in fitting)
        or "a smaller or quantized checkpoint, or more memory, would do"
    )
    raise VlmkitError(
        f"the weights need {size_text(bytes_of[form])} (backend.weights: {form}), and "
        f"{size_text(available)} of memory are free; {remedy}",
        path=("backend", "weights"),
    )


def _reason(
    form: Weights,
    order: list[Weights],
    bytes_of: dict[Weights, int],
    available: int | None,
    on_cpu: bool,
    dequantize: bool | None,
) -> str:
    if form == "packed" and dequantize is False:
        return "dequantize=False"
    if form == "packed" and not on_cpu:
        return "a GPU multiplies packed matrices as they are"
    if available is None:
        return "the free memory is not known"
    if form == order[0]:
        return f"{size_text(bytes_of[form])}, and {size_text(available)} are free"
    first = order[0]
    return (
        f"{first} would take {size_text(bytes_of[first])} of the {size_text(available)} that "
        "are free"
    )


def size_text(num_bytes: int) -> str:
    """Return a size for people.

    Example:
        >>> size_text(1_980_000_000), size_text(600)
        ('2.0 GB', '600 bytes')
    """
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if num_bytes >= unit:
            return f"{num_bytes / unit:.1f} {name}"
    return f"{num_bytes} bytes"
