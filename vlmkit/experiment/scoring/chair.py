"""CHAIR: objects that a caption names and the image does not have."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

from pydantic import Field, model_validator

from vlmkit.errors import VlmkitError
from vlmkit.experiment.data.files import open_data, resolve_file
from vlmkit.experiment.records import Scored
from vlmkit.experiment.samples import Sample
from vlmkit.experiment.scoring.base import Scorer, ScoringConfig, mean, ratio, total
from vlmkit.experiment.shown import short

_WORD = re.compile(r"[^\W_]+(?:-[^\W_]+)*")
_IRREGULAR = {
    "children": "child",
    "feet": "foot",
    "geese": "goose",
    "men": "man",
    "mice": "mouse",
    "people": "person",
    "teeth": "tooth",
    "women": "woman",
}


class ChairConfig(ScoringConfig):
    """1 where a caption names an object that is not in the image (lower is better), else 0."""

    kind: Literal["chair"] = "chair"
    objects_key: str = Field(
        default="objects", min_length=1, description="the field with the objects in the image"
    )
    objects: dict[str, tuple[str, ...]] = Field(
        default={},
        description="what can be named: object -> its other names, of any number of words",
    )
    vocabulary: str | None = Field(
        default=None,
        description="a text file instead, one object a line with its names: 'dog, puppy, canine', "
        "relative to the file that names it",
    )

    @model_validator(mode="after")
    def _has_one_vocabulary(self) -> ChairConfig:
        if bool(self.objects) == (self.vocabulary is not None):
            raise ValueError("chair needs either objects or a vocabulary: what can be named")
        return self


def chair(config: ChairConfig, base: Path) -> Scorer:
    """Count the objects that a caption names and those among them that the image lacks.

    ``chair_s`` is the share of captions with such an object, ``chair_i`` their share among all
    objects named, ``recall`` the share of the image's objects that are named; all in 0..1. Words
    are put into the singular by rules of our own, where the original asks a tagger.

    Reference: Rohrbach et al., arXiv:1809.02156; LisaAnne/Hallucination, utils/chair.py;
    ``recall`` as in EvolvingLMMs-Lab/lmms-eval, lmms_eval/tasks/coco_cap_chair/utils.py.

    Raises:
        VlmkitError: the vocabulary can't be read, or has a name twice.
    """
    names = _names(config, base)
    longest = max(name.count(" ") + 1 for name in names)

    def score(sample: Sample, text: str) -> Scored:
        present = {
            names.get(item.lower(), item.lower()) for item in sample.fields[config.objects_key]
        }
        named = list(named_objects(text, names, longest))
        absent = [item for item in named if item not in present]
        return Scored(
            value=float(bool(absent)),
            parsed=", ".join(named),
            parts={
                "named": float(len(named)),
                "absent": float(len(absent)),
                "present": float(len(present)),
                "found": float(len(present & set(named))),
            },
        )

    def check(sample: Sample) -> str | None:
        found = sample.fields[config.objects_key]
        if isinstance(found, (list, tuple)) and all(isinstance(name, str) for name in found):
            return None
        return f"needs a list of names in {config.objects_key!r}, got {short(found)}"

    return Scorer(config.kind, (config.objects_key,), score, _summarise, check)


def named_objects(text: str, names: Mapping[str, str], longest: int) -> Iterator[str]:
    """The objects that a text names, in order, each as often as it is named.

    Args:
        text: a caption.
        names: each name in lower case, and the object that it stands for.
        longest: the words of the longest name; of several names the longest counts.

    Example:
        >>> names = {"dog": "dog", "puppy": "dog", "hot dog": "hot dog"}
        >>> list(named_objects("Two puppies, a hot dog and a DOG's bowl.", names, 2))
        ['dog', 'hot dog', 'dog']
    """
    words = _WORD.findall(text.lower())
    place = 0
    while place < len(words):
        for count in range(min(longest, len(words) - place), 0, -1):
            *head, last = words[place : place + count]
            phrases = (" ".join([*head, form]) for form in singulars(last))
            found = next((names[phrase] for phrase in phrases if phrase in names), None)
            if found is not None:
                yield found
                break
        place += count


def singulars(word: str) -> Iterator[str]:
    """A word and what it may be the plural of, to be looked up.

    Example:
        >>> list(singulars("buses")), list(singulars("knives"))
        (['buses', 'buse', 'bus'], ['knives', 'knive', 'kniv', 'knif', 'knife'])
    """
    yield word
    if word in _IRREGULAR:
        yield _IRREGULAR[word]
    if word.endswith("s") and len(word) > 2:
        yield word[:-1]
    if word.endswith("es"):
        yield word[:-2]
    if word.endswith("ies"):
        yield word[:-3] + "y"
    if word.endswith("ves"):
        yield word[:-3] + "f"
        yield word[:-3] + "fe"


def _names(config: ChairConfig, base: Path) -> dict[str, str]:
    if config.vocabulary is None:
        listed = [((key, *names), "objects") for key, names in config.objects.items()]
    else:
        listed = _read(resolve_file(config.vocabulary, base, "metrics: chair: vocabulary"))
    names: dict[str, str] = {}
    for synonyms, where in listed:
        thing = synonyms[0].strip().lower()
        for synonym in synonyms:
            name = " ".join(synonym.lower().split())
            if name and names.setdefault(name, thing) != thing:
                raise VlmkitError(
                    f"{where}: {name!r} is a name of {names[name]!r} and of {thing!r}; give it to "
                    "one of them"
                )
    if not names:
        raise VlmkitError(f"metrics: chair: {config.vocabulary}: no names in it")
    return names


def _read(path: Path) -> list[tuple[tuple[str, ...], str]]:
    with open_data(path) as file:
        try:
            lines = file.read().decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise VlmkitError(f"{path}: not a text in UTF-8 ({error})") from error
    return [
        (tuple(line.split(",")), f"{path}:{number}")
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]


def _summarise(scored: Sequence[Scored]) -> dict[str, float]:
    valued = [item for item in scored if item.value is not None]
    if not valued:
        return {}
    return {
        **mean(valued, "chair_s"),
        "chair_i": ratio(total(valued, "absent"), total(valued, "named")),
        "recall": ratio(total(valued, "found"), total(valued, "present")),
    }
