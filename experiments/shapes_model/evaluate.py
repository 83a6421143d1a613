"""Held-out accuracy of the embedded model by thinking budget and question kind, through vlmkit.

    python -m experiments.shapes_model.evaluate --samples 1000 --budgets 0 2 4 8 16 32 none

Answers are generated greedily from the images and compared letter by letter.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from experiments.shapes_model.data import HELD_OUT_SEED, question_at
from vlmkit import apply_chat_template, batch_generate, load
from vlmkit.experiment.shapes.drawing import render
from vlmkit.experiment.shapes.question import Question

FIRST_INDEX = 1_000_000
BUDGETS = ("0", "2", "4", "8", "16", "32", "none")
MAX_TOKENS = 96


class Score(NamedTuple):
    """Right answers out of those asked."""

    right: int
    asked: int

    def __str__(self) -> str:
        return f"{self.right / self.asked:.3f}"


def parse_budget(text: str) -> int | None:
    """A number of thinking tokens, or `none` for no limit."""
    return None if text == "none" else int(text)


def final_answer(text: str, thinks: bool) -> str:
    """What follows the thinking; nothing if the thinking never ended."""
    if not thinks:
        return text.strip()
    _, mark, answer = text.rpartition("</think>")
    return answer.strip() if mark else ""


def answers(
    model: Any, processor: Any, questions: Sequence[Question], budget: int | None, batch_size: int
) -> list[str]:
    """Greedy answers after at most `budget` tokens of thinking (0: the prompt without thinking)."""
    thinks = budget != 0
    prompts = [
        apply_chat_template(
            processor, model.config, q.question, num_images=1, enable_thinking=thinks
        )
        for q in questions
    ]
    thinking = {"enable_thinking": True, "thinking_budget": budget} if thinks else {}
    response = batch_generate(
        model,
        processor,
        images=[Image.fromarray(render(q.scene)) for q in questions],
        prompts=prompts,
        max_tokens=MAX_TOKENS,
        batch_size=batch_size,
        skip_special_tokens=True,
        **thinking,
    )
    return [final_answer(text, thinks) for text in response.texts]


def scores(questions: Sequence[Question], said: Sequence[str]) -> dict[str, Score]:
    """Exact matches per kind, and under `all`."""
    found: defaultdict[str, Score] = defaultdict(lambda: Score(0, 0))
    for question, answer in zip(questions, said, strict=True):
        for kind in (question.kind, "all"):
            right, asked = found[kind]
            found[kind] = Score(right + (answer == question.answer), asked + 1)
    return dict(sorted(found.items(), key=lambda pair: (pair[0] == "all", pair[0])))


def table(results: dict[str, dict[str, Score]]) -> str:
    """A Markdown table: a row per kind, a column per budget."""
    kinds = next(iter(results.values()))
    lines = [
        "| kind | asked | " + " | ".join(results) + " |",
        "|---|---|" + "---|" * len(results),
    ]
    for kind, score in kinds.items():
        cells = " | ".join(str(result[kind]) for result in results.values())
        lines.append(f"| {kind} | {score.asked} | {cells} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="shapes", help="a name or folder that `load` accepts")
    parser.add_argument("--samples", type=int, default=1000)
    parser.add_argument("--budgets", nargs="+", default=list(BUDGETS), help="numbers or none")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--json", type=Path, help="also write the counts to this file")
    options = parser.parse_args(argv)
    model, processor = load(options.model)
    questions = [question_at(HELD_OUT_SEED, FIRST_INDEX + i) for i in range(options.samples)]
    results: dict[str, dict[str, Score]] = {}
    for name in options.budgets:
        begun = time.perf_counter()
        said = answers(model, processor, questions, parse_budget(name), options.batch_size)
        results[name] = scores(questions, said)
        seconds = time.perf_counter() - begun
        print(f"budget {name}: {results[name]['all']} in {seconds:.0f} s", flush=True)
    print(table(results))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
