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
from vlmkit.sampling import Dry

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
# llama_sampler_init_dry_testing(multiplier, base, allowed_length, penalty_last_n, breakers), where
# breakers is a const std::vector<std::vector<llama_token>> &: the one way to give them as ids.
_DRY_WITH_IDS = "_Z30llama_sampler_init_dry_testingffiiRKSt6vectorIS_IiSaIiEESaIS1_EE"
LONG = 4096  # tokens: longer than every history here
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


class _Vector(ctypes.Structure):
    """``std::vector`` as libstdc++ lays it out."""

    _fields_ = (("begin", _POINTER), ("end", _POINTER), ("capacity_end", _POINTER))


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
    function = getattr(found, _DRY_WITH_IDS)
    function.argtypes, function.restype = [_FLOAT, _FLOAT, _INT, _INT, _POINTER], _POINTER
    found.llama_sampler_apply.argtypes = [_POINTER, ctypes.POINTER(_Array)]
    found.llama_sampler_accept.argtypes = [_POINTER, _INT]
    found.llama_sampler_free.argtypes = [_POINTER]
    return found


def apply(
    name: str, arguments: list[Any], history: list[int], entries: NDArray[Any]
) -> NDArray[Any]:
    """Make a sampler, tell it the history, and run it on entries: what it leaves of them."""
    sampler = getattr(library(), f"llama_sampler_init_{name}")(*arguments)
    return _apply(sampler, history, entries)


def apply_dry(config: Dry, history: list[int], entries: NDArray[Any]) -> NDArray[Any]:
    """Run DRY with these breakers, of one token each, on entries. Its multiplier is not 0."""
    size = LONG if config.context_size is None else config.context_size
    numbers = [config.multiplier, config.base, config.allowed_length, size]
    breakers = [(_INT * 1)(token_id) for token_id in config.breaker_ids]
    if not breakers:
        return apply("dry", [None, *numbers, None, 0], history, entries)
    inner = (_Vector * len(breakers))(*map(_vector, breakers))
    outer = _vector(inner)
    sampler = getattr(library(), _DRY_WITH_IDS)(*numbers, ctypes.byref(outer))
    return _apply(sampler, history, entries)


def _vector(array: Any) -> _Vector:
    begin = ctypes.addressof(array)
    end = begin + ctypes.sizeof(array)
    return _Vector(begin, end, end)


def _apply(sampler: int, history: list[int], entries: NDArray[Any]) -> NDArray[Any]:
    found = library()
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
            if name == "dry":
                entries = apply_dry(arguments[0], history, entries)
            else:
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
        found.append(("dry", [dry]))
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
