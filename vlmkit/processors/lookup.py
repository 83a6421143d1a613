"""A processor's tokens, as configs are resolved against them."""

from __future__ import annotations

from functools import partial

from vlmkit.processors.processor import Processor
from vlmkit.tokens.lookup import TokenLookup


def token_lookup(processor: Processor, num_ids: int | None = None) -> TokenLookup:
    """Return what turns text in configs into token ids.

    Args:
        processor: whose tokenizer says what text is.
        num_ids: rows of the model's embedding; by default what the processor knows of it.

    Example:
        >>> from importlib.resources import files
        >>> from vlmkit.processors import load_processor
        >>> processor = load_processor(str(files("vlmkit") / "assets" / "shapes"))
        >>> lookup = token_lookup(processor)
        >>> lookup.encode("circles") == processor.encode("circles")
        True
    """
    return TokenLookup(
        encode=processor.tokenizer.encode,
        decode=partial(processor.tokenizer.decode, skip_special_tokens=False),
        read_tokens=lambda: processor.vocabulary.tokens,
        eos_ids=processor.eos_token_ids,
        num_ids=processor.num_embeddings if num_ids is None else num_ids,
    )
