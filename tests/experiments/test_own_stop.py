"""The stopping criterion that shows how to write one's own."""

from __future__ import annotations

import pytest

from vlmkit.contracts.stages import TokenEvent
from vlmkit.declare.external import External
from vlmkit.stopping import external


@pytest.mark.parametrize(
    ("pieces", "kept"),
    [
        (["one", " two", " three"], "one two"),
        (["one two"], None),
        (["one two\n"], "one two"),
        ([" one tw", "o three four"], " one two"),
        (["", "  a", "b", "  c", " "], "  ab  c"),
    ],
)
def test_the_row_ends_after_its_second_word(pieces: list[str], kept: str | None) -> None:
    criterion = external(
        External(factory="experiments.own_stop:word_limit", config={"num_words": 2})
    )
    state, decision = criterion.init([5])
    text = ""
    for count, piece in enumerate(pieces, 1):
        assert decision.finish is None
        text += piece
        state, decision = criterion.step(state, TokenEvent(7, text, count))
    assert (decision.finish is None) == (kept is None)
    if decision.finish is not None:
        assert (decision.finish.reason, text[: decision.finish.text_end]) == ("length", kept)
