"""Checkpoints of the hub as MLX folders: names, layouts, dtype, quantization, shards."""

from vlmkit.conversion.config import ConvertConfig as ConvertConfig
from vlmkit.conversion.config import load_convert as load_convert
from vlmkit.conversion.folder import Converted as Converted
from vlmkit.conversion.folder import convert as convert
