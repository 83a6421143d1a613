"""Command-line flags laid over a config file.

A flag names a generation parameter or a field of the run. Where the file has its own list of stages
the flag changes the one stage it belongs to; where the file has none, the flags make the list.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlmkit.config.params import GenerationParams, pipeline_from_params
from vlmkit.config.tree import DEFAULT, Node, Origin, find, merge, merge_all, replace_at, to_node
from vlmkit.declare.configbase import StageConfig
from vlmkit.errors import VlmkitError
from vlmkit.names.places import RUN_FIELDS, STAGE_FIELDS

CACHE_FLAGS = frozenset({"kv_bits", "kv_group_size", "max_kv_size"})


def apply_flags(
    file: Node, given: Mapping[str, Any], defaults: Node, *, is_search: bool = False
) -> Node:
    """Lay defaults, the file and the flags on one another.

    Args:
        file: the file's tree; an empty mapping without a file.
        given: flags by parameter name, only those really given.
        defaults: every default of a run.
        is_search: the run has a search, from wherever.

    Raises:
        VlmkitError: a value out of range; a sampling flag whose stage the file's chain lacks; a
            flag that would do nothing without another.
    """
    params = {name: value for name, value in given.items() if name in GenerationParams.model_fields}
    try:
        pipeline = written(pipeline_from_params(**params))
    except VlmkitError as error:
        name = next(iter(error.path), None)
        if not isinstance(name, str) or name not in params:
            raise
        raise VlmkitError(f"{_flag(name)}: {error}", path=error.path) from None
    if is_search and "temperature" not in params:
        # Nobody asked for the greedy stage of the default temperature: a search chooses by itself,
        # from what the other flags leave.
        *stages, _ = written(pipeline_from_params(**params, temperature=1.0))["sampling"]
        pipeline["sampling"] = stages or pipeline["sampling"]
    tree = merge_all([defaults, to_node(pipeline, DEFAULT), file])
    cache_flags = sorted(CACHE_FLAGS & params.keys())
    if "kv_group_size" in cache_flags and "kv_bits" not in cache_flags:
        raise VlmkitError(
            "--kv-group-size: the cache is quantized with --kv-bits only: add it, or override "
            f"cache.group_size={params['kv_group_size']}"
        )
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
    if not found and not is_own and name == "repetition_context_size":
        raise VlmkitError(f"{_flag(name)}: no penalty looks back: add --repetition-penalty R")
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
