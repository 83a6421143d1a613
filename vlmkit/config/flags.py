"""Command-line flags laid over a config file.

A flag names a generation parameter or a field of the run. Where the file has its own list of stages
the flag changes the one stage it belongs to; where the file has none, the flags make the list.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from vlmkit.config.params import GenerationParams, pipeline_from_params
from vlmkit.config.tree import DEFAULT, Node, Origin, find, merge, merge_all, replace_at, to_node
from vlmkit.configbase import StageConfig
from vlmkit.errors import VlmkitError


class Place(NamedTuple):
    """Where a parameter lives: a field of the stage of some kind, in a list of stages."""

    section: str
    kind: str
    field: str


RUN_FIELDS: Mapping[str, tuple[str, ...]] = {
    "model": ("model",),
    "revision": ("revision",),
    "dtype": ("dtype",),
    "prompt": ("prompt",),
    "image": ("images",),
    "audio": ("audio",),
    "enable_thinking": ("template", "enable_thinking"),
    "continue_final_message": ("template", "continue_final_message"),
    "prefill_response": ("template", "prefill_response"),
    "seed": ("seed",),
    "skip_special_tokens": ("skip_special_tokens",),
    "resize_shape": ("preprocess", "resize_shape"),
    "prefill_step_size": ("prefill", "step_size"),
}
CACHE_FLAGS = frozenset({"kv_bits", "kv_group_size", "max_kv_size"})
STAGE_FIELDS: Mapping[str, Place] = {
    "temperature": Place("sampling", "temperature", "temperature"),
    "top_p": Place("sampling", "top_p", "p"),
    "top_k": Place("sampling", "top_k", "k"),
    "min_p": Place("sampling", "min_p", "p"),
    "repetition_penalty": Place("sampling", "repetition_penalty", "penalty"),
    "repetition_context_size": Place("sampling", "repetition_penalty", "context_size"),
    "presence_penalty": Place("sampling", "presence_penalty", "penalty"),
    "frequency_penalty": Place("sampling", "frequency_penalty", "penalty"),
    "max_tokens": Place("stopping", "max_tokens", "max_tokens"),
    "eos_tokens": Place("stopping", "eos", "tokens"),
    "stop": Place("stopping", "stop_sequences", "sequences"),
    "thinking_budget": Place("stopping", "thinking_budget", "budget"),
}


def apply_flags(file: Node, given: Mapping[str, Any], defaults: Node) -> Node:
    """Lay defaults, the file and the flags on one another.

    Args:
        file: the file's tree; an empty mapping without a file.
        given: flags by parameter name, only those really given.
        defaults: every default of a run.

    Raises:
        VlmkitError: a value out of range; a sampling flag whose stage the file's chain lacks.
    """
    params = {name: value for name, value in given.items() if name in GenerationParams.model_fields}
    try:
        pipeline = written(pipeline_from_params(**params))
    except VlmkitError as error:
        name = str(error).split()[0].partition(".")[0]
        if name not in params:
            raise
        raise VlmkitError(f"{_flag(name)}: {error}") from None
    tree = merge_all([defaults, to_node(pipeline, DEFAULT), file])
    cache_flags = sorted(CACHE_FLAGS & params.keys())
    if cache_flags:
        origin = Origin(" ".join(_flag(name) for name in cache_flags))
        tree = replace_at(tree, ("cache",), to_node(pipeline["cache"], origin))
    for name, path in RUN_FIELDS.items():
        if name in given:
            tree = merge(tree, _nest(path, to_node(given[name], Origin(_flag(name)))))
    for name in STAGE_FIELDS.keys() & params.keys():
        is_own = find(file, (STAGE_FIELDS[name].section,)) is not None
        tree = _set_in_stage(tree, name, params[name], is_own=is_own)
    return tree


def written(config: StageConfig) -> dict[str, Any]:
    """A config as someone would write it: every section, and in it only what was set."""
    return {name: _written(getattr(config, name)) for name in type(config).model_fields}


def _written(value: Any) -> Any:
    if isinstance(value, StageConfig):
        names = [
            name
            for name in type(value).model_fields
            if name == "kind" or name in value.model_fields_set
        ]
        return {name: _written(getattr(value, name)) for name in names}
    if isinstance(value, tuple):
        return [_written(item) for item in value]
    return value


def _set_in_stage(tree: Node, name: str, value: Any, *, is_own: bool) -> Node:
    """Set a parameter in the one stage it belongs to; ``is_own``: the file lists the stages."""
    place, origin = STAGE_FIELDS[name], Origin(_flag(name))
    stages = tree.value[place.section].value
    if not isinstance(stages, list):
        return tree  # not valid; validation will say so
    found = [index for index, stage in enumerate(stages) if _kind(stage) == place.kind]
    if len(found) == 1:
        path = (place.section, found[0])
        field = Node({place.field: to_node(value, origin)}, stages[found[0]].origin)
        return replace_at(tree, path, merge(stages[found[0]], field))
    if not found and not is_own:
        return tree  # the parameter's value means "off": no stage was made for it
    if not found and place.section == "stopping":
        stage = to_node({"kind": place.kind, place.field: value}, origin)
        return replace_at(tree, (place.section,), Node([*stages, stage], origin))
    many = f"has {len(found)} {place.kind} stages" if found else f"has no {place.kind} stage"
    raise VlmkitError(
        f"{_flag(name)}: the config's {place.section} list {many}, and its order matters: "
        f"change the list, or override one entry, as in {place.section}.0.{place.field}={value}"
    )


def _kind(stage: Node) -> Any:
    kind = find(stage, ("kind",))
    return None if kind is None else kind.value


def _nest(path: tuple[str, ...], node: Node) -> Node:
    for key in reversed(path):
        node = Node({key: node}, node.origin)
    return node


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")
