"""Tokens in configs: one rule for every field of every kind, as ids and as text."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pytest

from vlmkit.api import generate, load, stream_pipeline
from vlmkit.batch import batch_generate
from vlmkit.cli.main import main
from vlmkit.config.run import load_run
from vlmkit.engine import Request
from vlmkit.errors import VlmkitError
from vlmkit.pipeline import PipelineConfig
from vlmkit.processors.lookup import token_lookup
from vlmkit.sampling import SamplerConfig, SuppressTokens, build_stage
from vlmkit.stopping import StoppingConfig, ThinkingBudgetConfig, build_stopping
from vlmkit.tokens.ids import Holds
from vlmkit.tokens.lookup import TokenLookup, known_tokens, resolve_tokens

OUTSIDE, LAST = 640, 639  # of the embedded model's vocabulary
TWO = "How many"  # two tokens of it
NEWLINE, EOS = 198, [625, 627]
# By section, kind and field: the other fields that a config needs.
FIELDS: dict[tuple[str, str, str], dict[str, Any]] = {
    ("sampling", "repetition_penalty", "excluded_ids"): {"penalty": 1.1},
    ("sampling", "presence_penalty", "excluded_ids"): {"penalty": 0.5},
    ("sampling", "frequency_penalty", "excluded_ids"): {"penalty": 0.5},
    ("sampling", "no_repeat_ngram", "excluded_ids"): {"n": 3},
    ("sampling", "dry", "excluded_ids"): {"multiplier": 1.0},
    ("sampling", "dry", "breaker_ids"): {"multiplier": 1.0},
    ("sampling", "xtc", "protected_ids"): {"probability": 0.5, "threshold": 0.1},
    ("sampling", "logit_bias", "bias"): {},
    ("sampling", "suppress_tokens", "token_ids"): {},
    ("sampling", "allowed_tokens", "token_ids"): {},
    ("sampling", "min_new_tokens", "token_ids"): {"num_tokens": 2},
    ("stopping", "eos", "token_ids"): {},
    ("stopping", "stop_token_ids", "sequences"): {},
}
MODEL, PROCESSOR = load("shapes")


def section(place: tuple[str, str, str], tokens: list[Any]) -> dict[str, Any]:
    """A run with these tokens in one field."""
    name, kind, field = place
    value: Any = tokens
    if field == "bias":
        value = dict.fromkeys(tokens, 0.5)
    if field == "sequences":
        value = [[token] for token in tokens]
    rest = [{"kind": "max_tokens", "max_tokens": 1}] if name == "stopping" else []
    return {name: [{"kind": kind, field: value, **FIELDS[place]}, *rest]}


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main([*arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err.strip()


def test_the_table_has_every_field_that_holds_tokens():
    found = set()
    for name, union in (("sampling", SamplerConfig), ("stopping", StoppingConfig)):
        for config in get_args(get_args(union)[0]):
            kind = config.model_fields["kind"].default
            for field, info in config.model_fields.items():
                marked = any(isinstance(entry, Holds) for entry in info.metadata)
                assert marked or not field.endswith("_ids"), f"{kind}.{field} takes no text"
                if marked:
                    found.add((name, kind, field))
    assert found == set(FIELDS)


BAD: list[tuple[Any, str]] = [
    (-7, "must be at least 0, got -7"),
    (2**31, "must be at most 2147483647, got 2147483648"),
    (1.5, "must be a token id, the text of one token or eos, got 1.5; in YAML, put text"),
    (True, "must be a token id, the text of one token or eos, got True; in YAML, put text in"),
    ("", "must be a token id, the text of one token or eos, got ''"),
    (OUTSIDE, f"token id {OUTSIDE} is not in the vocabulary; ids go from 0 to {LAST}"),
    (TWO, "the text 'How many' is 2 tokens here ('How' 409, ' many' 307)"),
    ("Ж", "the text 'Ж' is 2 tokens here"),
]


def is_possible(place: tuple[str, str, str], token: Any) -> bool:
    """Whether YAML has such a key, and a sequence of tokens minds that text is several."""
    if place[2] == "bias":
        return not isinstance(token, (float, bool))
    return place[2] != "sequences" or not isinstance(token, str) or not token


@pytest.mark.parametrize(
    ("place", "token", "message"),
    [(place, *bad) for place in FIELDS for bad in BAD if is_possible(place, bad[0])],
)
def test_what_is_no_token_of_the_model_is_refused(
    place: tuple[str, str, str],
    token: Any,
    message: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
):
    value = json.dumps(section(place, [token])[place[0]])
    if place[2] == "bias":  # JSON's keys are text, YAML's are not
        value = f"[{{kind: logit_bias, bias: {{{json.dumps(token)}: 0.5}}}}]"
    path = tmp_path / "run.yaml"
    path.write_text(f"prompt: Hi\n{place[0]}: {value}\n")
    written = refused(capsys, "generate", str(path))
    assert f"{path}:2: {place[0]}.0.{place[2]}" in written
    assert message in written
    assert message in refused(capsys, "generate", "--prompt", "Hi", f"{place[0]}={value}")


@pytest.mark.parametrize(
    ("place", "name", "ids"),
    [
        (place, name, ids)
        for place in FIELDS
        for name, ids in (("\n", [NEWLINE]), ("eos", EOS), (" many", [307]))
        if (place[2], name) != ("sequences", "eos")
    ],
)
def test_text_is_resolved_once_and_shown(
    place: tuple[str, str, str], name: str, ids: list[int], capsys: pytest.CaptureFixture[str]
):
    expected: Any = [5, *ids]
    if place[2] == "bias":
        expected = {str(token_id): 0.5 for token_id in expected}
    if place[2] == "sequences":
        expected = [[token_id] for token_id in expected]
    config = section(place, [5, name])
    pipeline = PipelineConfig.model_validate(
        {"stopping": [{"kind": "max_tokens", "max_tokens": 1}], **config}
    )
    [result] = stream_pipeline(MODEL, PROCESSOR, Request("How many?"), pipeline)
    ran = result.effective["pipeline"][place[0]][0][place[2]]
    if place[2] == "excluded_ids":  # no penalty counts the places of images either
        assert ran == [*expected, *sorted(PROCESSOR.placeholder_ids)]
    else:
        assert ran == expected
    override = f"{place[0]}={json.dumps(config[place[0]])}"
    assert main(["describe", "--json", override]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["config"][place[0]][0][place[2]] == expected
    origins = {k: v for k, v in shown["origins"].items() if f"{place[0]}.0.{place[2]}" in k}
    assert set(origins.values()) == {override}


def test_a_sequence_may_mix_text_of_any_length_and_ids():
    lookup = token_lookup(PROCESSOR)

    def resolved(*sequences: Any) -> Any:
        config = {"kind": "stop_token_ids", "sequences": sequences}
        pipeline = PipelineConfig.model_validate({"stopping": [config]})
        return resolve_tokens(pipeline, lookup).stopping[0].sequences  # type: ignore[union-attr]

    assert resolved(TWO, [5, TWO, "\n"]) == ((409, 307), (5, 409, 307, NEWLINE))
    message = r"stopping\.0\.sequences: stop_token_ids: eos is one of 625, 627 here"
    with pytest.raises(VlmkitError, match=message):
        resolved(["eos"])
    one = lookup._replace(eos_ids=frozenset({627}))
    config = {"kind": "stop_token_ids", "sequences": ["eos"]}
    pipeline = PipelineConfig.model_validate({"stopping": [config]})
    assert resolve_tokens(pipeline, one).stopping[0].sequences == ((627,),)  # type: ignore[union-attr]


def test_groups_are_looked_into():
    inner = {"kind": "eos", "token_ids": ["\n"]}
    group = {"kind": "any_of", "criteria": [{"kind": "all_of", "criteria": [inner]}]}
    pipeline = PipelineConfig.model_validate({"stopping": [group]})
    resolved = resolve_tokens(pipeline, token_lookup(PROCESSOR))
    assert resolved.stopping[0].criteria[0].criteria[0].token_ids == (NEWLINE,)  # type: ignore[union-attr]
    assert pipeline.stopping[0].criteria[0].criteria[0].token_ids == ("\n",)  # type: ignore[union-attr]


def test_keyword_biases_take_text_and_refuse_the_same():
    free = generate(MODEL, PROCESSOR, "How many?", max_tokens=1)
    text = PROCESSOR.decode([free.token])
    biased = generate(MODEL, PROCESSOR, "How many?", max_tokens=1, logit_bias={text: -100.0})
    assert biased.token != free.token
    same = generate(MODEL, PROCESSOR, "How many?", max_tokens=1, logit_bias={free.token: -100.0})
    assert same.token == biased.token
    for bias, message in (
        ({-7: 1.0}, "logit_bias.-7 must be at least 0, got -7"),
        ({"-7": 1.0}, "logit_bias.-7 must be at least 0, got -7"),
        ({OUTSIDE: 1.0}, "logit_bias: token id 640 is not in the vocabulary"),
        ({TWO: 1.0}, "logit_bias: the text 'How many' is 2 tokens here"),
        ({"\n": 1.0, NEWLINE: 2.0}, r"logit_bias: '\n' and 198 are both token id 198; keep one"),
    ):
        with pytest.raises(VlmkitError) as caught:
            generate(MODEL, PROCESSOR, "How many?", max_tokens=1, logit_bias=bias)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def test_a_batch_begins_only_when_every_row_has_its_tokens(monkeypatch: pytest.MonkeyPatch):
    biases = [{"eos": -1.0}, {TWO: 1.0}]
    good = batch_generate(MODEL, PROCESSOR, prompts=["A"], max_tokens=1, logit_bias=biases[:1])
    assert good.results[0].effective["pipeline"]["sampling"][0]["bias"] == {"625": -1, "627": -1}

    def run(*_: Any, **__: Any) -> Any:
        raise AssertionError("a row was run")

    monkeypatch.setattr("vlmkit.batch.run_requests", run)
    with pytest.raises(VlmkitError, match="logit_bias: the text 'How many' is 2 tokens here"):
        batch_generate(MODEL, PROCESSOR, prompts=["A", "B"], max_tokens=1, logit_bias=biases)


def test_a_hub_id_is_described_without_its_tokenizer(capsys: pytest.CaptureFixture[str]):
    run = "sampling=[{kind: suppress_tokens, token_ids: [eos]}]"
    assert main(["describe", "--json", "model=owner/name", run]) == 0
    assert json.loads(capsys.readouterr().out)["config"]["sampling"][0]["token_ids"] == ["eos"]


def test_a_config_with_text_survives_json():
    run = load_run(overrides=['sampling=[{kind: logit_bias, bias: {"\\n": 1, 12: 2, eos: 3}}]'])
    assert run.config.sampling[0].bias == {"\n": 1, 12: 2, "eos": 3}  # type: ignore[union-attr]
    assert type(run.config).model_validate_json(run.config.model_dump_json()) == run.config


def words(*tokens: str, eos: set[int], num_ids: int) -> TokenLookup:
    """A tokenizer that puts a space before text, as many do, and knows no upper case."""

    def encode(text: str) -> list[int]:
        whole = " " + text.lower()
        if whole in tokens:
            return [tokens.index(whole)]
        return [tokens.index(" "), *[tokens.index(part) for part in text.lower()]]

    return TokenLookup(
        encode=encode,
        decode=lambda ids: "".join(tokens[i] for i in ids),
        read_tokens=lambda: [token.encode() for token in tokens],
        eos_ids=frozenset(eos),
        num_ids=num_ids,
    )


LOOKUP = words(" ", "\n", " yes", "a", "b", "y", "e", "s", "ab", eos=set(), num_ids=8)


@pytest.mark.parametrize(("text", "token_id"), [("yes", 2), ("\n", 1), ("b", 4), (" yes", 2)])
def test_tokens_that_text_alone_does_not_encode_to_are_found_by_their_bytes(text, token_id):
    assert resolve_tokens(SuppressTokens(token_ids=(text,)), LOOKUP).token_ids == (token_id,)


@pytest.mark.parametrize(
    ("token", "message"),
    [
        ("Yes", "the tokenizer has no token for the text 'Yes': it would be ' yes' (id 2)"),
        ("ba", "the text 'ba' is 3 tokens here (' ' 0, 'b' 4, 'a' 3), and one is needed"),
        ("ab", "token id 8 is not in the vocabulary; ids go from 0 to 7"),
        ("eos", "the model has no end-of-sequence token for eos; give an id"),
    ],
)
def test_what_the_tokenizer_cannot_say_is_refused(token, message):
    with pytest.raises(VlmkitError) as caught:
        resolve_tokens(SuppressTokens(token_ids=(token,)), LOOKUP)
    assert str(caught.value).startswith(f"token_ids: suppress_tokens: {message}")


def test_a_stage_without_a_tokenizer_says_what_text_needs():
    with pytest.raises(VlmkitError, match=r"suppress_tokens: 'no' is text, .* give the id, or put"):
        build_stage(SuppressTokens(token_ids=("no",)))


def test_markers_that_the_model_has_no_embedding_for_are_refused():
    [token_id] = PROCESSOR.encode("<think>")
    lookup = token_lookup(PROCESSOR, num_ids=token_id)
    with pytest.raises(VlmkitError, match=f"turns '<think>' into token id {token_id}, which is"):
        build_stopping([ThinkingBudgetConfig(budget=2)], partial(known_tokens, lookup), frozenset())
