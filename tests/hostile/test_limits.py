"""The limits themselves: what breaks them is told from what keeps them."""

from __future__ import annotations

import sys

import pytest

from tests.hostile.limited import Call, run_limited

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="needs fork")


def test_each_call_has_its_own_end() -> None:
    calls = [
        Call("vlmkit.config.yaml_tree:parse_overrides", (["seed=3"],)),
        Call("vlmkit.config.yaml_tree:parse_overrides", (["seed"],)),
        Call("builtins:int", ("x",)),
        Call("time:sleep", (60,)),
        Call("os:abort"),
        Call("vlmkit.cli.main:main", (["describe", "sed=3"],)),
    ]
    outcomes = run_limited(calls, imports=["vlmkit.config.run"], max_s=2)
    kinds = [outcome.kind for outcome in outcomes]
    assert kinds == ["result", "error", "raised", "timeout", "killed", "exit"]
    assert [outcome.is_lawful() for outcome in outcomes] == [True, True, False, False, False, True]
    assert "is no override" in outcomes[1].text
    assert outcomes[-1].text.startswith("vlmkit: error: ")


@pytest.mark.skipif(sys.platform != "linux", reason="limits of address space are Linux's")
def test_memory_is_limited() -> None:
    (outcome,) = run_limited([Call("builtins:bytearray", (3 * 2**30,))])
    assert (outcome.kind, "MemoryError" in outcome.text) == ("raised", True)
