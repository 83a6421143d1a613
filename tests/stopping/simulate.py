"""A decode loop without a model: fixed draws go through a stopping criterion as the engine does it.

The decision after token t (of ``init`` for the first) concerns the choice of token t + 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from vlmkit.contracts.stages import Finish, StoppingCriterion, TokenEvent


class Run(NamedTuple):
    """What came out of a simulated row."""

    token_ids: tuple[int, ...]
    forced: tuple[bool, ...]  # per token: a decision put it there
    segments: tuple[str, ...]  # text as it was streamed
    full_text: str  # of all tokens, nothing cut
    text: str  # cut where the finish says
    finish: Finish | None


def measured(criterion: StoppingCriterion, event: TokenEvent) -> TokenEvent:
    """Fill in what a criterion reads, and only that, with values that depend on the token.

    Token i has entropy i / 2 and confidence 1 / (1 + i); each token takes half a second.
    """
    values = {
        "entropy": event.token_id / 2,
        "confidence": 1 / (1 + event.token_id),
        "elapsed_s": event.num_tokens / 2,
    }
    return event._replace(**{name: values[name] for name in criterion.reads})


def simulate(
    criterion: StoppingCriterion,
    draws: Sequence[int],
    piece: Callable[[int], str] = str,
    prompt: Sequence[int] = (),
    *,
    tells_draws: bool = True,
) -> Run:
    """Run a row until its criterion ends it or the draws are used up.

    Args:
        criterion: what is tested.
        draws: draws[t] is what the sampler draws for token t, whatever came before.
        piece: the text of a token.
        prompt: token ids before.
        tells_draws: whether events say what was drawn.
    """
    token_ids: list[int] = []
    forced: list[bool] = []
    segments: list[str] = []
    text, num_released = "", 0
    state, decision = criterion.init(prompt)
    for drawn in draws:
        if decision.finish is not None:
            break
        overrides = dict(decision.overrides)
        if drawn in overrides:
            token_id = overrides[drawn]
            forced.append(token_id != drawn)
        else:
            token_id = drawn if decision.forced_id is None else decision.forced_id
            forced.append(decision.forced_id is not None)
        token_ids.append(token_id)
        text += piece(token_id)
        event = TokenEvent(token_id, text, len(token_ids), drawn if tells_draws else None)
        state, decision = criterion.step(state, measured(criterion, event))
        end = decision.finish.text_end if decision.finish else decision.hold_from
        end = len(text) if end is None else end
        assert num_released <= end <= len(text), "text that was given out is called back"
        segments.append(text[num_released:end])
        num_released = end
    if decision.finish is None:
        segments.append(text[num_released:])
    kept = decision.finish.text_end if decision.finish else None
    cut = text if kept is None else text[:kept]
    finish = decision.finish
    return Run(tuple(token_ids), tuple(forced), tuple(segments), text, cut, finish)
