"""Taking tokens back: a cache that is cut goes on as one that never saw them, or says it can't."""

from __future__ import annotations

from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.cache.kinds import (
    CONFIGS,
    FINISHING,
    SHAPE,
    Tokens,
    expected_of,
    feed,
    limits_of,
    random_tokens,
)
from tests.cache.test_laws import assert_close, lengths, seeds, widths_for
from tests.effort import scaled
from vlmkit.cache import DenseConfig, build_cache, trim_rows
from vlmkit.contracts.interface import (
    Cache,
    CacheKind,
    KVSpec,
    LayerSpec,
    RecurrentSpec,
    StateArray,
)
from vlmkit.errors import VlmkitError

# Kinds that hold tokens in two forms say in tests of their own what they can go back to.
TWO_FORMS = ("kvarn", "kivi", "recent", "start")
ONE_FORM = [n for n in CONFIGS if not n.startswith(TWO_FORMS) and n not in FINISHING]
LIMITS = {name: limits[0] for name in ONE_FORM if (limits := limits_of(CONFIGS[name]))}
NEVER_FORGET = [name for name in ONE_FORM if name not in LIMITS]
WINDOW = KVSpec(2, 32, 32, window=9)
STATE = RecurrentSpec((StateArray("state", (2,)),))


def filled(config: Any, rows: list[Tokens], widths: list[int], spec: KVSpec = SHAPE) -> Cache:
    """A cache of one layer that has seen these rows."""
    cache = build_cache(config, [spec], len(rows), mx.float32)
    assert isinstance(cache.kinds[0], CacheKind)
    state, _ = feed(cache.kinds[0], cache.layers[0], [0] * len(rows), rows, widths)
    return Cache(cache.kinds, (state,), tuple(row.keys.shape[1] for row in rows))


def joined(first: Tokens, second: Tokens) -> Tokens:
    return Tokens(*(np.concatenate(pair, axis=1) for pair in zip(first, second, strict=True)))


def assert_goes_on(
    cache: Cache,
    config: Any,
    rows: list[Tokens],
    kept: list[int],
    data: st.DataObject,
    spec: KVSpec = SHAPE,
) -> None:
    """Cut a cache back and go on with other tokens, as a cache that saw only those."""
    before = [np.array(x) for x in (*cache.layers[0].keys, *cache.layers[0].values)]
    trimmed = trim_rows(cache, kept)
    assert trimmed.lengths == tuple(kept)
    more = data.draw(st.integers(1, 12))
    others = [random_tokens(more, 1000 + row, spec) for row in range(len(rows))]
    assert isinstance(trimmed.kinds[0], CacheKind)
    widths = data.draw(widths_for(more))
    _, outputs = feed(trimmed.kinds[0], trimmed.layers[0], kept, others, widths)
    for row, other, length, output in zip(rows, others, kept, outputs, strict=True):
        whole = joined(row.part(0, length), other)
        assert_close(output, expected_of(config, spec, whole)[:, length:])
    after = [np.array(x) for x in (*cache.layers[0].keys, *cache.layers[0].values)]
    assert all(np.array_equal(x, y) for x, y in zip(before, after, strict=True))


@pytest.mark.parametrize("name", NEVER_FORGET)
@settings(max_examples=scaled(15))
@given(data=st.data(), counts=st.lists(lengths, min_size=1, max_size=3), seed=seeds)
def test_what_never_forgets_goes_back_to_any_length(
    name: str, data: st.DataObject, counts: list[int], seed: int
) -> None:
    rows = [random_tokens(count, seed + row) for row, count in enumerate(counts)]
    cache = filled(CONFIGS[name], rows, data.draw(widths_for(max(counts))))
    kept = [data.draw(st.integers(0, count)) for count in counts]
    assert_goes_on(cache, CONFIGS[name], rows, kept, data)


@pytest.mark.parametrize("name", [*LIMITS, "window"])
@settings(max_examples=scaled(10))
@given(data=st.data(), seed=seeds)
def test_a_window_goes_back_while_it_has_dropped_nothing(
    name: str, data: st.DataObject, seed: int
) -> None:
    config = CONFIGS.get(name, DenseConfig())
    spec = WINDOW if name == "window" else SHAPE
    size = min(spec.window or LIMITS[name], 30)
    # The first row has dropped tokens and stays as it is; the second may go back.
    counts = [data.draw(st.integers(1, size + 8)), data.draw(st.integers(1, size))]
    rows = [random_tokens(count, seed + row, spec) for row, count in enumerate(counts)]
    cache = filled(config, rows, data.draw(widths_for(max(counts))), spec)
    kept = [counts[0], data.draw(st.integers(0, counts[1]))]
    assert_goes_on(cache, config, rows, kept, data, spec)


@pytest.mark.parametrize("name", [name for name in LIMITS if LIMITS[name] < 100])
@given(data=st.data())
@settings(max_examples=3)
def test_a_neighbours_last_chunk_takes_nothing_from_a_full_window(
    name: str, data: st.DataObject
) -> None:
    size = LIMITS[name]
    rows = [random_tokens(size + 1, 1), random_tokens(size, 2)]
    cache = filled(CONFIGS[name], rows, [size, 1])  # the second row has nothing but padding there
    kept = data.draw(st.integers(0, size))
    assert_goes_on(cache, CONFIGS[name], rows, [size + 1, kept], data)


@pytest.mark.parametrize("name", [name for name in LIMITS if LIMITS[name] < 100])
@pytest.mark.parametrize("back", [1, 7])
def test_a_window_that_has_dropped_tokens_says_so(name: str, back: int) -> None:
    config = CONFIGS[name]
    size = LIMITS[name]
    cache = filled(config, [random_tokens(size, 1), random_tokens(size + 1, 2)], [size + 1])
    assert trim_rows(cache, (size, size + 1)).lengths == (size, size + 1)
    with pytest.raises(VlmkitError) as caught:
        trim_rows(cache, (size, size + 1 - min(back, size)))
    assert str(caught.value) == (
        f"cache: a window of {size} tokens has dropped tokens of the {size + 1} it saw, so it "
        f"cannot go back to {size + 1 - min(back, size)}; keep the earlier state or, unless the "
        "window is the model's own, use a cache of kind dense"
    )


@pytest.mark.parametrize(
    ("specs", "lengths", "said"),
    [
        ([SHAPE], (4, 3), r"^cache: cannot go back to 4 tokens; it has seen 3$"),
        ([SHAPE], (-1, 3), r"^cache: cannot go back to -1 tokens; it has seen 3$"),
        ([SHAPE, STATE], (3, 2), r"^cache: a recurrent layer cannot take tokens back; keep the"),
        ([STATE], (0, 3), r"^cache: a recurrent layer cannot take tokens back; keep the"),
    ],
)
def test_what_cannot_be_taken_back_is_refused(
    specs: list[LayerSpec], lengths: tuple[int, int], said: str
) -> None:
    cache = build_cache(DenseConfig(), specs, 2, mx.float32)._replace(lengths=(3, 3))
    assert trim_rows(cache, (3, 3)).lengths == (3, 3)
    with pytest.raises(VlmkitError, match=said):
        trim_rows(cache, lengths)
