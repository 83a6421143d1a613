"""Search: one request decoded over several rows of the batch, driven by the one decode loop."""

from __future__ import annotations

from typing import Annotated, assert_never

from pydantic import Field

from vlmkit.declare.external import External
from vlmkit.search.beam import BeamSearch, beam_search
from vlmkit.search.contrastive import ContrastiveSearch, contrastive_search
from vlmkit.search.diverse_beam import DiverseBeamSearch, diverse_beam_search
from vlmkit.search.external import external
from vlmkit.search.protocol import (
    Extend,
    Extended,
    Hypothesis,
    Outcome,
    Path,
    Search,
    SearchStart,
    SearchStep,
)

SearchConfig = Annotated[
    BeamSearch | DiverseBeamSearch | ContrastiveSearch | External, Field(discriminator="kind")
]
"""Any search's config, told apart by ``kind``."""


def build_search(config: SearchConfig) -> Search:
    """Make the search that a config describes.

    Raises:
        VlmkitError: an external factory that can't be found or fails.

    Example:
        >>> build_search(BeamSearch(num_beams=4)).width
        4
    """
    match config:
        case BeamSearch():
            return beam_search(config)
        case DiverseBeamSearch():
            return diverse_beam_search(config)
        case ContrastiveSearch():
            return contrastive_search(config)
        case External():
            return external(config)
        case _:
            assert_never(config)


__all__ = [
    "BeamSearch",
    "ContrastiveSearch",
    "DiverseBeamSearch",
    "Extend",
    "Extended",
    "External",
    "Hypothesis",
    "Outcome",
    "Path",
    "Search",
    "SearchConfig",
    "SearchStart",
    "SearchStep",
    "beam_search",
    "build_search",
    "contrastive_search",
    "diverse_beam_search",
    "external",
]
