"""Entry point of lmms-eval: what ``--model vlmkit`` is."""

from __future__ import annotations

from lmms_eval.models.registry_v2 import ModelManifest


def manifest() -> ModelManifest:
    """The model; its class is imported when it is asked for."""
    return ModelManifest("vlmkit", chat_class_path="vlmkit.adapters.lmms_model.VlmkitModel")
