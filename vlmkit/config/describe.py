"""The effective values of a run, stage by stage, each with the place it came from."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from vlmkit.config.run import ResolvedRun
from vlmkit.config.tree import DEFAULT, KeyPath, Node, Origin, find
from vlmkit.errors import VlmkitError
from vlmkit.loading.resolve import EMBEDDED_MODEL
from vlmkit.text_part import has_senses, text_part_note

STAGES = (
    ("model", ("model", "revision", "dtype")),
    ("request", ("prompt", "messages", "images", "audio", "template")),
    ("preprocess", ("preprocess",)),
    ("prefill", ("prefill",)),
    ("cache", ("cache",)),
    ("contrast", ("contrast",)),
    ("sampling", ("sampling", "seed")),
    ("search", ("search",)),
    ("stopping", ("stopping", "reproducible")),
    ("text", ("skip_special_tokens",)),
)


class Setting(NamedTuple):
    """One effective value. ``path`` is also what to write before ``=`` to override it."""

    stage: str
    path: KeyPath
    value: Any
    origin: Origin


def describe_run(run: ResolvedRun) -> list[Setting]:
    """List every effective value of a run, in the order of the stages.

    Example:
        >>> from vlmkit.config.run import load_run
        >>> settings = describe_run(load_run(overrides=["seed=3"]))
        >>> [(s.value, str(s.origin)) for s in settings if s.path == ("seed",)]
        [(3, 'seed=3')]
    """
    values = run.config.model_dump(mode="json")
    return [
        Setting(stage, path, value, _origin(run.tree, path))
        for stage, names in STAGES
        for name in names
        for path, value in _leaves((name,), values[name])
    ]


def describe_checkpoint(name: str) -> list[str]:
    """Say what of a checkpoint cannot run, where it is on this machine: nothing is fetched.

    Args:
        name: the ``model`` of a run.

    Example:
        >>> describe_checkpoint("shapes")
        []
    """
    from vlmkit.loading import read_config, resolve_checkpoint
    from vlmkit.models.families import find_family

    if name != EMBEDDED_MODEL and not (Path(name).expanduser() / "config.json").is_file():
        return []
    try:
        config = read_config(resolve_checkpoint(name))
    except VlmkitError as error:
        return [str(error)]
    if find_family(config) is not None or not has_senses(config):
        return []
    return [text_part_note(str(config["model_type"]))]


def _leaves(path: KeyPath, value: Any) -> Iterator[tuple[KeyPath, Any]]:
    if isinstance(value, dict) and value:
        for key, item in sorted(value.items(), key=lambda pair: pair[0] != "kind"):
            yield from _leaves((*path, key), item)
    elif isinstance(value, list) and any(isinstance(item, (dict, list)) for item in value):
        for index, item in enumerate(value):
            yield from _leaves((*path, index), item)
    else:
        yield path, value


def _origin(tree: Node, path: KeyPath) -> Origin:
    node = find(tree, path)
    return DEFAULT if node is None else node.origin
