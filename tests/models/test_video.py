"""Videos against transformers' logits, stored in a golden file (see `video_oracle.py`)."""

from __future__ import annotations

import numpy as np
import pytest

from tests.models.test_parity import assert_near, golden
from tests.models.tiny import build, continuation, decode, empty_cache, prefill
from tests.models.tiny_video import CASES, prompt
from vlmkit.contracts.inputs import Inputs, Media, num_equal
from vlmkit.models.mrope_positions import mrope_positions
from vlmkit.passes.embed import embed_prompts


@pytest.mark.parametrize("chunk", [None, 7])
@pytest.mark.parametrize("name", CASES)
def test_prompt_and_decode_logits_match_transformers(name: str, chunk: int | None) -> None:
    case, expected = CASES[name], golden("videos")
    model = build(case.config)
    embeddings = embed_prompts(model, [prompt(case)])
    logits, cache = prefill(model, embeddings, empty_cache(model, 1), chunk=chunk)
    assert_near(np.array(logits[0]), expected[f"{name}_prompt"])
    steps = decode(model, cache, embeddings.next_positions, continuation(3)[None])
    assert_near(steps[0], expected[f"{name}_steps"])


def test_times_are_positions_rounded_down() -> None:
    data, ids = np.zeros((16, 1), np.float32), np.zeros(6, np.int32)
    video = Media.of("video", data, (4, 2, 2), (1, 5), 0.85)
    positions, after = mrope_positions(6, [video], merge_size=2, video_time_step=2)
    assert positions[0].tolist() == [0, 1, 2, 4, 6, 2]  # 1 + floor(1.7 n)
    assert after == 7
    other = Media.of("video", data, (4, 2, 2), (1, 5), 1.0)
    assert video.digest != other.digest
    assert num_equal(Inputs.of(ids, [video]), Inputs.of(ids, [other])) == 1


def test_sounds_have_positions_as_text_has() -> None:
    clip = Media.of("audio", np.zeros((6, 1), np.float32), (4,), (1, 2))
    positions, after = mrope_positions(3, [clip], merge_size=1)
    assert positions.tolist() == [[0, 1, 2]] * 3
    assert after == 3
