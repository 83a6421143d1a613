"""The table of foreign names leads only to what there is, through API, command line and YAML."""

from __future__ import annotations

from typing import Any

import pytest

from vlmkit.cli.parser import PARAM_FLAGS, build_parser, parse
from vlmkit.config.params import GenerationParams, pipeline_from_params
from vlmkit.config.run import RunConfig, load_run
from vlmkit.config.schema import run_schema
from vlmkit.errors import VlmkitError
from vlmkit.names.places import OTHER_FIELDS, RUN_FIELDS, SECTIONS, STAGE_FIELDS, Place
from vlmkit.names.table import FOREIGN, OFF_FIELDS, OFF_PARAMS, SHORT_FLAGS, Param
from vlmkit.names.words import flag_words, key_words, keyword_words, kind_words

SCHEMA = run_schema()
# A cache and a codec of one name are one entry, with the keys of both.
KINDS: dict[str, dict[str, Any]] = {}
for _entry in SCHEMA["$defs"].values():
    _kind = _entry.get("properties", {}).get("kind", {})
    for _name in [_kind["const"]] if "const" in _kind else _kind.get("enum", []):
        KINDS.setdefault(_name, {}).update(_entry["properties"])
FLAGS = [*("--" + flag.name.replace("_", "-") for flag in PARAM_FLAGS), "--model", "--dtype"]
FLAGS += ["--prompt", "--image", "--audio", "--video", "--enable-thinking"]
# Foreign to the others of the three alone.
FLAGS_OF_OURS, KEYS_OF_OURS = (
    {"picture", "logprobs", "trust_code", "format", "batch_size"},
    {"images", "messages"},
)
PLACES = [*STAGE_FIELDS.values(), *OTHER_FIELDS.values()]
PLACES += [target for target in FOREIGN.values() if isinstance(target, Place)]


@pytest.mark.parametrize("place", sorted(set(PLACES)), ids="/".join)
def test_every_place_is_in_the_schema(place: Place) -> None:
    section = SCHEMA["properties"][place.section]
    forms = [section, section.get("items", {}), *section.get("anyOf", ())]
    assert any(place.kind in form.get("discriminator", {}).get("mapping", {}) for form in forms)
    assert place.field in ("", *KINDS[place.kind])


def test_every_path_and_section_is_in_the_schema() -> None:
    assert set(SECTIONS) < set(RunConfig.model_fields)
    for path in RUN_FIELDS.values():
        value: Any = RunConfig()
        for key in path:
            assert key in type(value).model_fields
            value = getattr(value, key)


def test_every_parameter_is_ours_and_no_foreign_name_is() -> None:
    ours = {*GenerationParams.model_fields, *RUN_FIELDS}
    assert {target.name for target in FOREIGN.values() if isinstance(target, Param)} <= ours
    assert {*STAGE_FIELDS, *OTHER_FIELDS} <= set(GenerationParams.model_fields)
    assert set(OFF_PARAMS) <= set(GenerationParams.model_fields)
    assert set(SHORT_FLAGS.values()) <= set(FLAGS)
    assert not {*FOREIGN} & {*GenerationParams.model_fields, *RUN_FIELDS}
    assert {*FOREIGN} & {*RunConfig.model_fields} == KEYS_OF_OURS


@pytest.mark.parametrize("name", FOREIGN)
def test_api_command_line_and_yaml_know_every_name(name: str) -> None:
    words = keyword_words(name)
    with pytest.raises(VlmkitError) as caught:
        pipeline_from_params(**{name: 1})
    assert str(caught.value) == f"unknown parameter {name!r}: {words}"
    if name not in KEYS_OF_OURS:
        with pytest.raises(VlmkitError) as caught:
            load_run(overrides=[f"{name}=1"])
        words = key_words(name, list(RunConfig.model_fields), None)
        assert str(caught.value) == f"{name}=1: {name}: unknown key: {words}"
    if len(name) > 1 and name not in FLAGS_OF_OURS:
        flag = "--" + name.replace("_", "-")
        with pytest.raises(VlmkitError) as caught:
            parse(build_parser(), ["generate", flag, "1"])
        assert str(caught.value) == f"unknown option {flag}: {flag_words(flag, FLAGS)}"
    assert kind_words(name, []) or isinstance(FOREIGN[name], Param)


# A name, and what is said of it as a keyword, as a flag, and as a key of a YAML.
SAID = {
    "temp": (
        "use temperature",
        "use --temperature",
        "write {kind: temperature, temperature: …} in sampling",
    ),
    "max_new_tokens": (
        "use max_tokens",
        "use --max-tokens",
        "write {kind: max_tokens, max_tokens: …} in stopping",
    ),
    "min_tokens": (
        "give stopping: [{kind: eos, min_tokens: …}] in a PipelineConfig",
        "write {kind: eos, min_tokens: …} in a config's stopping",
        "write {kind: eos, min_tokens: …} in stopping",
    ),
    "stop_token_ids": (
        "give stopping: [{kind: stop_token_ids, sequences: …}] in a PipelineConfig",
        "write {kind: stop_token_ids, sequences: …} in a config's stopping",
        "write {kind: stop_token_ids, sequences: …} in stopping",
    ),
    "num_beams": (
        "give search: {kind: beam, num_beams: …} in a PipelineConfig",
        "write search.kind=beam search.num_beams=…",
        "write search: {kind: beam, num_beams: …}",
    ),
    "conversation": ("messages at the top of a config; in Python, vlmkit.prompt_utils.apply",) * 3,
    "min_tokens_to_keep": ("every cutoff keeps at least one token",) * 3,
    "prompt_ignore_length": ("repetition_penalty counts the last context_size tokens",) * 3,
    "do_sample": ("temperature=0 is greedy, above 0 samples (in a config, {kind: greedy}",) * 3,
    "image_size": (
        "use resize_shape (height and width in pixels)",
        "use --resize-shape (height and width in pixels)",
        "use preprocess.resize_shape (height and width in pixels)",
    ),
    "logits_bias": (
        "use logit_bias",
        "write {kind: logit_bias, bias: …} in a config's sampling",
        "write {kind: logit_bias, bias: …} in sampling",
    ),
}


@pytest.mark.parametrize("name", SAID)
def test_what_is_said(name: str) -> None:
    as_keyword, as_flag, as_key = SAID[name]
    assert str(keyword_words(name)).startswith(as_keyword)
    assert str(flag_words("--" + name.replace("_", "-"), FLAGS)).startswith(as_flag)
    assert str(key_words(name, list(RunConfig.model_fields), None)).startswith(as_key)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sampling: [{kind: temperature, temp: 1}]", "sampling.0.temp: unknown key: use temperat"),
        ("sampling: [{kind: top_p, top_p: 1}]", "sampling.0.top_p: unknown key: use p (and 1 more"),
        (
            "sampling: [{kind: top_p, min_p: 1, p: 1}]",
            "unknown key: write {kind: min_p, p: …} in s",
        ),
        (
            "sampling: [{kind: top_p, p: 1, min_tokens_to_keep: 1}]",
            "sampling.0.min_tokens_to_keep: unknown key: every cutoff keeps at least one token",
        ),
        (
            "sampling: [{kind: repetition_penalty, penalty: 1, prompt_ignore_length: 1}]",
            "sampling.0.prompt_ignore_length: unknown key: repetition_penalty counts the last",
        ),
        (
            "sampling: [{kind: repetition_penalty, penalty: 1, repeat_last_n: 1}]",
            "sampling.0.repeat_last_n: unknown key: use context_size",
        ),
        ("sampling: [{kind: min_p, k: 1}]", "sampling.0.k: unknown key (known here: kind, p)"),
        ("sampling: [{kind: nucleus}]", "sampling.0: unknown kind 'nucleus': write kind: top_p"),
        ("sampling: [{kind: TopPLogitsWarper}]", "write kind: top_p"),
        ("sampling: [{kind: NoRepeatNGramLogitsProcessor}]", "write kind: no_repeat_ngram"),
        ("sampling: [{kind: TopNSigma}]", "write kind: top_n_sigma"),
        ("stopping: [{kind: MaxTimeCriteria}]", "write kind: time_limit"),
        ("sampling: [{kind: stop}]", "unknown kind 'stop': write {kind: stop_sequences, sequences"),
        ("sampling: [{kind: do_sample}]", "unknown kind 'do_sample': temperature=0 is greedy"),
        ("sampling: [{kind: eos}]", "sampling.0: unknown kind 'eos': it stands in stopping"),
        ("xtc: {probability: 1}", "xtc: unknown key: write it as a kind of sampling"),
        ("template: {thinking: true}", "template.thinking: unknown key: use enable_thinking"),
        ("cache: {kind: rotating, max_kv_size: 3}", "cache.max_kv_size: unknown key: use max_size"),
        ("Top-P: 0.9", "Top-P: unknown key: write {kind: top_p, p: …} in sampling"),
        ("sampling: [{kind: beam, prompt: x}]", "unknown kind 'beam': it stands in search"),
        ("prefill: {prompt: x}", "prefill.prompt: unknown key: use prompt"),
    ],
)
def test_names_inside_a_config(text: str, message: str, tmp_path: Any) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(text + "\n")
    with pytest.raises(VlmkitError) as caught:
        load_run(path)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{path}:1: ")


OFF_VALUES = {"top_k": (0, -1, None, False), "max_tokens": (-1, None)}


@pytest.mark.parametrize(("kind", "field"), OFF_FIELDS)
def test_what_elsewhere_means_off_says_what_does_here(kind: str, field: str) -> None:
    section = "stopping" if kind in ("max_tokens", "time_limit") else "sampling"
    for value in OFF_VALUES.get(kind, (None,)):
        entry = {"kind": kind, field: value}
        given = {"cache": entry} if kind == "rotating" else {section: [entry]}
        with pytest.raises(VlmkitError) as caught:
            RunConfig(**given)
        assert f"; {OFF_FIELDS[kind, field]}" in str(caught.value)


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("{kind: temperature, temperature: 0}", "got 0; for greedy decoding write {kind: greedy}"),
        ("{kind: top_k, k: 0}", "got 0; to switch it off, leave the stage out"),
        (
            "{kind: top_p, p: 0.0}",
            "got 0.0; to keep one token write {kind: greedy}; to keep all, l",
        ),
    ],
)
def test_zeros_in_yaml_and_overrides(entry: str, message: str, tmp_path: Any) -> None:
    path = tmp_path / "run.yaml"
    path.write_text(f"sampling:\n- {entry}\n")
    for made in (lambda: load_run(path), lambda: load_run(overrides=[f"sampling=[{entry}]"])):
        with pytest.raises(VlmkitError) as caught:
            made()
        assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("top_p", 0.0, "got 0.0; 1 is off"),
        ("top_k", -1, "got -1; 0 is off"),
        ("temperature", None, "got None; 0 is greedy"),
        ("repetition_penalty", 0.0, "got 0.0; 1 is off"),
        ("max_kv_size", 0, "got 0; leave it out to keep all tokens"),
        ("top_p", 1.5, "got 1.5"),
    ],
)
def test_zeros_as_keywords_and_flags(name: str, value: Any, message: str) -> None:
    with pytest.raises(VlmkitError) as caught:
        pipeline_from_params(**{name: value})
    assert str(caught.value).endswith(message)
    if value is not None:
        with pytest.raises(VlmkitError, match=rf"^--{name.replace('_', '-')}: .*{message}$"):
            load_run(flags={name: value})
