"""The grammar stage and thinking blocks, and tokens that are forced."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.sampling.languages import (
    BYTES,
    END,
    SHAPES,
    SHAPES_EOS,
    START,
    TOKENS,
    brute_force,
    host_of,
    spell,
)
from vlmkit.contracts.stages import HostReducer
from vlmkit.errors import VlmkitError
from vlmkit.sampling import ThinkingBlock


def test_the_answer_begins_after_the_thinking_block():
    host = host_of(regex="[0-9]")
    digits = np.array(brute_force(("bytes", frozenset(b"0123456789")), SHAPES))
    for prompt in ([START], [START, END, 3, START, 7]):
        state = host.init(prompt)
        for token_id in (17, START, SHAPES_EOS, 639):  # whatever comes
            assert host.value(state).all()
            state = host.step(state, token_id)
        np.testing.assert_array_equal(host.value(host.step(state, END)), digits)


def test_a_prompt_that_ends_with_a_block_has_had_its_thinking():
    host = host_of(regex="[0-9]")
    spaces = SHAPES.encode("\n\n ")
    for prompt in ([], [5, START, 9, END, 3], [END], [START, END, 626]):
        assert host.value(host.init(prompt))[START]
    for prompt in ([START, END], [3, START, 7, END, *spaces]):
        assert not host.value(host.init(prompt))[START]


def test_one_block_opens_before_the_answer_and_never_in_it():
    host = host_of(regex="(?s:.*)")
    state = host.init([])
    assert host.value(state)[START]
    assert not host.value(state)[END]
    inside = host.step(state, START)
    assert host.value(inside).all()
    for later in (host.step(inside, END), host.step(state, 64)):
        assert not host.value(later)[[START, END]].any()


def test_null_constrains_thinking_too():
    host = host_of(regex="<think>[0-9]</think>", thinking=None)
    state = host.init([START])
    assert host.value(state)[START]
    state = host.step(state, START)
    assert not host.value(state)[END]
    assert host.value(host.step(state, 20))[END]


def test_markers_of_several_tokens():
    host = host_of(BYTES, regex="aba|c", thinking=ThinkingBlock(start="abab", end="ba"))
    allowed = lambda state: {TOKENS[i] for i in np.flatnonzero(host.value(state))}  # noqa: E731
    after = lambda state, text: _follow(host, state, text)  # noqa: E731
    state = host.init([])
    assert allowed(state) == {b"a", b"ab", b"c"}
    state = after(state, "aba")
    assert allowed(state) == {b"<end>", b"b"}, "the answer is complete, or a marker on its way"
    assert host.value(after(state, "b")).all()
    assert allowed(after(state, "bxbba")) == {b"a", b"ab", b"c"}
    assert host.value(host.init(spell("xababb"))).all()
    assert allowed(after(host.init(spell("xababb")), "a")) == {b"a", b"ab", b"c"}
    only_marker = host_of(BYTES, regex="c", thinking=ThinkingBlock(start="xy", end="z"))
    state = only_marker.step(only_marker.init([]), spell("x")[0])
    assert np.flatnonzero(only_marker.value(state)).tolist() == spell("y")


def _follow(host: HostReducer, state: Any, text: str) -> Any:
    for token_id in spell(text):
        state = host.step(state, token_id)
    return state


def test_without_thinking_tokens_there_is_no_block():
    host = host_of(BYTES, regex="<x")
    assert np.flatnonzero(host.value(host.init(spell("<think>")))).tolist() == spell("<")


def test_what_is_forced_after_a_block_does_not_count_until_the_answer_begins():
    host = host_of(regex="[0-9]+")
    transition = [END, *SHAPES.encode(".\n\n")]
    state = host.init([START])
    for token_id in transition:
        state = host.step(state, token_id)
    assert host.value(state)[SHAPES.encode("7")[0]]
    state = host.step(state, SHAPES.encode("7")[0])
    with pytest.raises(VlmkitError, match=r"\[0-9\].*token 13 '\.' cannot come there .*forced"):
        host.step(state, SHAPES.encode(".")[0])


def test_a_forced_token_in_the_answer_is_an_error():
    host = host_of(regex="[0-9]")
    with pytest.raises(VlmkitError, match=r"token 64 'a' cannot come there"):
        host.step(host.init([]), 64)
    state = host.step(host.step(host.init([]), 20), SHAPES_EOS)
    with pytest.raises(VlmkitError, match=r"token 64 'a' cannot come there"):
        host.step(state, 64)
