"""Training and held-out samples as pure functions of (seed, index), and their batches."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from random import Random
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer

from experiments.shapes_model.tokenizer import build
from vlmkit.experiment.shapes import HELD_OUT_SEED as HELD_OUT_SEED
from vlmkit.experiment.shapes import STREAM
from vlmkit.experiment.shapes import question_at as question_at
from vlmkit.experiment.shapes.drawing import SHAPES, Scene, render
from vlmkit.experiment.shapes.question import Question
from vlmkit.experiment.shapes.questions import MIXES, ask, ask_about
from vlmkit.experiment.shapes.scenes import COLOUR_NAMES

IMAGE_TOKENS = 16
MODES = ("think", "direct", "cut")
MODE_SHARES = (0.60, 0.25, 0.15)
POOL = 8
QUESTIONS = 4
NAMES = (*SHAPES, *"0123456789")


class Sample(NamedTuple):
    """Several questions about one image, packed after a common prefix.

    `targets` marks the tokens the model must predict, `blocks` numbers the question a token
    belongs to (0: the prefix with the image).
    """

    scene: Scene
    tokens: list[int]
    targets: list[bool]
    blocks: list[int]


class Batch(NamedTuple):
    """Right-padded sequences.

    images: uint8[B, 112, 112, 3]; tokens: int64[B, T]; targets: bool[B, T]; blocks: int64[B, T]
    (padding has a block of its own); names, colours: int64[B, 16], what the cells hold (index into
    `NAMES` and `COLOUR_NAMES` plus one, 0: nothing).
    """

    images: np.ndarray
    tokens: np.ndarray
    targets: np.ndarray
    blocks: np.ndarray
    names: np.ndarray
    colours: np.ndarray


@functools.lru_cache(maxsize=1)
def tokenizer() -> Tokenizer:
    return build()


@functools.lru_cache(maxsize=200_000)
def encode(text: str) -> tuple[int, ...]:
    return tuple(tokenizer().encode(text).ids)


@functools.lru_cache(maxsize=1)
def prefix_tokens() -> tuple[int, ...]:
    """The beginning of every prompt, up to the last image token."""
    return encode("<|im_start|>user\n<|vision_start|>" + "<|image_pad|>" * IMAGE_TOKENS)


def prompt_tokens(question: str, thinks: bool) -> list[int]:
    """The chat template's prompt with the image placeholder expanded."""
    tail = "<|im_end|>\n<|im_start|>assistant\n<think>" + ("" if thinks else "</think>")
    return [*prefix_tokens(), *encode("<|vision_end|>"), *encode(question), *encode(tail)]


def turn(question: Question, rng: Random) -> tuple[list[int], list[bool]]:
    """What follows the prefix, with its targets: whole thinking, none, or thinking cut short."""
    mode = rng.choices(MODES, MODE_SHARES)[0]
    thinking = list(encode(question.thinking))
    answer = [*encode(question.answer), *encode("<|im_end|>")]
    prompt = prompt_tokens(question.question, thinks=mode != "direct")[len(prefix_tokens()) :]
    if mode == "direct":
        body, known = answer, [True] * len(answer)
    else:
        cut = mode == "cut" and len(thinking) > 1
        kept = thinking[: rng.randint(1, len(thinking) - 1)] if cut else thinking
        body = [*kept, *encode("</think>"), *answer]
        known = [True] * len(kept) + [not cut] + [True] * len(answer)
    return prompt + body, [False] * len(prompt) + known


def sample_at(seed: int, index: int, mix: str = "all") -> Sample:
    """Training sample number `index` of the stream `seed`, its kinds mixed as `MIXES` says."""
    question = ask(Random(seed * STREAM + index), MIXES[mix])
    rng = Random((seed + 1) * STREAM - 1 - index)
    tokens = list(prefix_tokens())
    targets, blocks = [False] * len(tokens), [0] * len(tokens)
    for block in range(1, QUESTIONS + 1):
        more, known = turn(
            question if block == 1 else ask_about(rng, question.scene, MIXES[mix]), rng
        )
        tokens += more
        targets += known
        blocks += [block] * len(more)
    return Sample(question.scene, tokens, targets, blocks)


def collate(samples: Sequence[Sample]) -> Batch:
    """Draw the images and pad the tokens."""
    width = max(len(s.tokens) for s in samples)
    tokens = np.zeros((len(samples), width), np.int64)
    targets = np.zeros((len(samples), width), bool)
    blocks = np.full((len(samples), width), QUESTIONS + 1)
    names, colours = np.zeros((2, len(samples), IMAGE_TOKENS), np.int64)
    for row, sample in enumerate(samples):
        tokens[row, : len(sample.tokens)] = sample.tokens
        targets[row, : len(sample.targets)] = sample.targets
        blocks[row, : len(sample.blocks)] = sample.blocks
        for item in sample.scene.items:
            names[row, item.cell] = 1 + NAMES.index(item.name)
            colours[row, item.cell] = 1 + COLOUR_NAMES.index(item.colour)
    images = np.stack([render(s.scene) for s in samples])
    return Batch(images, tokens, targets, blocks, names, colours)


@functools.lru_cache(maxsize=2)
def _pool(
    seed: int, pool: int, rows: int, worker: int, workers: int, mix: str
) -> tuple[tuple[Sample, ...], ...]:
    first = pool * POOL * rows
    samples = [sample_at(seed, (first + i) * workers + worker, mix) for i in range(POOL * rows)]
    samples.sort(key=lambda s: len(s.tokens))
    groups = [tuple(samples[i * rows : (i + 1) * rows]) for i in range(POOL)]
    Random(seed * STREAM + pool).shuffle(groups)
    return tuple(groups)


def batch_at(
    seed: int, step: int, rows: int, worker: int = 0, workers: int = 1, mix: str = "all"
) -> Batch:
    """The part of one worker in the batch of a training step.

    `POOL` successive batches share samples sorted by length; the workers' parts have like lengths.
    """
    return collate(_pool(seed, step // POOL, rows, worker, workers, mix)[step % POOL])
