"""What a short KV cache drops of a prompt is said: in results, and in one line on stderr."""

from __future__ import annotations

import json
from typing import Any

import mlx.core as mx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.cli.reply import Command
from vlmkit import batch_generate, generate, load, stream_generate
from vlmkit.cache import AffineConfig, DenseConfig, RotatingConfig, build_cache, count_held
from vlmkit.contracts.interface import KVSpec, PromptShape


def warning(num: int, length: int) -> str:
    return (
        f"vlmkit: warning: the KV cache dropped {num} of {length} prompt tokens; a larger "
        "cache.max_size (--max-kv-size) keeps them\n"
    )


def num_dropped(config: Any, length: int, num_tokens: int) -> int:
    spec = KVSpec(1, 64, 64)
    kinds = build_cache(config, [spec], 0, mx.float32).kinds
    counts = {"prompt": PromptShape(length), "num_tokens": num_tokens}
    held = count_held(kinds, [spec], mx.float32, **counts)
    assert held.quantized_tokens == (held.held_tokens if config.kind == "affine" else 0)
    return held.dropped_prompt_tokens


def run(command: Command, num_tokens: int, *words: str) -> tuple[dict[str, Any], str]:
    stopping = f"stopping=[{{kind: max_tokens, max_tokens: {num_tokens}}}]"
    reply = command("generate", "--prompt", "Count, please.", stopping, "--json", *words)
    assert reply.code == 0
    return json.loads(reply.stdout), reply.stderr


def test_a_prompt_that_is_too_long(command: Command) -> None:
    whole, silence = run(command, 1)
    length = whole["prompt_tokens"]
    assert (length > 12, silence) == (True, "")
    assert whole["effective"]["cache"]["dropped_prompt_tokens"] == 0
    caches = (
        ["--max-kv-size", "8"],
        ["cache.kind=rotating", "cache.max_size=8", "cache.keep=0"],
        ["--max-kv-size", "8", "--kv-bits", "8", "--kv-group-size", "32"],
    )
    for cache in caches:
        result, said = run(command, 1, *cache)
        assert result["effective"]["cache"]["dropped_prompt_tokens"] == length - 8
        assert said == warning(length - 8, length)
    for words in (["generate"], ["generate", "--no-stream"], ["trace"]):
        reply = command(*words, "--prompt", "Count, please.", "--max-kv-size", "8")
        assert (reply.code, reply.stderr) == (0, warning(length - 8, length))


def test_a_prompt_that_the_answer_pushes_out(command: Command) -> None:
    length = run(command, 1)[0]["prompt_tokens"]
    size = ["--max-kv-size", str(length)]
    for num_tokens, num in ((1, 0), (2, 1), (4, 3)):
        result, said = run(command, num_tokens, *size)
        assert result["generation_tokens"] == num_tokens
        assert result["effective"]["cache"]["dropped_prompt_tokens"] == num
        assert said == (warning(num, length) if num else "")


def test_python_says_it_per_token_and_per_row() -> None:
    model, processor = load("shapes")
    prompts = ["Count the red ones among the objects.", "Count."]
    stopping = {"max_kv_size": 6, "max_tokens": 3}
    rows = batch_generate(model, processor, prompts=prompts, **stopping).results
    for prompt, row in zip(prompts, rows, strict=True):
        steps = list(stream_generate(model, processor, prompt, **stopping))
        counts = [step.effective["cache"]["dropped_prompt_tokens"] for step in steps]
        length = steps[0].prompt_tokens
        config = RotatingConfig(max_size=6)
        assert counts == [num_dropped(config, length, length + n) for n in range(len(steps))]
        held = [step.effective["cache"]["held_tokens"] for step in steps]
        assert held == [min(length + n, 6) for n in range(len(steps))]
        one = generate(model, processor, prompt, **stopping)
        assert one.effective == steps[-1].effective == row.effective
    assert rows[0].effective["cache"]["dropped_prompt_tokens"] > 0


@given(
    max_size=st.integers(1, 12),
    keep=st.integers(0, 11),
    length=st.integers(0, 20),
    more=st.integers(0, 20),
)
def test_dropped_tokens_are_those_the_last_query_does_not_see(
    max_size: int, keep: int, length: int, more: int
) -> None:
    keep = min(keep, max_size - 1)
    query = length + more - 1
    unseen = [
        token for token in range(length) if not (token < keep or query - token < max_size - keep)
    ]
    for config in (
        RotatingConfig(max_size=max_size, keep=keep),
        AffineConfig(max_size=max_size, keep=keep),
    ):
        assert num_dropped(config, length, length + more) == len(unseen)
    for whole in (DenseConfig(), AffineConfig()):
        assert num_dropped(whole, length, length + more) == 0


def test_a_terminal_gets_the_late_warning_on_a_line_of_its_own(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    length = run(command, 1)[0]["prompt_tokens"]
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    said = run(command, 2, "--max-kv-size", str(length))[1]
    assert said == "\n" + warning(1, length)
