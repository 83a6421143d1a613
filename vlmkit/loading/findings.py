"""What a checkpoint folder is, whether it runs here, and what is missing; no weights are read."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple, TypeVar

from vlmkit.backend.weights import size_text
from vlmkit.contracts.interface import KVSpec, LayerSpec, Model
from vlmkit.errors import VlmkitError, VlmkitWarning
from vlmkit.loading.checkpoint import Checkpoint, read_checkpoint, read_config
from vlmkit.loading.model import LoadReport, load_model_and_report
from vlmkit.models.families import find_family
from vlmkit.models.vlm import VisionLanguageModel
from vlmkit.processors import Processor, load_processor

T = TypeVar("T")


class Findings(NamedTuple):
    """A checkpoint, in words."""

    folder: str
    model_type: str
    family: (
        str | None
    )  # None: no model of this type is known; "mlx_lm" for one that reads text only
    takes: tuple[str, ...]  # "text", "image", …
    runs: bool  # it can be loaded, and its prompts can be prepared
    facts: Mapping[str, str]  # what there is, by the name of the part
    problems: tuple[str, ...]  # what is missing or wrong, and notes on what runs in part


def find_out(folder: Path) -> Findings:
    """Go through a checkpoint as loading it would, without reading its weights.

    Args:
        folder: a checkpoint folder, see :func:`vlmkit.loading.resolve_checkpoint`.

    Raises:
        VlmkitError: there is no config.json, or it cannot be read.

    Example:
        >>> from vlmkit.loading import resolve_checkpoint
        >>> found = find_out(resolve_checkpoint("shapes"))
        >>> found.family, found.takes, found.runs
        ('qwen2_vl', ('text', 'image', 'video'), True)
    """
    config = read_config(folder)
    problems: list[str] = []
    facts: dict[str, str] = {}
    checkpoint = _attempt(lambda: read_checkpoint(folder), problems)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", VlmkitWarning)
        loaded = checkpoint and _attempt(lambda: load_model_and_report(folder, lazy=True), problems)
        processor = _attempt(lambda: load_processor(folder), problems)
    if checkpoint:
        facts["weights"] = _weights(checkpoint, loaded[1] if loaded else None)
    if loaded:
        facts |= _model(*loaded)
    if processor:
        facts |= _processor(processor)
        if processor.chat_template is None:
            problems.append("no chat template; pass chat_template=, or format prompts yourself")
    family, runs = find_family(config), loaded is not None and processor is not None
    takes = family.takes if family else ("text",)
    if family and processor:
        missing = [kind for kind in takes if kind != "text" and not processor.prepares(kind)]
        takes = tuple(kind for kind in takes if kind not in missing)
        problems += [processor.takes_none(kind) for kind in missing if kind != "video"]
    notes = [str(one.message) for one in said if issubclass(one.category, VlmkitWarning)]
    return Findings(
        folder=str(folder),
        model_type=str(config.get("model_type")),
        family=family.name if family else loaded[1].family if loaded else None,
        takes=takes,
        runs=runs,
        facts=facts,
        problems=tuple(dict.fromkeys([*problems, *notes])),
    )


def _attempt(step: Callable[[], T], problems: list[str]) -> T | None:
    try:
        return step()
    except VlmkitError as error:
        problems.append(str(error))
        return None


def _weights(checkpoint: Checkpoint, report: LoadReport | None) -> str:
    stored = Counter(tensor.dtype for tensor in checkpoint.tensors.values())
    num_bytes = sum(tensor.num_bytes for tensor in checkpoint.tensors.values())
    dtypes = ", ".join(f"{number} {dtype}" for dtype, number in stored.most_common())
    files = len(checkpoint.files)
    text = f"{files} file{'s' * (files > 1)}, {size_text(num_bytes)}, tensors: {dtypes}"
    if report is None or not report.schemes:
        return text
    schemes = Counter(str(scheme) for scheme in report.schemes.values())
    packed = ", ".join(f"{number} {scheme}" for scheme, number in schemes.most_common())
    return f"{text}; quantized modules: {packed}"


def _model(model: Model, report: LoadReport) -> dict[str, str]:
    counts = Counter(map(_layer, model.layer_specs))
    layers = ", ".join(f"{number} {layer}" for layer, number in counts.items())
    config = model.config
    facts = {
        "decoder": f"{len(model.layer_specs)} layers: {layers}",
        "context": f"{config.max_position_embeddings:,} tokens",
        "vocabulary": f"{config.vocab_size:,} tokens",
        "in memory": f"{size_text(report.num_bytes)} as {report.dtype}, "
        f"weights {report.backend.weights}",
    }
    if isinstance(model, VisionLanguageModel):
        text, vision = model.config.text_config, model.config.vision_config
        if text.experts is not None:
            experts = text.experts
            shared = ", one shared" if experts.shared_size else ""
            facts["experts"] = (
                f"{experts.num_per_token} of {experts.num_experts} per token in "
                f"{len(text.sparse_layers)} layers{shared}"
            )
        if vision is not None:
            side = vision.patch_size * vision.spatial_merge_size
            facts["vision"] = f"{vision.depth} blocks; a visual token is {side}x{side} pixels"
        if (audio := model.config.audio_config) is not None:
            facts["audio"] = f"{audio.depth} blocks of {audio.embed_dim}"
    return facts


def _layer(spec: LayerSpec) -> str:
    if not isinstance(spec, KVSpec):
        return "recurrent"
    window = f", window {spec.window}" if spec.window else ""
    return f"attention ({spec.num_kv_heads} KV heads of {spec.key_dim}{window})"


def _processor(processor: Processor) -> dict[str, str]:
    tokens = f"{processor.tokenizer.vocab_size:,} tokens, {processor.backend} backend"
    ends = ", ".join(
        repr(processor.tokenizer.id_to_token(token_id))
        for token_id in sorted(processor.eos_token_ids)
    )
    template = processor.chat_template_place if processor.chat_template else "none"
    return {
        "tokenizer": f"{tokens}; a text ends at {ends or 'nothing'}",
        "chat template": template,
    }
