"""The slots through which MLX's own library calls products, and what they lead to."""

from __future__ import annotations

import ctypes
import functools
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from vlmkit.backend.elf import import_slots, loaded_libraries, read_slots, write_slots

PRODUCTS = ("cblas_sgemm", "cblas_dgemm", "cblas_cgemm")
"""What MLX calls: products of float32, float64 and complex64."""


class Slots(NamedTuple):
    """Where MLX's library keeps the addresses of the products."""

    path: str
    places: dict[str, tuple[int, ...]]
    original: dict[str, int]
    """What the dynamic linker puts there."""


# The function that stands before cblas_sgemm, if any, by what tells it where to pass products on.
_front: list[Callable[[int], None]] = []


@functools.cache
def find_slots() -> Slots | None:
    """Find the slots; None where MLX's library is not loaded, or has none that can be read."""
    if sys.platform != "linux":
        return None
    mlx = next((x for x in loaded_libraries() if Path(x.path).name == "libmlx.so"), None)
    if mlx is None:
        return None
    try:
        found = import_slots(mlx.path, PRODUCTS)
    except (OSError, ValueError):
        return None
    if PRODUCTS[0] not in found:
        return None
    # Not what stands in the slots: before the first call that is code which overwrites them.
    scopes = (ctypes.CDLL(None), ctypes.CDLL(mlx.path))
    original = {name: next(filter(None, (address(s, name) for s in scopes))) for name in found}
    places = {name: tuple(mlx.base + slot for slot in at) for name, at in found.items()}
    return Slots(mlx.path, places, original)


def point_slots(slots: Slots, functions: Mapping[str, int]) -> None:
    """Let MLX call these functions, by name and address.

    Raises:
        OSError: the system does not let the slots be changed.
    """
    functions = dict(functions)
    if _front:
        _front[0](functions.pop(PRODUCTS[0]))
    write_slots({at: functions[name] for name in functions for at in slots.places.get(name, ())})


def stand_before(slots: Slots, function: int, pass_on: Callable[[int], None]) -> None:
    """Put a function before ``cblas_sgemm``, for good: arrays may rely on it from now on.

    Args:
        slots: of MLX's library; :func:`point_slots` has been called.
        function: its address.
        pass_on: tells it where to pass other products on, now and whenever that changes.
    """
    places = slots.places[PRODUCTS[0]]
    pass_on(read_slots(places)[places[0]])
    write_slots(dict.fromkeys(places, function))
    _front[:] = [pass_on]


def address(library: ctypes.CDLL, name: str) -> int:
    """The address of a function; 0 if the library has none of that name."""
    try:
        return ctypes.cast(library[name], ctypes.c_void_p).value or 0
    except AttributeError:
        return 0
