"""The searches whose results transformers knows: settings by their names there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.search.toy import VOCABULARY, Found, penalise, qwen2, run, without_cache
from vlmkit.search import (
    BeamSearch,
    ContrastiveSearch,
    DiverseBeamSearch,
    SearchConfig,
    build_search,
)

GOLDENS = Path(__file__).parent / "goldens"
PAD = 0  # never generated, so that what a finished group is padded with penalises nothing
NUM_PROMPTS = 6

Case = dict[str, Any]


def _beam(scale: float, eos: tuple[int, ...], **settings: Any) -> Case:
    common = {"max_new_tokens": 12, "num_beams": 4, "num_return_sequences": 4}
    return {"scale": scale, "eos_token_id": list(eos), **common, **settings}


ONE, MANY = (5,), (5, 9, 11, 17, 30)
BEAM: dict[str, Case] = {
    "plain": _beam(1.0, ONE),
    "sharp": _beam(2.0, MANY),
    "flat": _beam(0.5, MANY),
    "short": _beam(1.0, MANY, length_penalty=-1.0),
    "no length penalty": _beam(1.0, MANY, length_penalty=0.0),
    "long": _beam(1.0, MANY, length_penalty=2.0, max_new_tokens=20),
    "early": _beam(1.0, MANY, early_stopping=True),
    "early, sum": _beam(0.5, MANY, early_stopping=True, length_penalty=0.0),
    "never": _beam(1.0, MANY, early_stopping="never"),
    "never, sum": _beam(1.0, MANY, early_stopping="never", length_penalty=0.0),
    "never, long": _beam(0.5, MANY, early_stopping="never", length_penalty=1.5),
    "never, short": _beam(1.0, ONE, early_stopping="never", length_penalty=-0.3),
    "two": _beam(1.0, MANY, num_beams=2, num_return_sequences=1),
    "nine": _beam(1.0, ONE, num_beams=9, num_return_sequences=5),
    "no end": _beam(1.0, (), num_beams=3, num_return_sequences=3),
    "penalty": _beam(1.0, MANY, repetition_penalty=1.3),
    "penalty, normalised": _beam(1.0, ONE, repetition_penalty=1.3, renormalize_logits=True),
}
DIVERSE: dict[str, Case] = {
    f"{groups} groups of {beams}, {penalty}, {early}": _beam(
        scale,
        eos,
        num_beams=beams,
        num_return_sequences=beams,
        num_beam_groups=groups,
        diversity_penalty=penalty,
        early_stopping=early,
        length_penalty=length,
    )
    for groups, beams, penalty, early, scale, eos, length in [
        (2, 2, 0.5, True, 1.0, ONE, 1.0),
        (2, 4, 0.5, True, 1.0, MANY, 1.0),
        (2, 6, 1.0, True, 0.5, MANY, 0.0),
        (3, 6, 5.0, True, 1.0, MANY, 2.0),
        (2, 4, 0.3, False, 1.0, ONE, 1.0),
        (4, 4, 1.0, False, 1.0, MANY, 1.0),
        (2, 6, 0.7, False, 0.5, MANY, 0.0),
        (3, 6, 0.2, "never", 1.0, ONE, 1.0),
        (2, 6, 10.0, "never", 1.0, MANY, 0.5),
    ]
}
CONTRASTIVE: dict[str, Case] = {
    f"{k} with {alpha}, scale {scale}": {
        "scale": scale,
        "eos_token_id": list(eos),
        "max_new_tokens": 24,
        "top_k": k,
        "penalty_alpha": alpha,
    }
    for k, alpha, scale, eos in [
        (2, 0.6, 1.0, ONE),
        (4, 0.6, 1.0, ONE),
        (4, 0.2, 1.0, MANY),
        (4, 0.9, 2.0, ONE),
        (8, 0.4, 0.5, ONE),
        (5, 1.0, 1.0, MANY),
    ]
}
ALL = {"beam": BEAM, "diverse_beam": DIVERSE, "contrastive_search": CONTRASTIVE}


def prompt(seed: int) -> list[int]:
    """Return token ids; some come twice."""
    rng = np.random.default_rng(seed)
    return [int(each) for each in rng.integers(1, VOCABULARY, rng.integers(4, 12))]


def config_of(kind: str, case: Case) -> SearchConfig:
    """Return the case's settings by their names here."""
    names = {
        "num_return_sequences": "num_return",
        "num_beam_groups": "num_groups",
        "penalty_alpha": "alpha",
    }
    values = {names.get(key, key): value for key, value in case.items()}
    classes = {
        "beam": BeamSearch,
        "diverse_beam": DiverseBeamSearch,
        "contrastive_search": ContrastiveSearch,
    }
    fields = classes[kind].model_fields
    return classes[kind](**{key: value for key, value in values.items() if key in fields})


def ours(kind: str, case: Case, seed: int) -> Found:
    """Run a case through this project's search."""
    forward = without_cache(qwen2(case["scale"]))
    process = None
    if "repetition_penalty" in case:
        process = penalise(case["repetition_penalty"], renormalise="renormalize_logits" in case)
    return run(
        build_search(config_of(kind, case)),
        lambda rows: _without_pad(*forward(rows)),
        prompt(seed),
        max_tokens=case["max_new_tokens"],
        eos=case["eos_token_id"],
        process=process,
    )


def _without_pad(logits: Any, hidden: Any) -> Any:
    logits[:, PAD] = -1e4
    return logits, hidden


def golden(kind: str) -> dict[str, list[list[Any]]]:
    """Read what transformers found: per case and prompt, ``[[token ids, score], ...]``."""
    data: dict[str, list[list[Any]]] = json.loads((GOLDENS / f"{kind}.json").read_text())
    return data
