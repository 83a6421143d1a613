"""What to write instead of a name that is not known: as a keyword, as a flag, as a key of a YAML.

Each function returns ``None`` for a name that no table has; then a misspelling is more likely.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from vlmkit.names.places import LISTS, OTHER_FIELDS, RUN_FIELDS, SECTIONS, STAGE_FIELDS, Place
from vlmkit.names.table import FOREIGN, OFF_FIELDS, OFF_PARAMS, SHORT_FLAGS, Param, Target, Words

PIPELINE = "in a PipelineConfig to vlmkit.api.stream_pipeline"
_OWN: Mapping[str, Place] = {**STAGE_FIELDS, **OTHER_FIELDS}


def keyword_words(name: str) -> str | None:
    """Say what to pass to ``generate`` instead.

    >>> keyword_words("max_new_tokens")
    'use max_tokens'
    >>> keyword_words("typical_p")[:37]
    'give sampling: [{kind: typical_p, p: '
    """
    match _target(name):
        case Param(ours, note):
            return f"use {ours}{_aside(note)}"
        case Place() as place:
            return f"give {_section(place)} {PIPELINE}"
        case Words(text):
            return text
        case None:
            return f"give {name} {PIPELINE}" if name in SECTIONS else None


def flag_words(flag: str, flags: Collection[str]) -> str | None:
    """Say what to write on the command line instead.

    Args:
        flag: with its dashes.
        flags: those of the command.

    >>> flag_words("--temp", ["--temperature"]), flag_words("--num-beams", [])
    ('use --temperature', 'write search.kind=beam search.num_beams=…')
    """
    name = _plain(flag.lstrip("-"))
    if len(name) == 1 or not flag.startswith("-"):
        short = SHORT_FLAGS.get(flag)
        return None if short is None else f"use {short}"
    if name in SECTIONS:
        return (
            f"write an override such as {name}.{'0.' if name in LISTS else ''}kind=…, or a config"
        )
    target = _target(name)
    if isinstance(target, Param):
        own = "--" + target.name.replace("_", "-")
        if own in flags:
            return f"use {own}{_aside(target.note)}"
        name = target.name
    if isinstance(target, Words):
        return target.text
    place = target if isinstance(target, Place) else _OWN.get(name)
    return None if place is None else _override(place)


def key_words(name: str, known: Collection[str], kind: str | None) -> str | None:
    """Say what to write in a config instead of a key.

    Args:
        name: the unknown key.
        known: the keys of the mapping that it stands in.
        kind: the stage that it stands in, if any.

    >>> key_words("temp", ["kind", "temperature"], "temperature")
    'use temperature'
    >>> key_words("max_new_tokens", ["sampling", "stopping"], None)
    'write {kind: max_tokens, max_tokens: …} in stopping'
    """
    if kind is not None and len(name) == 1:
        return None  # p and k are what other stages call their one number
    target = _target(name)
    if isinstance(target, Words):
        return target.text
    note = _aside(target.note) if isinstance(target, Param) else ""
    ours = target.name if isinstance(target, Param) else _plain(name)
    place = target if isinstance(target, Place) else _OWN.get(ours)
    if ours in known:
        return f"use {ours}{note}"
    if ours in RUN_FIELDS and place is None:
        return f"use {'.'.join(RUN_FIELDS[ours])}{' at the top' if kind else ''}{note}"
    if place is None:
        return None
    if place.kind == kind and place.field in known:
        return f"use {place.field}{note}"
    return f"write {_in_section(place)}{note}"


def kind_words(name: str, known: Collection[str]) -> str | None:
    """Say which kind to write instead.

    >>> kind_words("nucleus", ["top_p"]), kind_words("num_beams", ["top_p"])
    ('write kind: top_p', 'write search: {kind: beam, num_beams: …}')
    >>> kind_words("TopPLogitsWarper", ["top_p"])
    'write kind: top_p'
    """
    name = _of_class(name)
    if name in known:
        return f"write kind: {name}"
    target = _target(name)
    if isinstance(target, Words):
        return target.text
    ours = target.name if isinstance(target, Param) else _plain(name)
    place = target if isinstance(target, Place) else _OWN.get(ours)
    if place is None:
        return None
    return f"write kind: {place.kind}" if place.kind in known else f"write {_in_section(place)}"


def off_words(kind: str, field: str, value: object) -> str | None:
    """Say how a stage is switched off, for a value that does so elsewhere.

    >>> off_words("temperature", "temperature", 0.0), off_words("temperature", "temperature", -0.1)
    ('for greedy decoding write {kind: greedy}', None)
    """
    return OFF_FIELDS.get((kind, field)) if _is_off(value) else None


def off_param_words(name: str, value: object) -> str | None:
    """Say which value of a keyword parameter means off.

    >>> off_param_words("top_k", -1)
    '0 is off'
    """
    return OFF_PARAMS.get(name) if _is_off(value) else None


def _is_off(value: object) -> bool:
    return value is None or (isinstance(value, (int, float)) and value in (0, -1))


def _target(name: str) -> Target | None:
    return FOREIGN.get(_plain(name))


def _plain(name: str) -> str:
    return name.lower().replace("-", "_")


def _of_class(name: str) -> str:
    """The name in snake case of a class that is a processor, a criterion or a config somewhere."""
    stem = re.sub(r"(Logits(Warper|Processor)|Sampler|Criteria|Config)$", "", name)
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", stem).lower()


def _entry(place: Place) -> str:
    return f"{{kind: {place.kind}, {place.field}: …}}" if place.field else f"{{kind: {place.kind}}}"


def _section(place: Place) -> str:
    entry = f"[{_entry(place)}]" if place.section in LISTS else _entry(place)
    return f"{place.section}: {entry}"


def _in_section(place: Place) -> str:
    in_list = place.section in LISTS
    return f"{_entry(place)} in {place.section}" if in_list else _section(place)


def _override(place: Place) -> str:
    if place.section in LISTS:
        return f"write {_entry(place)} in a config's {place.section}"
    field = f" {place.section}.{place.field}=…" if place.field else ""
    return f"write {place.section}.kind={place.kind}{field}"


def _aside(note: str) -> str:
    return f" ({note})" if note else ""
