"""Slots of a loaded library, by its file."""

from __future__ import annotations

import ctypes
import mmap
import sys
from pathlib import Path

import mlx.core as mx
import pytest

from vlmkit.backend.elf import (
    import_slots,
    loaded_libraries,
    protect,
    read_slots,
    write_slots,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="ELF is Linux's format")


def mlx_library() -> tuple[str, int]:
    mx.eval(mx.zeros(1))
    (found,) = (x for x in loaded_libraries() if Path(x.path).name == "libmlx.so")
    return found


def test_slots_hold_the_addresses_of_functions() -> None:
    path, base = mlx_library()
    slots = import_slots(path, ["memcpy", "cblas_sgemm", "no_such_function"])
    assert set(slots) == {"memcpy", "cblas_sgemm"}
    (held,) = set(read_slots(base + slot for slot in slots["memcpy"]).values())
    library = ctypes.CDLL(path)
    ours = base <= held < base + Path(path).stat().st_size  # not yet called: a stub of its own
    assert ours or held == ctypes.cast(library.memcpy, ctypes.c_void_p).value


def test_writing_a_slot_on_a_page_that_is_not_writable() -> None:
    with mmap.mmap(-1, mmap.PAGESIZE) as page:
        view = ctypes.c_char.from_buffer(page)
        start = ctypes.addressof(view)
        protect(start, mmap.PAGESIZE, mmap.PROT_READ)
        write_slots({start + 8: 2**40 + 5, start + 16: 7})
        assert read_slots([start, start + 8, start + 16]) == {
            start: 0,
            start + 8: 2**40 + 5,
            start + 16: 7,
        }
        maps = Path("/proc/self/maps").read_text().splitlines()
        (mode,) = (line.split()[1] for line in maps if line.startswith(f"{start:x}-"))
        assert mode.startswith("r-")
        del view


def test_an_address_that_is_not_mapped() -> None:
    with pytest.raises(OSError, match="not mapped"):
        write_slots({8: 0})


@pytest.mark.parametrize("size", [0, 4, 70, 4000, 100_000])
def test_not_a_whole_library(tmp_path: Path, size: int) -> None:
    path, _ = mlx_library()
    with open(path, "rb") as file:
        start = file.read(size)
    (tmp_path / "part.so").write_bytes(start)
    with pytest.raises(ValueError, match=r"part\.so: not an ELF"):
        import_slots(tmp_path / "part.so", ["cblas_sgemm"])


def test_another_machine(tmp_path: Path) -> None:
    path, _ = mlx_library()
    with open(path, "rb") as file:
        start = bytearray(file.read(100_000))
    start[18:20] = (8).to_bytes(2, "little")  # MIPS
    (tmp_path / "mips.so").write_bytes(start)
    with pytest.raises(ValueError, match=r"mips\.so"):
        import_slots(tmp_path / "mips.so", ["cblas_sgemm"])
