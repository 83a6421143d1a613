"""Random histories under random DRY parameters, and where their golden penalties lie.

``python -m tests.sampling.dry_cases`` has llama.cpp compute the penalties and writes the file;
needs the parity extra.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hypothesis import strategies as st

from vlmkit.sampling import Dry

GOLDENS = Path(__file__).parent / "goldens" / "dry_llama_cpp.json"
NUM_IDS = 8  # few ids, so that sequences repeat


class DryCase(NamedTuple):
    """A history, cut into prompt and answer, and the stage's parameters."""

    prompt: list[int]
    answer: list[int]
    config: Dry

    def history(self) -> list[int]:
        """The ids that count. Excluded ids are ours; llama.cpp gets a history without them."""
        ids = [*self.prompt, *self.answer]
        return [token_id for token_id in ids if token_id not in self.config.excluded_ids]


@st.composite
def dry_cases(draw: st.DrawFn) -> DryCase:
    """Draw a case; every parameter."""
    num_ids = draw(st.integers(1, NUM_IDS))
    ids = st.integers(0, num_ids - 1)
    sizes = st.none() | st.integers(2, 12) | st.sampled_from([40, 1024])
    config = Dry(
        multiplier=draw(st.floats(0.125, 5, width=32)),
        base=draw(st.floats(1, 3, width=32)),
        allowed_length=draw(st.integers(1, 5)),
        breaker_ids=tuple(draw(st.lists(st.integers(0, NUM_IDS - 1), unique=True, max_size=3))),
        context_size=draw(sizes),
        excluded_ids=tuple(draw(st.lists(st.integers(0, NUM_IDS - 1), unique=True, max_size=2))),
    )
    unit = draw(st.lists(ids, min_size=1, max_size=6))
    prompt = draw(st.lists(ids, max_size=8)) + unit * draw(st.integers(0, 4))
    answer = draw(st.lists(ids, max_size=5)) + unit[: draw(st.integers(0, len(unit)))]
    return DryCase(prompt, answer, config)


def random_case(rng: np.random.Generator) -> DryCase:
    """Draw a case from NumPy's generator: the same one for the same seed."""
    num_ids = int(rng.integers(2, NUM_IDS + 1))

    def ids(least: int, most: int) -> list[int]:
        return [int(i) for i in rng.integers(0, num_ids, rng.integers(least, most + 1))]

    unit = ids(1, 6)
    return DryCase(
        prompt=ids(0, 8) + unit * int(rng.integers(0, 4)),
        answer=ids(0, 5) + unit[: int(rng.integers(0, len(unit) + 1))],
        config=Dry(
            multiplier=round(float(rng.uniform(0.1, 3)), 2),
            base=round(float(rng.uniform(1, 2.5)), 2),
            allowed_length=int(rng.integers(1, 4)),
            breaker_ids=tuple(sorted({*ids(0, 2)})),
            context_size=None if rng.random() < 0.5 else int(rng.integers(2, 30)),
            excluded_ids=tuple(sorted({*ids(0, 1)})) if rng.random() < 0.3 else (),
        ),
    )


def penalties(case: DryCase) -> list[float]:
    """What llama.cpp adds to each of the logits, all 0 before."""
    from tests.sampling import llama_cpp

    entries = np.zeros(NUM_IDS, llama_cpp.ENTRY)
    entries["id"] = np.arange(NUM_IDS)
    return [float(x) for x in llama_cpp.apply_dry(case.config, case.history(), entries)["logit"]]


def golden(case: DryCase) -> dict[str, Any]:
    """A case and its penalties as they stand in the file."""
    config = case.config.model_dump(mode="json", exclude={"kind"})
    expected = [float(f"{value:.8g}") for value in penalties(case)]
    return {"prompt": case.prompt, "answer": case.answer, "config": config, "logits": expected}


def main() -> None:
    """Write the file: 240 cases that penalise something, or would without their breakers."""
    rng = np.random.default_rng(0)
    lines: list[str] = []
    while len(lines) < 240:
        case = random_case(rng)
        unbroken = case._replace(config=case.config.model_copy(update={"breaker_ids": ()}))
        if any(penalties(unbroken)):
            lines.append(json.dumps(golden(case)))
    GOLDENS.parent.mkdir(exist_ok=True)
    GOLDENS.write_text("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    main()
