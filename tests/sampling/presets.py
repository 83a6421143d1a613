"""What the preset tests share: the presets, batches of logits, our chain and a safe comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import mlx.core as mx
import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

import vlmkit
from tests.sampling.strategies import SHAPES
from vlmkit.config.run import load_run
from vlmkit.sampling import SamplerConfig, build_chain

FOLDER = Path(vlmkit.__file__).parent.parent / "configs" / "sampling" / "presets"
SIZE = 96  # transformers' top_h looks at 100 tokens only
ROWS = 64
HISTORY_KINDS = (
    "logit_bias",
    "suppress_tokens",
    "min_new_tokens",
    "no_repeat_ngram",
    "dry",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
)
# What a preset leaves open because it depends on the model.
FILLED: dict[str, dict[str, Any]] = {
    "logit_bias": {"bias": {1: -2.0, 5: 3.0}},
    "suppress_tokens": {"token_ids": (0, 7)},
    "min_new_tokens": {"num_tokens": 3, "token_ids": (2,)},
    "dry": {"breaker_ids": (3, 8)},
}


class Case(NamedTuple):
    """Rows of logits that share a history, and the stages to run."""

    logits: NDArray[np.float32]  # [B, V]
    prompt: list[int]
    answer: list[int]
    configs: list[Any]  # those of the preset's stages that are switched on, in its order
    xtc_applies: bool  # the random number is below XTC's probability

    def get(self, kind: str) -> Any:
        """Return the stage's config, or None where it is off."""
        return next((config for config in self.configs if config.kind == kind), None)


def load_preset(name: str) -> list[SamplerConfig]:
    """Return the stages of a preset, with ids filled in."""
    configs = load_run(FOLDER / f"{name}.yaml").config.sampling
    return [config.model_copy(update=FILLED.get(config.kind, {})) for config in configs]


def batch(rng: np.random.Generator, names: list[str]) -> NDArray[np.float32]:
    """Return logits ``[ROWS, SIZE]`` of the named shapes in turn, some tokens −inf."""
    values = np.empty((ROWS, SIZE), np.float32)
    for row in range(ROWS):
        shape = SHAPES[names[row % len(names)]](rng, (1, SIZE))
        values[row] = np.broadcast_to(shape, (1, SIZE))[0]
        hidden = rng.random(SIZE) < rng.choice([0.0, 0.0, 0.1, 0.5, 0.95])
        values[row][hidden & (values[row] < values[row].max())] = -np.inf
    return values


@st.composite
def cases(draw: st.DrawFn, name: str) -> Case:
    """Draw a batch of peaked, flat, tied, huge, bfloat16 logits, a history and some stages."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    names = draw(st.lists(st.sampled_from(list(SHAPES)), min_size=1, max_size=4))
    values = batch(rng, names)
    if draw(st.booleans()):
        values = (values.view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)  # bfloat16
    ids = st.integers(0, 9)  # few ids, so that they repeat
    configs = load_preset(name)
    on = draw(
        st.just([True] * len(configs))
        | st.lists(st.booleans(), min_size=len(configs), max_size=len(configs))
    )
    return Case(
        values,
        draw(st.lists(ids, min_size=1, max_size=12)),
        draw(st.lists(ids, max_size=6)),
        [config for config, is_on in zip(configs, on, strict=True) if is_on],
        draw(st.booleans()),
    )


def run(case: Case) -> NDArray[np.float32]:
    """Run our chain: the logits after all stages."""
    chain = build_chain(case.configs)
    prompt = np.array(case.prompt, np.int32)
    state = chain.init([prompt] * len(case.logits), SIZE)
    for token_id in case.answer:
        state = chain.update(state, mx.full((len(case.logits),), token_id, mx.int32))
    uniform = 0.25 if case.xtc_applies else 0.75
    uniforms = mx.full((len(case.logits), 1 + chain.num_random), uniform)
    return np.array(chain.apply(state, mx.array(case.logits), uniforms))


def run_history(case: Case) -> NDArray[np.float32]:
    """Run the stages that don't look at the distribution."""
    return run(case._replace(configs=[c for c in case.configs if c.kind in HISTORY_KINDS]))


def stable_rows(case: Case) -> NDArray[np.bool_]:
    """Return bool ``[B]``: no cut lies within rounding of a token.

    Other cuts close by, and logits moved by about their rounding (equal ones alike), keep the same
    tokens.
    """
    kept = np.isfinite(run(case))
    before = run_history(case)
    stable = np.isfinite(before).any(-1)
    cuts = [config for config in case.configs if config.kind not in HISTORY_KINDS]
    variants = []
    for index, config in enumerate(cuts):
        for factor in (1 - 1e-4, 1 + 1e-4):
            floats = {k: v * factor for k, v in config.model_dump().items() if type(v) is float}
            if floats and config.kind != "temperature":
                other = config.model_copy(update=floats)
                variants.append((before, [*cuts[:index], other, *cuts[index + 1 :]]))
    top = np.abs(np.where(np.isfinite(before), before, 0)).max(-1, keepdims=True)
    rounding = np.maximum(1e-5, 4 * np.spacing(top))
    order = np.argsort(before, axis=-1)
    with np.errstate(invalid="ignore"):  # −inf − −inf
        gaps = np.diff(np.take_along_axis(before, order, axis=-1), axis=-1)
    at_a_cut = np.diff(np.take_along_axis(kept, order, axis=-1), axis=-1)
    stable &= ~(at_a_cut & (gaps > 0) & (gaps < rounding)).any(-1)
    bits = before.view(np.uint32)
    for multiplier in (2654435761, 2246822519):
        hashed = (bits * np.uint32(multiplier) >> np.uint32(8)) / 2**23 - 1
        moved = before + hashed * rounding
        variants.append((moved.astype(np.float32), cuts))
    for values, configs in variants:
        other_kept = np.isfinite(run(case._replace(logits=values, configs=configs)))
        stable &= (other_kept == kept).all(-1)
    return stable


def softmax(logits: NDArray[Any]) -> NDArray[np.float64]:
    wide = logits.astype(np.float64)
    weights = np.exp(wide - wide.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True)


def assert_same(case: Case, peer: NDArray[Any], ids_on_ties: bool = True) -> None:
    """Check support (exactly) and probabilities (to 1e-6) of all stable rows.

    Args:
        case: what was run.
        peer: the other side's logits ``[B, V]``.
        ids_on_ties: False where the other side leaves to its sort which of equal logits stay; then
            as many must stay, with the same probabilities.
    """
    rows = np.flatnonzero(stable_rows(case))
    ours, theirs = run(case)[rows], peer[rows]
    if not ids_on_ties:
        for place, row in enumerate(run_history(case)[rows]):
            finite = row[np.isfinite(row)]
            if len(np.unique(finite)) < len(finite):
                ours[place], theirs[place] = np.sort(ours[place]), np.sort(theirs[place])
    np.testing.assert_array_equal(np.isfinite(ours), np.isfinite(theirs))
    np.testing.assert_allclose(softmax(ours), softmax(theirs), rtol=0, atol=1e-6)
