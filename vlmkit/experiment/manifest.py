"""What a run directory says of its run: what was asked for, of what, with which code, where."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec

from vlmkit.errors import VlmkitError
from vlmkit.files import check_keys, read_file, write_file

FORMAT = 1
"""Version of the run directory; a newer one is refused by name."""

FILE = "manifest.json"

MAX_MANIFEST_BYTES = 64 * 2**20
"""Ten thousand arms, each a whole resolved run."""


class Manifest(msgspec.Struct, kw_only=True):
    """The contents of ``manifest.json``."""

    format: int = FORMAT
    name: str  # of the experiment
    created: str  # date and time, UTC
    command: list[str]
    hashes: dict[str, str]  # "config", "data", "code", and "weights" of each model
    arms: dict[str, dict[str, Any]]  # each a whole resolved run
    seeds: list[int]
    caches: dict[str, dict[str, Any]] = {}  # by arm: what its cache comes to on the model's layers
    baseline: str
    dataset: dict[str, Any]
    folder: str  # that the data set's paths are relative to
    metrics: dict[str, dict[str, Any]]
    metrics_folder: str  # that paths of scorers are relative to
    limits: dict[str, Any]
    lockstep: dict[str, Any] | None = None  # how arms are compared token by token; None: not
    num_units: int  # responses of the whole run
    git: dict[str, str]  # commit, and the hash of what is not committed
    versions: dict[str, str]
    device: str
    system: str
    backend: dict[str, dict[str, Any]] = {}  # of each model: what computes it, and how


def read_manifest(folder: Path) -> Manifest:
    """Read a run directory's manifest.

    Raises:
        VlmkitError: no such folder, no run directory, or one of a newer version.
    """
    path = folder / FILE
    try:
        content = read_file(path, MAX_MANIFEST_BYTES)
    except FileNotFoundError:
        what = "no such folder" if not folder.exists() else f"no run directory (no {FILE} in it)"
        raise VlmkitError(f"{folder}: {what}; 'vlmkit run' makes one") from None
    except OSError as error:
        raise VlmkitError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        check_keys(content)
        version = msgspec.json.decode(content).get("format")
        if isinstance(version, int) and version > FORMAT:
            raise VlmkitError(
                f"{path}: written by a newer vlmkit (format {version}, this one knows {FORMAT}); "
                "update vlmkit, or choose another folder"
            )
        return msgspec.json.decode(content, type=Manifest)
    except VlmkitError:
        raise
    except (ValueError, AttributeError, RecursionError) as error:
        raise VlmkitError(
            f"{path}: no manifest of a run ({error}); choose another folder"
        ) from None


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Write a run directory's manifest, whole or not at all."""
    write_file(folder / FILE, msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n")


def check_same(old: Manifest, new: Manifest, folder: Path) -> None:
    """Refuse to go on with a run of which something changed since.

    Raises:
        VlmkitError: names what changed.
    """
    if old.hashes == new.hashes:
        if old.metrics != new.metrics:
            raise VlmkitError(
                f"{folder}: was scored by other metrics; give 'vlmkit rescore {folder} EXPERIMENT' "
                "first, or choose another folder with --out"
            )
        return
    changed = sorted(
        name
        for name in old.hashes.keys() | new.hashes.keys()
        if old.hashes.get(name) != new.hashes.get(name)
    )
    details = f" ({_first_change(old, new)})" if "config" in changed else ""
    raise VlmkitError(
        f"{folder}: holds a run of another {' and '.join(changed)}{details}; its records are not "
        "mixed with others: choose another folder with --out, or begin anew with --force-new "
        "(the old run is kept beside it)"
    )


def _first_change(old: Manifest, new: Manifest) -> str:
    before, now = (dict(_leaves((), _identity(one))) for one in (old, new))
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    key = keys[0] if keys else ()
    more = f", and {len(keys) - 1} more" if len(keys) > 1 else ""
    was, becomes = (_shown(values, key) for values in (before, now))
    return f"{'.'.join(key)} was {was}, is {becomes}{more}"


def _shown(values: Mapping[tuple[str, ...], Any], key: tuple[str, ...]) -> str:
    return json.dumps(values[key], ensure_ascii=False) if key in values else "not there"


def _identity(manifest: Manifest) -> dict[str, Any]:
    found = {"dataset": manifest.dataset, "seeds": manifest.seeds, "arms": manifest.arms}
    return found if manifest.lockstep is None else {**found, "lockstep": manifest.lockstep}


def _leaves(path: tuple[str, ...], value: Any) -> Iterator[tuple[tuple[str, ...], Any]]:
    items = enumerate(value) if isinstance(value, list) else value.items()
    for key, item in items:
        if isinstance(item, (dict, list)) and item:
            yield from _leaves((*path, str(key)), item)
        else:
            yield (*path, str(key)), item
