"""The value of single answers, as the public harnesses define them.

The cases of each kind follow from the rules in the file that its scorer names.
"""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter

from vlmkit.experiment.samples import Sample
from vlmkit.experiment.scoring import Scored, Scorer, ScorerConfig, make_scorer

CONFIG: TypeAdapter[Any] = TypeAdapter(ScorerConfig)
PETS = {"options": ["cat", "Dog", "the red bird"]}
HME = {"dataset": "HME100k"}
NAMES = {"person": ["man", "people"], "dog": ["puppy"], "hot dog": [], "traffic light": []}


def scorer(**config: Any) -> Scorer:
    return make_scorer(CONFIG.validate_python(config))


def score(
    config: dict[str, Any], answers: tuple[str, ...], text: str, fields: dict[str, Any]
) -> Scored:
    return scorer(**config).score(Sample("1", "?", answers=answers, fields=fields), text)


def case(
    kind: str,
    text: str,
    *answers: str,
    is_worth: float,
    fields: dict[str, Any] | None = None,
    **config: Any,
) -> Any:
    shown = f"{kind}-{text}-{'-'.join(answers)}".replace("\n", "|")[:60]
    return pytest.param({"kind": kind, **config}, answers, text, fields or {}, is_worth, id=shown)


TEN_CATS = ("cat",) * 10
VALUES = [
    case("exact", " red\n", "blue", "red", is_worth=1),
    case("exact", "Red", "red", is_worth=0),
    case("normalised_exact", "The cat's, ball!", "cats ball", is_worth=1),
    case("normalised_exact", "an apple a day", "Apple DAY.", is_worth=1),
    case("normalised_exact", "another", "other", is_worth=0),
    case("contains", "It is a CATegory", "cat", is_worth=1),
    case("contains", "It is a category", "cat", is_worth=0, whole_words=True),
    case("contains", "It is a cat.", "cat", is_worth=1, whole_words=True),
    case("contains", "A CAT", "cat", is_worth=0, ignore_case=False),
    case("contains", "STRASSE", "straße", is_worth=1),  # case folding
    # AoiDragon/POPE, evaluate.py: only the first sentence, words split at spaces
    case("pope", "Yes, there is a dog.", "yes", is_worth=1),
    case("pope", "No, there is none.", "no", is_worth=1),
    case("pope", "no", "no", is_worth=1),
    case("pope", "There is not a dog", "No", is_worth=1),
    case("pope", "There is a cat. No dog.", "no", is_worth=0),  # the second sentence is not read
    case("pope", "NO", "no", is_worth=0),  # no word of the list: yes
    case("pope", "nothing", "no", is_worth=0),
    case("pope", "No!", "no", is_worth=0),  # the mark belongs to the word
    case("pope", "", "yes", is_worth=1),
    # MMMU-Benchmark/MMMU, mmmu/utils/eval_utils.py
    case("multiple_choice", "B", "B", is_worth=1, fields=PETS),
    case("multiple_choice", "B.", "B", is_worth=1, fields=PETS),
    case("multiple_choice", "(A), no, (B)", "B", is_worth=1, fields=PETS),  # the last
    case("multiple_choice", "(B) and A ", "B", is_worth=1, fields=PETS),  # brackets first
    case("multiple_choice", "Is it A or is it C ?", "C", is_worth=1, fields=PETS),
    case("multiple_choice", "B. Dog", "B", is_worth=0, fields=PETS),  # not free-standing
    case("multiple_choice", "it is surely some kind of dog", "B", is_worth=1, fields=PETS),
    case("multiple_choice", "it is a dog", "B", is_worth=0, fields=PETS),  # five words or fewer
    case("multiple_choice", "b", "B", is_worth=0, fields=PETS),
    case("multiple_choice", "B", "Dog", is_worth=1, fields=PETS),  # a reference by its text
    case("multiple_choice", "(E)", "E", is_worth=1, fields=dict(zip("ABE", "xyz", strict=True))),
    # the same file, open questions
    case("mmmu", "B", "B", is_worth=1, fields=PETS),
    case("mmmu", "I think.\nThe answer is 12.", "12", is_worth=1),
    case("mmmu", "The total is 1,200 cm", "1200", is_worth=1),
    case("mmmu", "12.504", "12.5", is_worth=1),
    case("mmmu", "12.51", "12.5", is_worth=0),
    case("mmmu", "It is 120", "12", is_worth=0),
    case("mmmu", "x = 3 + 4 = 7", "7", is_worth=1),
    case("mmmu", "x = 3\nanswer 7", "3", is_worth=0),  # '=' counts in the last line only
    case("mmmu", "It could be the Rome metro", "rome", is_worth=1),
    case("mmmu", "It could be the Paris metro", "paris", is_worth=0),  # cut after 'Paris '
    case("mmmu", "So it is Rome, thus not Paris", "Rome", is_worth=0),  # the shortest end
    case("mmmu", "x", "x", is_worth=1),
    case("mmmu", "next", "x", is_worth=0),  # a single letter needs a space beside it
    case("mmmu", "Paris", "Rome", "Paris", is_worth=1),
    # EvolvingLMMs-Lab/lmms-eval, lmms_eval/tasks/_task_utils/mmmu_mcq_utils.py
    case("multiple_choice", "B.\nDog", "B", is_worth=1, fields=PETS, parsing="lmms_eval"),
    case("multiple_choice", "USA won", "A", is_worth=1, fields=PETS, parsing="lmms_eval"),
    # MMStar-Benchmark/MMStar, eval/vlmeval/evaluate/mmstar.py
    case("multiple_choice", "b) dog", "B", is_worth=1, fields=PETS, parsing="mmstar"),
    case("multiple_choice", "(B", "B", is_worth=1, fields=PETS, parsing="mmstar"),
    case("multiple_choice", "Option b", "B", is_worth=1, fields=PETS, parsing="mmstar"),
    case("multiple_choice", "The answer is B.", "B", is_worth=1, fields=PETS, parsing="mmstar"),
    case("multiple_choice", "Answer: B", "B", is_worth=0, fields=PETS, parsing="mmstar"),
    case("multiple_choice", "Because it barks", "B", is_worth=1, fields=PETS, parsing="mmstar"),
    case("multiple_choice", "", "B", is_worth=0, fields=PETS, parsing="mmstar"),
    # EvolvingLMMs-Lab/lmms-eval, lmms_eval/tasks/chartqa/utils.py
    case("chartqa_relaxed", "105", "100", is_worth=1),
    case("chartqa_relaxed", "105.1", "100", is_worth=0),
    case("chartqa_relaxed", "52%", "0.5", is_worth=1),
    case("chartqa_relaxed", "52", "0.5", is_worth=0),
    case("chartqa_relaxed", "-95", "-100", is_worth=1),
    case("chartqa_relaxed", "0.0", "0", is_worth=0),  # of zero nothing is 5%: compared as text
    case("chartqa_relaxed", "yes", "Yes", is_worth=1),
    case("chartqa_relaxed", "1,000", "1000", is_worth=0),
    case("chartqa_relaxed", "9", "7", "9.1", is_worth=1),
    case("chartqa_relaxed", "110", "100", is_worth=1, tolerance=0.1),
    # Yuliang-Liu/MultimodalOCR, OCRBench/example.py
    case("ocrbench", "It says\nCENTRE", "says centre", is_worth=1),
    case("ocrbench", "centre", "center", "centre", is_worth=1),
    case("ocrbench", r"\frac { A } { b }", r"\frac{A}{b}", is_worth=0),
    case(
        "ocrbench", r"\frac { A } { b }", r"\frac{A}{b}", is_worth=1, fields={"dataset": "HME100k"}
    ),
    case("ocrbench", r"\frac{a}{b}", r"\frac{A}{b}", is_worth=0, fields=HME),
    # EvolvingLMMs-Lab/lmms-eval, lmms_eval/api/metrics.py
    case("anls", "Hello  World", "hello world", is_worth=1),
    case("anls", "hell", "hello", is_worth=0.8),
    case("anls", "ab", "abcd", is_worth=0.5),  # at the threshold it counts
    case("anls", "a", "abcd", is_worth=0),
    case("anls", "a", "abcd", is_worth=0.25, threshold=0.2),
    case("anls", "helo", "xxxx", "hello", is_worth=0.8),
    # EvolvingLMMs-Lab/lmms-eval, lmms_eval/tasks/vqav2/utils.py: 10 people, each left out once
    case("vqa_accuracy", "Cat.", *TEN_CATS, is_worth=1),
    case("vqa_accuracy", "a cat", *("cat",) * 3, *("dog",) * 7, is_worth=0.9),
    case("vqa_accuracy", "cat", *("cat",) * 2, *("dog",) * 8, is_worth=0.6),
    case("vqa_accuracy", "cat", *("cat",) * 1, *("dog",) * 9, is_worth=0.3),
    case("vqa_accuracy", "two", *("2",) * 5, *("3",) * 5, is_worth=1),
    case("vqa_accuracy", "dont", *("Don't",) * 10, is_worth=1),
    case("vqa_accuracy", "red/blue", *("red blue",) * 10, is_worth=1),
    case("vqa_accuracy", "cow", *TEN_CATS, is_worth=0),
    # LisaAnne/Hallucination, utils/chair.py: 1 where something named is absent
    case(
        "chair",
        "Two puppies and men",
        is_worth=0,
        fields={"objects": ["dog", "person"]},
        objects=NAMES,
    ),
    case("chair", "A traffic light.", is_worth=1, fields={"objects": ["dog"]}, objects=NAMES),
    case("chair", "A hot dog", is_worth=1, fields={"objects": ["dog"]}, objects=NAMES),
    case("chair", "Nothing I know", is_worth=0, fields={"objects": []}, objects=NAMES),
]


@pytest.mark.parametrize(("config", "answers", "text", "fields", "value"), VALUES)
def test_values(
    config: dict[str, Any],
    answers: tuple[str, ...],
    text: str,
    fields: dict[str, Any],
    value: float,
) -> None:
    found = score(config, answers, text, fields).value
    assert found == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize(
    ("text", "after", "value"),
    [
        ("<think>red</think>\nblue", True, 1),
        ("<think>blue</think>red", True, 0),
        ("a</think>red</think>blue", True, 1),  # the last one
        ("<think>blue", True, 0),  # never ends
        ("blue", True, 1),
        ("<think>red</think>blue", False, 0),
    ],
)
def test_the_answer_comes_after_the_thinking(text: str, after: bool, value: float) -> None:
    config = {"kind": "exact", "after_thinking": after}
    assert score(config, ("blue",), text, {}).value == value


def test_what_was_read_is_told() -> None:
    assert score({"kind": "pope"}, ("yes",), "It is not", {}).parsed == "no"
    assert score({"kind": "multiple_choice"}, ("A",), "(B)", PETS).parsed == "B"
    assert score({"kind": "multiple_choice"}, ("A",), "?", PETS).parsed is None
    assert score({"kind": "contains"}, ("x", "b"), "a B", {}).parsed == "b"
    chair = score({"kind": "chair", "objects": NAMES}, (), "dogs and people", {"objects": ["dog"]})
    assert chair.parsed == "dog, person"


def test_an_unread_answer_may_be_guessed_the_same_each_time() -> None:
    """MMMU draws a choice at random; here the draw depends on the sample alone."""
    guessing = scorer(kind="multiple_choice", if_unread="guess")
    samples = [Sample(str(i), "?", answers=("A",), fields=PETS) for i in range(300)]
    guessed = [guessing.score(sample, "?") for sample in samples]
    assert guessed == [guessing.score(sample, "?!") for sample in samples]
    letters = [item.parsed for item in guessed]
    assert all(80 <= letters.count(letter) <= 120 for letter in "ABC")
    assert guessing.summarise(guessed)["unread_ratio"] == 1.0
