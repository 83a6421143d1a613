"""What a trace holds: one header, one record per generated token, one end. Read without MLX.

Probabilities are of the float32 logits, normalised in float64; entropies are in nats. A token is
*kept* by a stage if its logit is above −inf after it. ``None`` is a log-probability of −inf, which
JSON cannot write.
"""

from __future__ import annotations

from typing import Any

import msgspec

FORMAT = 1


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
    top_n: int
    version: str
    images: list[str] = []
    config: dict[str, Any] = {}
    effective: dict[str, Any] = {}
    format: int = FORMAT


class Candidate(msgspec.Struct, frozen=True):
    """A token that a stage has kept."""

    id: int
    text: str
    logprob: float


class Removed(msgspec.Struct, frozen=True):
    """A token that a stage has removed."""

    id: int
    text: str
    prob: float  # on entering the stage


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
    entropy_nats: float
    num_kept: int
    top: list[Candidate]
    token_logprob: float | None
    tracked: list[float | None]
    removed_mass: float = 0.0
    num_removed: int = 0
    removed: list[Removed] = []


class TrackedToken(msgspec.Struct, frozen=True):
    """A token that is followed through all stages.

    Attributes:
        id: token id.
        text: of this token alone.
        rank: place in the model's own distribution, 1 for the most likely.
        removed_by: place in the step's ``stages`` of the one that removed it; None: it survived.
    """

    id: int
    text: str
    rank: int
    removed_by: int | None = None


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

    position: int
    token_id: int
    text: str
    forced: bool
    sampled_id: int
    stages: list[StageRecord]
    tokens: list[TrackedToken]

    def __post_init__(self) -> None:
        widths = {len(stage.tracked) for stage in self.stages}
        if widths != {len(self.tokens)}:
            raise ValueError("every stage has one log-probability per tracked token")


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
