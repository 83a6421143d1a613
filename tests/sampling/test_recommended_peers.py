"""What a generation_config.json asks for is what transformers makes of the same file."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.effort import scaled
from tests.sampling.presets import HISTORY_KINDS, Case, assert_same, batch
from tests.sampling.strategies import SHAPES
from vlmkit.config.recommended import FILE, checkpoint_sampling

EOS = 2
_ids = st.integers(0, 9)  # few ids, so that they repeat
_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "repetition_penalty": st.sampled_from([1.0, 1.05, 1.3]),
    "no_repeat_ngram_size": st.sampled_from([0, 2, 3]),
    "min_new_tokens": st.integers(0, 4),
    "suppress_tokens": st.just([0, 7]),
    "begin_suppress_tokens": st.just([1, 5]),
    "temperature": st.sampled_from([0.1, 0.7, 1.0, 1.5]),
    "top_h": st.sampled_from([0.4, 0.9]),
    "top_k": st.sampled_from([0, 1, 5, 40]),
    "top_p": st.sampled_from([0.001, 0.8, 0.95, 1.0]),
    "min_p": st.sampled_from([0.0, 0.05]),
    "typical_p": st.sampled_from([0.5, 0.95, 1.0]),
    "epsilon_cutoff": st.sampled_from([0.0, 3e-3]),
    "eta_cutoff": st.sampled_from([0.0, 1e-2]),
}
_files = st.fixed_dictionaries(
    {"do_sample": st.booleans() | st.none()},
    optional={name: st.none() | values for name, values in _VALUES.items()},
)


def ours(values: dict[str, Any]) -> list[Any]:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / FILE).write_text(json.dumps(values))
        processor: Any = SimpleNamespace(folder=Path(folder))
        return list(checkpoint_sampling(processor))


@pytest.mark.torch
@settings(max_examples=scaled(60), phases=[Phase.generate])
@given(
    values=_files,
    seed=st.integers(0, 2**32 - 1),
    names=st.lists(st.sampled_from(list(SHAPES)), min_size=1, max_size=4),
    prompt=st.lists(_ids, min_size=1, max_size=12),
    answer=st.lists(_ids, max_size=6),
)
def test_transformers(values, seed, names, prompt, answer):
    import torch
    from transformers import GenerationConfig
    from transformers.generation.utils import GenerationMixin

    class Mixin(GenerationMixin):
        config = SimpleNamespace(is_encoder_decoder=False)

    chain = ours({**values, "eos_token_id": [EOS]})
    is_greedy = bool(chain) and chain[-1].kind == "greedy"
    assert is_greedy == (not values["do_sample"])
    configs = chain[:-1] if is_greedy else chain
    generation = GenerationConfig(eos_token_id=[EOS], **values)
    generation.update(**GenerationConfig._get_default_generation_params(), defaults_only=True)
    generation._eos_token_tensor = torch.tensor([EOS])
    case = Case(batch(np.random.default_rng(seed), names), prompt, answer, configs, False)
    scores: Any = torch.tensor(case.logits)
    ids = torch.tensor([prompt + answer] * len(case.logits))
    processors = Mixin()._get_logits_processor(
        generation_config=generation, input_ids_seq_length=len(prompt), device="cpu"
    )
    kept = [one for one in processors if type(one).__name__ != "MinPLogitsWarper" or one.min_p]
    assert len(kept) == len(configs)
    for config, process in zip(configs, kept, strict=True):
        scores = process(ids, scores if config.kind in HISTORY_KINDS else scores.double())
    assert_same(case, scores.numpy(), ids_on_ties=False)
