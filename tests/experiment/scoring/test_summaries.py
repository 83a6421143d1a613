"""What scorers say of an arm, and what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from tests.experiment.data.files import write_jsonl
from vlmkit.errors import VlmkitError
from vlmkit.experiment.data import JsonlConfig, load_samples
from vlmkit.experiment.samples import Sample
from vlmkit.experiment.scoring import Scored, Scorer, ScorerConfig, check_samples, make_scorer

CONFIG: TypeAdapter[Any] = TypeAdapter(ScorerConfig)
OWN = "tests.external_package.vlmkit_example_stages.max_words"
NAMES = {"dog": ["puppy"], "cat": [], "car": ["taxi"]}


def scorer(base: Path | None = None, /, **config: Any) -> Scorer:
    return make_scorer(CONFIG.validate_python(config), base)


def summary(scorer: Scorer, *answered: tuple[str, Any]) -> dict[str, float]:
    """Of texts and what would be right: an answer, or fields."""
    scored = []
    for text, right in answered:
        answers = () if isinstance(right, dict) else (right,)
        fields = right if isinstance(right, dict) else {}
        scored.append(scorer.score(Sample("1", "?", answers=answers, fields=fields), text))
    return scorer.summarise([*scored, Scored()])  # the last one was not scorable


def test_pope_counts_as_its_evaluate_script_does() -> None:
    """3 true yes, 1 false yes, 2 true no, 2 false no: AoiDragon/POPE, evaluate.py."""
    found = summary(
        scorer(kind="pope"),
        *[("yes", "yes")] * 3,
        ("yes", "no"),
        *[("no", "no")] * 2,
        *[("no", "yes")] * 2,
    )
    expected = {"accuracy": 5 / 8, "precision": 3 / 4, "recall": 3 / 5, "yes_ratio": 4 / 8}
    assert found == pytest.approx(expected | {"f1": 2 * 0.75 * 0.6 / 1.35})


def test_pope_without_any_yes_is_zero_not_an_error() -> None:
    found = summary(scorer(kind="pope"), ("no", "no"))
    assert found == {"accuracy": 1, "precision": 0, "recall": 0, "f1": 0, "yes_ratio": 0}


def test_chair_counts_captions_objects_and_recall() -> None:
    """LisaAnne/Hallucination, utils/chair.py; recall of lmms-eval's coco_cap_chair."""
    found = summary(
        scorer(kind="chair", objects=NAMES),
        ("A puppy, a dog and a taxi", {"objects": ["dog", "cat"]}),  # 3 named, the car is absent
        ("A cat", {"objects": ["cat"]}),
        ("Nothing", {"objects": ["car"]}),
    )
    assert found == pytest.approx({"chair_s": 1 / 3, "chair_i": 1 / 4, "recall": 2 / 4})


def test_ocrbench_has_a_score_for_each_kind_of_task() -> None:
    made = scorer(kind="ocrbench")
    scored = [
        made.score(Sample("1", "?", answers=(answer,), fields={"category": category}), "abc")
        for answer, category in (("a", "Doc"), ("x", "Doc"), ("b", "Art"))
    ]
    expected = {"accuracy": 2 / 3, "final_score": 2, "Doc": 0.5, "Art": 1}
    assert made.summarise(scored) == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["exact", "pope", "multiple_choice", "ocrbench", "anls"])
def test_nothing_scored_is_no_number(kind: str) -> None:
    assert scorer(kind=kind).summarise([Scored()]) == {}


def test_a_metric_is_called_by_its_kind_or_its_name() -> None:
    assert scorer(kind="exact").name == "exact"
    assert scorer(kind="exact", name="em").name == "em"


def test_a_scorer_of_ones_own() -> None:
    own = scorer(kind="external", factory=f"{OWN}:max_words", config={"num_words": 2}, name="brief")
    assert own.name == "brief"
    assert summary(own, ("<think>a b c</think>a b", {}), ("a b c", {})) == {"short": 0.5}


def test_chairs_names_may_stand_in_a_file(tmp_path: Path) -> None:
    """As data/synonyms.txt of LisaAnne/Hallucination."""
    (tmp_path / "names.txt").write_text("dog, puppy, hot dog\n\ncat\n")
    made = scorer(tmp_path, kind="chair", vocabulary="names.txt")
    assert made.score(Sample("1", "?", fields={"objects": ["PUPPY"]}), "Hot dogs").value == 0


@pytest.mark.parametrize(
    ("config", "row", "message"),
    [
        ({"kind": "exact"}, {}, "metric 'exact' needs an answer, this sample has none"),
        ({"kind": "exact", "name": "em"}, {}, "metric 'em' needs an answer"),
        (
            {"kind": "multiple_choice"},
            {"answer": "A"},
            "metric 'multiple_choice' needs choices, this sample has none",
        ),
        (
            {"kind": "multiple_choice"},
            {"answer": "C", "options": ["x", "y"]},
            "metric 'multiple_choice' needs one of the choices A, B, got 'C'",
        ),
        ({"kind": "pope"}, {"answer": "maybe"}, "needs the answer yes or no, got 'maybe'"),
        ({"kind": "contains"}, {"answer": " "}, "can't score an empty answer"),
        ({"kind": "ocrbench"}, {"answer": ""}, "can't score an empty answer"),
        ({"kind": "mmmu"}, {"answer": ""}, "can't score an empty answer"),
        (
            {"kind": "mmmu"},
            {"answer": "C", "A": "x", "B": "y"},
            "metric 'mmmu' needs one of the choices A, B, got 'C'",
        ),
        ({"kind": "vqa_accuracy"}, {"answer": "x"}, "the answers of at least 4 people"),
        (
            {"kind": "chair", "objects": NAMES},
            {"level": 1},
            "metric 'chair' needs the field 'objects' (fields: level)",
        ),
        (
            {"kind": "chair", "objects": NAMES, "objects_key": "seen"},
            {"seen": "dog"},
            "metric 'chair' needs a list of names in 'seen', got 'dog'",
        ),
    ],
)
def test_data_that_a_metric_cannot_score_are_refused(
    tmp_path: Path, config: dict[str, Any], row: dict[str, Any], message: str
) -> None:
    path = write_jsonl(tmp_path / "d.jsonl", [{"question": "?", **row}])
    samples = load_samples(JsonlConfig(path="d.jsonl"), tmp_path)
    with pytest.raises(VlmkitError) as caught:
        check_samples([scorer(**config)], samples.texts())
    assert str(caught.value).startswith(f"{path}:1: ")
    assert message in str(caught.value)


def test_data_that_every_metric_can_score_pass() -> None:
    fields = {"options": ["no", "yes"], "objects": []}
    sample = Sample("1", "?", answers=("yes",) * 4, fields=fields, where="d:1")
    kinds = ("exact", "pope", "multiple_choice", "anls", "vqa_accuracy", "ocrbench", "contains")
    made = [scorer(kind=kind) for kind in kinds]
    check_samples([*made, scorer(kind="chair", objects=NAMES)], [sample])


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"factory": "vlmkit_none:x"}, "can't be imported"),
        ({"factory": f"{OWN}:max_word"}, "has no 'max_word'; did you mean 'max_words'?"),
        (
            {"factory": f"{OWN}:not_a_scorer"},
            "returned a dict, not a vlmkit.experiment.scoring.Scorer",
        ),
        (
            {"factory": f"{OWN}:max_words", "config": {"max": 1}},
            "unexpected keyword argument 'max'",
        ),
        (
            {"factory": f"{OWN}:max_words", "config": {"fails": True}},
            "failed for sample '7': KeyError: 'two\\nlines'",
        ),
        (
            {"factory": f"{OWN}:max_words", "config": {"returns": 1.0}},
            "returned float, not a Scored",
        ),
    ],
)
def test_mistakes_of_a_scorer_of_ones_own(config: dict[str, Any], message: str) -> None:
    with pytest.raises(VlmkitError) as caught:
        scorer(kind="external", **config).score(Sample("7", "?"), "a")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_names_of_chair_belong_to_one_object(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_text("dog, puppy\ncat, puppy\n")
    with pytest.raises(VlmkitError, match=r"names.txt:2: 'puppy' is a name of 'dog' and of 'cat'"):
        scorer(tmp_path, kind="chair", vocabulary="names.txt")
    with pytest.raises(VlmkitError, match=r"nemes.txt does not exist; did you mean 'names.txt'"):
        scorer(tmp_path, kind="chair", vocabulary="nemes.txt")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"kind": "exakt"}, "exakt"),
        ({"kind": "anls", "threshold": 2}, "less than or equal to 1"),
        ({"kind": "multiple_choice", "parsing": "gpt"}, "'mmmu', 'lmms_eval' or 'mmstar'"),
        ({"kind": "chair"}, "needs either objects or a vocabulary"),
        ({"kind": "pope", "after": 1}, "Extra inputs are not permitted"),
    ],
)
def test_mistakes_in_configs(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        CONFIG.validate_python(config)
