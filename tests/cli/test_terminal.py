"""Dimmed thinking: the text stays the same however it is cut into segments."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from vlmkit.cli.terminal import dim_thinking, is_inside

DIM, NORMAL = "\x1b[2m", "\x1b[22m"
PIECES = st.lists(st.sampled_from(["<think>", "</think>", "<", "th", "ink>", "/", "a", " "]))


@given(pieces=PIECES, inside=st.booleans())
def test_segments_do_not_matter(pieces: list[str], inside: bool) -> None:
    text = "".join(pieces)
    streamed = "".join(dim_thinking(pieces, inside=inside))
    assert streamed == "".join(dim_thinking([text], inside=inside))
    assert streamed == "".join(dim_thinking(list(text), inside=inside))
    assert streamed.replace(DIM, "").replace(NORMAL, "") == text
    assert streamed.count(DIM) == streamed.count(NORMAL)


def test_what_is_dimmed() -> None:
    shown = "".join(dim_thinking(["a<think>b</think>c"], inside=False))
    assert shown == f"a{DIM}<think>b</think>{NORMAL}c"


def test_an_open_block_in_the_prompt() -> None:
    assert is_inside("<think>")
    assert not is_inside("<think>x</think>")
    assert is_inside("<think>x</think><think>")
    assert not is_inside("")
