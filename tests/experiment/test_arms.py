"""Arms: patches, grids, overrides and the base they start from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.experiment.studies import write_study
from vlmkit.config.document import parse_yaml
from vlmkit.config.tree import find, to_plain
from vlmkit.errors import VlmkitError
from vlmkit.experiment.files import Experiment, load_experiment
from vlmkit.experiment.groups import group_arms

DATA = "dataset: {kind: shapes, num_samples: 2}\n"


def load(text: str, *overrides: str, **options: Any) -> Experiment:
    return load_experiment(parse_yaml(DATA + text, "study.yaml"), overrides=overrides, **options)


def names(experiment: Experiment) -> list[str]:
    return [arm.name for arm in experiment.arms]


@pytest.mark.parametrize(
    ("text", "overrides", "expected"),
    [
        ("", [], ["base"]),
        ("arms: {a: {}, b: {search: {kind: beam, num_beams: 2}}}", [], ["a", "b"]),
        ("grid: {cache: [{kind: dense}, {kind: affine}]}", [], ["cache=dense", "cache=affine"]),
        (
            "grid: {sampling: [[], [{kind: min_p, p: 0.1}, {kind: greedy}]]}",
            [],
            ["sampling=none", "sampling=min_p+greedy"],
        ),
        (
            "grid: {sampling: {cold: [{kind: greedy}], warm: [{kind: min_p, p: 0.1}]}}",
            [],
            ["sampling=cold", "sampling=warm"],
        ),
        (
            "grid: {prefill.step_size: {small: 4, 8: 16}}",
            [],
            ["step_size=small", "step_size=8"],
        ),
        (
            "base: {sampling: [{kind: min_p, p: 0.1}]}",
            ["sampling.0.p=0.2,0.3", "prefill.step_size=4,8"],
            [
                "p=0.2, step_size=4",
                "p=0.2, step_size=8",
                "p=0.3, step_size=4",
                "p=0.3, step_size=8",
            ],
        ),
        (
            "base: {sampling: [{kind: min_p, p: 0.1}, {kind: top_p, p: 0.9}]}",
            ["sampling.0.p=0.2,0.3", "sampling.1.p=0.5,0.6"],
            [
                f"sampling.0.p={first}, sampling.1.p={second}"
                for first in (0.2, 0.3)
                for second in (0.5, 0.6)
            ],
        ),
        (
            "arms: {a: {}, b: {search: {kind: beam, num_beams: 2}}}",
            ["cache.kind=dense,affine"],
            ["a, kind=dense", "a, kind=affine", "b, kind=dense", "b, kind=affine"],
        ),
        ("arms: {a: {}}", ["arms.b.search={kind: beam, num_beams: 2}"], ["a", "b"]),
        (
            "grid: {model: [shapes, ./other], template.enable_thinking: [true, false]}",
            [],
            [
                f"model={model}, enable_thinking={thinking}"
                for model in ("shapes", "./other")
                for thinking in ("true", "false")
            ],
        ),
    ],
)
def test_names(text: str, overrides: list[str], expected: list[str]) -> None:
    assert names(load(text, *overrides)) == expected


def test_a_grid_changes_what_an_arm_has_put_there() -> None:
    text = """
arms:
  one: {sampling: [{kind: min_p, p: 0.1}]}
  two: {"sampling.0": {kind: top_p, p: 0.5}}
grid: {sampling.0.p: [0.2, 0.3]}
"""
    found = {arm.name: arm.config.sampling[0] for arm in load(text).arms}
    assert [(stage.kind, stage.p) for stage in found.values()] == [
        ("min_p", 0.2),
        ("min_p", 0.3),
        ("top_p", 0.2),
        ("top_p", 0.3),
    ]


def test_values_keep_the_place_where_they_were_written(tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "base.yaml").write_text("seed: 7\nsampling: [{kind: min_p, p: 0.1}]\n")
    text = DATA + "base: runs/base.yaml\narms:\n  a: {}\n  b:\n    sampling.0.p: 0.2\n"
    experiment = load_experiment(write_study(tmp_path, text), overrides=["prefill.step_size=9"])
    tree = experiment.arms[1].tree
    places = {
        path: str(found.origin)
        for path in (("seed",), ("sampling", 0, "p"), ("prefill", "step_size"))
        if (found := find(tree, path)) is not None
    }
    assert places == {
        ("seed",): f"{tmp_path}/runs/base.yaml:1",
        ("sampling", 0, "p"): f"{tmp_path}/study.yaml:6",
        ("prefill", "step_size"): "prefill.step_size=9",
    }
    assert experiment.seeds == (7,)
    assert experiment.name == "study"


@pytest.mark.parametrize(
    "base",
    [
        "vlmkit:runs/shapes_thinking.yaml",
        "[vlmkit:runs/shapes_thinking.yaml, vlmkit:sampling/nucleus.yaml]",
        "{include: vlmkit:runs/shapes_thinking.yaml, seed: 3, cache.kind: affine}",
    ],
)
def test_a_base_asks_the_samples_and_not_its_own_question(base: str) -> None:
    (arm,) = load(f"base: {base}").arms
    assert (arm.config.prompt, arm.config.images) == ("{question}", ())
    assert arm.config.template.enable_thinking


def test_messages_hold_the_place_of_the_question() -> None:
    system = "{role: system, content: Look closely.}"
    messages = f"[{system}, {{role: user, content: 'Well: {{question}}'}}]"
    (arm,) = load(f"base: {{messages: {messages}}}").arms
    assert arm.config.prompt == ""
    with pytest.raises(VlmkitError, match=r"study\.yaml:2: messages: the arm 'base' asks every"):
        load(f"base: {{messages: [{system}]}}")


def test_an_arm_may_ask_in_messages_what_others_ask_in_a_prompt() -> None:
    messages = "messages: [{role: user, content: 'Well: {question}'}]"
    text = f"""
base: vlmkit:runs/shapes_thinking.yaml
arms:
  plain: {{}}
  told: {{{messages}}}
"""
    plain, told = load(text).arms
    assert (plain.config.prompt, told.config.prompt) == ("{question}", "")
    assert told.config.messages[0].content == "Well: {question}"
    text = f"base: {{{messages}}}\narms: {{told: {{}}, plain: {{prompt: 'Now: {{question}}'}}}}"
    told, plain = load(text).arms
    assert (plain.config.prompt, plain.config.messages) == ("Now: {question}", ())
    with pytest.raises(VlmkitError, match="leave one of the two out"):
        load(f"arms: {{both: {{prompt: '{{question}}', {messages}}}}}")


@pytest.mark.parametrize(
    ("text", "overrides"),
    [
        ("grid: {prefill.step_size: [4, 4]}", []),
        ('grid: {prefill.step_size: {4: 4, "4": 8}}', []),
        ("", ["prefill.step_size=4,4"]),
    ],
)
def test_values_of_a_grid_have_different_names(text: str, overrides: list[str]) -> None:
    with pytest.raises(VlmkitError, match="2 values are called '4'; leave one out"):
        load(text, *overrides)


def test_the_baseline_of_a_swept_arm_is_its_first() -> None:
    experiment = load(
        "arms: {a: {}, b: {search: {kind: beam, num_beams: 2}}}\nbaseline: b",
        "prefill.step_size=1,2",
    )
    assert experiment.baseline == "b, step_size=1"


def test_code_has_to_be_trusted() -> None:
    stage = "base: {sampling: [{kind: external, factory: 'experiments.own_stage:no_such'}]}"
    with pytest.raises(VlmkitError, match="names code to run"):
        load(stage)
    with pytest.raises(VlmkitError, match="has no 'no_such'"):
        load(stage, trust_code=True)
    metric = "metrics: {own: {kind: external, factory: 'tests.none:score'}}"
    with pytest.raises(VlmkitError, match=r"study\.yaml:2: metrics\.own\.factory: .*--trust-code"):
        load(metric)


def test_arms_are_grouped_by_what_they_share() -> None:
    text = """
arms:
  a: {}
  b: {sampling: [{kind: min_p, p: 0.1}]}
  c: {prompt: "Well: {question}"}
  d: {cache: {kind: affine}}
  e: {contrast: {kind: dola}}
  f: {model: ./other}
"""
    first, second = group_arms(load(text).arms)
    assert [batch.arms for batch in first.batches] == [(0, 1, 2), (3,), (4,)]
    assert first.num_prefills == 3  # a, b and e share one
    assert (second.model, second.arms, second.num_prefills) == ("other", (5,), 1)


def test_overrides_of_the_experiment_are_told_from_those_of_the_base() -> None:
    experiment = load("seeds: [0]", "seeds=[1,2]", "limits.samples=1", "stopping.0.max_tokens=3")
    assert experiment.seeds == (1, 2)
    assert experiment.config.limits.samples == 1
    assert to_plain(experiment.arms[0].tree)["stopping"][0]["max_tokens"] == 3


def test_folders_of_checkpoints_are_the_same_wherever_one_stands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "shapes").mkdir()
    monkeypatch.chdir(tmp_path)
    text = (
        "arms: {embedded: {}, local: {model: own}, hub: {model: owner/name}, "
        "amateur: {contrast: {kind: contrastive_decoding, amateur: ./own}}}"
    )
    embedded, local, hub, amateur = (arm.identity for arm in load(text).arms)
    assert (embedded["model"], hub["model"]) == ("shapes", "owner/name")
    assert local["model"] == amateur["contrast"]["amateur"] == str(tmp_path / "own")
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    assert load(text.replace("own}", "../own}", 1)).arms[1].identity == local
