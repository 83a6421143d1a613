"""Small checkpoint folders without weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

SHAPES = Path(__file__).parents[2] / "vlmkit" / "assets" / "shapes"
SMALL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "preprocessor_config.json",
    "chat_template.jinja",
    "chat_template.json",
)


def copy_shapes(folder: Path) -> Path:
    """The embedded checkpoint without its weights, to be changed freely."""
    folder.mkdir(exist_ok=True)
    for name in SMALL_FILES:
        shutil.copyfile(SHAPES / name, folder / name)
    return folder


def change_json(path: Path, **changes: Any) -> None:
    """Set keys of a JSON file; None removes a key."""
    values = json.loads(path.read_text()) if path.is_file() else {}
    values |= changes
    path.write_text(json.dumps({k: v for k, v in values.items() if v is not None}))


def write_text_only(folder: Path, chat_template: str | None = None) -> Path:
    """A text-only checkpoint: byte-level tokenizer of 256 bytes, <s>, </s> and [EXTRA]."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    backend = Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([AddedToken("<s>", special=True), AddedToken("</s>", special=True)])
    folder.mkdir(exist_ok=True)
    backend.save(str(folder / "tokenizer.json"))
    change_json(folder / "config.json", model_type="llama", vocab_size=300, eos_token_id=257)
    change_json(
        folder / "tokenizer_config.json",
        tokenizer_class="PreTrainedTokenizerFast",
        bos_token={"content": "<s>", "__type": "AddedToken"},
        eos_token="</s>",
        chat_template=chat_template,
        added_tokens_decoder={"258": {"content": "[EXTRA]", "special": False, "normalized": False}},
    )
    return folder
