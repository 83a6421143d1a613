"""vlmkit: a functional, config-driven toolkit for generation with vision-language models.

>>> from vlmkit import load, generate
>>> model, processor = load("shapes")
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from vlmkit.api import generate, load, stream_generate
    from vlmkit.batch import batch_generate
    from vlmkit.branching import Prompt, branch, load_prompts, save_prompts, start, stream_branch
    from vlmkit.engine import Request
    from vlmkit.errors import VlmkitError, VlmkitWarning
    from vlmkit.pipeline import PipelineConfig
    from vlmkit.preprocess import PixelCache
    from vlmkit.prompt_utils import apply_chat_template
    from vlmkit.prompts import PromptCache
    from vlmkit.results import BatchResponse, BatchStats, GenerationResult

__version__ = "0.1.0"

__all__ = [
    "BatchResponse",
    "BatchStats",
    "GenerationResult",
    "PipelineConfig",
    "PixelCache",
    "Prompt",
    "PromptCache",
    "Request",
    "VlmkitError",
    "VlmkitWarning",
    "apply_chat_template",
    "batch_generate",
    "branch",
    "generate",
    "load",
    "load_prompts",
    "save_prompts",
    "start",
    "stream_branch",
    "stream_generate",
]

_HOMES = {
    "BatchResponse": "vlmkit.results",
    "BatchStats": "vlmkit.results",
    "GenerationResult": "vlmkit.results",
    "PipelineConfig": "vlmkit.pipeline",
    "PixelCache": "vlmkit.preprocess",
    "Prompt": "vlmkit.branching",
    "PromptCache": "vlmkit.prompts",
    "Request": "vlmkit.engine",
    "VlmkitError": "vlmkit.errors",
    "VlmkitWarning": "vlmkit.errors",
    "apply_chat_template": "vlmkit.prompt_utils",
    "batch_generate": "vlmkit.batch",
    "branch": "vlmkit.branching",
    "generate": "vlmkit.api",
    "load": "vlmkit.api",
    "load_prompts": "vlmkit.branching",
    "save_prompts": "vlmkit.branching",
    "start": "vlmkit.branching",
    "stream_branch": "vlmkit.branching",
    "stream_generate": "vlmkit.api",
}


def __getattr__(name: str) -> Any:
    # Imports wait for the first use, so that `import vlmkit` and `vlmkit --help` are instant.
    if name not in _HOMES:
        raise AttributeError(f"module 'vlmkit' has no attribute {name!r}")
    import importlib

    from vlmkit.backend import require_mlx

    require_mlx()
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
