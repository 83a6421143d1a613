"""Grammars in the decode loop: every way to generate keeps to them, and other rows don't notice."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import vlmkit
from vlmkit import load
from vlmkit.api import stream_pipeline
from vlmkit.batch import batch_pipeline
from vlmkit.engine import Request, collect
from vlmkit.errors import VlmkitError
from vlmkit.pipeline import PipelineConfig
from vlmkit.prompt_utils import apply_chat_template
from vlmkit.results import GenerationResult

SAMPLES = Path(vlmkit.__file__).parent / "assets" / "shapes" / "samples"
GREEDY = {"kind": "greedy"}
HOT = {"kind": "temperature", "temperature": 2.0}
DIGITS = {"kind": "grammar", "regex": "[0-9] of them"}
SCHEMA = {
    "type": "object",
    "properties": {
        "shape": {"enum": ["circle", "star"]},
        "count": {"type": "integer", "minimum": 0, "maximum": 20},
    },
    "required": ["shape", "count"],
    "additionalProperties": False,
}
JSON = {"kind": "grammar", "json_schema": {**SCHEMA, "x-guidance": {"whitespace_flexible": False}}}
COUNT = ("How many objects are red or stars?", "count_or.png")


@pytest.fixture(scope="module")
def shapes() -> tuple[Any, Any]:
    return load("shapes")


def ask(shapes: tuple[Any, Any], *, think: bool = False, sample: int = 0) -> Request:
    question, image = COUNT
    model, processor = shapes
    prompt = apply_chat_template(
        processor, model.config, question, num_images=1, enable_thinking=think
    )
    return Request(prompt, (str(SAMPLES / image),), sample=sample)


def pipeline(*sampling: dict[str, Any], **fields: Any) -> PipelineConfig:
    stops = [{"kind": "max_tokens", "max_tokens": 60}, {"kind": "eos"}]
    stops += fields.pop("stopping", [])
    return PipelineConfig(sampling=list(sampling), stopping=stops, **fields)


def generate(shapes: tuple[Any, Any], request: Request, config: PipelineConfig) -> GenerationResult:
    return collect(stream_pipeline(*shapes, request, config))


def fits(text: str) -> bool:
    value = json.loads(text)
    return (
        set(value) == {"shape", "count"}
        and value["shape"] in ("circle", "star")
        and type(value["count"]) is int
        and 0 <= value["count"] <= 20
    )


@pytest.mark.parametrize("seed", range(4))
def test_hot_samples_keep_to_the_schema(shapes: tuple[Any, Any], seed: int) -> None:
    result = generate(shapes, ask(shapes), pipeline(JSON, HOT, seed=seed))
    assert result.finish_reason == "stop"
    assert fits(result.text)


def test_thinking_is_as_without_the_grammar_and_the_answer_is_not(
    shapes: tuple[Any, Any],
) -> None:
    request = ask(shapes, think=True)
    free = generate(shapes, request, pipeline(GREEDY))
    held = generate(shapes, request, pipeline(DIGITS, GREEDY))
    thought, end, answer = held.text.partition("</think>")
    assert free.text.startswith(thought + end)
    assert not re.fullmatch("[0-9] of them", free.text.partition("</think>")[2])
    assert re.fullmatch("[0-9] of them", answer)


@pytest.mark.parametrize("transition", [None, "Now.\n</think>.\n\n"], ids=["plain", "text after"])
def test_a_thinking_budget_closes_the_block_and_the_answer_follows(
    shapes: tuple[Any, Any], transition: str | None
) -> None:
    budget = {"kind": "thinking_budget", "budget": 3, "transition": transition}
    config = pipeline(JSON, GREEDY, stopping=[budget])
    text = generate(shapes, ask(shapes, think=True), config).text
    _, _, answer = text.partition("</think>")
    assert fits(answer.removeprefix(".\n\n"))
    assert answer.startswith(".\n\n") == (transition is not None)


@pytest.mark.parametrize("batch_size", [2, 8])
def test_rows_of_a_batch_are_as_alone(shapes: tuple[Any, Any], batch_size: int) -> None:
    rows = [
        (ask(shapes), pipeline(JSON, GREEDY)),
        (ask(shapes), pipeline(GREEDY)),
        (ask(shapes, think=True), pipeline(DIGITS, GREEDY)),
        (ask(shapes), pipeline({"kind": "grammar", "regex": "(two|three)!"}, HOT, seed=3)),
        (ask(shapes, sample=1), pipeline(JSON, HOT, seed=3)),
        (ask(shapes, sample=2), pipeline(JSON, HOT, seed=3)),
        (ask(shapes, think=True), pipeline(JSON, GREEDY)),
    ]
    together = batch_pipeline(*shapes, rows, batch_size=batch_size).results
    for (request, config), result in zip(rows, together, strict=True):
        assert result.token_ids == generate(shapes, request, config).token_ids


def test_a_search_keeps_to_the_grammar(shapes: tuple[Any, Any]) -> None:
    beam = {"kind": "beam", "num_beams": 3, "num_return": 3}
    result = generate(shapes, ask(shapes), pipeline(DIGITS, search=beam))
    texts = [one.text for one in (result, *result.alternatives)]
    assert len(set(texts)) == 3
    assert all(re.fullmatch("[0-9] of them", text) for text in texts)


def test_a_complete_answer_ends_by_the_models_own_end(shapes: tuple[Any, Any]) -> None:
    result = generate(shapes, ask(shapes), pipeline({"kind": "grammar", "regex": "no"}, GREEDY))
    assert result.text == "no"
    assert result.token_ids[-1] in shapes[1].eos_token_ids
    assert result.finish_reason == "stop"


def test_a_bad_grammar_is_found_before_anything_is_computed(shapes: tuple[Any, Any]) -> None:
    with pytest.raises(VlmkitError, match=r'grammar: regex "\[": unclosed character class'):
        stream_pipeline(*shapes, ask(shapes), pipeline({"kind": "grammar", "regex": "["}))


@pytest.mark.parametrize(
    ("grammar", "message"),
    [
        ({"regex": "["}, r'^row 1: grammar: regex "\[": unclosed character class'),
        ({"json_schema": False}, r"^row 1: grammar: json_schema false: no value fits it$"),
        ({"lark": "start: <|im_foo|>"}, r"^row 1: grammar: lark .*unknown special token"),
    ],
    ids=str,
)
def test_a_bad_grammar_of_a_batch_names_its_row_before_any_row_runs(
    shapes: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch, grammar: dict[str, Any], message: str
) -> None:
    monkeypatch.setattr("vlmkit.batch.run_requests", lambda *_, **__: pytest.fail("a row ran"))
    rows = [
        (ask(shapes), pipeline(GREEDY)),
        (ask(shapes), pipeline({"kind": "grammar", **grammar}, GREEDY)),
    ]
    with pytest.raises(VlmkitError, match=message):
        batch_pipeline(*shapes, rows, batch_size=1)


def test_a_forced_token_that_a_grammar_refuses_names_its_row(shapes: tuple[Any, Any]) -> None:
    budget = {"kind": "thinking_budget", "budget": 3, "transition": "Now.\n</think>n!"}
    held = pipeline({"kind": "grammar", "regex": "no"}, GREEDY, stopping=[budget])
    rows = [(ask(shapes), pipeline(GREEDY)), (ask(shapes, think=True), held)]
    message = r'grammar: regex "no": token \d+ .* cannot come there'
    free, refused = batch_pipeline(*shapes, rows).results
    assert refused.finish_reason == "error"
    assert re.match(f"row 1: {message}", refused.error or "")
    assert free.error is None
    with pytest.raises(VlmkitError, match=f"^{message}"):
        generate(shapes, *rows[1])


@pytest.mark.parametrize(
    ("stages", "promise"),
    [
        ([], None),
        ([JSON], {"guaranteed": True, "doubts": []}),
        ([DIGITS], {"guaranteed": True, "doubts": []}),
        (
            [{"kind": "grammar", "json_schema": {"type": "object", "minProperties": 2}}],
            {
                "guaranteed": False,
                "doubts": ["minProperties: 2 also counts a key that comes twice"],
            },
        ),
    ],
    ids=["none", "json", "regex", "counted keys"],
)
def test_a_result_says_whether_its_grammar_is_guaranteed(
    shapes: tuple[Any, Any], stages: list[dict[str, Any]], promise: dict[str, Any] | None
) -> None:
    result = generate(shapes, ask(shapes), pipeline(*stages, GREEDY))
    assert result.effective is not None
    assert result.effective["grammar"] == promise


@pytest.mark.parametrize("patterns", [{}, {"^score$": {"type": "integer"}}], ids=["plain", "both"])
def test_a_greedy_answer_is_not_blanks_without_end(
    shapes: tuple[Any, Any], patterns: dict[str, Any]
) -> None:
    score = {"type": "integer", "multipleOf": 5}
    schema = {"type": "object", "properties": {"score": score}, "required": ["score"]}
    schema |= {"additionalProperties": False, "patternProperties": patterns}
    request = Request(apply_chat_template(shapes[1], shapes[0].config, "How many circles?"))
    stops = [{"kind": "max_tokens", "max_tokens": 150}]
    config = PipelineConfig(
        sampling=[{"kind": "grammar", "json_schema": schema}, GREEDY],
        stopping=[*stops, {"kind": "eos"}],
    )
    result = generate(shapes, request, config)
    assert result.finish_kind == "eos"
    assert json.loads(result.text)["score"] % 5 == 0


METHODS: list[dict[str, Any]] = [
    {"kind": "dola", "relative_top": 0.9},
    {"kind": "contrastive_decoding", "amateur": "shapes", "alpha": 0.9},
    {"kind": "vcd", "beta": 0.9},
    {"kind": "icd", "beta": 0.9},
    {"kind": "m3id", "beta": 0.9},
    {"kind": "cfg", "scale": 2.0},
]


@pytest.mark.parametrize("think", [False, True])
@pytest.mark.parametrize("contrast", METHODS, ids=lambda contrast: contrast["kind"])
def test_a_contrast_cuts_among_what_the_grammar_allows(
    shapes: tuple[Any, Any], contrast: dict[str, Any], think: bool
) -> None:
    closing = [{"kind": "thinking_budget", "budget": 20}]  # an end token inside closes the block
    for seed in range(3):
        config = pipeline(JSON, HOT, seed=seed, contrast=contrast, stopping=closing)
        result = generate(shapes, ask(shapes, think=think), config)
        assert result.finish_reason == "stop"
        assert fits(result.text.rpartition("</think>")[2])


def test_contrasts_and_grammars_of_a_batch_do_not_meet(shapes: tuple[Any, Any]) -> None:
    chains = [(JSON, HOT), (HOT,), (DIGITS, HOT)]
    configs = [
        pipeline(*chain, seed=3, contrast=contrast)
        for contrast in (*METHODS[:3], None)
        for chain in chains
    ]
    alone = [generate(shapes, ask(shapes), config).token_ids for config in configs]
    for batch_size in (4, 16):
        rows = [(ask(shapes), config) for config in configs]
        results = batch_pipeline(*shapes, rows, batch_size=batch_size).results
        assert [result.token_ids for result in results] == alone


def test_a_grammar_that_allows_everything_changes_no_contrast(shapes: tuple[Any, Any]) -> None:
    free = {"kind": "grammar", "regex": "(?s:.*)", "thinking": None}
    specials = {"kind": "suppress_tokens", "token_ids": special_ids(shapes[1])}
    for contrast in METHODS:
        plain = pipeline(specials, HOT, seed=1, contrast=contrast)
        held = pipeline(free, specials, HOT, seed=1, contrast=contrast)
        assert (
            generate(shapes, ask(shapes), held).token_ids
            == generate(shapes, ask(shapes), plain).token_ids
        )


def special_ids(processor: Any) -> list[int]:
    return sorted(processor.tokenizer.special_ids - processor.eos_token_ids)
