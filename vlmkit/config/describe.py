"""The effective values of a run, stage by stage, each with the place it came from."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from vlmkit.config.recommended import FILE, describe_recommendation
from vlmkit.config.run import ResolvedRun
from vlmkit.config.tree import DEFAULT, KeyPath, Node, Origin, find

STAGES = (
    ("model", ("model", "revision", "dtype")),
    ("request", ("prompt", "images", "audio", "template")),
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


def recommended_sampling(run: ResolvedRun) -> str | None:
    """Say what sampling the run's checkpoint recommends, where the run does not take it.

    Example:
        >>> from vlmkit.config.run import load_run
        >>> recommended_sampling(load_run()) is None  # the embedded model asks for greedy
        True
    """
    sampling = find(run.tree, ("sampling",))
    if sampling is not None and sampling.origin.source.endswith(FILE):
        return None
    return describe_recommendation(run.config.model, run.config.revision)


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
