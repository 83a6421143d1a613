"""Stages that need another package are tried before a model is loaded, code only if trusted."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from vlmkit.cache import external as cache_kind
from vlmkit.cache import external_codec as codec
from vlmkit.config.tree import Node, format_path
from vlmkit.config.validate import error_at
from vlmkit.contrast import external as contrast_method
from vlmkit.declare.external import externals_in
from vlmkit.errors import KeyPath, VlmkitError
from vlmkit.pipeline import PipelineConfig
from vlmkit.sampling import External, Grammar, check_grammar
from vlmkit.sampling import external as sampler_stage
from vlmkit.search import external as search_method
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
        if isinstance(sampler, Grammar):
            try:
                check_grammar(sampler)
            except VlmkitError as error:
                raise _located(error, tree, ("sampling", index), sampler.form) from error
    for path, make, config in _made_by_name(pipeline):
        try:
            make(config)
        except VlmkitError as error:
            raise _located(error, tree, path, "factory") from error


def _made_by_name(
    pipeline: PipelineConfig,
) -> Iterator[tuple[KeyPath, Callable[[External], object], External]]:
    """Every external stage, where it stands, and what makes it."""
    for path, config in externals_in(pipeline.cache, ("cache",)):
        # What stands as a codec's keys or values in a cache, or within one, is a codec.
        yield path, codec if {"keys", "values"} & {*path} else cache_kind, config
    if isinstance(pipeline.contrast, External):
        yield ("contrast",), contrast_method, pipeline.contrast
    for index, sampler in enumerate(pipeline.sampling):
        if isinstance(sampler, External):
            yield ("sampling", index), sampler_stage, sampler
    if isinstance(pipeline.search, External):
        yield ("search",), search_method, pipeline.search
    for path, criterion in each_config(pipeline.stopping, ("stopping",)):
        if isinstance(criterion, External):
            yield path, stopping_criterion, criterion


def _refuse_code(pipeline: PipelineConfig, tree: Node) -> None:
    for path, _, stage in _made_by_name(pipeline):
        if stage.is_code:
            key = (*path, "factory")
            raise error_at(
                tree,
                key,
                f"{format_path(key)}: {stage.factory!r} names code to run; if you trust it, add "
                "--trust-code (in Python: load_run(..., trust_code=True)), or name an installed "
                "entry point",
            )


def _located(error: VlmkitError, tree: Node, path: KeyPath, key: str) -> VlmkitError:
    return error_at(tree, (*path, key), f"{format_path(path)}: {error}")
