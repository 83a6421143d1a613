"""Where a loaded ELF library keeps the addresses of the functions it calls in others.

The addresses stand in slots (the global offset table). Its file says which slot belongs to which
name: dynamic section, relocations, symbol and string table.

References: System V ABI, "ELF-64 Object File Format" 1.5, and the processor supplements for x86-64
(0.99) and AArch64 (2024Q3).
"""

from __future__ import annotations

import ctypes
import mmap
import struct
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

PT_LOAD, PT_DYNAMIC = 1, 2
DT_PLTRELSZ, DT_STRTAB, DT_SYMTAB, DT_RELA, DT_RELASZ, DT_JMPREL = 2, 5, 6, 7, 8, 23
# Relocations that put the plain address of a symbol into a slot, per machine: called through the
# procedure linkage table, read from the global offset table, stored in data. AArch64 comes from its
# supplement and has not been run.
X86_64, AARCH64 = 62, 183
ADDRESS_RELOCATIONS = {X86_64: {7, 6, 1}, AARCH64: {1026, 1025, 257}}
RELOCATION = struct.Struct("<QQq")


class LoadedLibrary(NamedTuple):
    """A library that this process has loaded."""

    path: str
    base: int
    """What is added to an address in the file to get the one in memory."""


class _ProgramInfo(ctypes.Structure):
    _fields_ = [
        ("address", ctypes.c_size_t),
        ("name", ctypes.c_char_p),
        ("headers", ctypes.c_void_p),
        ("num_headers", ctypes.c_uint16),
    ]


def loaded_libraries() -> tuple[LoadedLibrary, ...]:
    """The libraries of this process, by ``dl_iterate_phdr``."""
    found: list[LoadedLibrary] = []
    visitor = ctypes.CFUNCTYPE(
        ctypes.c_int, ctypes.POINTER(_ProgramInfo), ctypes.c_size_t, ctypes.c_void_p
    )

    def visit(info: ctypes._Pointer[_ProgramInfo], size: int, data: int | None) -> int:
        if name := info.contents.name:
            found.append(LoadedLibrary(name.decode(), info.contents.address))
        return 0

    ctypes.CDLL(None).dl_iterate_phdr(visitor(visit), None)
    return tuple(found)


def import_slots(path: str | Path, names: Iterable[str]) -> dict[str, tuple[int, ...]]:
    """Find where a library keeps the addresses of the functions it imports.

    Args:
        path: a 64-bit little-endian ELF library, x86-64 or AArch64.
        names: the functions.

    Returns:
        Per function that the library imports, the slots as addresses in the file.

    Raises:
        ValueError: the file is not such a library.
    """
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _Image(data).slots({name.encode() for name in names})
    except (struct.error, KeyError, IndexError, StopIteration, ValueError) as error:
        raise ValueError(f"{path}: not an ELF library that can be read: {error}") from None


class _Image:
    """An ELF file, read in place."""

    def __init__(self, data: mmap.mmap) -> None:
        if data[:6] != b"\x7fELF\x02\x01":
            raise ValueError("not a 64-bit little-endian ELF file")
        self.data = data
        self.relocations = ADDRESS_RELOCATIONS[struct.unpack_from("<H", data, 18)[0]]
        (start,) = struct.unpack_from("<Q", data, 32)
        size, count = struct.unpack_from("<HH", data, 54)
        headers = [struct.unpack_from("<IIQQQQ", data, start + i * size) for i in range(count)]
        self.segments = [(h[3], h[2], h[5]) for h in headers if h[0] == PT_LOAD]
        self.dynamic = dict(self._dynamic(next(h for h in headers if h[0] == PT_DYNAMIC)))

    def _dynamic(self, header: tuple[int, ...]) -> Iterator[tuple[int, int]]:
        for at in range(header[2], header[2] + header[5], 16):
            yield struct.unpack_from("<qQ", self.data, at)

    def offset(self, address: int) -> int:
        """The place in the file of an address."""
        for start, offset, size in self.segments:
            if start <= address < start + size:
                return int(address - start + offset)
        raise KeyError(f"address {address:#x} is in no segment")

    def slots(self, names: set[bytes]) -> dict[str, tuple[int, ...]]:
        symbols = self.offset(self.dynamic[DT_SYMTAB])
        strings = self.offset(self.dynamic[DT_STRTAB])
        found: dict[str, tuple[int, ...]] = {}
        for slot, info, addend in self._relocations():
            symbol, kind = info >> 32, info & 0xFFFFFFFF
            if not symbol or kind not in self.relocations or addend:
                continue
            start = strings + struct.unpack_from("<I", self.data, symbols + 24 * symbol)[0]
            name = self.data[start : self.data.find(b"\0", start)]
            if name in names:
                found[name.decode()] = (*found.get(name.decode(), ()), slot)
        return found

    def _relocations(self) -> Iterator[tuple[int, int, int]]:
        for table, size in ((DT_JMPREL, DT_PLTRELSZ), (DT_RELA, DT_RELASZ)):
            if table in self.dynamic:
                start = self.offset(self.dynamic[table])
                block = self.data[start : start + self.dynamic[size]]
                yield from RELOCATION.iter_unpack(block)


def read_slots(slots: Iterable[int]) -> dict[int, int]:
    """What stands in slots of this process, by their addresses in memory."""
    return {slot: ctypes.c_uint64.from_address(slot).value for slot in slots}


def write_slots(values: Mapping[int, int]) -> None:
    """Write addresses into slots of this process, each in one store.

    Args:
        values: what to write, per address in memory; each a multiple of eight.

    Raises:
        OSError: a page could not be made writable. Nothing was written to it.
    """
    for slot, value in values.items():
        was = _protection(slot)
        if not was & mmap.PROT_WRITE:
            protect(slot, 8, was | mmap.PROT_WRITE)
        ctypes.c_uint64.from_address(slot).value = value
        if not was & mmap.PROT_WRITE:
            protect(slot, 8, was)


def protect(address: int, size: int, protection: int) -> None:
    """Set the protection (``mmap.PROT_*``) of the pages that hold these bytes.

    Raises:
        OSError: the system does not allow it.
    """
    start = address & ~(mmap.PAGESIZE - 1)
    libc = ctypes.CDLL(None, use_errno=True)
    length = ctypes.c_size_t(address + size - start)
    if libc.mprotect(ctypes.c_void_p(start), length, ctypes.c_int(protection)):
        raise OSError(ctypes.get_errno(), "mprotect failed")


def _protection(address: int) -> int:
    """How the page of an address is mapped."""
    flags = {"r": mmap.PROT_READ, "w": mmap.PROT_WRITE, "x": mmap.PROT_EXEC}
    with open("/proc/self/maps") as maps:
        for line in maps:
            span, mode = line.split(None, 2)[:2]
            start, stop = (int(part, 16) for part in span.split("-"))
            if start <= address < stop:
                return sum(flags.get(letter, 0) for letter in mode)
    raise OSError(f"address {address:#x} is not mapped")
