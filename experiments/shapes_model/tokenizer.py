"""A byte-level BPE tokenizer for the shapes language with the special tokens of Qwen2-VL.

The split rule is Qwen2's with two additions, both so that one step of a thought is one token: a
cell name (`` a1``) and a number of up to two digits after a space (`` 15``) stay whole. Any UTF-8
text can be encoded. The last ids below `PADDED_VOCABULARY` are embedding rows without a token.
"""

from __future__ import annotations

import json
from pathlib import Path
from random import Random

from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    trainers,
)

from vlmkit.experiment.shapes.digits import MAX_SUM
from vlmkit.experiment.shapes.questions import MIX

SPLIT = (
    r" ?[a-d][1-4](?![\p{L}\p{N}])| \p{N}{1,2}(?!\p{N})"
    r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPECIAL_TOKENS = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
THINKING_TOKENS = ("<think>", "</think>")
BPE_VOCABULARY = 628
PADDED_VOCABULARY = 640
CORPUS_SEED = 7
CORPUS_SIZE_PER_KIND = 250
CHAT_TEMPLATE = """\
{%- for message in messages -%}
<|im_start|>{{ message['role'] }}
{% if message['content'] is string -%}
{{ message['content'] }}
{%- else -%}
{%- for part in message['content'] -%}
{%- if part['type'] == 'image' or 'image' in part or 'image_url' in part -%}
<|vision_start|><|image_pad|><|vision_end|>
{%- elif part['type'] == 'video' or 'video' in part -%}
<|vision_start|><|video_pad|><|vision_end|>
{%- elif 'text' in part -%}
{{ part['text'] }}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
<think>{% if not enable_thinking %}</think>{% endif %}
{%- endif -%}
"""


def corpus() -> list[str]:
    """Texts of the shapes language, every common word at least once with and without a space."""
    cells = [f" {row}{column}" for row in "abcd" for column in range(1, 5)]
    texts = [
        "user",
        "assistant",
        "system",
        "\n",
        *cells,
        *(f" {n}" for n in range(MAX_SUM + 1)),
    ] * 400
    for make, _ in MIX:
        for index in range(CORPUS_SIZE_PER_KIND):
            question = make(Random(CORPUS_SEED * 10**9 + index), None)
            if question is None:
                continue
            text = question.question
            careless = text[0].lower() + text[1:]
            words = " ".join(f" {word.strip('?.,')}" for word in careless.split())
            texts += [text, careless, question.thinking, words] + [question.answer] * 3
    return texts


def build() -> Tokenizer:
    """Train the tokenizer; the result is the same on every run."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=BPE_VOCABULARY,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_special_tokens(
        [AddedToken(t, special=True, normalized=False) for t in SPECIAL_TOKENS]
    )
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in THINKING_TOKENS])
    return tokenizer


def tokenizer_config() -> dict[str, object]:
    """The contents of tokenizer_config.json.

    The class is the generic fast one because Qwen2Tokenizer would replace the split rule.
    """
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_prefix_space": False,
        "bos_token": None,
        "unk_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "additional_special_tokens": [
            t for t in SPECIAL_TOKENS if t not in ("<|im_end|>", "<|endoftext|>")
        ],
        "model_max_length": 2048,
        "clean_up_tokenization_spaces": False,
        "split_special_tokens": False,
        "errors": "replace",
        "chat_template": CHAT_TEMPLATE,
    }


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json, vocab.json, merges.txt and the chat template."""
    tokenizer.save(str(folder / "tokenizer.json"))
    bpe = json.loads(tokenizer.to_str())["model"]
    (folder / "vocab.json").write_text(json.dumps(bpe["vocab"], ensure_ascii=False))
    merges = "\n".join(" ".join(pair) for pair in bpe["merges"])
    (folder / "merges.txt").write_text(f"#version: 0.2\n{merges}\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer_config(), indent=2) + "\n")
    (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    (folder / "chat_template.json").write_text(
        json.dumps({"chat_template": CHAT_TEMPLATE}, indent=2) + "\n"
    )
