"""Who a worker is, in a file beside its records."""

from __future__ import annotations

import datetime as dt
import json
import os
import secrets
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vlmkit.errors import VlmkitError
from vlmkit.experiment import provenance
from vlmkit.experiment.reading import WORKERS
from vlmkit.files import parse_json, read_file, write_file
from vlmkit.printable import mask_secrets

_MAX_BYTES = 2**20  # of what a worker says of itself


class About:
    """Who a worker is and how it ended, in a file beside its records."""

    def __init__(self, folder: Path, lease_s: float, command: Sequence[str]) -> None:
        host = "".join(letter if letter.isalnum() else "-" for letter in socket.gethostname())
        self.name = f"{host}-{os.getpid()}-{secrets.token_hex(4)}"
        self._path = folder / WORKERS / f"{self.name}.json"
        self._fields: dict[str, object] = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "began": _now(),
            "command": list(map(mask_secrets, command)),
            "lease_s": lease_s,
            "versions": provenance.versions(),
            "device": provenance.device(),
            "system": provenance.system(),
        }
        try:
            self._path.parent.mkdir(exist_ok=True)
        except OSError as error:
            raise VlmkitError(f"{self._path.parent}: cannot be written: {error.strerror}") from None
        self._write()

    def end(self, status: str, error: str | None = None) -> None:
        """Write how it ended."""
        self._fields |= {"ended": _now(), "status": status}
        if error is not None:
            self._fields["error"] = error
        self._write()

    def _write(self) -> None:
        write_file(self._path, json.dumps(self._fields, indent=2).encode() + b"\n")


def read_workers(folder: Path) -> Iterator[dict[str, Any]]:
    """Yield what all workers of a run directory said of themselves, with their ``name``."""
    for path in sorted((folder / WORKERS).glob("*.json")):
        try:
            yield {"name": path.stem, **parse_json(read_file(path, _MAX_BYTES))}
        except (OSError, ValueError, TypeError):
            continue  # its machine stopped while it was written


def _now() -> str:
    return dt.datetime.now(dt.UTC).isoformat(timespec="seconds")
