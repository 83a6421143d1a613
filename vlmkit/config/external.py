"""Stages that need another package are tried before a model is loaded, code only if trusted."""

from __future__ import annotations

from vlmkit.config.tree import Node, format_path
from vlmkit.config.validate import nearest_origin
from vlmkit.errors import KeyPath, VlmkitError
from vlmkit.pipeline import PipelineConfig
from vlmkit.sampling import External, Grammar, check_grammar
from vlmkit.sampling import external as sampler_stage
from vlmkit.stopping import each_config
from vlmkit.stopping import external as stopping_criterion


def check_external(pipeline: PipelineConfig, tree: Node, *, trust_code: bool) -> None:
    """Make every ``kind: external`` stage and drop it again; compile every ``kind: grammar``.

    Args:
        pipeline: validated.
        tree: what it was validated from; knows where every value was written.
        trust_code: whether ``module:function`` may be imported and called. Without it nothing at
            all is made where one is named.

    Raises:
        VlmkitError: the place of the first stage that is code without trust, or that can't be
            made, and why.
    """
    if not trust_code:
        _refuse_code(pipeline, tree)
    for index, sampler in enumerate(pipeline.sampling):
        if isinstance(sampler, External):
            try:
                sampler_stage(sampler)
            except VlmkitError as error:
                raise _located(error, tree, ("sampling", index), "factory") from error
        if isinstance(sampler, Grammar):
            try:
                check_grammar(sampler)
            except VlmkitError as error:
                raise _located(error, tree, ("sampling", index), sampler.form) from error
    for path, criterion in each_config(pipeline.stopping):
        if isinstance(criterion, External):
            try:
                stopping_criterion(criterion)
            except VlmkitError as error:
                raise _located(error, tree, ("stopping", *path), "factory") from error


def _refuse_code(pipeline: PipelineConfig, tree: Node) -> None:
    samplers = [(("sampling", index), stage) for index, stage in enumerate(pipeline.sampling)]
    stops = [(("stopping", *path), stage) for path, stage in each_config(pipeline.stopping)]
    for path, stage in (*samplers, *stops):
        if isinstance(stage, External) and stage.is_code:
            key = (*path, "factory")
            raise VlmkitError(
                f"{nearest_origin(tree, key)}: {format_path(key)}: {stage.factory!r} names code to "
                "run; if you trust it, add --trust-code (in Python: load_run(..., "
                "trust_code=True)), or name an installed entry point",
                path=key,
            )


def _located(error: VlmkitError, tree: Node, path: KeyPath, key: str) -> VlmkitError:
    about = (*path, key)
    return VlmkitError(f"{nearest_origin(tree, about)}: {format_path(path)}: {error}", path=about)
