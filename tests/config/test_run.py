"""From files, flags and overrides to a validated run, and what is said when that fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from vlmkit.config.describe import describe_run
from vlmkit.config.params import pipeline_from_params
from vlmkit.config.run import RunConfig, load_run
from vlmkit.config.tree import format_path
from vlmkit.errors import VlmkitError
from vlmkit.pipeline import PipelineConfig

PARAMS = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.floats(0, 5),
        "top_p": st.floats(0.01, 1),
        "top_k": st.integers(0, 100),
        "repetition_penalty": st.floats(0.5, 2),
        "logit_bias": st.dictionaries(st.integers(0, 50), st.floats(-5, 5), max_size=3),
        "max_tokens": st.integers(0, 1000),
        "stop": st.lists(st.text("abc\n", min_size=1, max_size=5), min_size=1, max_size=2),
        "thinking_budget": st.integers(0, 50),
        "kv_bits": st.sampled_from([4, 8]),
        "max_kv_size": st.integers(1, 1000),
        "seed": st.integers(0, 2**64 - 1),
        "resize_shape": st.tuples(st.integers(28, 99), st.integers(28, 99)),
    },
)


def write(folder: Path, text: str) -> Path:
    path = folder / "run.yaml"
    path.write_text(text)
    return path


@given(params=PARAMS, prompt=st.text())
def test_yaml_round_trip(
    params: dict[str, Any], prompt: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    pipeline = pipeline_from_params(**params)
    config = RunConfig(prompt=prompt, **dict(pipeline))
    path = tmp_path_factory.mktemp("round") / "run.yaml"
    path.write_text(yaml.safe_dump(config.model_dump(mode="json")))
    loaded = load_run(path).config
    assert loaded == config
    assert loaded.pipeline == pipeline


@given(params=PARAMS)
def test_flags_mean_what_the_parameters_mean(params: dict[str, Any]) -> None:
    params.pop("logit_bias", None)  # no flag for it
    assert load_run(flags=params).config.pipeline == pipeline_from_params(**params)


def test_defaults_are_those_of_the_parameters() -> None:
    assert load_run().config.pipeline == pipeline_from_params() == PipelineConfig()


def test_a_run_hands_its_whole_pipeline_on() -> None:
    values: dict[str, Any] = {
        "preprocess": {"resize_shape": [28, 28]},
        "prefill": {"step_size": 7},
        "cache": {"kind": "rotating", "max_size": 9},
        "contrast": {"kind": "vcd"},
        "sampling": [{"kind": "temperature", "temperature": 0.5}],
        "search": {"kind": "beam", "num_beams": 2},
        "stopping": [{"kind": "eos"}],
        "seed": 5,
        "reproducible": False,
        "skip_special_tokens": True,
    }
    assert set(values) == set(PipelineConfig.model_fields)
    pipeline = RunConfig(prompt="Hi", **values).pipeline
    assert type(pipeline) is PipelineConfig
    assert pipeline == PipelineConfig(**values)
    changed = {name for name, value in pipeline if value != dict(PipelineConfig())[name]}
    assert changed == set(values)


BEAM = "search: {kind: beam, num_beams: 2}\n"


@pytest.mark.parametrize(
    ("text", "overrides", "flags", "kinds"),
    [
        ("", [], {}, ["greedy"]),
        (BEAM, [], {}, []),
        ("", ["search={kind: beam, num_beams: 2}"], {}, []),
        (BEAM, ["search=null"], {}, ["greedy"]),
        (BEAM, [], {"max_tokens": 9}, []),
        (BEAM, [], {"temperature": 0.5}, ["temperature"]),
        (BEAM, [], {"repetition_penalty": 1.2}, ["repetition_penalty"]),
        (BEAM, [], {"presence_penalty": 1.0, "top_k": 9}, ["presence_penalty", "top_k"]),
        ("", ["search={kind: beam, num_beams: 2}"], {"top_p": 0.9}, ["top_p"]),
        (BEAM, ["search=null"], {"repetition_penalty": 1.2}, ["repetition_penalty", "greedy"]),
        (BEAM, ["sampling=[]"], {}, []),
        (BEAM + "sampling: [{kind: top_k, k: 3}]\n", [], {}, ["top_k"]),
        ("", ["sampling.0={kind: top_k, k: 3}"], {}, ["top_k"]),
        (BEAM, ["sampling.0={kind: top_k, k: 3}"], {}, ["top_k"]),
    ],
)
def test_a_search_begins_without_the_default_chain(
    tmp_path: Path, text: str, overrides: list[str], flags: dict[str, Any], kinds: list[str]
) -> None:
    run = load_run(write(tmp_path, text), overrides=overrides, flags=flags)
    assert [stage.kind for stage in run.config.sampling] == kinds
    given = yaml.safe_load(text) or {}
    if not overrides and not flags:  # what Python makes of the same
        assert PipelineConfig(**given).sampling == run.config.sampling
    shown = [str(item.origin) for item in describe_run(run) if item.path == ("sampling",)]
    assert shown == ([] if kinds else ["sampling=[]" if "sampling=[]" in overrides else "default"])


def test_every_value_knows_where_it_came_from(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "seed: 1\nsampling:\n  - {kind: top_p, p: 0.9}\n  - {kind: temperature, temperature: 1.0}\n"
        "template:\n  enable_thinking: true\n",
    )
    run = load_run(
        path, flags={"temperature": 0.7, "max_tokens": 9}, overrides=["sampling.0.p=0.5"]
    )
    settings = {
        format_path(item.path): (item.value, str(item.origin)) for item in describe_run(run)
    }
    assert settings["seed"] == (1, f"{path}:1")
    assert settings["sampling.0.p"] == (0.5, "sampling.0.p=0.5")
    assert settings["sampling.0.kind"] == ("top_p", f"{path}:3")
    assert settings["sampling.1.temperature"] == (0.7, "--temperature")
    assert settings["template.enable_thinking"] == (True, f"{path}:6")
    assert settings["stopping.0.max_tokens"] == (9, "--max-tokens")
    assert settings["prefill.step_size"] == (2048, "default")


def test_describe_shows_every_field() -> None:
    shown = {item.path[0] for item in describe_run(load_run())}
    assert shown == set(RunConfig.model_fields)


def test_media_paths_are_relative_to_their_file(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        "model: ./weights\naudio: [d.wav]\n"
        "images: [a.png, /b.png, 'https://host/c.png', 'data:image/png;base64,']\n",
    )
    config = load_run(path).config
    assert config.images == (
        str(tmp_path / "a.png"),
        "/b.png",
        "https://host/c.png",
        "data:image/png;base64,",
    )
    assert config.audio == (str(tmp_path / "d.wav"),)
    assert config.model == str(tmp_path / "weights")
    assert load_run(path, flags={"image": ["x.png"]}).config.images == ("x.png",)
    assert load_run(path, overrides=["model=org/name"]).config.model == "org/name"


def test_a_stopping_flag_adds_what_the_file_lacks(tmp_path: Path) -> None:
    path = write(tmp_path, "stopping: [{kind: eos}]\n")
    stopping = load_run(path, flags={"max_tokens": 5, "stop": ["x"]}).config.stopping
    assert sorted(stop.kind for stop in stopping) == ["eos", "max_tokens", "stop_sequences"]


def test_a_sampling_flag_never_guesses_the_order(tmp_path: Path) -> None:
    path = write(tmp_path, "sampling: [{kind: greedy}]\n")
    with pytest.raises(VlmkitError, match="--top-p: the config's sampling list has no top_p stage"):
        load_run(path, flags={"top_p": 0.5})


def test_cache_flags_replace_the_policy(tmp_path: Path) -> None:
    path = write(tmp_path, "cache: {kind: rotating, max_size: 99, keep: 1}\n")
    cache = load_run(path, flags={"kv_bits": 8}).config.cache
    assert (cache.kind, cache.bits) == ("affine", 8)


def test_numbers_as_yaml_writes_them(tmp_path: Path) -> None:
    path = write(tmp_path, "sampling: [{kind: temperature, temperature: 1e-3}]\n")
    assert load_run(path).config.sampling[0].temperature == 1e-3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sede: 1", ":1: sede: unknown key; did you mean 'seed'?"),
        ("seed: 1\nzzz: 1", ":2: zzz: unknown key (known here: "),
        ("template:\n  enable: true", ":2: template.enable: unknown key; did you mean 'enable_th"),
        (
            "sampling:\n- kind: top_p\n  p: 1\n  pp: 1",
            ":4: sampling.0.pp: unknown key; did you mea",
        ),
        ("sampling:\n- kind: topp", ":2: sampling.0: unknown kind 'topp'; did you mean 'top_p'?"),
        ("sampling:\n- p: 1", ":2: sampling.0: needs a mapping with a 'kind' ("),
        ("sampling:\n- greedy", ":2: sampling.0: needs a mapping: write {kind: greedy}"),
        ("sampling:\n- kind: top_p", ":2: sampling.0.p: is required"),
        ("sampling:\n- kind: top_p\n  p: 2", ":3: sampling.0.p: must be greater than 0.0 and at m"),
        ("sampling: greedy", ":1: sampling: must be a list, got 'greedy'"),
        ("cache:\n  kind: rotating", ":2: cache.max_size: is required"),
        ("cache: dense", ":1: cache: needs a mapping: write {kind: dense}"),
        ("cache: thick", ":1: cache: needs a mapping with a 'kind' ("),
        ("search:\n  kind: beam\n  beams: 2", ":3: search.beams: unknown key; did you mean 'num_b"),
        ("contrast:\n  kind: contrastive_decoding", ":2: contrast.amateur: is required: "),
        ("contrast:\n  kind: vcd\n  alpha: x", ":3: contrast.alpha: must be a number, got 'x'"),
        (
            "contrast:\n  kind: dola\n  layers: middle",
            ":3: contrast.layers: must be 'low', 'high' or a list of whole numbers, got 'middle'",
        ),
        (
            "search:\n  kind: beam\n  num_beams: 2\n  early_stopping: perhaps",
            ":4: search.early_stopping: must be true, false or 'never', got 'perhaps'",
        ),
        (
            "seed: 1\nsampling: [{kind: greedy}]\nsearch: {kind: beam, num_beams: 2}",
            ":2: sampling has a greedy stage",
        ),
        (
            "stopping:\n- kind: all_of\n  criteria: []",
            ":3: stopping.0.criteria: needs at least 1 item, got []",
        ),
        (
            "sampling:\n- kind: presence_penalty\n  penalty: 1\n  context_size: -1",
            ":4: sampling.0.context_size: must be at least 1 or null, got -1",
        ),
        ("reproducible: perhaps", ":1: reproducible: must be true or false, got 'perhaps'"),
        ("seed: x", ":1: seed: must be a whole number, got 'x'"),
        (
            "stopping:\n- kind: max_tokens\n  max_tokens: off",
            ":3: stopping.0.max_tokens: needs a n",
        ),
        ("seed: yes", ":1: seed: needs a number, not True"),
        ("seed: -1", ":1: seed: must be at least 0 and less than 18446744073709551616, got -1"),
        ("prompt: no", ":1: prompt: must be text, got False; in YAML, put it in quotes"),
        ("revision: 1234567", ":1: revision: must be text, got 1234567; in YAML, put it in quotes"),
        ("dtype: float", ":1: dtype: must be 'float32', 'float16' or 'bfloat16', got 'float'; did"),
        ("images: a.png", ":1: images: must be a list, got"),
        ("model: ''", ":1: model: must have at least 1 character, got ''"),
        ("preprocess:\n  resize_shape: [3]", ":2: preprocess.resize_shape"),
        ("prefill: 3", ":1: prefill: needs a mapping with keys such as step_size, got 3"),
    ],
)
def test_mistakes_name_file_line_key_and_remedy(tmp_path: Path, text: str, message: str) -> None:
    path = write(tmp_path, text + "\n")
    with pytest.raises(VlmkitError) as caught:
        load_run(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "pydantic" not in str(caught.value)


def test_a_mistake_in_an_override_names_the_override() -> None:
    with pytest.raises(VlmkitError, match=r"^cache\.kind=affin: cache: unknown kind 'affin'"):
        load_run(overrides=["cache.kind=affin"])


def test_several_mistakes_are_counted(tmp_path: Path) -> None:
    with pytest.raises(VlmkitError, match=r"\(and 1 more\)$"):
        load_run(write(tmp_path, "seed: x\nskip_special_tokens: 3\n"))


def test_a_dump_is_plain_json() -> None:
    config = load_run(flags={"kv_bits": 8}).config
    dump = config.model_dump(mode="json")
    assert json.loads(json.dumps(dump)) == dump
    assert RunConfig.model_validate(dump) == config


def test_models_with_a_relative_path_lie_beside_their_file(tmp_path: Path) -> None:
    text = "model: ./a\ncontrast: {kind: contrastive_decoding, amateur: ./b}\n"
    config = load_run(write(tmp_path, text)).config
    assert config.contrast is not None
    assert config.contrast.kind == "contrastive_decoding"
    assert (config.model, config.contrast.amateur) == (str(tmp_path / "a"), str(tmp_path / "b"))


def test_describe_names_the_kind_first(tmp_path: Path) -> None:
    run = load_run(write(tmp_path, "stopping: [{kind: confidence_stop, above: 0.5}]\n"))
    paths = [item.path for item in describe_run(run) if item.stage == "stopping"]
    assert paths[0] == ("stopping", 0, "kind")
