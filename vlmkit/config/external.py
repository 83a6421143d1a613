"""Stages that need another package are tried before a model is loaded."""

from __future__ import annotations

from vlmkit.config.tree import KeyPath, Node, format_path
from vlmkit.config.validate import nearest_origin
from vlmkit.errors import VlmkitError
from vlmkit.pipeline import PipelineConfig
from vlmkit.sampling import External, Grammar, check_grammar
from vlmkit.sampling import external as sampler_stage
from vlmkit.stopping import each_config
from vlmkit.stopping import external as stopping_criterion


def check_external(pipeline: PipelineConfig, tree: Node) -> None:
    """Make every ``kind: external`` stage and drop it again; compile every ``kind: grammar``.

    Args:
        pipeline: validated.
        tree: what it was validated from; knows where every value was written.

    Raises:
        VlmkitError: the place of the first stage that can't be made, and why.
    """
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


def _located(error: VlmkitError, tree: Node, path: KeyPath, key: str) -> VlmkitError:
    origin = nearest_origin(tree, (*path, key))
    return VlmkitError(f"{origin}: {format_path(path)}: {error}")
