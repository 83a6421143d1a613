"""One path of the likeliest tokens, as a search."""

from __future__ import annotations

import mlx.core as mx

from vlmkit.search import Extend, Hypothesis, Outcome, Search, SearchStep


def likeliest_path(*, scale: float = 1.0) -> Search:
    """Take the likeliest token each time; the score is the sum of logprobs times ``scale``."""

    def advance(score: float, step: SearchStep, extend: Extend) -> tuple[float, Outcome]:
        token_id = int(mx.argmax(step.logprobs[0]).item())
        score += scale * float(step.logprobs[0, token_id].item())
        path, finished = extend(0, token_id)
        if finished:
            return score, Outcome((), (), (), done=True, best=(Hypothesis(path, score),))
        return score, Outcome((0,), (token_id,), (path,))

    return Search("likeliest_path", 1, 1, False, False, lambda start: 0.0, advance)
