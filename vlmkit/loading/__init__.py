"""Checkpoints: find them, check them, load them."""

from __future__ import annotations

from vlmkit.loading.checkpoint import (
    Checkpoint,
    read_checkpoint,
    read_config,
    weights_fingerprint,
)
from vlmkit.loading.model import LoadReport, load_model, load_model_and_report, plan_backend
from vlmkit.loading.quantization import Quantization, Scheme
from vlmkit.loading.resolve import resolve_checkpoint

__all__ = [
    "Checkpoint",
    "LoadReport",
    "Quantization",
    "Scheme",
    "load_model",
    "load_model_and_report",
    "plan_backend",
    "read_checkpoint",
    "read_config",
    "resolve_checkpoint",
    "weights_fingerprint",
]
