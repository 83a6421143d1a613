"""What this machine computes with."""

from vlmkit.backend.requirement import require_mlx

__all__ = ["require_mlx"]
