"""Prompts on disk: read back they go on as they were; what does not fit is refused by name."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from tests.prompts.test_cache import KINDS, Loaded, ask, picture
from vlmkit import (
    PipelineConfig,
    PromptCache,
    VlmkitError,
    generate,
    load,
    load_prompts,
    save_prompts,
)
from vlmkit.config.params import pipeline_from_params


@pytest.fixture(scope="module")
def shapes() -> Loaded:
    return load("shapes")


def filled(shapes: Loaded, **params: Any) -> PromptCache:
    seen = PromptCache()
    prompt = ask(shapes, "Count the objects.", 1)
    generate(*shapes, prompt, image=picture(1), max_tokens=4, prompt_cache=seen, **params)
    return seen


@pytest.mark.parametrize("kind", KINDS)
def test_a_saved_prompt_goes_on_in_another_process(
    shapes: Loaded, kind: str, tmp_path: Path
) -> None:
    pipeline = pipeline_from_params(**KINDS[kind])
    file = tmp_path / "prompts.safetensors"
    assert save_prompts(filled(shapes, **KINDS[kind]), file, shapes[0], pipeline) == 2
    model, processor = load("shapes")
    fresh = PromptCache()
    assert load_prompts(fresh, file, model, pipeline) == 2
    prompt, image = ask(shapes, "Count the objects.", 1), picture(1)
    options: dict[str, Any] = {"image": image, "max_tokens": 8, **KINDS[kind]}
    result = generate(model, processor, prompt, prompt_cache=fresh, **options)
    assert result.cached_tokens == result.prompt_tokens
    assert result.token_ids == generate(*shapes, prompt, **options).token_ids
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_what_does_not_fit_is_refused_by_name(shapes: Loaded, tmp_path: Path) -> None:
    file, plain = tmp_path / "prompts.safetensors", PipelineConfig()
    save_prompts(filled(shapes), file, shapes[0], plain)
    model, _ = load("shapes")
    changed = dict(model.language.norm.items())
    model.language.norm.weight = changed["weight"] * 1.5
    broken, other, text = (tmp_path / name for name in ("broken", "other", "text"))
    broken.write_bytes(file.read_bytes()[:-100])
    mx.save_safetensors(str(other), {"a": mx.zeros(2)})
    other = tmp_path / "other.safetensors"
    text.write_text("{}")
    rotating = PipelineConfig(cache={"kind": "rotating", "max_size": 9})
    cases: list[tuple[Path, Any, PipelineConfig, str]] = [
        (tmp_path / "none", shapes[0], plain, "no such file"),
        (tmp_path, shapes[0], plain, "no such file"),
        (file, model, plain, "other weights than this model's"),
        (file, shapes[0], rotating, 'are in the KV cache {"kind":"dense"}, not .*rotating'),
        (broken, shapes[0], plain, "is truncated"),
        (text, shapes[0], plain, "is truncated"),
        (other, shapes[0], plain, "not a file of prompts"),
    ]
    for path, used, pipeline, message in cases:
        fresh = PromptCache()
        with pytest.raises(VlmkitError, match=message) as caught:
            load_prompts(fresh, path, used, pipeline)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)
        assert len(fresh) == 0


def test_a_file_appears_whole_or_not_at_all(shapes: Loaded, tmp_path: Path) -> None:
    with pytest.raises(VlmkitError, match="cannot be written"):
        save_prompts(filled(shapes), tmp_path / "no" / "file", shapes[0], PipelineConfig())
    assert list(tmp_path.iterdir()) == []


ENDS = "0.cache.2"
CHANGES: list[tuple[str, Callable[[dict[str, mx.array], dict[str, Any]], object], str]] = [
    ("end", lambda arrays, _: arrays.update({ENDS: mx.array([10**6])}), r"ends at \[1000000\]"),
    ("type", lambda arrays, _: arrays.update({ENDS: mx.array([1.0])}), "float32 stands where"),
    ("places", lambda arrays, _: arrays.update({"0.cache.0": mx.zeros((1, 2, 0, 32))}), "places"),
    ("shape", lambda arrays, _: arrays.update({"0.cache.0": mx.zeros((1, 2, 4, 31))}), "an array"),
    ("ids", lambda arrays, _: arrays.update({"0.token_ids": arrays["0.token_ids"] + 10**6}), "id"),
    ("length", lambda _, entry: entry.update(length=10**9), "ends at"),
    ("position", lambda _, entry: entry.update(next_position=-1), "-1 is no count"),
    ("taps", lambda _, entry: entry.update(taps=[1, 2]), "the layers of its last token"),
    ("medium", lambda _, entry: entry.update(media=[["image", [1], [0, 999], "00"]]), "0 to 999"),
    ("kind", lambda _, entry: entry.update(length=True), "True is no count"),
]


@pytest.mark.parametrize(
    ("change", "message"), [c[1:] for c in CHANGES], ids=[c[0] for c in CHANGES]
)
def test_numbers_that_do_not_agree_are_refused(
    shapes: Loaded,
    tmp_path: Path,
    change: Callable[[dict[str, mx.array], dict[str, Any]], object],
    message: str,
) -> None:
    file = tmp_path / "prompts.safetensors"
    seen = PromptCache()
    generate(*shapes, "Hello there", max_tokens=1, prompt_cache=seen)
    save_prompts(seen, file, shapes[0], PipelineConfig())
    arrays, metadata = mx.load(str(file), return_metadata=True)
    entries = json.loads(metadata["prompts"])
    change(arrays, entries[0])
    mx.save_safetensors(str(file), arrays, {**metadata, "prompts": json.dumps(entries)})
    with pytest.raises(VlmkitError, match=message):
        load_prompts(PromptCache(), file, shapes[0], PipelineConfig())
