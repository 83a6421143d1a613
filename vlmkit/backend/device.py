"""Which device computes. Everything else asks here, and only about what follows from it."""

from __future__ import annotations

import os
import shutil
from typing import Any

import mlx.core as mx

from vlmkit.backend.choices import Device
from vlmkit.backend.memory import available_bytes
from vlmkit.errors import VlmkitError


def current_device() -> Device:
    """Return the device that arrays are computed on by default."""
    if mx.default_device().type == mx.DeviceType.cpu:
        return "cpu"
    return "metal" if mx.metal.is_available() else "cuda"


def devices() -> tuple[Device, ...]:
    """Return the devices that this MLX can compute on, the fastest first."""
    gpus: list[Device] = []
    if mx.metal.is_available():
        gpus.append("metal")
    if mx.cuda.is_available():
        gpus.append("cuda")
    return (*gpus, "cpu")


def use_device(device: Device) -> None:
    """Let MLX compute on a device from now on; that is a setting of the process.

    Raises:
        VlmkitError: it is not there; says what is.
    """
    there = devices()
    if device not in there:
        raise VlmkitError(
            f"backend.device: {device} is not on this machine; MLX has {', '.join(there)} here",
            path=("backend", "device"),
        )
    if device != current_device():
        mx.set_default_device(mx.cpu if device == "cpu" else mx.gpu)


def describe_device() -> str:
    """Return what results call the device: MLX's own words."""
    return str(mx.default_device())


def device_facts() -> dict[str, Any]:
    """Return what MLX knows of the device: its name, and of a GPU its memory."""
    return dict(mx.device_info(mx.default_device()))


def free_bytes() -> int | None:
    """Return the memory that is left for weights where they are computed; None: not known."""
    if current_device() != "cuda":
        return available_bytes()  # a Mac's GPU shares the processor's memory
    free = device_facts().get("free_memory")
    return free if isinstance(free, int) else None


def reads_back_cheaply() -> bool:
    """Tell whether the host may look at a value in between: a GPU would have to wait for it."""
    return current_device() == "cpu"


def find_compiler() -> str | None:
    """Return the compiler that ``mx.compile`` uses on a CPU, or None where there is none."""
    return None if "MLX_DISABLE_COMPILE" in os.environ else shutil.which("g++")


def processor_name() -> str:
    """Return what computes in the words of its maker; "unknown" where MLX does not tell."""
    return str(device_facts().get("device_name") or "unknown")
