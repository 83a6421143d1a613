"""Threads and kernels that a BLAS is told to take."""

from __future__ import annotations

from pathlib import Path

import pytest

from vlmkit.backend.blas_environment import (
    SKYLAKEX,
    blas_variables,
    cpu_flags,
    cpu_quota,
    num_cores,
)

FOUR_CORES = "\n\n".join(
    f"processor\t: {number}\nphysical id\t: {number // 4}\ncore id\t\t: {number % 2}\n"
    f"flags\t\t: fpu {' '.join(sorted(SKYLAKEX))}\n"
    for number in range(8)
)


@pytest.mark.parametrize(
    ("allowed", "cores"), [(range(8), 4), (range(4), 2), ((0, 2), 1), ((0, 1), 2), ((9,), 1)]
)
def test_physical_cores_that_are_allowed(allowed: range | tuple[int, ...], cores: int) -> None:
    assert num_cores(FOUR_CORES, frozenset(allowed)) == cores


def test_no_core_ids() -> None:
    """As AArch64 lists its processors."""
    assert num_cores("processor : 0\nFeatures : asimd\n\nprocessor : 1\n", frozenset({0, 1})) == 2
    assert cpu_flags("processor : 0\nFeatures : asimd\n") == {"asimd"}
    assert num_cores("", frozenset({0, 1, 2})) == 3
    assert cpu_flags("") == frozenset()


def test_kernels_by_the_processors_features() -> None:
    flags = cpu_flags(FOUR_CORES)
    assert blas_variables({}, flags, 2)["OPENBLAS_CORETYPE"] == "SKYLAKEX"
    assert "OPENBLAS_CORETYPE" not in blas_variables({}, flags - {"avx512vl"}, 2)
    assert "OPENBLAS_CORETYPE" not in blas_variables({"OPENBLAS_CORETYPE": "ZEN"}, flags, 2)


def test_threads() -> None:
    found = blas_variables({"MKL_NUM_THREADS": "3"}, frozenset(), 2)
    assert found["OPENBLAS_NUM_THREADS"] == "2"
    assert "MKL_NUM_THREADS" not in found
    flags: frozenset[str] = frozenset()
    assert not any(
        "NUM_THREADS" in name for name in blas_variables({"OMP_NUM_THREADS": "1"}, flags, 2)
    )


def test_idle_threads() -> None:
    assert blas_variables({}, frozenset(), 2)["OPENBLAS_THREAD_TIMEOUT"] == "20"
    user = {"OPENBLAS_THREAD_TIMEOUT": "26"}
    assert "OPENBLAS_THREAD_TIMEOUT" not in blas_variables(user, frozenset(), 2)


def test_quota_of_control_groups(tmp_path: Path) -> None:
    assert cpu_quota(tmp_path, "0::/pod/box\n") is None
    assert cpu_quota(tmp_path, "") is None
    (tmp_path / "pod" / "box").mkdir(parents=True)
    (tmp_path / "cpu.max").write_text("max 100000\n")
    assert cpu_quota(tmp_path, "0::/pod/box\n") is None
    (tmp_path / "pod" / "box" / "cpu.max").write_text("400000 100000\n")
    assert cpu_quota(tmp_path, "0::/pod/box\n") == 4
    (tmp_path / "pod" / "cpu.max").write_text("150000 100000\n")
    assert cpu_quota(tmp_path, "0::/pod/box\n") == 1.5


def test_quota_of_the_first_kind_of_control_groups(tmp_path: Path) -> None:
    group = tmp_path / "cpu" / "pod"
    group.mkdir(parents=True)
    (group / "cpu.cfs_quota_us").write_text("-1\n")
    (group / "cpu.cfs_period_us").write_text("100000\n")
    lines = "4:memory:/other\n2:cpu,cpuacct:/pod\n"
    assert cpu_quota(tmp_path, lines) is None
    (group / "cpu.cfs_quota_us").write_text("50000\n")
    assert cpu_quota(tmp_path, lines) == 0.5
