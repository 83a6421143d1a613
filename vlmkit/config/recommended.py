"""The sampling that a checkpoint recommends: its generation_config.json as a chain of stages.

Stages come in the order of transformers 5.24, ``GenerationMixin._get_logits_processor``
(generation/utils.py): penalties and rules on ids, then, where ``do_sample`` is true, temperature,
top_h, top_k, top_p, min_p, typical_p, epsilon and eta cutoff; else the argmax. What the file leaves
out, or gives as null, has transformers' default: no sampling, and ``top_k`` 50 with it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from vlmkit.checkpoints.checkpoint_json import MAX_FILE_BYTES
from vlmkit.config.tree import DEFAULT, Node, Origin, find, to_node
from vlmkit.config.validate import validate
from vlmkit.errors import VlmkitError, brief
from vlmkit.files import parse_json, read_file
from vlmkit.loading.resolve import find_small_file
from vlmkit.pipeline import PipelineConfig
from vlmkit.processors import Processor
from vlmkit.sampling import SamplerConfig

CHECKPOINT = "checkpoint"  # what to write for ``sampling``
FILE = "generation_config.json"

_DEFAULT_TOP_K = 50
# key: (the stage, its field, the value that is off, further fields)
_RULES: Mapping[str, tuple[str, str, Any, Mapping[str, Any]]] = {
    "repetition_penalty": ("repetition_penalty", "penalty", 1.0, {"context_size": None}),
    "no_repeat_ngram_size": ("no_repeat_ngram", "n", 0, {"context_size": None}),
    "min_new_tokens": ("min_new_tokens", "num_tokens", 0, {}),
    "suppress_tokens": ("suppress_tokens", "token_ids", [], {}),
    "begin_suppress_tokens": ("min_new_tokens", "token_ids", [], {"num_tokens": 1}),
}
_CUTS: Mapping[str, tuple[str, str, Any, Mapping[str, Any]]] = {
    "temperature": ("temperature", "temperature", 1.0, {}),
    "top_h": ("top_h", "h", None, {}),
    "top_k": ("top_k", "k", 0, {"ties": "all"}),
    "top_p": ("top_p", "p", 1.0, {}),
    "min_p": ("min_p", "p", 0.0, {}),
    "typical_p": ("typical_p", "p", 1.0, {"ties": "all"}),
    "epsilon_cutoff": ("epsilon_cutoff", "epsilon", 0.0, {}),
    "eta_cutoff": ("eta_cutoff", "epsilon", 0.0, {}),
}
# What changes tokens in transformers and is no stage here, with the values that are off.
_UNKNOWN: Mapping[str, tuple[Any, ...]] = {
    "guidance_scale": (1,),
    "sequence_bias": (),
    "encoder_repetition_penalty": (1,),
    "encoder_no_repeat_ngram_size": (0,),
    "bad_words_ids": (),
    "min_length": (0,),
    "forced_bos_token_id": (),
    "forced_eos_token_id": (),
    "exponential_decay_length_penalty": (),
    "watermarking_config": (),
}
_SEARCHES: Mapping[str, tuple[Any, ...]] = {
    "num_beams": (1,),
    "num_beam_groups": (1,),
    "penalty_alpha": (0,),
    "dola_layers": (),
}

# Parameters that make stages.
_SAMPLING_NAMES = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "repetition_context_size",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
)


class Recommended(NamedTuple):
    """One stage, and the key of generation_config.json that asks for it."""

    key: str
    stage: dict[str, Any]  # as it is written in YAML


def checkpoint_sampling(processor: Processor, *, search: bool = False) -> tuple[SamplerConfig, ...]:
    """Return the stages that a loaded checkpoint's generation_config.json recommends.

    Args:
        processor: of the checkpoint.
        search: the stages are for a search, so the argmax of ``do_sample: false`` is left out.

    Raises:
        VlmkitError: there is no such file, or a value in it has no stage here or is out of range;
            names file and key.

    Example:
        >>> from vlmkit import load
        >>> _, processor = load("shapes")
        >>> checkpoint_sampling(processor)
        (Greedy(kind='greedy'),)
    """
    path = processor.folder / FILE
    if not path.is_file():
        raise _no_file(str(processor.folder))
    return _validated(recommended_stages(path, search=search))


def recommended_stages(path: Path, *, search: bool) -> Node:
    """Return the stages of a generation_config.json as a tree; each value knows its key."""
    values = _read(path)
    stages = []
    for key, stage in _stages(values, str(path), search=search):
        note = " (transformers' default)" if values.get(key) is None else ""
        stages.append(to_node(stage, Origin(f"{path}: {key}{note}")))
    return Node(stages, Origin(str(path)))


def expand_checkpoint(tree: Node, model: Any, revision: Any, *, search: bool) -> Node:
    """Put the stages in place of ``sampling: checkpoint``; any other tree stays as it is.

    Args:
        tree: a run, or a part of one.
        model: the run's model: a folder, a hub id or ``shapes``.
        revision: of a hub id.
        search: the run has a search.

    Raises:
        VlmkitError: as :func:`checkpoint_sampling`, or the hub cannot serve the file.
    """
    sampling = find(tree, ("sampling",))
    if sampling is None or sampling.value != CHECKPOINT or not isinstance(model, str):
        return tree
    try:
        path = find_small_file(model, FILE, revision, fetch=True)
        if path is None:
            raise _no_file(repr(model))
    except VlmkitError as error:
        raise VlmkitError(f"{sampling.origin}: sampling: {error}") from error
    stages = recommended_stages(path, search=search)
    return tree._replace(value={**tree.value, "sampling": stages})


def describe_recommendation(model: str, revision: str | None) -> str | None:
    """Say in one line what a checkpoint recommends; None for nothing, or nothing but greedy.

    Looks at local files and the hub's cache only.
    """
    try:
        path = find_small_file(model, FILE, revision, fetch=False)
    except VlmkitError:  # what loading it says, whatever its sampling
        return None
    if path is None:
        return None
    try:
        stages = _validated(recommended_stages(path, search=False))
    except VlmkitError as error:
        return f"the checkpoint's own sampling cannot be used: {error}"
    kinds = [stage.kind for stage in stages]
    if kinds == ["greedy"]:
        return None
    return f"the checkpoint recommends {', '.join(kinds)}; take it with sampling: {CHECKPOINT}"


def check_sampling_choice(sampling: Any, params: Mapping[str, Any]) -> None:
    """Check the parameter ``sampling`` beside the others.

    Raises:
        VlmkitError: it is not ``"checkpoint"``, or another parameter would make stages too.

    Example:
        >>> check_sampling_choice("checkpoint", {"top_p": 0.7})
        Traceback (most recent call last):
        vlmkit.errors.VlmkitError: sampling='checkpoint' brings its own stages: leave out top_p
    """
    if sampling != CHECKPOINT:
        raise VlmkitError(
            f"sampling must be 'checkpoint', got {brief(sampling)}; give a list of stages in "
            "a PipelineConfig to vlmkit.api.stream_pipeline"
        )
    if others := [name for name in _SAMPLING_NAMES if params.get(name) is not None]:
        raise VlmkitError(
            f"sampling='checkpoint' brings its own stages: leave out {', '.join(others)}"
        )


def _validated(stages: Node) -> tuple[SamplerConfig, ...]:
    return validate(PipelineConfig, Node({"sampling": stages}, DEFAULT)).sampling


def _no_file(where: str) -> VlmkitError:
    return VlmkitError(
        f"{where} has no {FILE}, so it recommends no sampling; leave sampling out (greedy), or "
        "list the stages"
    )


def _read(path: Path) -> dict[str, Any]:
    try:
        values = parse_json(read_file(path, MAX_FILE_BYTES))
    except ValueError as error:
        raise VlmkitError(f"{path}: not valid JSON ({error})") from error
    except OSError as error:
        raise VlmkitError(f"{path}: cannot be read: {error.strerror}") from error
    if not isinstance(values, dict):
        raise VlmkitError(f"{path}: needs a JSON object, not {type(values).__name__}")
    return values


def _stages(values: Mapping[str, Any], path: str, *, search: bool) -> Iterator[Recommended]:
    do_sample = values.get("do_sample")
    if not isinstance(do_sample, bool | None):
        raise VlmkitError(f"{path}: do_sample: must be true or false, got {do_sample!r}")
    _refuse_others(values, path, search=search)
    for key, (kind, field, off, further) in _RULES.items():
        value = values.get(key)
        if value is None or (value == off and not isinstance(value, bool)):
            continue
        stage = {"kind": kind, field: value, **further}
        if key == "min_new_tokens":
            if (eos := values.get("eos_token_id")) is None:
                continue  # there, as here, nothing is held back then
            stage["token_ids"] = eos if isinstance(eos, list) else [eos]
        yield Recommended(key, stage)
    if not do_sample:
        if not search:
            yield Recommended("do_sample", {"kind": "greedy"})
        return
    for key, (kind, field, off, further) in _CUTS.items():
        value = values.get(key)
        if key == "top_k" and value is None:
            value = _DEFAULT_TOP_K
        if value is not None and (value != off or isinstance(value, bool)):
            yield Recommended(key, {"kind": kind, field: value, **further})


def _refuse_others(values: Mapping[str, Any], path: str, *, search: bool) -> None:
    for key, off in {**_UNKNOWN, **({} if search else _SEARCHES)}.items():
        value = values.get(key)
        if value is None or value in off:
            continue
        remedy = "give a search of your own" if key in _SEARCHES else "list the stages yourself"
        raise VlmkitError(f"{path}: {key}: {value!r} has no stage here; {remedy}")
