"""Two records of one unit: equal, or where and how they part."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from vlmkit.experiment.divergence import (
    compare_records,
    describe_distribution,
    recorded_distribution,
)
from vlmkit.experiment.records import Record


def decode(token_ids: Any) -> str:
    return "".join(chr(97 + token_id) for token_id in token_ids)


def record(**fields: Any) -> Record:
    whole: dict[str, Any] = {
        "text": "abc", "token_ids": [0, 1, 2], "finish_reason": "stop", "finish_kind": "eos",
    }  # fmt: skip
    return Record(arm="a", sample="s", seed=0, **{**whole, **fields})


# the same unit run again -> what differs, the first token that does, then and now
CASES: dict[str, tuple[dict[str, Any], tuple[Any, ...] | None]] = {
    "equal": ({}, None),
    "times do not count": ({"generation_s": 3.0, "cached_tokens": 9}, None),
    "a token": ({"token_ids": [0, 3, 2], "text": "adc"}, ("token", 1, "b", "d")),
    "shorter": ({"token_ids": [0, 1], "text": "ab"}, ("length", 2, "c", None)),
    "longer": ({"token_ids": [0, 1, 2, 3], "text": "abcd"}, ("length", 3, None, "d")),
    "nothing": ({"token_ids": [], "text": ""}, ("length", 0, "a", None)),
    "ending": ({"finish_kind": "stop_sequences"}, ("ending", None, None, None)),
    "reason": ({"finish_reason": "length"}, ("ending", None, None, None)),
    "text": ({"text": "ab c"}, ("text", None, None, None)),
    "error": ({"error": "NaN", "token_ids": [0], "text": "a"}, ("error", 1, "b", None)),
}


@pytest.mark.parametrize("case", CASES)
def test_what_differs(case: str) -> None:
    fields, expected = CASES[case]
    found = compare_records(record(), record(**fields), [], decode)
    if expected is None:
        assert found is None
        return
    assert found is not None
    assert (found.what, found.position, found.recorded.token, found.now.token) == expected
    assert (found.arm, found.sample, found.seed) == ("a", "s", 0)
    assert (found.recorded.text, found.now.text) == ("abc", record(**fields).text)


def test_a_distribution_ranks_and_knows_what_was_removed() -> None:
    logits = np.log([0.4, 0.1, 0.1, 0.4]) + 7
    logits[1] = -np.inf
    found = describe_distribution(
        "drawn from", logits, recorded_id=1, now_id=2, decode=decode, top_n=2
    )
    assert [(one.text, one.rank) for one in found.top] == [("a", 1), ("d", 2)]
    assert found.top[0].logprob == pytest.approx(np.log(0.4 / 0.9))
    assert found.recorded is not None
    assert (found.recorded.logprob, found.recorded.rank) == (None, None)
    assert found.now is not None
    assert found.now.rank == 3
    ended = describe_distribution(
        "model", logits, recorded_id=None, now_id=99, decode=decode, top_n=9
    )
    assert (ended.recorded, ended.now, len(ended.top)) == (None, None, 3)


def test_nothing_left_is_no_distribution() -> None:
    found = describe_distribution(
        "model", np.full(3, -np.inf), recorded_id=0, now_id=None, decode=decode, top_n=2
    )
    assert found.top == []


def test_what_was_recorded_of_a_distribution() -> None:
    one = record(
        logprobs=[-0.1, -2.5, -0.1], top_logprobs=[[(0, -0.1)], [(3, -0.2), (4, -1.0)], []]
    )
    found = recorded_distribution(one, 1, now_id=4, decode=decode)
    assert found is not None
    assert [(top.text, top.rank, top.logprob) for top in found.top] == [
        ("d", 1, -0.2), ("e", 2, -1.0),
    ]  # fmt: skip
    assert found.recorded is not None
    assert found.now is not None
    assert (found.recorded.text, found.recorded.logprob, found.recorded.rank) == ("b", -2.5, None)
    assert found.now == found.top[1]
    assert recorded_distribution(one, 3, now_id=4, decode=decode) is None
    assert recorded_distribution(record(), 0, now_id=4, decode=decode) is None
