"""An experiment as its run directory remembers it, and what has changed around it since."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from vlmkit.config.run import load_run
from vlmkit.config.tree import Origin, to_node
from vlmkit.config.validate import validate
from vlmkit.errors import VlmkitError
from vlmkit.experiment.arms import Arm
from vlmkit.experiment.config import ExperimentConfig
from vlmkit.experiment.differences import compact, differences
from vlmkit.experiment.files import Experiment
from vlmkit.experiment.manifest import FILE, Manifest, read_manifest
from vlmkit.experiment.plan import Plan, make_plan
from vlmkit.experiment.runner import make_manifest


class Change(msgspec.Struct, kw_only=True, frozen=True):
    """Something that is not as it was when a run was made."""

    name: str  # "data", "code", "weights of shapes", "version of mlx", "device", …
    was: str | None  # None: it was not there
    now: str | None


class Restored(NamedTuple):
    """A run directory, ready to run again."""

    manifest: Manifest  # as it was written
    plan: Plan  # of all arms and all samples of the data set as they are now
    changes: list[Change]


def restore(folder: Path, *, trust_code: bool = False) -> Restored:
    """Build a run's experiment again from its manifest alone.

    Args:
        folder: the run directory. Nothing is written to it.
        trust_code: let the manifest name code to run.

    Raises:
        VlmkitError: no run directory, an arm that this version cannot run, or data or a checkpoint
            that are not there any more.
    """
    manifest = read_manifest(folder)
    plan = make_plan(_experiment(folder / FILE, manifest, trust_code))
    now = make_manifest(plan, sys.argv)
    return Restored(manifest, plan, find_changes(manifest, now))


def find_changes(was: Manifest, now: Manifest) -> list[Change]:
    """List what two manifests say differently of where tokens come from."""
    found = _changed("", was.hashes, now.hashes)
    for arm, config in was.arms.items():
        for key, value in differences(now.arms.get(arm, {}), config).items():
            before = _value_at(config, key)
            found.append(Change(name=f"arm {arm!r}: {key}", was=before, now=value))
    found += _changed("version of ", was.versions, now.versions)
    found += _changed("", {"device": was.device}, {"device": now.device})
    found += _changed("", {"system": was.system}, {"system": now.system})
    return found + _changed("git ", was.git, now.git)


def _changed(prefix: str, was: Mapping[str, str], now: Mapping[str, str]) -> list[Change]:
    names = [name for name in {**was, **now} if was.get(name) != now.get(name)]
    return [
        Change(name=prefix + name, was=was.get(name), now=now.get(name)) for name in sorted(names)
    ]


def _value_at(config: Any, key: str) -> str | None:
    for part in key.split("."):
        if isinstance(config, Mapping) and part in config:
            config = config[part]
        elif isinstance(config, list) and part.isdigit() and int(part) < len(config):
            config = config[int(part)]
        else:
            return None
    return compact(config)


def _experiment(file: Path, manifest: Manifest, trust_code: bool) -> Experiment:
    origin = Origin(str(file))
    most = len(manifest.arms) * len(manifest.seeds)
    tree = to_node(
        {
            "dataset": manifest.dataset,
            "seeds": manifest.seeds,
            "limits": {"units": max(most * 10**9, manifest.num_units, 1)},
        },
        origin,
    )
    config = validate(ExperimentConfig, tree)
    arms = tuple(
        _arm(name, identity, origin, trust_code) for name, identity in manifest.arms.items()
    )
    return Experiment(
        config=config,
        tree=tree,
        arms=arms,
        seeds=tuple(manifest.seeds),
        baseline=manifest.baseline,
        name=manifest.name,
        folder=Path(manifest.folder),
        metrics_folder=Path(manifest.metrics_folder),
    )


def _arm(name: str, identity: dict[str, Any], origin: Origin, trust_code: bool) -> Arm:
    try:
        run = load_run(to_node(identity, origin), trust_code=trust_code)
    except VlmkitError as error:
        raise VlmkitError(f"{error} (in the arm {name!r})") from error
    return Arm(name, run.config, run.tree, origin)
