"""lmms-eval runs a task of its own with a pipeline as its model; its own logs say what came out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from vlmkit.errors import VlmkitError
from vlmkit.experiment.data import DatasetConfig, load_samples
from vlmkit.experiment.samples import Sample

if find_spec("lmms_eval") is None:
    pytest.skip("needs lmms_eval: pip install 'vlmkit[lmms-eval]'", allow_module_level=True)

# What its modules, and torch's, do while they are imported.
pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::SyntaxWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]

TASK = """\
include: {pope}
task: pope_shapes
lmms_eval_specific_kwargs: {{default: {{pre_prompt: "", post_prompt: ""}}}}
"""


def drawn(num_samples: int) -> list[Sample]:
    config = {"kind": "shapes", "num_samples": num_samples, "kinds": ["exists"]}
    data = load_samples(TypeAdapter[Any](DatasetConfig).validate_python(config), Path())
    return [data[place] for place in range(num_samples)]


def write_pope(folder: Path, samples: list[Sample]) -> None:
    """POPE's data set with other questions in it, where `datasets` looks before the hub."""
    from datasets import Dataset, Features, Image, Value

    rows = [
        {
            "question_id": sample.id,
            "question": sample.question,
            "answer": sample.answers[0],
            "image": {"bytes": sample.images[0], "path": None},
        }
        for sample in samples
    ]
    columns = {name: Value("string") for name in ("question_id", "question", "answer")}
    folder.mkdir(parents=True)
    features = Features({**columns, "image": Image()})
    Dataset.from_list(rows, features=features).to_parquet(str(folder / "test.parquet"))


@pytest.mark.slow
def test_pope(tmp_path: Path) -> None:
    spec = find_spec("lmms_eval")
    assert spec is not None
    assert spec.origin is not None
    samples = drawn(6)
    write_pope(tmp_path / "lmms-lab-encoder" / "POPE", samples)
    tasks = tmp_path / "tasks"
    tasks.mkdir()
    pope = Path(spec.origin).parent / "tasks" / "pope" / "pope.yaml"
    (tasks / "pope_shapes.yaml").write_text(TASK.format(pope=pope))
    model_args = "pipeline=vlmkit:runs/shapes_thinking.yaml,task_settings=ignore"
    command = [sys.executable, "-m", "lmms_eval", "--model", "vlmkit", "--model_args", model_args]
    command += ["--include_path", str(tasks), "--tasks", "pope_shapes", "--batch_size", "8"]
    command += ["--output_path", str(tmp_path / "logs"), "--log_samples"]
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf"), "HF_TOKEN": "none"}
    done = subprocess.run(
        command, cwd=tmp_path, env=os.environ | offline, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    (results,) = (tmp_path / "logs").rglob("*_results.json")
    scores = json.loads(results.read_text())["results"]["pope_shapes"]
    expected = answers(samples)
    right = [
        text.endswith(f"</think>{sample.answers[0]}")
        for sample, text in zip(samples, expected, strict=True)
    ]
    assert 0 < sum(right) < len(right)
    assert scores["pope_accuracy,none"] == pytest.approx(sum(right) / len(right))
    (lines,) = (tmp_path / "logs").rglob("*_samples_pope_shapes.jsonl")
    logged = [json.loads(line) for line in lines.read_text().splitlines()]
    assert [one["resps"] for one in logged] == expected
    assert [one["filtered_resps"] for one in logged] == [
        text.rpartition("</think>")[2] for text in expected
    ]


def answers(samples: list[Sample]) -> list[str]:
    """What the pipeline of the task says without lmms-eval."""
    from vlmkit import batch_generate, load
    from vlmkit.prompt_utils import apply_chat_template

    loaded, processor = load("shapes")
    prompts = [
        apply_chat_template(processor, None, one.question, num_images=1, enable_thinking=True)
        for one in samples
    ]
    images = [list(one.images) for one in samples]
    return batch_generate(loaded, processor, images, prompts=prompts).texts


def request(doc_id: int, place: int = 0, **settings: Any) -> Any:
    from lmms_eval.api.instance import Instance

    def messages(doc: str) -> list[dict[str, Any]]:
        parts = [{"type": "image", "url": image()}, {"type": "text", "text": doc}]
        return [{"role": "user", "content": parts}]

    arguments = ("", messages, settings, doc_id, "task", "test")
    metadata = {"task": "task", "doc_id": doc_id, "repeats": 1}
    return Instance("generate_until", arguments, place, metadata=metadata)


def image() -> Any:
    from PIL import Image

    from vlmkit.declare.packaged import packaged_image

    return Image.open(packaged_image("vlmkit:shapes/samples/count_all.png")).convert("RGB")


def model(**arguments: Any) -> Any:
    from vlmkit.adapters.lmms_model import VlmkitModel

    made = VlmkitModel(**arguments)
    made.task_dict = {"task": {"test": ["Count the objects.", "Describe the image.", "x" * 9000]}}
    return made


def test_requests() -> None:
    from vlmkit import generate, load
    from vlmkit.prompt_utils import apply_chat_template

    loaded, processor = load("shapes")
    made = model(batch_size="4", task_settings="apply", seed=3)
    warm = {"do_sample": True, "temperature": 3.0, "max_new_tokens": 4}
    results = made.generate_until([request(0, **warm), request(1, **warm), request(0, **warm)])
    for result, (question, sample) in zip(
        results,
        (("Count the objects.", 0), ("Describe the image.", 0), ("Count the objects.", 1)),
        strict=True,
    ):
        prompt = apply_chat_template(processor, None, question, num_images=1)
        options = {"max_tokens": 4, "temperature": 3.0, "seed": 3, "sample": sample}
        expected = generate(loaded, processor, prompt, image(), **options)
        assert result.text == expected.text
        assert result.token_counts.output_tokens == expected.generation_tokens
    cold = {"temperature": 0, "max_new_tokens": 1, "until": ["\n\n"]}
    assert made.generate_until([request(0, **cold)])[0].token_counts.output_tokens == 1
    with pytest.raises(VlmkitError, match=r"task, document 2: prompt: 90\d\d tokens, but"):
        made.generate_until([request(0, **cold), request(2, **cold)])
    for method in (made.loglikelihood, made.generate_until_multi_round):
        with pytest.raises(VlmkitError, match="not supported"):
            method([])
    made.clean()


@pytest.mark.parametrize(
    ("until", "expected"),
    [
        (["\n\n"], "<think>a\n\nb</think>\n\nyes"),
        ("e", "<think>a\n\nb</think>\n\ny"),
        (None, "<think>a\n\nb</think>\n\nyes\n\nno"),
        ([""], "<think>a\n\nb</think>\n\nyes\n\nno"),
    ],
)
def test_until_ends_the_answer_alone(until: Any, expected: str) -> None:
    from vlmkit.adapters.lmms_model import _cut

    assert _cut("<think>a\n\nb</think>\n\nyes\n\nno", until) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"pipeline": "no.yaml"}, r"no\.yaml: no such config file"),
        ({"cache.kid": "affine"}, "cache.kid: unknown key; did you mean 'kind'"),
        ({"task_settings": "all"}, "task_settings: 'all' is none of"),
        ({"batch_size": "many"}, "batch_size is 'many'"),
    ],
)
def test_model_arguments_that_are_wrong(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(VlmkitError, match=message):
        model(**arguments)


def test_content_that_is_not_ours() -> None:
    from vlmkit.adapters.lmms_model import _read_messages

    with pytest.raises(VlmkitError, match="content of type 'video' is not supported"):
        _read_messages([{"role": "user", "content": [{"type": "video", "url": "a.mp4"}]}])
