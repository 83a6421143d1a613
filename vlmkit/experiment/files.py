"""From an experiment file and overrides to a validated experiment whose arms are resolved."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from vlmkit.config.document import parse_yaml
from vlmkit.config.run import RunConfig
from vlmkit.config.tree import Node, Origin, find, merge, to_node
from vlmkit.config.validate import error_at, validate
from vlmkit.config.yaml_tree import load_yaml, parse_overrides
from vlmkit.declare.external import External
from vlmkit.errors import VlmkitError, nearest
from vlmkit.experiment.arms import Arm, Axis, build_arms, count_arms, read_axes, read_base
from vlmkit.experiment.config import ExperimentConfig, experiment_keys


class Experiment(NamedTuple):
    """A validated experiment."""

    config: ExperimentConfig
    tree: Node  # knows where every value was written
    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    baseline: str  # the name of an arm
    name: str  # of its file, without the ending
    folder: Path  # that the data set's paths are relative to
    metrics_folder: Path  # that paths of scorers are relative to
    lockstep: dict[str, Any] | None = None  # how arms are compared token by token; None: not

    @property
    def units_per_sample(self) -> int:
        """Responses to each sample."""
        return len(self.arms) * len(self.seeds)


def load_experiment(
    path: str | os.PathLike[str] | Node,
    *,
    overrides: Sequence[str] = (),
    trust_code: bool = False,
) -> Experiment:
    """Read an experiment and resolve its arms; nothing is loaded or computed yet.

    Args:
        path: a YAML file, or the tree of one.
        overrides: ``a.b=c`` strings. A key of the experiment (``limits.samples=10``) changes it,
            another one its base run (``cache.kind=affine``); several values, as in
            ``sampling.0.temperature=0.5,1.0``, are another dimension of the grid.
        trust_code: let ``kind: external`` name any ``module:function``, which is imported and
            called. Off by default, as in :func:`vlmkit.config.run.load_run`.

    Raises:
        VlmkitError: names file, line and key, and what would work.

    Example:
        >>> from vlmkit.config.document import parse_yaml
        >>> text = "dataset: {kind: shapes}\\narms: {greedy: {}, cold: {sampling: []}}"
        >>> tree = parse_yaml(text, "study.yaml")
        >>> [arm.name for arm in load_experiment(tree, overrides=["prefill.step_size=1,2"]).arms]
        ['greedy, step_size=1', 'greedy, step_size=2', 'cold, step_size=1', 'cold, step_size=2']
    """
    file = path if isinstance(path, Node) else load_yaml(path)
    own, base, sweeps = split_overrides(overrides)
    tree = merge(file, own)
    config = validate(ExperimentConfig, tree)
    if not trust_code:
        _refuse_code(tree, config)
    axes = [*read_axes(find(tree, ("grid",))), *sweeps]
    patches = find(tree, ("arms",))
    named: dict[str, Node] = {} if patches is None else patches.value
    _check_size(tree, config, count_arms(named, axes))
    start = merge(read_base(find(tree, ("base",))), base)
    arms = build_arms(start, named, axes, trust_code=trust_code)
    return Experiment(
        config=config,
        tree=tree,
        arms=tuple(arms),
        seeds=_seeds(tree, config, start),
        baseline=_baseline(tree, config, arms),
        name="experiment" if isinstance(path, Node) else Path(path).stem,
        folder=_folder(tree, "dataset", path),
        metrics_folder=_folder(tree, "metrics", path),
    )


def split_overrides(overrides: Sequence[str]) -> tuple[Node, Node, list[Axis]]:
    """Sort overrides into those of the experiment, those of its base run, and sweeps.

    Example:
        >>> own, base, sweeps = split_overrides(["seeds=[1,2]", "cache.bits=8", "seed=1,2"])
        >>> list(own.value), list(base.value), [label for label, _ in sweeps[0].values]
        (['seeds'], ['cache'], ['1', '2'])
    """
    own, base, sweeps = [], [], []
    for text in overrides:
        name, _, value = text.partition("=")
        key = name.strip().partition(".")[0]
        values = _sweep(value, text)
        known = experiment_keys() | RunConfig.model_fields.keys()
        if key.isidentifier() and key not in known:
            raise VlmkitError(f"{text}: {key}: unknown key{nearest(key, known)}")
        if key in experiment_keys():
            own.append(text)
        elif values is None:
            base.append(text)
        else:
            key_path = to_node({name.strip(): values}, Origin(text))
            sweeps += read_axes(key_path)
    return parse_overrides(own), parse_overrides(base), sweeps


def _sweep(value: str, source: str) -> list[Any] | None:
    """The values of ``1,2,3``; None for a single one, also one that holds commas."""
    if "," not in value or not isinstance(parse_yaml(value, source).value, (str, int, float)):
        return None
    listed = parse_yaml(f"[{value}]", source).value
    return [item.value for item in listed] if len(listed) > 1 else None


def _check_size(tree: Node, config: ExperimentConfig, num_arms: int) -> None:
    """Refuse what can be no intention, before its arms are made."""
    number = num_arms * len(config.seeds or (0,))
    if number > config.limits.units:
        raise error_at(
            tree,
            ("grid",),
            f"grid: {number:,} responses to each sample are more than "
            f"limits.units={config.limits.units:,}; give fewer values, or raise the limit",
        )


def _refuse_code(tree: Node, config: ExperimentConfig) -> None:
    for name, metric in config.metrics.items():
        if isinstance(metric, External) and metric.is_code:
            raise error_at(
                tree,
                ("metrics", name, "factory"),
                f"metrics.{name}.factory: {metric.factory!r} names code to run; if you "
                "trust it, add --trust-code (in Python: trust_code=True), or name an installed "
                "entry point",
            )


def _seeds(tree: Node, config: ExperimentConfig, base: Node) -> tuple[int, ...]:
    if config.seeds is None:
        own = find(base, ("seed",))
        return (0 if own is None else int(own.value),)
    twice = [seed for seed in config.seeds if config.seeds.count(seed) > 1]
    if twice:
        raise error_at(tree, ("seeds",), f"seeds: {twice[0]} is given twice; give each once")
    return config.seeds


def _baseline(tree: Node, config: ExperimentConfig, arms: Sequence[Arm]) -> str:
    names = [arm.name for arm in arms]
    if config.baseline is None:
        return names[0]
    if config.baseline not in names:
        # An arm that a grid multiplied: its first combination.
        for name in names:
            if name.startswith(f"{config.baseline}, "):
                return name
        shown = ", ".join(repr(name) for name in names[:8]) + (", …" if len(names) > 8 else "")
        raise error_at(
            tree,
            ("baseline",),
            f"baseline: {config.baseline!r} is no arm; the arms are {shown}",
        )
    return config.baseline


def _folder(tree: Node, key: str, path: str | os.PathLike[str] | Node) -> Path:
    """The folder of the file that has a key."""
    node = find(tree, (key,))
    for origin in () if node is None else _origins(node):
        if origin.is_file:
            return Path(origin.source).parent
    return Path() if isinstance(path, Node) else Path(path).parent


def _origins(node: Node) -> list[Origin]:
    inside = node.value.values() if isinstance(node.value, dict) else ()
    return [node.origin, *(child.origin for child in inside)]
