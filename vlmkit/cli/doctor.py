"""``vlmkit doctor``: what this machine computes with, why, and what would make it faster."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from vlmkit.backend import require_mlx
from vlmkit.cli.terminal import say, say_json

if TYPE_CHECKING:
    from vlmkit.backend.diagnosis import Diagnosis
    from vlmkit.backend.policy import Backend

_SHOWN = (
    *("device", "dtype", "weights", "attention", "activations", "compile", "products"),
    *("blas", "threads", "wired_bytes"),
)


def run_doctor(args: argparse.Namespace) -> None:
    """Print the findings, as text or as one JSON object."""
    require_mlx()
    from vlmkit.backend.diagnosis import diagnose

    found = diagnose(_backend(args))
    if args.json:
        document: dict[str, Any] = {**found._asdict(), "speeds": found.speeds._asdict()}
        say_json(json.dumps(document, indent=2))
        return
    for line in _lines(found, args.model):
        say(line)


def _backend(args: argparse.Namespace) -> Backend:
    """What is chosen for a model, or for a large one where none is named."""
    from vlmkit.backend.policy import choose_backend, choose_dtype

    if args.model is None:
        return choose_dtype(choose_backend(dtype=args.dtype), None, weight_bytes=None)
    from vlmkit.loading import load_model_and_report, resolve_checkpoint

    folder = resolve_checkpoint(args.model, revision=args.revision)
    return load_model_and_report(folder, dtype=args.dtype, lazy=True)[1].backend


def _lines(found: Diagnosis, model: str | None) -> list[str]:
    from vlmkit.backend.weights import size_text

    machine, speeds = found.machine, found.speeds
    free = "unknown" if machine["free_bytes"] is None else size_text(machine["free_bytes"])
    rows = [
        ("processor", machine["processor"], ""),
        ("devices", ", ".join(machine["devices"]), ""),
        ("compiler", machine["compiler"] or "none", ""),
        ("free memory", free, ""),
        ("products", f"{speeds.gflops:.0f} GFLOP/s", "measured, a square product"),
        ("memory", f"{speeds.bandwidth_gb_s:.1f} GB/s", "measured, a product of one row"),
    ]
    width = max(len(name) for name in _SHOWN)
    lines = ["machine", *(_line(width, *row) for row in rows)]
    lines.append(f"chosen for {model or 'a large model'}")
    for name in _SHOWN:
        value = found.backend.get(name)
        if value is not None:
            reason = found.reasons.get("wired" if name == "wired_bytes" else name, "")
            lines.append(_line(width, name, _text(name, value), reason))
    lines.append("faster" if found.advice else "faster: nothing to do here")
    return [*lines, *(f"  - {advice}" for advice in found.advice)]


def _line(width: int, name: str, value: str, reason: str) -> str:
    return f"  {name:<{width}}  {value}{f'  ({reason})' if reason else ''}"


def _text(name: str, value: Any) -> str:
    if name == "blas":
        return str(value["name"])
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)
