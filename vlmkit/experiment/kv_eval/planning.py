"""From a kv-eval file to an experiment whose arms are the policies."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from vlmkit.cache import CacheConfig, DenseConfig
from vlmkit.config.run import RunConfig
from vlmkit.config.tree import DEFAULT, Node, find, merge, to_node
from vlmkit.config.validate import error_at, validate
from vlmkit.config.yaml_tree import load_yaml, parse_overrides
from vlmkit.errors import VlmkitError, nearest
from vlmkit.experiment.files import Experiment, load_experiment
from vlmkit.experiment.kv_eval.config import KvEvalConfig, kv_eval_keys

DENSE = "dense"
"""The name of the policy that is the baseline where none is named."""

_SHARED = ("base", "dataset", "seeds", "metrics", "limits")
_CACHE: TypeAdapter[CacheConfig] = TypeAdapter(CacheConfig)


def load_kv_eval(
    path: str | os.PathLike[str] | Node,
    *,
    overrides: Sequence[str] = (),
    trust_code: bool = False,
) -> Experiment:
    """Read a kv-eval file as an experiment, one arm per policy, the baseline first.

    Args:
        path: a YAML file, or the tree of one.
        overrides: ``a.b=c`` strings. A key of the file (``limits.samples=10``) changes it, another
            one its base run (``prefill.step_size=64``).
        trust_code: let ``kind: external`` name any ``module:function``.

    Raises:
        VlmkitError: names file, line and key, and what would work.

    Example:
        >>> from vlmkit.config.document import parse_yaml
        >>> text = "dataset: {kind: shapes}\\npolicies: {window: {kind: rotating, max_size: 64}}"
        >>> study = load_kv_eval(parse_yaml(text, "study.yaml"))
        >>> [arm.name for arm in study.arms], study.baseline
        (['dense', 'window'], 'dense')
    """
    file = path if isinstance(path, Node) else load_yaml(path)
    own, base = _split(overrides)
    tree = merge(file, parse_overrides(own))
    config = validate(KvEvalConfig, tree)
    baseline = _baseline(tree, config)
    keys = {key: node for key in _SHARED if (node := find(tree, (key,))) is not None}
    keys["baseline"] = to_node(baseline, DEFAULT)
    keys["arms"] = Node(_arms(tree, config, baseline), tree.origin)
    found = load_experiment(Node(keys, tree.origin), overrides=base, trust_code=trust_code)
    name = "kv-eval" if isinstance(path, Node) else Path(path).stem
    return found._replace(name=name, lockstep=config.lockstep.model_dump(mode="json"))


def _split(overrides: Sequence[str]) -> tuple[list[str], list[str]]:
    own: list[str] = []
    base: list[str] = []
    for text in overrides:
        name = text.partition("=")[0].strip()
        key = name.partition(".")[0]
        if key == "cache":
            raise VlmkitError(
                f"{text}: cache: comes from 'policies'; write policies.NAME{name[len(key) :]}=…"
            )
        known = kv_eval_keys() | RunConfig.model_fields.keys()
        if key.isidentifier() and key not in known:
            raise VlmkitError(f"{text}: {key}: unknown key{nearest(key, known)}")
        (own if key in kv_eval_keys() else base).append(text)
    return own, base


def _baseline(tree: Node, config: KvEvalConfig) -> str:
    if config.baseline is None:
        return DENSE
    if config.baseline in config.policies or config.baseline == DENSE:
        return config.baseline
    known = ", ".join(map(repr, config.policies))
    raise error_at(
        tree, ("baseline",), f"baseline: {config.baseline!r} is no policy; the policies are {known}"
    )


def _arms(tree: Node, config: KvEvalConfig, baseline: str) -> dict[str | int, Node]:
    """Each policy as a patch that leaves nothing of the base's own cache."""
    policies: dict[str, Any] = {name: _whole(one) for name, one in config.policies.items()}
    if baseline == DENSE:
        policies = {DENSE: policies.get(DENSE, _whole(DenseConfig())), **policies}
    if len(policies) < 2:
        raise error_at(
            tree, ("policies",), f"policies: {baseline!r} alone; give one to compare with it"
        )
    arms: dict[str | int, Node] = {}
    for name in [baseline, *(other for other in policies if other != baseline)]:
        written = find(tree, ("policies", name))
        origin = DEFAULT if written is None else written.origin
        whole = to_node(policies[name], origin)
        cache = whole if written is None else merge(whole, written)
        arms[name] = Node({"cache": cache}, origin)
    return arms


def _whole(policy: CacheConfig) -> Any:
    return _CACHE.dump_python(policy, mode="json")
