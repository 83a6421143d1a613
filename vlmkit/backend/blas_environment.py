"""What a BLAS is told of this machine before it is loaded: threads, and which kernels to take."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
CGROUPS = Path("/sys/fs/cgroup")
# What OpenBLAS's SkylakeX kernels need. It knows processors by their model numbers, and takes one
# that is newer than itself for a Haswell: half the speed.
SKYLAKEX = {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
# Idle threads of OpenBLAS spin for 2^26 cycles, some 25 ms, and take the processor from all others;
# 2^20 outlast the gaps within a step. On a busy machine with two cores 12 products of one row took
# 98 ms in place of 345 (medians of three turns), and half the CPU time.
OPENBLAS_TIMEOUT = "20"
# Each library's own variable; the last speaks to all of them.
THREADS = ("OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS")
ALL_THREADS = ("OMP_NUM_THREADS", "GOTO_NUM_THREADS")


def cpu_flags(cpuinfo: str) -> frozenset[str]:
    """The features of a processor.

    Args:
        cpuinfo: what ``/proc/cpuinfo`` says.

    Example:
        >>> sorted(cpu_flags("processor : 0\\nflags : fpu avx2"))
        ['avx2', 'fpu']
    """
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    return frozenset()


def this_cpu_flags() -> frozenset[str]:
    """The features of this machine's processor; none where the system does not tell."""
    return cpu_flags(_read(CPUINFO))


def num_cores(cpuinfo: str, allowed: frozenset[int]) -> int:
    """Count physical cores: two hardware threads of one core multiply no faster than one.

    Args:
        cpuinfo: what ``/proc/cpuinfo`` says.
        allowed: the processors that this process may run on.

    Example:
        >>> two_threads = "processor: 0\\ncore id: 0\\n\\nprocessor: 1\\ncore id: 0\\n"
        >>> num_cores(two_threads, frozenset({0, 1}))
        1
    """
    cores = set()
    for block in cpuinfo.split("\n\n"):
        pairs = (line.partition(":") for line in block.splitlines())
        entry = {key.strip(): value.strip() for key, _, value in pairs}
        number = entry.get("processor", "")
        if number.isdigit() and int(number) in allowed:
            cores.add((entry.get("physical id"), entry.get("core id", number)))
    return len(cores) or len(allowed)


def cpu_quota(folder: Path, cgroup: str) -> float | None:
    """The CPU time that control groups grant, in processors; None without a limit.

    Args:
        folder: where control groups are mounted.
        cgroup: what ``/proc/self/cgroup`` says.
    """
    quotas = []
    for line in cgroup.splitlines():
        _, controllers, group = line.split(":", 2)
        places = [Path(group.lstrip("/")), *Path(group.lstrip("/")).parents]
        for place in places:
            if not controllers:
                words = _read(folder / place / "cpu.max").split()
            elif "cpu" in controllers.split(","):
                names = ("cpu.cfs_quota_us", "cpu.cfs_period_us")
                words = [_read(folder / "cpu" / place / name).strip() for name in names]
            else:
                break
            if len(words) == 2 and all(word.isdigit() for word in words):
                quotas.append(int(words[0]) / int(words[1]))
    return min(quotas, default=None)


def num_threads() -> int:
    """How many threads multiply fastest: physical cores, within affinity and quota."""
    allowed = frozenset(os.sched_getaffinity(0)) if sys.platform == "linux" else frozenset({0})
    cores = num_cores(_read(CPUINFO), allowed)
    quota = cpu_quota(CGROUPS, _read(Path("/proc/self/cgroup")))
    return cores if quota is None else max(1, min(cores, round(quota)))


def blas_variables(user: Mapping[str, str], flags: frozenset[str], threads: int) -> dict[str, str]:
    """The variables to set while a library is loaded. What the user has set stays.

    Args:
        user: the environment.
        flags: the processor's features.
        threads: how many threads to use.

    Example:
        >>> blas_variables({"OMP_NUM_THREADS": "1"}, frozenset(), 2)
        {'MKL_INTERFACE_LAYER': 'LP64', 'OPENBLAS_THREAD_TIMEOUT': '20'}
    """
    wanted = {"MKL_INTERFACE_LAYER": "LP64", "OPENBLAS_THREAD_TIMEOUT": OPENBLAS_TIMEOUT}
    if flags >= SKYLAKEX:
        wanted["OPENBLAS_CORETYPE"] = "SKYLAKEX"
    if not any(name in user for name in ALL_THREADS):
        wanted |= dict.fromkeys(THREADS, str(threads))
    return {name: value for name, value in wanted.items() if name not in user}


@contextmanager
def blas_environment() -> Iterator[None]:
    """Hold those variables for as long as a library is loaded, and not for child processes."""
    variables = blas_variables(os.environ, this_cpu_flags(), num_threads())
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in variables:
            os.environ.pop(name, None)


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
