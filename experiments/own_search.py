"""A search of one's own: ``kind: external`` finds it by name.

After Wang and Zhou, "Chain-of-thought reasoning without prompting", 2024, arXiv:2402.10200.
"""

import mlx.core as mx

from vlmkit.search import Hypothesis, Outcome, Search


def first_tokens(k: int) -> Search:
    """Follow each of the K likeliest first tokens greedily; the answer of the surest path wins.

    A path is as sure as the mean gap between its best and second-best probability.
    """

    def advance(state, step, extend):
        live, ended = state
        pairs = mx.sort(mx.exp(step.logprobs), axis=-1)[:, -2:]
        gaps = (pairs[:, 1] - pairs[:, 0]).tolist()
        if live is None:  # after the prompt: one row becomes K
            ids = mx.argsort(-step.logprobs[0])[:k].tolist()
            moves = [(0, token_id, (0.0, 0)) for token_id in ids]
        else:
            ids = mx.argmax(step.logprobs, axis=-1).tolist()
            moves = [
                (row, token_id, (total + gaps[row], count + 1))
                for row, (token_id, (total, count)) in enumerate(zip(ids, live, strict=True))
            ]
        rows, token_ids, paths, scores = [], [], [], []
        for row, token_id, (total, count) in moves:
            path, finished = extend(row, token_id)
            if finished:
                ended = (*ended, Hypothesis(path, total / max(count, 1)))
                continue
            rows, token_ids = [*rows, row], [*token_ids, token_id]
            paths, scores = [*paths, path], [*scores, (total, count)]
        best = sorted(ended, key=lambda one: -one.score) if not rows else ()
        outcome = Outcome(
            tuple(rows), tuple(token_ids), tuple(paths), done=not rows, best=tuple(best)
        )
        return (tuple(scores), ended), outcome

    return Search("first_tokens", k, k, False, False, lambda start: (None, ()), advance)
