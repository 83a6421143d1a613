"""A complete run: which model, what to ask it, and the pipeline that answers."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field

from vlmkit.backend.config import BackendConfig
from vlmkit.config.conversation import MessageConfig, check_conversation
from vlmkit.config.external import check_external
from vlmkit.config.flags import apply_flags, written
from vlmkit.config.locate import located
from vlmkit.config.recommended import expand_checkpoint
from vlmkit.config.tree import DEFAULT, Node, find, merge_all, replace_at, to_node
from vlmkit.config.validate import validate
from vlmkit.config.yaml_tree import LoadedYaml, load_files, parse_overrides
from vlmkit.declare.configbase import StageConfig
from vlmkit.declare.packaged import PREFIX
from vlmkit.errors import VlmkitError
from vlmkit.pipeline import PipelineConfig, check_clock


class TemplateConfig(StageConfig):
    """How the prompt is formatted before it is tokenized."""

    apply: bool = Field(
        default=True, description="false: the prompt is formatted already, take it as it is"
    )
    enable_thinking: bool = Field(
        default=False, description="let the model think before it answers"
    )
    continue_final_message: bool = Field(
        default=False,
        description="the last of the messages is the assistant's, and generation goes on from it",
    )
    prefill_response: str | None = Field(
        default=None,
        min_length=1,
        description="the beginning of the answer, from which generation goes on; null: none",
    )


class RunConfig(PipelineConfig):
    """Model, request and pipeline: what a YAML file in ``configs/`` describes.

    A run is a pipeline with a model and a request: its keys stand beside theirs in a file, in the
    schema, in overrides and in messages, and what takes a pipeline takes a run. So it extends
    `PipelineConfig` rather than holding one, which would have to be flattened in each of those.

    Example:
        >>> RunConfig(prompt="How many circles?").model
        'shapes'
    """

    model: str = Field(
        default="shapes",
        min_length=1,
        description="a folder, a hub id, or 'shapes' or 'album', the embedded models",
    )
    revision: str | None = Field(default=None, description="branch, tag or commit of a hub id")
    model_source: Literal["vlmkit", "mlx-vlm"] = Field(
        default="vlmkit",
        description="whose code the model is: vlmkit's own, or an installed mlx-vlm's, which runs "
        "behind the same stages and of which nothing is verified here",
    )
    dtype: Literal["float32", "float16", "bfloat16"] | None = Field(
        default=None,
        description="of the computation; null: float32 on the CPU, the checkpoint's own on a GPU",
    )
    backend: BackendConfig = Field(
        default=BackendConfig(), description="what computes and how; null: what is fast here"
    )
    prompt: str = Field(default="", description="what to ask")
    messages: tuple[MessageConfig, ...] = Field(
        default=(), description="a conversation in place of the prompt, the oldest message first"
    )
    images: tuple[str, ...] = Field(default=(), description="paths, relative to this file, or URLs")
    audio: tuple[str, ...] = Field(default=(), description="paths, relative to this file, or URLs")
    video: tuple[str | tuple[str, ...], ...] = Field(
        default=(),
        description="paths, relative to this file, or URLs; a list in it is one video of images",
    )
    template: TemplateConfig = Field(
        default=TemplateConfig(), description="how the prompt is formatted"
    )

    @property
    def pipeline(self) -> PipelineConfig:
        """The part that the engine takes."""
        fields = {name: getattr(self, name) for name in PipelineConfig.model_fields}
        return PipelineConfig.model_construct(**fields)  # they were validated with the run


_MEDIA_PATHS = (("images",), ("audio",), ("video",))


class ResolvedRun(NamedTuple):
    """A validated run and the tree it came from, which knows where every value was written."""

    config: RunConfig
    tree: Node
    files: tuple[Path, ...] = ()  # that were read for it


def load_run(
    path: str | os.PathLike[str] | Node | None = None,
    *,
    overrides: Sequence[str] = (),
    flags: Mapping[str, Any] | None = None,
    trust_code: bool = False,
) -> ResolvedRun:
    """Merge defaults, a YAML file, flags and overrides, later ones winning, and validate.

    Args:
        path: a YAML file, its tree, or ``vlmkit:sampling/nucleus.yaml`` and its like for one that
            comes with the package; ``None`` starts from the defaults.
        overrides: ``a.b=c`` strings; values are YAML, numbers in a key are list indices.
        flags: fields of :class:`RunConfig` or generation parameters by name, as given on the
            command line; ``None`` values count as not given.
        trust_code: let ``kind: external`` name any ``module:function``, which is imported and
            called. Off by default: files are passed around, and to open one runs no code. Entry
            points of installed packages need no trust.

    Raises:
        VlmkitError: names the file and line, the key, and what would work; also for an external
            stage that is code without trust, or whose factory can't be found or refuses its
            arguments, for a criterion that looks at the clock in a run that is to be reproducible,
            and for messages that cannot be continued.

    Example:
        >>> run = load_run(overrides=["seed=3", "sampling=[{kind: temperature, temperature: 0.7}]"])
        >>> run.config.seed, run.config.sampling[0].temperature
        (3, 0.7)
    """
    if not isinstance(trust_code, bool):
        raise VlmkitError(f"trust_code must be True or False, got {trust_code!r}")
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    file, files = _read(path)
    file, over = _resolve_paths(file), parse_overrides(overrides)
    sources = [over, to_node(given, DEFAULT), file, default_tree()]
    file = _expand_sampling(file, sources)
    is_search = _first(sources, "search") is not None
    tree = apply_flags(file, given, default_tree(), is_search=is_search)
    tree = merge_all([tree, over])
    tree = _expand_sampling(tree, [tree])
    tree = _without_default_sampling(tree)
    config = validate(RunConfig, tree)
    check_external(config, tree, trust_code=trust_code)
    with located(tree):
        check_clock(config)
        check_conversation(config)
    return ResolvedRun(config, tree, files)


def _read(path: str | os.PathLike[str] | Node | None) -> LoadedYaml:
    if path is None or isinstance(path, Node):
        return LoadedYaml(to_node({}, DEFAULT) if path is None else path, ())
    return load_files(path)


def default_tree() -> Node:
    """Every default of a run as a tree."""
    return to_node(written(RunConfig()), DEFAULT)


def _expand_sampling(tree: Node, sources: Sequence[Node]) -> Node:
    """Put the checkpoint's stages in place of ``sampling: checkpoint``; earlier sources win."""
    is_search = _first(sources, "search") is not None
    model, revision = _first(sources, "model"), _first(sources, "revision")
    return expand_checkpoint(tree, model, revision, search=is_search)


def _first(sources: Sequence[Node], name: str) -> Any:
    """What the first source that says something of a key says."""
    return next((node.value for source in sources if (node := find(source, (name,)))), None)


def _without_default_sampling(tree: Node) -> Node:
    """Leave a chain that nobody wrote to the pipeline, which knows what a search begins with."""
    sampling = tree.value.get("sampling")
    if sampling != find(default_tree(), ("sampling",)):
        return tree
    rest = {name: node for name, node in tree.value.items() if name != "sampling"}
    return tree._replace(value=rest)


def _resolve_paths(tree: Node) -> Node:
    """Make relative media paths, and models written as ``./…``, relative to their file."""
    for path in (*_MEDIA_PATHS, ("model",), ("contrast", "amateur")):
        node = find(tree, path)
        if node is None:
            continue
        if isinstance(node.value, list):
            tree = replace_at(tree, path, _resolve_all(node, nested=path == ("video",)))
        else:
            tree = replace_at(tree, path, _resolve_path(node, always=path in _MEDIA_PATHS))
    return tree


def _resolve_all(node: Node, *, nested: bool) -> Node:
    """Resolve the paths of a list; with ``nested`` also those of lists in it."""
    items = [
        _resolve_all(item, nested=False)
        if nested and isinstance(item.value, list)
        else _resolve_path(item, always=True)
        for item in node.value
    ]
    return node._replace(value=items)


def _resolve_path(node: Node, *, always: bool) -> Node:
    text = node.value
    if not isinstance(text, str) or not node.origin.is_file:
        return node
    is_remote = "://" in text or text.startswith(("data:", PREFIX))
    if is_remote or not (always or text.startswith(("./", "../"))):
        return node
    return node._replace(value=os.path.normpath(Path(node.origin.source).parent / text))
