"""Every stage that a config can name: its section, its kind, what is like it, what is installed.

All of it is read from `PipelineConfig` and from the metadata of installed packages; no package is
imported for a list.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, NamedTuple, get_args

from vlmkit.declare.configbase import StageConfig
from vlmkit.declare.external import External
from vlmkit.errors import VlmkitError, nearest
from vlmkit.pipeline import PipelineConfig

# What a section's kinds do, in the order of the list; kinds that do the same are related.
GROUPS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "sampling": {
        "sharpen or flatten the distribution": (
            "greedy", "temperature", "dynamic_temperature", "quadratic",
        ),
        "keep some tokens": (
            "top_k", "top_p", "min_p", "typical_p", "top_n_sigma", "epsilon_cutoff", "eta_cutoff",
            "tail_free", "top_h", "p_less", "xtc",
        ),
        "keep some tokens, steered by what was drawn": ("mirostat_v1", "mirostat_v2"),
        "discourage repetition": (
            "repetition_penalty", "presence_penalty", "frequency_penalty", "dry", "no_repeat_ngram",
        ),
        "allow and forbid tokens": (
            "logit_bias", "suppress_tokens", "allowed_tokens", "min_new_tokens", "grammar",
        ),
        "your own": ("external",),
    },
    "cache": {
        "keep every token": ("dense", "affine", "quantized", "kvarn", "kivi", "modality"),
        "keep the first and the last tokens": ("rotating",),
        "drop tokens at the end of a prompt": (
            "snapkv", "pyramidkv", "h2o", "tova", "knorm", "keydiff", "random",
        ),
        "by layer": ("per_layer",),
        "your own": ("external",),
    },
    "stopping": {
        "a limit": ("max_tokens", "time_limit"),
        "at what is written": ("eos", "stop_sequences", "stop_token_ids", "repetition_loop"),
        "thinking, and how sure the model is": (
            "thinking_budget", "entropy_stop", "confidence_stop",
        ),
        "several together": ("any_of", "all_of"),
        "your own": ("external",),
    },
}  # fmt: skip


class Kind(NamedTuple):
    """One kind of a stage."""

    section: str  # a field of PipelineConfig
    name: str  # the section's own name where there are no kinds
    config: type[StageConfig]

    @property
    def has_kind(self) -> bool:
        """Whether YAML says ``kind:`` for it."""
        return "kind" in self.config.model_fields

    @property
    def summary(self) -> str:
        """What it does, in one line."""
        return inspect.cleandoc(self.config.__doc__ or "").partition("\n")[0].replace("`", "")


class Installed(NamedTuple):
    """An entry point of an installed package, which ``kind: external`` finds by its name."""

    section: str
    name: str
    entry: EntryPoint

    @property
    def summary(self) -> str:
        """Where it comes from, in one line."""
        package = self.entry.dist
        named = "" if package is None else f" of {package.name} {package.version}"
        return f"{self.entry.value}{named}"


def sections() -> dict[str, str]:
    """Return every section that says how a stage works, and what it is for.

    Example:
        >>> sections()["prefill"]
        'how the prompt goes through the model'
    """
    fields = {kind.section: PipelineConfig.model_fields[kind.section] for kind in all_kinds()}
    return {name: field.description or "" for name, field in fields.items()}


def all_kinds() -> list[Kind]:
    """Return every kind of every section, in the order of the pipeline and of the groups.

    Example:
        >>> [kind.name for kind in all_kinds() if kind.section == "cache"][:7]
        ['dense', 'affine', 'quantized', 'kvarn', 'kivi', 'modality', 'rotating']
    """
    found: list[Kind] = []
    for section, field in PipelineConfig.model_fields.items():
        configs = _stage_configs(field.annotation)
        kinds = [Kind(section, _kind_of(section, config), config) for config in configs]
        found += sorted(kinds, key=_rank_of_group)
    return found


def _kind_of(section: str, config: type[StageConfig]) -> str:
    field = config.model_fields.get("kind")
    return section if field is None else str(field.default)


def _rank_of_group(kind: Kind) -> int:
    titles = list(GROUPS.get(kind.section, {}))
    return titles.index(group_of(kind)) if group_of(kind) in titles else len(titles)


def installed_stages() -> list[Installed]:
    """Return the entry points of installed packages, without importing them."""
    takers = [kind.section for kind in all_kinds() if kind.config is External]
    installed = entry_points()  # read once: it looks at every package there is
    found = {
        Installed(section, entry.name, entry)
        for section in takers
        for entry in installed.select(group=f"vlmkit.{section}")
    }
    return sorted(found, key=lambda stage: (takers.index(stage.section), stage.name, stage.entry))


def group_of(kind: Kind) -> str:
    """Return what the kinds around this one have in common; empty where there are no groups.

    Example:
        >>> [group_of(kind) for kind in all_kinds() if kind.name == "time_limit"]
        ['a limit']
    """
    groups = GROUPS.get(kind.section, {})
    return next((title for title, names in groups.items() if kind.name in names), "")


def find_stages(name: str) -> list[Kind | Installed]:
    """Return what a name stands for: one stage, or several of which each has that name.

    Args:
        name: a kind, an installed entry point, or either with its section: ``stopping.external``.

    Raises:
        VlmkitError: nothing is called that; names the nearest.

    Example:
        >>> [(stage.section, stage.name) for stage in find_stages("external")]
        [('cache', 'external'), ('contrast', 'external'), ('sampling', 'external'), \
('search', 'external'), ('stopping', 'external')]
    """
    stages: list[Kind | Installed] = [*all_kinds(), *installed_stages()]
    found = [stage for stage in stages if name in (stage.name, f"{stage.section}.{stage.name}")]
    if found:
        return found
    known = {stage.name for stage in stages} | set(sections())
    raise VlmkitError(f"unknown stage {name!r}{nearest(name, known)} (`vlmkit stages` lists all)")


def _stage_configs(annotation: Any) -> Iterator[type[StageConfig]]:
    """Yield the configs in a field's type, whatever unions and tuples are around them."""
    if isinstance(annotation, type) and issubclass(annotation, StageConfig):
        yield annotation
        return
    for part in get_args(annotation):
        yield from _stage_configs(part)
