"""OCRBench: is the text of the reference in the answer."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Literal

from vlmkit.experiment.records import Scored
from vlmkit.experiment.samples import Sample
from vlmkit.experiment.scoring.base import Scorer, ScoringConfig, mean, no_empty_answer

FORMULAS = ("Handwritten Mathematical Expression Recognition", "HME100k")
CATEGORY_FIELDS = ("category", "question_type", "type")
DATASET_FIELDS = ("dataset", "dataset_name")


class OCRBenchConfig(ScoringConfig):
    """1 where a reference is in the answer, else 0; the sum over all samples is the final score."""

    kind: Literal["ocrbench"] = "ocrbench"


def ocrbench(config: OCRBenchConfig) -> Scorer:
    """Look for a reference: without case, or for formulas with case and without any space.

    Reference: Liu et al., arXiv:2305.07895; Yuliang-Liu/MultimodalOCR, OCRBench/example.py;
    open-compass/VLMEvalKit, vlmeval/dataset/image_vqa.py (``OCRBench``).
    """

    def score(sample: Sample, text: str) -> Scored:
        plain = _without_space if is_formula(sample) else _without_case
        answer = plain(text)
        found = [item for item in sample.answers if plain(item) in answer]
        value = float(bool(found))
        category = category_of(sample)
        parts = {} if category is None else {category: value}
        return Scored(value=value, parsed=found[0] if found else None, parts=parts)

    return Scorer(config.kind, ("answers",), score, _summarise, no_empty_answer)


def category_of(sample: Sample) -> str | None:
    """The kind of task, from ``category``, ``question_type`` or ``type``."""
    found = (sample.fields[name] for name in CATEGORY_FIELDS if name in sample.fields)
    return next((str(value) for value in found), None)


def is_formula(sample: Sample) -> bool:
    """Whether a handwritten formula is to be read."""
    names = [sample.fields.get(name) for name in (*CATEGORY_FIELDS, *DATASET_FIELDS)]
    return any(name in FORMULAS for name in names)


def _without_case(text: str) -> str:
    return text.lower().strip().replace("\n", " ")


def _without_space(text: str) -> str:
    return text.strip().replace("\n", " ").replace(" ", "")


def _summarise(scored: Sequence[Scored]) -> dict[str, float]:
    valued = [item for item in scored if item.value is not None]
    if not valued:
        return {}
    by_category: dict[str, list[float]] = defaultdict(list)
    for item in valued:
        for category, value in item.parts.items():
            by_category[category].append(value)
    return {
        **mean(valued, "accuracy"),
        "final_score": sum(item.value or 0.0 for item in valued),
        **{name: sum(values) / len(values) for name, values in sorted(by_category.items())},
    }
