"""What a trace holds: one header, one record per generated token, one end. Read without MLX.

Probabilities are of the float32 logits, normalised in float64; entropies are in nats. A token is
*kept* by a stage if its logit is above −inf after it. ``None`` is a log-probability of −inf, which
JSON cannot write.
"""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

FORMAT = 1

# What can be in a file; a record that is made is not checked. Sums of probabilities may be a
# little more than 1.
_SLACK = 1e-3
MAX_COUNT = 2**31 - 1
"""Of tokens, as MLX counts them."""
Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_COUNT)]
Rank = Annotated[int, msgspec.Meta(ge=1, le=MAX_COUNT)]
Logprob = Annotated[float, msgspec.Meta(le=_SLACK)]
Prob = Annotated[float, msgspec.Meta(ge=-_SLACK, le=1 + _SLACK)]
Nats = Annotated[float, msgspec.Meta(ge=-_SLACK, le=100)]  # ln(MAX_COUNT) is 21.5


class TraceHeader(msgspec.Struct, frozen=True, kw_only=True, tag_field="record", tag="header"):
    """What was run.

    Attributes:
        model: folder, hub id or ``"shapes"``.
        prompt: the formatted prompt.
        seed: of the draws.
        top_n: how many tokens each stage lists.
        version: of vlmkit.
        images: as given: paths or URLs.
        config: the resolved run.
        effective: what really ran: cache per layer, dtype, device.
        format: of these records.
    """

    model: str
    prompt: str
    seed: int
    top_n: Rank
    version: str
    images: list[str] = []
    config: dict[str, Any] = {}
    effective: dict[str, Any] = {}
    format: int = FORMAT


class Candidate(msgspec.Struct, frozen=True):
    """A token that a stage has kept."""

    id: Count
    text: str
    logprob: Logprob


class Removed(msgspec.Struct, frozen=True):
    """A token that a stage has removed."""

    id: Count
    text: str
    prob: Prob  # on entering the stage


class StageRecord(msgspec.Struct, frozen=True, kw_only=True):
    """The distribution after one stage; the first one is the model's own.

    Attributes:
        name: the stage's kind, "model", or "contrast".
        entropy_nats: of the distribution after the stage.
        num_kept: tokens the stage has left.
        top: the most likely of them, at most ``top_n``, ties by the lowest id.
        token_logprob: of the token that was taken; None where it is removed.
        tracked: the log-probability of each of the step's ``tokens``; None where it is removed.
        removed_mass: probability, on entering the stage, of what the stage removed.
        num_removed: how many tokens it removed.
        removed: the most likely few of those.
    """

    name: str
    entropy_nats: Nats
    num_kept: Count
    top: list[Candidate]
    token_logprob: Logprob | None
    tracked: list[Logprob | None]
    removed_mass: Prob = 0.0
    num_removed: Count = 0
    removed: list[Removed] = []


class TrackedToken(msgspec.Struct, frozen=True):
    """A token that is followed through all stages.

    Attributes:
        id: token id.
        text: of this token alone.
        rank: place in the model's own distribution, 1 for the most likely.
        removed_by: place in the step's ``stages`` of the one that removed it; None: it survived.
    """

    id: Count
    text: str
    rank: Rank
    removed_by: Count | None = None


class TraceStep(msgspec.Struct, frozen=True, kw_only=True, tag_field="record", tag="step"):
    """One generated token.

    Attributes:
        position: generated tokens before this one.
        token_id: the token taken.
        text: of this token alone.
        forced: a stopping criterion chose it, whatever the sampler drew.
        sampled_id: what the sampler drew.
        stages: the model's own distribution, then one record per stage, in the order they ran.
        tokens: the union of every stage's ``top``, the token taken and the one drawn, by rank.
    """

    position: Count
    token_id: Count
    text: str
    forced: bool
    sampled_id: Count
    stages: list[StageRecord]
    tokens: list[TrackedToken]

    def __post_init__(self) -> None:
        widths = {len(stage.tracked) for stage in self.stages}
        if widths != {len(self.tokens)}:
            raise ValueError("every stage has one log-probability per tracked token")
        found = {token.id for token in self.tokens}
        if not {self.token_id, self.sampled_id} <= found:
            raise ValueError("the token taken and the one drawn are among the step's tokens")
        if any((token.removed_by or 0) >= len(self.stages) for token in self.tokens):
            raise ValueError("a token's removed_by is the place of one of the step's stages")


class TraceEnd(msgspec.Struct, frozen=True, kw_only=True, tag_field="record", tag="end"):
    """How the run ended; a trace without it was interrupted."""

    text: str  # the whole answer
    finish_reason: str | None = None
    finish_kind: str | None = None
    matched_stop: str | int | tuple[int, ...] | None = None


Record = TraceHeader | TraceStep | TraceEnd


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """A whole run.

    Attributes:
        header: what was run.
        steps: one per generated token, in order.
        end: how it ended; None if it was interrupted.
        damage: what is wrong with the file, if its last line is incomplete.
    """

    header: TraceHeader
    steps: list[TraceStep] = []
    end: TraceEnd | None = None
    damage: str | None = None
