"""Beam search: keep the K most likely hypotheses."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from vlmkit.declare.configbase import Float, Int, StageConfig
from vlmkit.search.groups import EarlyStopping, Rules, group_search
from vlmkit.search.protocol import Search


class BeamSearch(StageConfig):
    """Follow the K most likely hypotheses and return the best that end."""

    kind: Literal["beam"] = "beam"
    num_beams: Int = Field(ge=1, description="hypotheses followed at a time; 1 is greedy")
    length_penalty: Float = Field(
        default=1.0,
        description="the score is the sum of logprobs over length**length_penalty; above 0 favours "
        "long answers",
    )
    early_stopping: EarlyStopping = Field(
        default=False,
        description="true: stop at num_beams finished hypotheses; false: stop when the best beam "
        "is no better than the worst of them at its length now; never: at its best length",
    )
    num_return: Int = Field(default=1, ge=1, description="hypotheses in the result, best first")

    @model_validator(mode="after")
    def _check_counts(self) -> BeamSearch:
        if self.num_return > self.num_beams:
            raise ValueError(
                f"num_return is {self.num_return}, but num_beams: {self.num_beams} keeps no more "
                f"than {self.num_beams}; use num_beams: {self.num_return} or more"
            )
        return self


def beam_search(config: BeamSearch) -> Search:
    """Return beam search over the logprobs that the sampler chain leaves.

    Every step extends all beams by every token and keeps the K best by the sum of logprobs.
    Hypotheses that end among these are ranked by ``sum / length**length_penalty``, where the
    length counts the generated tokens with the one that ended it. Nothing is emitted before the
    search is over. A beam that a stop string or an end-of-sequence token ends leaves the others
    alone. Where two scores are equal, the earlier beam and the lower id win.

    Example:
        >>> search = beam_search(BeamSearch(num_beams=4, num_return=2))
        >>> search.name, search.width, search.num_return
        ('beam', 4, 2)

    Reference:
        transformers 5, ``GenerationMixin._beam_search``; Lowerre, "The Harpy speech recognition
        system", 1976. The length penalty is of the kind in Wu et al., arXiv:1609.08144.
    """
    return group_search(
        "beam",
        Rules(
            num_beams=config.num_beams,
            num_groups=1,
            diversity_penalty=0.0,
            length_penalty=config.length_penalty,
            early_stopping=config.early_stopping,
            num_return=config.num_return,
        ),
    )
