"""inspect_ai runs a task with a pipeline as its model; its own logs say what came out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from vlmkit.declare.packaged import packaged_image
from vlmkit.errors import VlmkitError

pytest.importorskip("inspect_ai", reason="needs inspect_ai: pip install 'vlmkit[inspect]'")

from inspect_ai import Epochs, Task
from inspect_ai import eval as run_eval
from inspect_ai.dataset import Sample
from inspect_ai.log import EvalLog, read_eval_log
from inspect_ai.model import (
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageTool,
    ChatMessageUser,
    ContentAudio,
    ContentImage,
    ContentReasoning,
    ContentText,
    GenerateConfig,
    get_model,
)
from inspect_ai.scorer import match
from inspect_ai.solver import generate

from vlmkit.adapters.inspect_messages import read_messages, read_settings
from vlmkit.adapters.inspect_output import split_thinking

# inspect_ai calls tenacity in an older way, and leaves streams of its own to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The 'initial' parameter:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:Unclosed <MemoryObject:ResourceWarning"),
]

QUESTION = "Count the objects."
WARM: dict[str, Any] = {"sampling": [{"kind": "temperature", "temperature": 2.0}]}


def question(image: str = "count_all.png", text: str = QUESTION) -> list[Any]:
    content = [
        ContentImage(image=str(packaged_image(f"vlmkit:shapes/samples/{image}"))),
        ContentText(text=text),
    ]
    return [ChatMessageUser(content=content)]


def run(tmp_path: Path, *, epochs: int = 1, images: int = 1, **options: Any) -> EvalLog:
    names = ("count_all.png", "count_all_2.png", "count_all_3.png")[:images]
    samples = [Sample(id=name, input=question(name), target="5") for name in names]
    task = Task(
        dataset=samples, solver=generate(), scorer=match(numeric=True), epochs=Epochs(epochs)
    )
    model_args = {"model": "vlmkit/shapes", **options.pop("model_args", {})}
    model = get_model(model_args.pop("model"), memoize=False, **model_args)
    (log,) = run_eval(task, model=model, log_dir=str(tmp_path), display="none", **options)
    return read_eval_log(log.location)


def texts(log: EvalLog) -> dict[tuple[Any, int], str]:
    assert log.status == "success", log.error
    return {(one.id, one.epoch): one.output.message.text for one in log.samples or []}


def test_a_task_runs_and_its_log_says_with_what(tmp_path: Path) -> None:
    log = run(tmp_path, model_args={"pipeline": "vlmkit:runs/shapes_thinking.yaml"})
    assert log.status == "success"
    assert log.eval.model == "vlmkit/shapes"
    assert log.eval.model_args["pipeline"] == "vlmkit:runs/shapes_thinking.yaml"
    assert log.samples is not None
    output = log.samples[0].output
    assert isinstance(output.message.content, list)
    reasoning, answer = output.message.content
    assert (reasoning.type, answer.type) == ("reasoning", "text")
    assert output.completion == answer.text
    assert output.stop_reason == "stop"
    assert output.usage is not None
    assert output.usage.output_tokens > 0
    assert output.metadata is not None
    assert output.metadata["finish_kinds"] == ["eos"]
    assert output.metadata["pipeline"]["template"]["enable_thinking"] is True


def test_neither_neighbours_nor_epochs_decide_what_is_drawn(tmp_path: Path) -> None:
    wide = texts(run(tmp_path, epochs=3, images=3, max_tokens=8, model_args=WARM))
    options = {"max_connections": 1, "max_tokens": 8}
    narrow = texts(
        run(tmp_path, epochs=3, images=3, model_args=WARM | {"batch_size": 1}, **options)
    )
    assert wide == narrow
    assert len({wide["count_all.png", epoch] for epoch in (1, 2, 3)}) > 1


def test_settings_of_the_task_are_laid_over_the_pipeline(tmp_path: Path) -> None:
    log = run(tmp_path, max_tokens=1, num_choices=3, logprobs=True, top_logprobs=2, seed=9)
    assert log.samples is not None
    output = log.samples[0].output
    assert [choice.stop_reason for choice in output.choices] == ["max_tokens"] * 3
    for choice in output.choices:
        assert choice.logprobs is not None
        (one,) = choice.logprobs.content
        assert len(one.top_logprobs or ()) == 2
    assert output.metadata is not None
    assert output.metadata["pipeline"]["seed"] == 9


def test_a_response_cache_does_not_mix_pipelines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSPECT_CACHE_DIR", str(tmp_path / "cache"))
    found = [
        run(
            tmp_path, cache=True, model_args={"stopping": [{"kind": "max_tokens", "max_tokens": n}]}
        )
        for n in (1, 2, 1)
    ]
    outputs = [(log.samples or [])[0].output for log in found]
    assert [one.usage.output_tokens for one in outputs if one.usage] == [1, 2, 1]
    assert outputs[0].metadata != outputs[1].metadata


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"logit_bias": {3: 1.0}}, "logit_bias: .* put a logit_bias stage into the pipeline"),
        ({"best_of": 3}, "best_of: .* beam"),
        ({"verbosity": "low"}, "verbosity: vlmkit does not take it from a task; leave it out"),
    ],
)
def test_settings_that_are_not_ours(config: dict[str, Any], message: str) -> None:
    with pytest.raises(VlmkitError, match=message):
        read_settings(GenerateConfig(**config), "apply")
    assert read_settings(GenerateConfig(**config, max_tokens=3), "limits") == {"max_tokens": 3}


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        ([ChatMessageTool(content="4")], "tools and their calls are not supported"),
        (
            [ChatMessageUser(content=[ContentAudio(audio="a.wav", format="wav")])],
            "content of type 'audio' is not supported; give text and images",
        ),
    ],
)
def test_messages_that_are_not_ours(messages: list[Any], message: str) -> None:
    with pytest.raises(VlmkitError, match=message):
        read_messages(messages)


def test_messages() -> None:
    thought = [ContentReasoning(reasoning="Hm."), ContentText(text="5")]
    chat = [ChatMessageSystem(content="Be brief."), *question("read.png")]
    read = read_messages([*chat, ChatMessageAssistant(content=thought), *question("sum.png", "?")])
    assert [message["role"] for message in read.messages] == ["system", "user", "assistant", "user"]
    assert read.messages[0]["content"] == "Be brief."
    assert read.messages[2]["content"] == "<think>Hm.</think>5"
    assert read.messages[3]["content"] == [{"type": "image"}, {"type": "text", "text": "?"}]
    assert [Path(image).name for image in read.images] == ["read.png", "sum.png"]


@pytest.mark.parametrize(
    ("text", "opened", "reasoning", "answer"),
    [
        ("<think>1 + 1</think>\n2", False, "1 + 1", "2"),
        ("1 + 1</think>2", True, "1 + 1", "2"),
        ("1 + 1", True, "1 + 1", ""),
        ("<think>1 + 1", False, "1 + 1", ""),
    ],
)
def test_thinking_is_cut_off(text: str, opened: bool, reasoning: str, answer: str) -> None:
    parts = split_thinking(text, opened=opened)
    assert isinstance(parts, list)
    assert parts == [ContentReasoning(reasoning=reasoning), ContentText(text=answer)]
    assert split_thinking("plain < text ") == "plain < text "


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pipeline": "no.yaml"}, r"no\.yaml: no such config file"),
        ({"pipeline": {"seed": 1}}, "pipeline: dict given; give the path of a YAML file"),
        ({"cache.kid": "affine"}, "cache.kid: unknown key; did you mean 'kind'"),
        ({"task_settings": "all"}, "task_settings: 'all' is none of"),
        ({"batch_size": 0}, "batch_size is 0"),
        ({"base_url": "http://localhost"}, "base_url: vlmkit runs the model itself"),
    ],
)
def test_model_arguments_that_are_wrong(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(VlmkitError, match=message):
        get_model("vlmkit/shapes", memoize=False, **arguments)


def test_the_command_line_says_it_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "task.py").write_text(
        "from inspect_ai import Task, task\n"
        "from inspect_ai.dataset import Sample\n"
        "@task\n"
        "def one(): return Task(dataset=[Sample(input='Hi')])\n"
    )
    command = [sys.executable, "-m", "inspect_ai", "eval", "task.py", "--model", "vlmkit/shapes"]
    done = subprocess.run(
        [*command, "-M", "sampling.0.kid=greedy"],
        cwd=tmp_path,
        env=os.environ | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    said = done.stdout + done.stderr
    assert "vlmkit: error: sampling.0.kid=" in said
    assert "Traceback" not in said


def test_a_sample_that_cannot_be_answered_says_why(tmp_path: Path) -> None:
    task = Task(dataset=[Sample(input=question(text="x" * 9000))], solver=generate())
    (log,) = run_eval(task, model="vlmkit/shapes", log_dir=str(tmp_path), display="none")
    assert log.status == "error"
    assert log.error is not None
    assert "prompt: 9013 tokens, but the model's context is" in log.error.message
