"""A config made in Python fails in one line, in the words that a YAML file gets."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vlmkit.config.run import RunConfig, load_run
from vlmkit.declare.configbase import StageConfig
from vlmkit.errors import VlmkitError
from vlmkit.pipeline import PipelineConfig
from vlmkit.sampling import Greedy, TopP

MISTAKES: dict[str, tuple[dict[str, Any], str]] = {
    "range": (
        {"sampling": [{"kind": "min_p", "p": 2}]},
        "sampling.0.p: must be at least 0.0 and at most 1.0, got 2",
    ),
    "misspelt": ({"sede": 1}, "sede: unknown key; did you mean 'seed'? (known here: "),
    "misspelt inside": (
        {"sampling": [{"kind": "min_p", "p": 0.5, "pp": 1}]},
        "sampling.0.pp: unknown key; did you mean 'p'?",
    ),
    "kind": (
        {"sampling": [{"kind": "top_q"}]},
        "sampling.0: unknown kind 'top_q'; did you mean 'top_p'?",
    ),
    "no kind": ({"contrast": {"alpha": 3}}, "contrast: needs a mapping with a 'kind' ("),
    "missing": ({"cache": {"kind": "rotating"}}, "cache.max_size: is required"),
    "no list": ({"stopping": 3}, "stopping: must be a list, got 3"),
    "boolean": ({"seed": True}, "seed: needs a number, not True"),
    "several": ({"seed": "x", "reproducible": 3}, "seed: must be a whole number, got 'x' (and 1 m"),
    "two fields": (
        {"cache": {"kind": "rotating", "max_size": 3, "keep": 3}},
        "cache: keep=3 leaves no room in max_size=3",
    ),
    "whole": (
        {"sampling": [{"kind": "greedy"}], "search": {"kind": "beam", "num_beams": 2}},
        "sampling has a greedy stage",
    ),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_python_and_yaml_say_the_same(case: str, tmp_path: Path) -> None:
    values, message = MISTAKES[case]
    said = []
    for make in (
        lambda: RunConfig(**values),
        lambda: RunConfig.model_validate(values),
        lambda: RunConfig.model_validate_json(json.dumps(values)),
    ):
        with pytest.raises(VlmkitError) as caught:
            make()
        said.append(str(caught.value))
        assert caught.value.__cause__ is None
    assert said == [said[0]] * 3
    assert said[0].startswith(f"RunConfig: {message}")
    assert "\n" not in said[0]
    assert "pydantic" not in said[0]
    path = tmp_path / "run.yaml"
    path.write_text(json.dumps(values))
    with pytest.raises(VlmkitError) as caught:
        load_run(path)
    assert str(caught.value).removeprefix(f"{path}:1: ") == said[0].removeprefix("RunConfig: ")


def every_config(base: type[StageConfig] = StageConfig) -> Iterator[type[StageConfig]]:
    for config in base.__subclasses__():
        if config.__module__.startswith("vlmkit."):
            yield config
            yield from every_config(config)


@pytest.mark.parametrize("config", sorted(set(every_config()), key=lambda config: config.__name__))
def test_every_config_names_itself_and_the_key(config: type[StageConfig]) -> None:
    with pytest.raises(ValueError, match=rf"^{config.__name__}: ") as caught:
        config(kind="nothing", surprise=1)
    assert type(caught.value) is VlmkitError
    assert "\n" not in str(caught.value)
    with pytest.raises(VlmkitError, match=rf"^{config.__name__}: needs a mapping"):
        config.model_validate(7)


def test_a_stage_that_is_made_first_names_itself() -> None:
    with pytest.raises(VlmkitError, match=r"^TopP: p: must be greater than 0\.0 and at most"):
        PipelineConfig(sampling=[TopP(p=2)])


def test_values_without_a_name() -> None:
    with pytest.raises(VlmkitError, match=r"^TopP: values are given by name, as in TopP\(p=…\)$"):
        TopP(0.9)  # type: ignore[misc]
    with pytest.raises(VlmkitError, match=r"^Greedy: values are given by name$"):
        Greedy({})  # type: ignore[misc]


@pytest.mark.parametrize("name", ["sampling", "stopping"])
def test_a_stage_that_stands_alone(name: str) -> None:
    message = rf"^PipelineConfig: {name}: must be a list: put Greedy in brackets$"
    with pytest.raises(VlmkitError, match=message):
        PipelineConfig(**{name: Greedy()})


def test_values_of_several_lines_are_shown_in_one() -> None:
    with pytest.raises(VlmkitError, match=r"p: must be a number, got array\(\[\[1\.\], \[1\.\]"):
        TopP(p=np.ones((2, 1)))


def test_what_is_valid_stays_what_it_was() -> None:
    made = PipelineConfig(sampling=[{"kind": "top_p", "p": 0.5}, Greedy()])
    assert made.sampling == (TopP(p=0.5), Greedy())
    assert made.model_fields_set == {"sampling"}
    assert made.sampling[0].model_fields_set == {"kind", "p"}
    assert PipelineConfig.model_validate(made) is made
    assert PipelineConfig.model_validate_json(made.model_dump_json()) == made
