"""Environment variables that choose where a config does not."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, get_args

from vlmkit.backend.choices import (
    DTYPES,
    UNCHOSEN,
    Activations,
    AttentionForm,
    Choices,
    Device,
    Products,
    Weights,
)
from vlmkit.errors import VlmkitError, nearest

VARIABLES: Mapping[str, str] = {
    "VLMKIT_BACKEND": "device",
    "VLMKIT_DTYPE": "dtype",
    "VLMKIT_WEIGHTS": "weights",
    "VLMKIT_ATTENTION": "attention",
    "VLMKIT_ACTIVATIONS": "activations",
    "VLMKIT_PRODUCTS": "products",
    "VLMKIT_COMPILE": "compile",
    "VLMKIT_BLAS": "blas",
    "VLMKIT_THREADS": "threads",
    "VLMKIT_WIRED": "wired",
}
"""The variable of each choice; ``auto``, or nothing, leaves it to the machine."""

_CHOICES: Mapping[str, tuple[str, ...]] = {
    "device": get_args(Device),
    "dtype": DTYPES,
    "weights": get_args(Weights),
    "attention": get_args(AttentionForm),
    "activations": get_args(Activations),
    "products": get_args(Products),
    "compile": ("0", "1"),
}


class Wishes(NamedTuple):
    """What is asked for, and where that was said."""

    choices: Choices
    dtype: str | None
    sources: Mapping[str, str]  # "dtype" or a field of the choices -> "config" or the variable


NO_WISHES = Wishes(UNCHOSEN, None, {})


def read_wishes(choices: Choices, dtype: str | None, environ: Mapping[str, str]) -> Wishes:
    """Fill in from the environment what a config leaves open.

    Args:
        choices: what was written; it wins over the environment.
        dtype: of the computation, as an argument or in a run.
        environ: environment variables.

    Raises:
        VlmkitError: a value that is not one of its choices; names the variable.

    Example:
        >>> wishes = read_wishes(UNCHOSEN, None, {"VLMKIT_WEIGHTS": "half"})
        >>> wishes.choices.weights, wishes.sources
        ('half', {'weights': 'VLMKIT_WEIGHTS'})
    """
    given: dict[str, Any] = {
        name: value for name, value in choices._asdict().items() if value is not None
    }
    if dtype is not None:
        given["dtype"] = dtype
    sources = dict.fromkeys(given, "config")
    for variable, name in VARIABLES.items():
        text = environ.get(variable, "").strip()
        if text in ("", "auto"):
            continue
        value = _parse(variable, name, text)
        if name not in given:
            given[name], sources[name] = value, variable
    chosen = given.pop("dtype", None)
    if chosen is not None and chosen not in DTYPES:
        known = ", ".join(DTYPES)
        raise VlmkitError(f"dtype {chosen!r} is not one of {known}{nearest(str(chosen), DTYPES)}")
    return Wishes(Choices(**given), chosen, sources)


def _parse(variable: str, name: str, text: str) -> Any:
    choices = _CHOICES.get(name)
    if choices is not None and text not in choices:
        known = ", ".join(choices)
        raise VlmkitError(f"{variable}: {text!r} is not one of {known}{nearest(text, choices)}")
    if name == "compile":
        return text == "1"
    if name == "threads":
        if not text.isascii() or not text.isdigit() or int(text) < 1:
            raise VlmkitError(f"{variable}: {text!r} is not a whole number, 1 or more")
        return int(text)
    if name == "wired":
        try:
            share = float(text)
        except ValueError:
            share = -1.0
        if not 0.0 <= share <= 1.0:
            raise VlmkitError(f"{variable}: {text!r} is not a number from 0 to 1")
        return share
    return text
