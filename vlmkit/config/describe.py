"""The effective values of a run, stage by stage, each with the place it came from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from vlmkit.checkpoints.text_part import has_senses, text_part_note
from vlmkit.config.locate import located
from vlmkit.config.recommended import FILE, describe_recommendation
from vlmkit.config.run import ResolvedRun
from vlmkit.config.tree import DEFAULT, KeyPath, Node, Origin, find, replace_at, to_node
from vlmkit.config.validate import nearest_origin
from vlmkit.errors import VlmkitError
from vlmkit.files import find_file, find_folder
from vlmkit.loading import resolve_checkpoint
from vlmkit.loading.resolve import EMBEDDED_MODELS
from vlmkit.processors import load_processor
from vlmkit.processors.lookup import token_lookup
from vlmkit.tokens.lookup import has_text, resolve_tokens, token_fields

STAGES = (
    ("model", ("model", "model_source", "revision", "dtype", "backend")),
    ("request", ("prompt", "messages", "images", "audio", "video", "template")),
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

    if name not in EMBEDDED_MODELS and not find_file(Path(os.path.expanduser(name), "config.json")):
        return []
    try:
        config = read_config(resolve_checkpoint(name))
    except VlmkitError as error:
        return [str(error)]
    if find_family(config) is not None or not has_senses(config):
        return []
    return [text_part_note(str(config["model_type"]))]


def with_token_ids(run: ResolvedRun) -> ResolvedRun:
    """Replace tokens that are written as text by their ids, where the model's folder is local.

    Nothing is fetched for it: with a hub id the text stays. The weights are not read.

    Raises:
        VlmkitError: text that is no token of the model; a tokenizer that cannot be read.

    Example:
        >>> from vlmkit.config.run import load_run
        >>> run = load_run(overrides=["sampling=[{kind: suppress_tokens, token_ids: [eos]}]"])
        >>> with_token_ids(run).config.sampling[0].token_ids
        (625, 627)
    """
    texts = [path for path, value in token_fields(run.config) if has_text(value)]
    name = run.config.model
    if not texts or not (name in EMBEDDED_MODELS or find_folder(os.path.expanduser(name))):
        return run
    with located(run.tree, ("model",)):
        lookup = token_lookup(load_processor(resolve_checkpoint(name)))
    with located(run.tree):
        config = resolve_tokens(run.config, lookup)
    values, tree = dict(token_fields(config)), run.tree
    for path in texts:
        tree = replace_at(tree, path, to_node(values[path], nearest_origin(tree, path)))
    return run._replace(config=config, tree=tree)


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
    if node is None and path and str(path[-1]).isdecimal():  # JSON has no keys that are numbers
        node = find(tree, (*path[:-1], int(path[-1])))
    return DEFAULT if node is None else node.origin
