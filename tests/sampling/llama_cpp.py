"""llama.cpp's own samplers, called through the C interface of a wheel that contains them.

No model is needed: a sampler changes an array of (id, logit, p). Declarations: llama.h of
https://github.com/ggml-org/llama.cpp, as of the version that the parity extra pins.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.sampling.presets import HISTORY_KINDS, Case

_INT, _FLOAT, _SIZE, _POINTER = ctypes.c_int32, ctypes.c_float, ctypes.c_size_t, ctypes.c_void_p
_ARGUMENTS: dict[str, list[Any]] = {
    "logit_bias": [_INT, _INT, _POINTER],
    "penalties": [_INT, _INT, _FLOAT, _FLOAT, _FLOAT],
    "dry": [_POINTER, _FLOAT, _FLOAT, _INT, _INT, _POINTER, _SIZE],
    "top_n_sigma": [_FLOAT],
    "top_k": [_INT],
    "typical": [_FLOAT, _SIZE],
    "top_p": [_FLOAT, _SIZE],
    "min_p": [_FLOAT, _SIZE],
    "xtc": [_FLOAT, _FLOAT, _SIZE, ctypes.c_uint32],
    "temp": [_FLOAT],
}
ENTRY = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
"""``llama_token_data``."""


class _Array(ctypes.Structure):
    """``llama_token_data_array``."""

    _fields_ = (
        ("data", _POINTER),
        ("size", _SIZE),
        ("selected", ctypes.c_int64),
        ("sorted", ctypes.c_bool),
    )


class _Bias(ctypes.Structure):
    """``llama_logit_bias``."""

    _fields_ = (("token", _INT), ("bias", _FLOAT))


@cache
def library() -> ctypes.CDLL:
    spec = find_spec("xllamacpp")
    assert spec is not None, "install the parity extra: make parity"
    assert spec.origin is not None
    [path] = Path(spec.origin).parent.glob("xllamacpp*.so")
    found = ctypes.CDLL(str(path))
    for name, arguments in _ARGUMENTS.items():
        function = getattr(found, f"llama_sampler_init_{name}")
        function.argtypes, function.restype = arguments, _POINTER
    found.llama_sampler_apply.argtypes = [_POINTER, ctypes.POINTER(_Array)]
    found.llama_sampler_accept.argtypes = [_POINTER, _INT]
    found.llama_sampler_free.argtypes = [_POINTER]
    return found


def apply(
    name: str, arguments: list[Any], history: list[int], entries: NDArray[Any]
) -> NDArray[Any]:
    """Make a sampler, tell it the history, and run it on entries: what it leaves of them."""
    found = library()
    sampler = getattr(found, f"llama_sampler_init_{name}")(*arguments)
    for token_id in history:
        found.llama_sampler_accept(sampler, token_id)
    entries = entries.copy()
    start = entries.ctypes.data
    array = _Array(start, len(entries), -1, False)
    found.llama_sampler_apply(sampler, ctypes.byref(array))
    found.llama_sampler_free(sampler)
    first = (array.data - start) // ENTRY.itemsize  # XTC moves the start of the array
    return entries[first : first + array.size]


def run_llama_cpp(case: Case) -> NDArray[np.float32]:
    """Run the case's stages in llama.cpp; −inf for tokens that it drops.

    Its typical sampler takes 0 · ln 0 for NaN, so tokens without mass leave the array before it
    would see them. It works on float32 logits as they are, so behind the penalties, where a shift
    changes no distribution, the largest is moved to 0: then its rounding is out.
    """
    history = case.prompt + case.answer
    samplers = list(_samplers(case))
    out = np.full(case.logits.shape, -np.inf, np.float32)
    for row, logits in enumerate(case.logits):
        entries = np.zeros(len(logits), ENTRY)
        entries["id"], entries["logit"] = np.arange(len(logits)), logits
        for name, arguments in samplers:
            if name not in ("logit_bias", "penalties", "dry") and len(entries):
                entries["logit"] -= entries["logit"].max()
            entries = apply(name, arguments, history, entries)
            entries = entries[np.isfinite(entries["logit"])]
        out[row, entries["id"]] = entries["logit"]
    return out


def _samplers(case: Case) -> list[tuple[str, list[Any]]]:
    """The samplers of a case, in llama.cpp's order, with their arguments."""
    found: list[tuple[str, list[Any]]] = []
    if bias := case.get("logit_bias"):
        table = (_Bias * len(bias.bias))(*bias.bias.items())
        found.append(("logit_bias", [case.logits.shape[1], len(table), table]))
    names = ("repetition_penalty", "frequency_penalty", "presence_penalty")
    stages = [case.get(name) for name in names]
    if any(stages):
        values = [
            off if stage is None else stage.penalty
            for stage, off in zip(stages, (1.0, 0.0, 0.0), strict=True)
        ]
        found.append(("penalties", [case.logits.shape[1], 64, *values]))
    if dry := case.get("dry"):
        arguments = [None, dry.multiplier, dry.base, dry.allowed_length, 4096, None, 0]
        found.append(("dry", arguments))
    arguments_of: dict[str, tuple[str, Callable[[Any], list[Any]]]] = {
        "top_n_sigma": ("top_n_sigma", lambda stage: [stage.n]),
        "top_k": ("top_k", lambda stage: [stage.k]),
        "typical_p": ("typical", lambda stage: [stage.p, 0]),
        "top_p": ("top_p", lambda stage: [stage.p, 0]),
        "min_p": ("min_p", lambda stage: [stage.p, 0]),
        "xtc": ("xtc", lambda stage: [1.0, stage.threshold, 0, 0]),
        "temperature": ("temp", lambda stage: [stage.temperature]),
    }
    for config in case.configs:
        if config.kind == "xtc" and not case.xtc_applies:
            continue
        if config.kind in HISTORY_KINDS:
            continue
        name, arguments_for = arguments_of[config.kind]
        found.append((name, arguments_for(config)))
    return found
