"""Processors: tokenizer, image processor and chat template of a checkpoint, as values."""

from vlmkit.processors.loading import load_processor as load_processor
from vlmkit.processors.loading import load_tokenizer as load_tokenizer
from vlmkit.processors.processor import Processor as Processor
from vlmkit.processors.tokenizer import Tokenizer as Tokenizer
