"""A stopping criterion of one's own: ``kind: external`` finds it by name."""

import re

from vlmkit.contracts.stages import Decision, Finish, StoppingCriterion


def word_limit(num_words: int) -> StoppingCriterion:
    """End a row after its ``num_words``-th word, before the white space that follows it."""
    enough = re.compile(rf"\s*\S+(?:\s+\S+){{{num_words - 1}}}(?=\s)")

    def init(prompt_ids):
        return (), Decision()

    def step(state, event):
        match = enough.match(event.text)
        if match is None:
            return state, Decision()
        return state, Decision(finish=Finish("length", "word_limit", None, match.end()))

    return StoppingCriterion("word_limit", init, step)
