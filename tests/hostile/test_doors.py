"""SECURITY.md names limits that are there, and files are opened by the doors alone."""

from __future__ import annotations

import ast
import importlib
import re
from pathlib import Path

import vlmkit

TEXT = (Path(vlmkit.__file__).parent.parent / "SECURITY.md").read_text(encoding="utf-8")
ROWS = re.findall(r"^\| .* \| `(vlmkit[\w.]+)\.([A-Z_]+)` \| ([\d,.]+)( [KM]iB)?\D*\|$", TEXT, re.M)


def test_limits() -> None:
    assert len(ROWS) > 10
    assert len(ROWS) == TEXT.count("| `vlmkit.")
    units = {"": 1, " KiB": 2**10, " MiB": 2**20}
    for module, name, number, unit in ROWS:
        value = getattr(importlib.import_module(module), name)
        assert value == float(number.replace(",", "")) * units[unit], name


# What opens files by itself: the doors; what writes to the new file that a door gave; files of the
# package and of the operating system; names that are made new each time (O_EXCL).
OPENING = {
    "backend/elf.py": {"open"},
    "backend/blas_bfloat16.py": {"read_bytes"},
    "backend/blas_environment.py": {"read_text"},
    "backend/memory.py": {"read_text"},
    "models/lm_build.py": {"read_text"},
    "files/reading.py": {"open"},
    "files/writing.py": {"open", "write_bytes"},
    "adapters/every_eval.py": {"open", "write_bytes"},
    "cli/configs.py": {"read_bytes", "read_text"},
    "cli/main.py": {"open"},
    "cli/speaking.py": {"open"},
    "config/explain.py": {"read_text"},
    "experiment/executors/claims.py": {"open"},
    "experiment/executors/heartbeat.py": {"open"},
    "experiment/executors/processes.py": {"read_bytes"},
    "experiment/kv_eval/page.py": {"read_text"},
    "experiment/provenance.py": {"read_bytes"},
    "experiment/report/page.py": {"read_text", "write_text"},
    "experiment/store.py": {"open"},
    "loading/checkpoint.py": {"open", "read_bytes"},
    "loading/safetensors.py": {"open"},
    "preprocess/containers.py": {"open"},  # streams that a door gave
    "preprocess/sounds.py": {"open"},  # bytes
    "prompts/disk.py": {"open"},
}
NAMES = {"open", "read_text", "read_bytes", "write_text", "write_bytes"}
OTHERS = ("Image.open", "read_text", "read_bytes")  # not of paths: functions of that name


def test_files_go_through_the_doors() -> None:
    package = Path(vlmkit.__file__).parent
    for path in package.rglob("*.py"):
        found = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                name = called.rpartition(".")[2]
                found |= {name} if name in NAMES and called not in OTHERS else set()
        assert found <= OPENING.get(path.relative_to(package).as_posix(), set()), path
