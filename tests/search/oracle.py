"""What transformers finds on the small random Qwen2. Needs torch.

``python -m tests.search.oracle`` writes the golden files of the searches that the installed
transformers has: beam search with 5.23; with 4.49, the last to have them, the two others.
"""

from __future__ import annotations

import json
from typing import Any

import torch
import transformers

from tests.models.tiny import tensor
from tests.search.cases import ALL, GOLDENS, NUM_PROMPTS, PAD, Case, prompt
from tests.search.toy import QWEN2


def build(scale: float) -> Any:
    """Return transformers' model with the weights and the logits' scale of ``toy.qwen2``."""
    config = transformers.Qwen2Config(**{k: v for k, v in QWEN2.items() if k != "model_type"})
    model = transformers.Qwen2ForCausalLM._from_config(config, attn_implementation="eager")
    model = model.to(torch.float32).eval()
    with torch.no_grad():
        for path, parameter in model.named_parameters():
            parameter.copy_(torch.from_numpy(tensor(path, parameter.shape)))
        model.lm_head.weight.mul_(scale)
        # The logits of PAD are far below all others, whatever the hidden state.
        bias = torch.zeros(config.vocab_size)
        bias[PAD] = -1e4
        model.lm_head.bias = torch.nn.Parameter(bias)
    return model


def generate(model: Any, case: Case, seed: int) -> list[tuple[list[int], float | None]]:
    """Return the token ids and scores that transformers finds, the best first."""
    settings = {key: value for key, value in case.items() if key != "scale"}
    eos = settings.pop("eos_token_id") or None
    ids = torch.tensor([prompt(seed)])
    reply = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        eos_token_id=eos,
        pad_token_id=PAD,
        return_dict_in_generate=True,
        output_scores=True,
        **settings,
    )
    found = []
    scores = getattr(reply, "sequences_scores", None)
    for place, row in enumerate(reply.sequences[:, ids.shape[1] :].tolist()):
        ends = [at + 1 for at, token_id in enumerate(row) if token_id in (eos or ())]
        generated = row[: ends[0]] if ends else row
        found.append((generated, None if scores is None else round(scores[place].item(), 5)))
    return found


def main() -> None:
    """Write the files."""
    is_old = transformers.__version__.startswith("4.")
    for kind in ("diverse_beam", "contrastive_search") if is_old else ("beam",):
        data = {
            name: [generate(build(case["scale"]), case, seed) for seed in range(NUM_PROMPTS)]
            for name, case in ALL[kind].items()
        }
        lines = [f"{json.dumps(name)}: {json.dumps(found)}" for name, found in data.items()]
        path = GOLDENS / f"{kind}.json"
        path.write_text("{\n" + ",\n".join(lines) + "\n}\n")
        print(
            f"{path.name}: {path.stat().st_size // 1024} KB, transformers", transformers.__version__
        )


if __name__ == "__main__":
    main()
