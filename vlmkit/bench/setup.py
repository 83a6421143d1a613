"""All that a timing depends on beside its case: machine, code, versions, load."""

from __future__ import annotations

import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

import vlmkit
from vlmkit.backend.device import device_facts
from vlmkit.bench.config import KvBenchConfig
from vlmkit.contracts.interface import Model
from vlmkit.experiment import provenance


def describe_setup(config: KvBenchConfig, model: Model, command: Sequence[str]) -> dict[str, Any]:
    """Return what every row of a bench records."""
    return {
        "model": config.model,
        "layer": config.layer.model_dump(),
        "repetitions": config.repetitions,
        "backend": model.backend.describe(),
        "machine": describe_machine(),
        "load_average": [round(load, 2) for load in os.getloadavg()],
        **provenance.git_state(Path(vlmkit.__file__).parent),
        "versions": provenance.versions(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": list(command),
    }


def describe_machine() -> dict[str, Any]:
    """Return what computes: the device as MLX names it, the processor's cores, the memory.

    Example:
        >>> describe_machine()["cores"] >= 1
        True
    """
    return {
        "device": provenance.device(),
        "facts": {name: fact for name, fact in device_facts().items() if _is_plain(fact)},
        "system": platform.platform(),
        "cores": psutil.cpu_count(),
        "memory_bytes": psutil.virtual_memory().total,
    }


def _is_plain(fact: object) -> bool:
    return isinstance(fact, (str, int, float))
