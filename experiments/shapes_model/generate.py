"""Greedy generation in torch, for looking at a model while it trains."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
import torch

from experiments.shapes_model.data import encode, prompt_tokens, tokenizer
from experiments.shapes_model.model import ShapesModel
from vlmkit.experiment.shapes.drawing import render
from vlmkit.experiment.shapes.question import Question

MAX_TOKENS = 72


@torch.no_grad()
def _greedy(
    model: ShapesModel, prompts: list[list[int]], images: np.ndarray, budget: int | None
) -> list[list[int]]:
    """Continue prompts of one length; after `budget` tokens of thinking, </think> is forced."""
    end, close = encode("<|im_end|>")[0], encode("</think>")[0]
    hidden, cache = model.hidden(torch.tensor(prompts), torch.from_numpy(images))
    rows: list[list[int]] = [[] for _ in prompts]
    thinking = [prompt[-1] != close for prompt in prompts]
    for step in range(MAX_TOKENS):
        chosen = model.logits(hidden[:, -1]).argmax(-1).tolist()
        for index, row in enumerate(rows):
            if budget is not None and thinking[index] and step >= budget:
                chosen[index] = close
            thinking[index] = thinking[index] and chosen[index] != close
            if not row or row[-1] != end:
                row.append(chosen[index])
        if all(row[-1] == end for row in rows):
            break
        hidden, cache = model.hidden(torch.tensor(chosen)[:, None], None, cache)
    return rows


def answers(
    model: ShapesModel, questions: Sequence[Question], budget: int | None, batch_size: int = 64
) -> list[str]:
    """What the model says after thinking at most `budget` tokens (0: without thinking)."""
    close = encode("</think>")[0]
    groups: defaultdict[int, list[int]] = defaultdict(list)
    prompts = [prompt_tokens(q.question, thinks=budget != 0) for q in questions]
    for index, prompt in enumerate(prompts):
        groups[len(prompt)].append(index)
    said = [""] * len(questions)
    for members in groups.values():
        for start in range(0, len(members), batch_size):
            part = members[start : start + batch_size]
            images = np.stack([render(questions[i].scene) for i in part])
            rows = _greedy(model, [prompts[i] for i in part], images, budget)
            for index, row in zip(part, rows, strict=True):
                if close in row:
                    row = row[row.index(close) + 1 :]
                elif budget != 0:
                    row = []
                said[index] = tokenizer().decode(row, skip_special_tokens=True)
    return said


def accuracy(
    model: ShapesModel, questions: Sequence[Question], budget: int | None
) -> dict[str, tuple[int, int]]:
    """(right, asked) per kind and under `all`, by exact match."""
    score: defaultdict[str, list[int]] = defaultdict(lambda: [0, 0])
    for question, said in zip(questions, answers(model, questions, budget), strict=True):
        for key in (question.kind, "all"):
            score[key][0] += said == question.answer
            score[key][1] += 1
    return {kind: (right, asked) for kind, (right, asked) in sorted(score.items())}
