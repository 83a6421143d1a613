"""Errors name the key that they are about, whoever raises them: a config, the engine, a stage."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest

import vlmkit
from vlmkit import load
from vlmkit.api import stream_pipeline
from vlmkit.batch import batch_pipeline
from vlmkit.config.params import pipeline_from_params
from vlmkit.config.run import RunConfig, load_run
from vlmkit.engine import Request
from vlmkit.errors import KeyPath, VlmkitError, placed, within
from vlmkit.pipeline import PipelineConfig
from vlmkit.prompt_utils import apply_chat_template

IMAGE = str(Path(vlmkit.__file__).parent / "assets" / "shapes" / "samples" / "describe.png")
BEAM = {"kind": "beam", "num_beams": 2}
HERE = "tests.config.test_error_paths"


@pytest.fixture(scope="module")
def shapes() -> tuple[Any, Any]:
    return load("shapes")


OF_A_CONFIG: dict[str, tuple[dict[str, Any], KeyPath]] = {
    "a value": (
        {"sampling": [{"kind": "greedy"}, {"kind": "top_p", "p": 2}]},
        ("sampling", 1, "p"),
    ),
    "a kind": ({"cache": {"kind": "thick"}}, ("cache",)),
    "a key": ({"sede": 1}, ("sede",)),
    "a section, told of the whole": (
        {"search": BEAM, "sampling": [{"kind": "greedy"}]},
        ("sampling",),
    ),
    "what needs a checkpoint": ({"sampling": "checkpoint"}, ("sampling",)),
    "a group": (
        {"stopping": [{"kind": "any_of", "criteria": [{"kind": "max_tokens", "max_tokens": -1}]}]},
        ("stopping", 0, "criteria", 0, "max_tokens"),
    ),
}


@pytest.mark.parametrize("case", OF_A_CONFIG)
def test_of_a_config(case: str) -> None:
    values, path = OF_A_CONFIG[case]
    for make in (PipelineConfig, RunConfig):
        with pytest.raises(VlmkitError) as caught:
            make(**values)
        assert caught.value.path == path


def test_of_parameters() -> None:
    with pytest.raises(VlmkitError) as caught:
        pipeline_from_params(top_p=2.0)
    assert caught.value.path == ("top_p",)


def fails(**_: object) -> Any:
    raise VlmkitError("out of order")


OF_THE_ENGINE: dict[str, tuple[dict[str, Any], KeyPath]] = {
    "tokens": (
        {"sampling": [{"kind": "greedy"}, {"kind": "suppress_tokens", "token_ids": ["no such"]}]},
        ("sampling", 1, "token_ids"),
    ),
    "a stage": (
        {"sampling": [{"kind": "greedy"}, {"kind": "grammar", "regex": "("}]},
        ("sampling", 1),
    ),
    "a stage behind those that the stops add": (
        {
            "sampling": [{"kind": "greedy"}, {"kind": "grammar", "regex": "("}],
            "stopping": [{"kind": "eos", "min_tokens": 3}],
        },
        ("sampling", 1),
    ),
    "a stage from outside": (
        {"sampling": [{"kind": "external", "factory": f"{HERE}:fails"}]},
        ("sampling", 0),
    ),
    "a marker": (
        {"stopping": [{"kind": "eos"}, {"kind": "thinking_budget", "budget": 1, "end": "\ufdd0"}]},
        ("stopping", 1, "end"),
    ),
    "a marker in a group": (
        {"stopping": [{"kind": "any_of", "criteria": [{"kind": "eos", "tokens": ["\ufdd0"]}]}]},
        ("stopping", 0, "criteria", 0, "tokens"),
    ),
    "a criterion from outside": (
        {"stopping": [{"kind": "eos"}, {"kind": "external", "factory": f"{HERE}:fails"}]},
        ("stopping", 1),
    ),
    "two budgets": (
        {"stopping": [{"kind": "thinking_budget", "budget": n} for n in (1, 2)]},
        ("stopping",),
    ),
    "a stop that never counts": (
        {
            "stopping": [
                {"kind": "eos"},
                {"kind": "stop_sequences", "sequences": ["ok", "the end of it"]},
                {"kind": "thinking_budget", "budget": 1, "start": "go", "end": "the end"},
            ]
        },
        ("stopping", 1, "sequences", 1),
    ),
    "the clock": ({"stopping": [{"kind": "time_limit", "seconds": 1}]}, ("stopping",)),
    "the cache": (
        {"cache": {"kind": "affine", "bits": 4, "group_size": 128}},
        ("cache", "group_size"),
    ),
    "layers": ({"contrast": {"kind": "dola", "layers": [9]}}, ("contrast", "layers")),
    "an image that is missing": ({"contrast": {"kind": "vcd"}}, ("contrast",)),
    "a negative prompt": (
        {"contrast": {"kind": "cfg", "negative_prompt": "<|image_pad|>"}},
        ("contrast", "negative_prompt"),
    ),
    "an amateur": (
        {"contrast": {"kind": "contrastive_decoding", "amateur": "./no/folder"}},
        ("contrast", "amateur"),
    ),
}


OF_A_ROW = ("an image that is missing", "a negative prompt")
"""What depends on the request: in a batch it ends its row alone."""


@pytest.mark.parametrize("case", OF_THE_ENGINE)
def test_of_the_engine(shapes: tuple[Any, Any], tmp_path: Path, case: str) -> None:
    values, path = OF_THE_ENGINE[case]
    prompt = apply_chat_template(shapes[1], None, "Hi", num_images=0)
    pipeline = PipelineConfig(**values)
    with pytest.raises(VlmkitError) as caught:
        next(iter(stream_pipeline(*shapes, Request(prompt), pipeline)))
    assert caught.value.path == path
    if case in OF_A_ROW:
        [result] = batch_pipeline(*shapes, [(Request(prompt), pipeline)]).results or []
        assert (result.finish_reason, result.error) == ("error", f"row 0: {caught.value}")
        return
    with pytest.raises(VlmkitError) as in_a_batch:
        batch_pipeline(*shapes, [(Request(prompt), pipeline)])
    assert in_a_batch.value.path == path


def test_of_a_request(shapes: tuple[Any, Any]) -> None:
    for images, path in (((IMAGE, "none.png"), ("images", 1)), ((IMAGE,), ("prompt",))):
        with pytest.raises(VlmkitError) as caught:
            next(iter(stream_pipeline(*shapes, Request("Hi", images), PipelineConfig())))
        assert caught.value.path == path


def test_of_a_file(tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"
    for text, key in (
        ("seed: x\n", ("seed",)),
        ("template: {prefill_response: a, apply: false}\n", ("template", "prefill_response")),
        ("sampling: [{kind: grammar, regex: '('}]\n", ("sampling", 0, "regex")),
        (f"stopping: [{{kind: external, factory: '{HERE}:fails'}}]\n", ("stopping", 0, "factory")),
    ):
        path.write_text(text)
        with pytest.raises(VlmkitError, match=r"run\.yaml:1: ") as caught:
            load_run(path)
        assert caught.value.path == key


def test_parts_add_their_keys() -> None:
    def work(number: int, *, path: KeyPath = ()) -> int:
        if path:
            raise VlmkitError("no", path=path)
        return number

    assert placed(work, "sampling", 0)(3) == 3
    with pytest.raises(VlmkitError, match=r"^no$") as caught, within("a"):
        placed(work, "b", 0)(3, path=("c",))
    assert caught.value.path == ("a", "b", 0, "c")
    again = pickle.loads(pickle.dumps(caught.value))
    assert (str(again), again.path) == ("no", ("a", "b", 0, "c"))
