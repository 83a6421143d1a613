"""Where results come from: hashes of configs, code and weights, commit, versions, device."""

from __future__ import annotations

import hashlib
import json
import platform
import subprocess
from collections.abc import Iterable, Iterator
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import vlmkit
from vlmkit.backend.config import BackendConfig
from vlmkit.backend.device import describe_device
from vlmkit.loading import (
    plan_backend,
    read_checkpoint,
    resolve_checkpoint,
    weights_fingerprint,
)

PACKAGES = (
    "mlx",
    "mlx-lm",
    "numpy",
    "pillow",
    "pydantic",
    "tokenizers",
    "transformers",
)


def config_hash(value: Any) -> str:
    """Return a digest of a JSON value; the order of keys does not count.

    Example:
        >>> config_hash({"a": 1, "b": 2}) == config_hash({"b": 2, "a": 1})
        True
    """
    return _digest([json.dumps(value, sort_keys=True).encode()])


def code_hash(configs: Iterable[Any]) -> str:
    """Return a digest of vlmkit's source, and of the modules that configs name.

    Args:
        configs: JSON values; in them, a ``factory: package.module:function`` names a module.
    """
    root = Path(vlmkit.__file__).parent
    files = sorted(root.rglob("*.py"))
    own = ((str(path.relative_to(root)), path) for path in files)
    modules = sorted({name for config in configs for name in _modules(config)})
    others = ((name, path) for name in modules if (path := _source(name)) is not None)
    parts: list[bytes] = []
    for name, path in (*own, *others):
        parts += [name.encode(), path.read_bytes()]
    return _digest(parts)


def _modules(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        factory = value.get("factory")
        if isinstance(factory, str) and ":" in factory:
            yield factory.partition(":")[0].strip()
        for item in value.values():
            yield from _modules(item)
    elif isinstance(value, list):
        for item in value:
            yield from _modules(item)


def _source(module: str) -> Path | None:
    """The file of a module; nothing is imported, no package around it either."""
    name, places, spec = "", None, None
    for part in module.split("."):
        name = f"{name}.{part}".lstrip(".")
        spec = PathFinder.find_spec(name, places)
        if spec is None:
            return None
        places = spec.submodule_search_locations
    return None if spec is None or not spec.has_location else Path(str(spec.origin))


def weights_hash(model: str, revision: str | None) -> str:
    """Return a digest of a checkpoint's weights and config.json."""
    return weights_fingerprint(read_checkpoint(resolve_checkpoint(model, revision=revision)))


def backend_of(
    model: str, revision: str | None, dtype: str | None, config: BackendConfig
) -> dict[str, Any]:
    """Return what computes a checkpoint's model here, and how.

    Raises:
        VlmkitError: what is asked for is not on this machine.
    """
    checkpoint = read_checkpoint(resolve_checkpoint(model, revision=revision))
    planned = plan_backend(checkpoint, dtype=dtype, backend=config.choices)
    return {name: value for name, value in planned.describe().items() if value is not None}


def git_state(folder: Path) -> dict[str, str]:
    """Return the commit of a folder's repository and a digest of what differs from it.

    Empty where there is no repository, or no git.
    """
    commit = _git(folder, "rev-parse", "HEAD")
    if commit is None:
        return {}
    status = _git(folder, "status", "--porcelain") or b""
    state = {"commit": commit.decode().strip()}
    if status.strip():
        state["dirty"] = _digest([status, _git(folder, "diff", "HEAD") or b""])
    return state


def _git(folder: Path, *arguments: str) -> bytes | None:
    try:
        reply = subprocess.run(
            ["git", "-C", str(folder), *arguments], capture_output=True, check=False, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return reply.stdout if reply.returncode == 0 else None


def versions() -> dict[str, str]:
    """Return the versions of Python, vlmkit and what it computes with."""
    found = {"python": platform.python_version(), "vlmkit": vlmkit.__version__}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def device() -> str:
    """Return the device that arrays are computed on."""
    return describe_device()


def system() -> str:
    """Return the operating system and processor architecture."""
    return platform.platform()


def _digest(parts: Iterable[bytes]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()
