"""Entry point of inspect_ai: what ``--model vlmkit/NAME`` is."""

from __future__ import annotations

from inspect_ai.model import ModelAPI, modelapi


@modelapi(name="vlmkit")
def vlmkit() -> type[ModelAPI]:
    """The provider; what it needs is imported when a model is made."""
    from vlmkit.adapters.inspect_model import VlmkitAPI

    return VlmkitAPI
