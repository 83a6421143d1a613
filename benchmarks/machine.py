"""The machine and the state of the code that figures belong to."""

from __future__ import annotations

import os
import platform
import re
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from vlmkit.backend.device import devices, free_bytes, processor_name

PACKAGES = ("mlx", "mlx-lm", "mlx-vlm", "transformers", "torch", "numpy", "scipy-openblas32")


def load_average() -> str:
    """Processes that wanted to run, on average over the last minute."""
    return f"{os.getloadavg()[0]:.1f}"


def commit() -> str:
    """The commit of this folder, and whether files differ from it."""
    folder = Path(__file__).parent
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty", "--abbrev=10"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"


def hardware() -> dict[str, Any]:
    """What computes."""
    free = free_bytes()
    return {
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "devices": list(devices()),
        "free_memory_gb": None if free is None else round(free / 1e9, 1),
        "system": platform.platform(),
        "python": platform.python_version(),
        "load_average": [round(value, 2) for value in os.getloadavg()],
    }


def packages() -> dict[str, str]:
    """The versions of what takes part."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def settings() -> dict[str, str]:
    """The environment variables that change how fast things are."""
    names = ("VLMKIT_", "OMP_", "OPENBLAS_", "MKL_", "MLX_")
    return {name: value for name, value in sorted(os.environ.items()) if name.startswith(names)}


def hardware_slug() -> str:
    """The hardware in a file name."""
    name = re.sub(r"\((R|TM)\)|processor|cpu|@.*", "", processor_name(), flags=re.IGNORECASE)
    words = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-") or platform.machine()
    return f"{words}-{os.cpu_count()}-cores"
