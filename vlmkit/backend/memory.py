"""How much memory is left for weights."""

from __future__ import annotations

from pathlib import Path

COMFORTABLE = 0.6  # of the available memory; the rest is for activations, caches and the others
CONTROL_GROUP = Path("/sys/fs/cgroup")
MEMORY_INFO = Path("/proc/meminfo")


def fits_comfortably(num_bytes: int, available: int | None) -> bool:
    """Tell whether weights of this size leave room for the run; unknown memory counts as enough.

    Example:
        >>> fits_comfortably(4, 10), fits_comfortably(8, 10), fits_comfortably(8, None)
        (True, False, True)
    """
    return available is None or num_bytes <= COMFORTABLE * available


def available_bytes(group: Path = CONTROL_GROUP) -> int | None:
    """Return the memory that a new allocation on the CPU can use, or None if unknown.

    The smaller of what the system and the process's control group (a container) have left.
    """
    candidates = [system_bytes(), group_bytes(group)]
    return min((c for c in candidates if c is not None), default=None)


def system_bytes(info: Path = MEMORY_INFO) -> int | None:
    """Return what the system has left: Linux says it in a file, psutil knows it elsewhere."""
    try:
        lines = dict(line.split(":", 1) for line in info.read_text().splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024  # the file counts in KiB
    except (OSError, ValueError, LookupError):  # another system, or a sandbox that hides it
        pass
    import psutil

    try:
        return int(psutil.virtual_memory().available)
    except OSError:  # a sandbox that hides the system's numbers
        return None


def group_bytes(folder: Path) -> int | None:
    """Return what a control group (version 2) has left, or None where it sets no limit."""
    try:
        limit = int((folder / "memory.max").read_text())
        stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return max(limit - int(stat["anon"]), 0)  # the page cache makes room when asked
    except (OSError, ValueError, KeyError):  # no group, or no limit ("max")
        return None
