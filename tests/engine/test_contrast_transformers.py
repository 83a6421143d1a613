"""Contrast methods generate what transformers generates."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.contrast.write_goldens import GOLDEN_TOKENS, QUESTION
from tests.engine.contrasted import (
    ASSETS,
    NEGATIVE,
    generate,
    pipeline_of,
    question,
)
from vlmkit.engine import Request
from vlmkit.prompt_utils import apply_chat_template


@pytest.mark.parametrize("case", json.loads(GOLDEN_TOKENS.read_text()), ids=str)
def test_dola_generates_what_transformers_generates(shapes, amateur, case):
    request = question(shapes[1], case["image"], QUESTION)
    method = {"kind": "dola", "layers": case["layers"], "divergence": "from_mean"}
    result = generate(shapes, request, pipeline_of(method, amateur))
    assert result.token_ids == case["token_ids"]


def text_peer() -> Any:
    """The embedded model's decoder as a Qwen2 of transformers.

    Its Qwen2-VL keeps positions on the module and fails when a second stream moves them.
    """
    import torch
    from safetensors.torch import load_file
    from transformers import Qwen2Config, Qwen2ForCausalLM

    values = json.loads((ASSETS / "config.json").read_text())
    for key in ("model_type", "architectures", "vision_config", "rope_scaling", "torch_dtype"):
        del values[key]
    peer = Qwen2ForCausalLM(Qwen2Config(**values))
    arrays = load_file(str(ASSETS / "model.safetensors"))
    text = {k: v.to(torch.float32) for k, v in arrays.items() if k.startswith("model.")}
    missing, unused = peer.load_state_dict(text, strict=False)
    assert set(missing) <= {"lm_head.weight"}
    assert not unused
    peer.tie_weights()
    return peer.eval()


@pytest.mark.torch
@pytest.mark.parametrize("negative", [None, NEGATIVE])
@pytest.mark.parametrize("scale", [1.5, 3.0])
def test_guidance_generates_what_transformers_generates(shapes, amateur, negative, scale):
    import torch

    processor, peer = shapes[1], text_peer()
    prompt = apply_chat_template(processor, None, "How many red circles are there?", num_images=0)
    ids = torch.tensor([processor.encode(prompt)])
    unwanted = None if negative is None else torch.tensor([processor.encode(negative)])
    expected = peer.generate(
        input_ids=ids,
        attention_mask=torch.ones_like(ids),
        guidance_scale=scale,
        negative_prompt_ids=unwanted,
        do_sample=False,
        max_new_tokens=24,
    )[0, ids.shape[1] :].tolist()
    method = {"kind": "cfg", "scale": scale, "negative_prompt": negative}
    found = generate(shapes, Request(prompt), pipeline_of(method, amateur))
    assert found.token_ids == expected
