"""The experiment of a run directory, from its manifest alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlmkit.config.tree import Origin, to_node
from vlmkit.errors import VlmkitError
from vlmkit.experiment.files import Experiment, load_experiment
from vlmkit.experiment.manifest import FILE, Manifest
from vlmkit.experiment.plan import identity
from vlmkit.experiment.provenance import config_hash


def rebuild_experiment(folder: Path, manifest: Manifest, *, trust_code: bool = False) -> Experiment:
    """Read the experiment that a run directory was made from; its YAML files are not needed.

    Args:
        folder: the run directory.
        manifest: of it.
        trust_code: let it name code to run, as in :func:`vlmkit.experiment.files.load_experiment`.

    Raises:
        VlmkitError: this version of vlmkit reads the manifest as another experiment.
    """
    fields: dict[str, Any] = {
        "dataset": manifest.dataset,
        "arms": {name: _patch(arm) for name, arm in manifest.arms.items()},
        "seeds": manifest.seeds,
        "metrics": manifest.metrics,
        "baseline": manifest.baseline,
        "limits": manifest.limits,
    }
    tree = to_node(fields, Origin(str(folder / FILE)))
    found = load_experiment(tree, trust_code=trust_code)._replace(
        name=manifest.name,
        folder=Path(manifest.folder),
        metrics_folder=Path(manifest.metrics_folder),
    )
    if config_hash(identity(found)) != manifest.hashes.get("config"):
        raise VlmkitError(
            f"{folder / FILE}: this version of vlmkit reads another experiment from it; use the "
            f"version that wrote it, {manifest.versions.get('vlmkit', 'an older one')}"
        )
    return found


def _patch(arm: dict[str, Any]) -> dict[str, Any]:
    """An arm as a patch: without a prompt where messages ask."""
    return {key: value for key, value in arm.items() if key != "prompt" or value}
