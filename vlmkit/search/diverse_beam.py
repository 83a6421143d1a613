"""Diverse beam search: groups of beams that avoid each other's tokens."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from vlmkit.declare.configbase import Float, Int, StageConfig
from vlmkit.search.groups import EarlyStopping, Rules, group_search
from vlmkit.search.protocol import Search


class DiverseBeamSearch(StageConfig):
    """Beam search in groups, each penalised for tokens that earlier groups take."""

    kind: Literal["diverse_beam"] = "diverse_beam"
    num_beams: Int = Field(ge=1, description="hypotheses followed at a time, all groups together")
    num_groups: Int = Field(ge=1, description="groups of equal size; must divide num_beams")
    diversity_penalty: Float = Field(
        ge=0, description="taken off a token's logprob per beam of an earlier group that takes it"
    )
    length_penalty: Float = Field(
        default=1.0,
        description="the score is the sum of logprobs over length**length_penalty; above 0 favours "
        "long answers",
    )
    early_stopping: EarlyStopping = Field(
        default=False,
        description="when a group stops; true: with all its places finished; false: when its best "
        "beam is no better than the worst of them at its length now; never: at its best length",
    )
    num_return: Int = Field(default=1, ge=1, description="hypotheses in the result, best first")

    @model_validator(mode="after")
    def _check_counts(self) -> DiverseBeamSearch:
        if self.num_beams % self.num_groups:
            options = [n for n in range(1, self.num_beams + 1) if self.num_beams % n == 0]
            raise ValueError(
                f"num_groups is {self.num_groups}, which does not divide num_beams: "
                f"{self.num_beams}; use one of {', '.join(map(str, options))}"
            )
        if self.num_return > self.num_beams:
            raise ValueError(
                f"num_return is {self.num_return}, but num_beams: {self.num_beams} keeps no more "
                f"than {self.num_beams}; use num_beams: {self.num_return} or more"
            )
        return self


def diverse_beam_search(config: DiverseBeamSearch) -> Search:
    """Return beam search in groups that take their step one after another.

    A group loses ``diversity_penalty`` on the logprob of a token for every beam of an earlier
    group that goes on with this token in the same step (Hamming diversity). The penalties stay in
    the scores, also in those of the result. Groups stop by themselves; two groups may return the
    same answer. What ends a group is as in :func:`beam_search`, which differs from the reference
    only where a hypothesis ends in the very step that reaches the length limit or fills a group's
    places: the better one is kept there, and an end-of-sequence token counts as taken.

    Example:
        >>> config = DiverseBeamSearch(num_beams=6, num_groups=3, diversity_penalty=0.5)
        >>> diverse_beam_search(config).width
        6

    Reference:
        Vijayakumar et al., "Diverse beam search", arXiv:1610.02424; transformers 4.49,
        ``GenerationMixin._group_beam_search``.
    """
    return group_search(
        "diverse_beam",
        Rules(
            num_beams=config.num_beams,
            num_groups=config.num_groups,
            diversity_penalty=config.diversity_penalty,
            length_penalty=config.length_penalty,
            early_stopping=config.early_stopping,
            num_return=config.num_return,
        ),
    )
