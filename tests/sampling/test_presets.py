"""Presets give the same distribution as the toolkits that they are named after."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from hypothesis import Phase, given, settings
from numpy.typing import NDArray

from tests.effort import scaled
from tests.sampling.preset_references import run_llama_cpp, run_vllm
from tests.sampling.presets import (
    HISTORY_KINDS,
    Case,
    assert_same,
    batch,
    cases,
    load_preset,
    stable_rows,
)
from tests.sampling.strategies import SHAPES

PRESETS = ["transformers", "vllm", "llama_cpp", "mlx_lm", "mlx_vlm"]
EXAMPLES = settings(max_examples=scaled(30), phases=[Phase.generate])  # of 64 rows each


def mlx_parameters(case: Case) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the parameters of make_logits_processors and make_sampler."""
    processors: dict[str, Any] = {}
    if bias := case.get("logit_bias"):
        processors["logit_bias"] = bias.bias
    for kind in ("repetition", "presence", "frequency"):
        if config := case.get(f"{kind}_penalty"):
            processors[f"{kind}_penalty"] = config.penalty
            processors[f"{kind}_context_size"] = config.context_size
    temperature = case.get("temperature")
    sampler: dict[str, Any] = {"temp": temperature.temperature if temperature else 1.0}
    for kind, key in (("top_p", "p"), ("min_p", "p"), ("typical_p", "p"), ("top_n_sigma", "n")):
        if config := case.get(kind):
            sampler[kind] = getattr(config, key)
    if config := case.get("top_k"):
        sampler["top_k"] = config.k
    if (config := case.get("xtc")) and case.xtc_applies:
        sampler |= {"xtc_probability": 1.0, "xtc_threshold": config.threshold}
    if case.get("p_less"):
        sampler["p_less"] = True
    return processors, sampler


def run_mlx(module: Any, case: Case, patches: dict[str, Any]) -> NDArray[np.float32]:
    """Run the module's own processors and sampler up to the draw, which is caught."""
    caught: list[mx.array] = []

    def catch(logits: mx.array, temp: float) -> mx.array:
        caught.append(logits * (1 / temp))
        return mx.argmax(logits, axis=-1)

    # A failed trace elsewhere leaves mlx's global random state unusable; the peers draw from it.
    mx.random.seed(0)
    processors, sampler = mlx_parameters(case)
    logits = mx.array(case.logits)
    tokens = mx.array(case.prompt + case.answer)
    for process in module.make_logits_processors(**processors):
        logits = process(tokens, logits)
    with pytest.MonkeyPatch.context() as patch:
        for name, replacement in {"categorical_sampling": catch, **patches}.items():
            patch.setattr(module, name, replacement)
        module.make_sampler(**sampler)(logits - mx.logsumexp(logits, axis=-1, keepdims=True))
    return np.array(caught[0])


@EXAMPLES
@given(case=cases("mlx_lm"))
def test_mlx_lm(case):
    from mlx_lm import sample_utils

    assert_same(case, run_mlx(sample_utils, case, {}))


@pytest.mark.torch
@EXAMPLES
@given(case=cases("transformers"))
def test_transformers(case):
    """The order is that of its own list; after the penalties in float64, so its rounding is out."""
    import torch
    from transformers import GenerationConfig
    from transformers.generation.utils import GenerationMixin

    class Mixin(GenerationMixin):
        config = SimpleNamespace(is_encoder_decoder=False)

    parameters = {
        "repetition_penalty": ("repetition_penalty", "penalty"),
        "no_repeat_ngram": ("no_repeat_ngram_size", "n"),
        "min_new_tokens": ("min_new_tokens", "num_tokens"),
        "temperature": ("temperature", "temperature"),
        "top_h": ("top_h", "h"),
        "top_k": ("top_k", "k"),
        "top_p": ("top_p", "p"),
        "min_p": ("min_p", "p"),
        "typical_p": ("typical_p", "p"),
        "epsilon_cutoff": ("epsilon_cutoff", "epsilon"),
        "eta_cutoff": ("eta_cutoff", "epsilon"),
    }
    given_parameters: dict[str, Any] = {"top_k": 0}
    for config in case.configs:
        if config.kind in parameters:
            name, field = parameters[config.kind]
            given_parameters[name] = getattr(config, field)
    if config := case.get("suppress_tokens"):
        given_parameters["suppress_tokens"] = list(config.token_ids)
    if config := case.get("logit_bias"):
        given_parameters["sequence_bias"] = [[[key], value] for key, value in config.bias.items()]
    generation = GenerationConfig(do_sample=True, eos_token_id=[2], **given_parameters)
    generation._eos_token_tensor = torch.tensor([2])
    scores: Any = torch.tensor(case.logits)
    ids = torch.tensor([case.prompt + case.answer] * len(case.logits))
    processors = Mixin()._get_logits_processor(
        generation_config=generation, input_ids_seq_length=len(case.prompt), device="cpu"
    )
    assert len(processors) == len(case.configs)
    for config, process in zip(case.configs, processors, strict=True):
        scores = process(ids, scores if config.kind in HISTORY_KINDS else scores.double())
    assert_same(case, scores.numpy(), ids_on_ties=False)


@EXAMPLES
@given(case=cases("vllm"))
def test_vllm(case):
    """Against a numpy reference: vLLM itself needs CUDA or a long build."""
    assert_same(case, run_vllm(case), ids_on_ties=False)


@EXAMPLES
@given(case=cases("llama_cpp"))
def test_llama_cpp_reference(case):
    """Against a numpy reference, which leaves out defect 3: typical takes 0 · ln 0 for NaN."""
    assert_same(case, run_llama_cpp(case), ids_on_ties=False)


@pytest.mark.llama_cpp
@EXAMPLES
@given(case=cases("llama_cpp"))
def test_llama_cpp(case):
    """Against llama.cpp's own samplers, called through its C interface."""
    from tests.sampling import llama_cpp

    assert_same(case, llama_cpp.run_llama_cpp(case), ids_on_ties=False)


@pytest.mark.mlx_vlm
@EXAMPLES
@given(case=cases("mlx_vlm"))
def test_mlx_vlm(case):
    """Its own processors and sampler; where four functions are wrong, fed with what they can do.

    - 2: xtc compares with the least likely choice of all rows, so it gets one row at a time.
    - 3: typical_p takes 0 · ln 0 for NaN, so it gets the tokens that are left, normalised; likewise
      top_n_sigma, whose deviation over −inf is NaN.
    - 4: p_less may drop every token of a flat row, which then stays as it was.
    """
    from mlx_vlm import sample_utils

    real = {name: getattr(sample_utils, name) for name in ("apply_xtc", "apply_p_less")}

    def xtc_by_row(logits: mx.array, *parameters: Any) -> mx.array:
        return mx.concatenate([real["apply_xtc"](row[None], *parameters) for row in logits])

    def p_less_or_all(logits: mx.array, temp: float) -> mx.array:
        out = real["apply_p_less"](logits, temp)
        lost = ~mx.any(mx.isfinite(out), axis=-1, keepdims=True)
        return mx.where(lost, logits, out)

    patches = {
        "apply_xtc": xtc_by_row,
        "apply_p_less": p_less_or_all,
        "apply_typical_p": without_gaps(sample_utils.apply_typical_p),
        "apply_top_n_sigma": without_gaps(sample_utils.apply_top_n_sigma),
    }
    mx.disable_compile()  # it would compile for every number of tokens left
    try:
        peer = run_mlx(sample_utils, case, patches)
    finally:
        mx.enable_compile()
    assert_same(case, peer)


def without_gaps(truncate: Any) -> Any:
    """Give a truncation the tokens that are left of each row, normalised."""

    def by_row(logits: mx.array, parameter: float) -> mx.array:
        rows = np.array(logits)
        for row in rows:
            left = np.flatnonzero(np.isfinite(row))
            if len(left):
                dense = mx.array(row[left])[None]
                dense = dense - mx.logsumexp(dense, axis=-1, keepdims=True)
                row[left[np.isneginf(np.array(truncate(dense, parameter))[0])]] = -np.inf
        return mx.array(rows)

    return by_row


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_lists_its_stages_once(name):
    kinds = [config.kind for config in load_preset(name)]
    assert len(kinds) == len(set(kinds)) >= 9


@pytest.mark.parametrize("name", PRESETS)
def test_few_rows_lie_too_close_to_a_cut_to_compare(name):
    logits = batch(np.random.default_rng(0), list(SHAPES))
    case = Case(logits, [3, 1, 4], [1], load_preset(name), xtc_applies=True)
    assert stable_rows(case).mean() > 0.9
