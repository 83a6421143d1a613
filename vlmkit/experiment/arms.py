"""From a base run, patches and a grid to the arms of an experiment, each a whole validated run."""

from __future__ import annotations

import itertools
import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vlmkit.config.run import ResolvedRun, RunConfig, load_run
from vlmkit.config.tree import (
    DEFAULT,
    KeyPath,
    Node,
    Origin,
    find,
    format_path,
    merge,
    merge_all,
    to_node,
    to_plain,
)
from vlmkit.config.validate import error_at
from vlmkit.config.yaml_tree import INCLUDE, load_yaml, parse_path
from vlmkit.contrast import ContrastiveDecodingConfig
from vlmkit.errors import VlmkitError
from vlmkit.loading.resolve import EMBEDDED_MODELS

QUESTION = "{question}"
"""Stands in an arm's prompt where the sample's question goes."""

MAX_ARMS = 1_000
_FROM_DATA = ("images", "audio", "video")


class Arm(NamedTuple):
    """One pipeline of an experiment."""

    name: str
    config: RunConfig  # its prompt holds the place of the question; its seed counts for nothing
    tree: Node  # knows where every value was written
    origin: Origin  # of what it changes

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides over this arm's tokens, but sample and seed."""
        return self.config.model_dump(mode="json", exclude={"seed", *_FROM_DATA})


class Axis(NamedTuple):
    """One dimension of a grid."""

    path: KeyPath
    values: tuple[tuple[str, Node], ...]  # a label and the value


def read_base(node: Node | None) -> Node:
    """Read the base run: a file, several of which later ones win, or keys with ``include``.

    Args:
        node: the experiment's ``base``; None: all defaults.

    Raises:
        VlmkitError: a file that is not there or is no config.
    """
    if node is None:
        return to_node({}, DEFAULT)
    if isinstance(node.value, dict):
        own = dict(node.value)
        files = own.pop(INCLUDE, None)
        return merge(read_base(files), _nested(node._replace(value=own)))
    entries = node.value if isinstance(node.value, list) else [node]
    return merge_all([to_node({}, DEFAULT), *(_read_file(entry) for entry in entries)])


def _read_file(entry: Node) -> Node:
    if not isinstance(entry.value, str):
        raise VlmkitError(
            f"{entry.origin}: base: needs a file such as runs/greedy.yaml, not {to_plain(entry)!r}"
        )
    if entry.value.startswith("vlmkit:") or not entry.origin.is_file:
        return load_yaml(entry.value)
    try:
        folder = Path(entry.origin.source).parent
        return load_yaml(folder / entry.value, home=folder)
    except VlmkitError as error:
        raise VlmkitError(f"{entry.origin}: base: {error}") from error


def read_axes(node: Node | None) -> list[Axis]:
    """Read a grid: each dotted path with its values, and a label for each value.

    Raises:
        VlmkitError: a key that is no path, no value, or two values of one label.
    """
    axes = []
    for key, values in ({} if node is None else node.value).items():
        path = parse_path(str(key))
        if not path:
            raise VlmkitError(f"{values.origin}: grid: {key!r} is no path such as sampling.0.p")
        if not isinstance(values.value, (list, dict)) or not values.value:
            raise VlmkitError(f"{values.origin}: grid.{key}: needs at least one value, in a list")
        if isinstance(values.value, dict):
            named = [(str(label), value) for label, value in values.value.items()]
        else:
            named = list(zip(_labels(values.value), values.value, strict=True))
        _check_labels(str(key), values.origin, [label for label, _ in named])
        axes.append(Axis(path, tuple(named)))
    return axes


def _check_labels(key: str, origin: Origin, labels: Sequence[str]) -> None:
    for label, number in Counter(labels).items():
        if number > 1:
            raise VlmkitError(
                f"{origin}: grid.{key}: {number} values are called {label!r}; leave one out, or "
                "use seeds for several responses of one"
            )


def _labels(values: Sequence[Node]) -> list[str]:
    """Short names that tell the values of one axis apart."""
    plain = [to_plain(value) for value in values]
    short = [_short(value) for value in plain]
    counts = Counter(short)
    return [
        label if counts[label] == 1 else json.dumps(value, ensure_ascii=False)
        for label, value in zip(short, plain, strict=True)
    ]


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("kind") or json.dumps(value, ensure_ascii=False))
    if isinstance(value, list):
        return "+".join(_short(item) for item in value) or "none"
    return value if isinstance(value, str) else json.dumps(value)


def count_arms(patches: Mapping[str, Node], axes: Sequence[Axis]) -> int:
    """How many arms there will be, without making them."""
    return max(len(patches), 1) * math.prod(len(axis.values) for axis in axes)


def build_arms(
    base: Node,
    patches: Mapping[str, Node],
    axes: Sequence[Axis],
    *,
    trust_code: bool = False,
) -> list[Arm]:
    """Resolve and validate every arm.

    Args:
        base: from :func:`read_base`.
        patches: what each arm changes, by its name; none: the base is the only arm.
        axes: the grid that multiplies them.
        trust_code: let ``kind: external`` name any ``module:function``.

    Raises:
        VlmkitError: an arm that is no valid run, names what the data set gives, or equals another.
    """
    if (number := count_arms(patches, axes)) > MAX_ARMS:
        raise VlmkitError(f"grid: {number:,} arms; at most {MAX_ARMS:,} are run: give fewer values")
    arms = [_build_arm(*entry, base, trust_code) for entry in _combinations(patches, axes)]
    _check_different(arms)
    return arms


def _combinations(
    patches: Mapping[str, Node], axes: Sequence[Axis]
) -> Iterator[tuple[str, list[Node]]]:
    short = Counter(str(axis.path[-1]) for axis in axes)
    keys = [
        str(axis.path[-1]) if short[str(axis.path[-1])] == 1 else format_path(axis.path)
        for axis in axes
    ]
    for name, patch in (dict(patches) or {"": to_node({}, DEFAULT)}).items():
        for values in itertools.product(*(axis.values for axis in axes)):
            labels = [f"{key}={label}" for key, (label, _) in zip(keys, values, strict=True)]
            layers = [_at(axis.path, value) for axis, (_, value) in zip(axes, values, strict=True)]
            yield ", ".join([*([name] if name else []), *labels]) or "base", [patch, *layers]


def _at(path: KeyPath, node: Node) -> Node:
    for key in reversed(path):
        node = Node({key: node}, node.origin)
    return node


def _nested(patch: Node) -> Node:
    """A mapping whose dotted keys are written out."""
    layers = [_at(parse_path(str(key)) or (key,), value) for key, value in patch.value.items()]
    return merge_all([Node({}, patch.origin), *layers])


def _build_arm(name: str, layers: Sequence[Node], base: Node, trust_code: bool) -> Arm:
    nested = [_nested(layer) for layer in layers]
    patch = merge_all(nested)
    _check_patch(name, patch)
    try:
        # Layer by layer: a patch that edits a list must find that of the layer before.
        start = _without_other_question(base, patch)
        run = load_run(merge_all([start, *nested]), trust_code=trust_code)
    except VlmkitError as error:
        raise VlmkitError(f"{error} (in the arm {name!r})", path=error.path) from error
    asked = {"prompt": _asked(name, run), "images": (), "audio": (), "video": ()}
    config = _with_whole_paths(run.config.model_copy(update=asked))
    return Arm(name, config, run.tree, patch.origin)


def _with_whole_paths(config: RunConfig) -> RunConfig:
    """Name folders of checkpoints so that the arm is the same wherever one stands."""
    changed: dict[str, Any] = {"model": _whole_path(config.model)}
    contrast = config.contrast
    if isinstance(contrast, ContrastiveDecodingConfig):
        amateur = {"amateur": _whole_path(contrast.amateur)}
        changed["contrast"] = contrast.model_copy(update=amateur)
    return config.model_copy(update=changed)


def _whole_path(name: str) -> str:
    if name in EMBEDDED_MODELS:
        return name
    path = os.path.expanduser(name)
    return os.path.abspath(path) if os.path.isdir(path) else name


def _without_other_question(base: Node, patch: Node) -> Node:
    """The base without its prompt where an arm gives messages, and the other way round."""
    for own, other in (("messages", "prompt"), ("prompt", "messages")):
        if own in patch.value and other not in patch.value:
            left = {key: node for key, node in base.value.items() if key != other}
            return base._replace(value=left)
    return base


def _asked(name: str, run: ResolvedRun) -> str:
    """The prompt with the place of the question; empty where messages have it."""
    config = run.config
    if not config.messages:
        return config.prompt if QUESTION in config.prompt else QUESTION
    if not any(QUESTION in message.content for message in config.messages):
        raise error_at(
            run.tree,
            ("messages",),
            f"messages: the arm {name!r} asks every sample the same; write {QUESTION} where the "
            "sample's question goes",
        )
    return ""


def _check_patch(name: str, patch: Node) -> None:
    for key in ("seed", *_FROM_DATA):
        if (node := find(patch, (key,))) is not None:
            source = "seeds" if key == "seed" else "dataset"
            raise VlmkitError(
                f"{node.origin}: {key}: comes from '{source}' of the experiment; leave it out of "
                f"the arm {name!r}"
            )
    prompt = find(patch, ("prompt",))
    if prompt is not None and QUESTION not in str(prompt.value):
        raise VlmkitError(
            f"{prompt.origin}: prompt: the arm {name!r} asks every sample the same; write "
            f"{QUESTION} where the sample's question goes"
        )


def _check_different(arms: Sequence[Arm]) -> None:
    found: dict[str, Arm] = {}
    for arm in arms:
        key = json.dumps(arm.identity, sort_keys=True)
        if (other := found.setdefault(key, arm)) is not arm:
            where = "" if arm.origin == DEFAULT else f"{arm.origin}: "
            raise VlmkitError(
                f"{where}arms {other.name!r} and {arm.name!r} are the same pipeline; leave one "
                "out, or use seeds for several responses of one"
            )
